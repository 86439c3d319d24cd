//! The tails of the result logs, for live streams; and the index of both logs, kept up to date on the way.
//!
//! One plain thread follows both logs. It never holds up their writers: it reads what is already readable, and a
//! stream that does not keep up misses events and is told so.

use std::sync::{Arc, Condvar, Mutex};
use std::task::{Wake, Waker};

use tokio::sync::broadcast;

use crate::core::codec::DecodeError;
use crate::core::output::{ErrorEntry, InvalidOutput, WindowResult};
use crate::http::results::{ResultLog, numbered};
use crate::log::{Log, Lsn, Reader};
use crate::sync::{lock, wait};

/// Events that wait for the slowest stream; what falls behind further is missed.
const EVENTS_KEPT: usize = 8_192;
/// Records added to an index before the thread looks whether it shall stop.
const INDEX_STEP: u64 = 50_000;

/// Which log an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A firing of a window.
    Window,
    /// An entry of the error log.
    Error,
}

/// One event of the live stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// Which log it comes from.
    pub kind: Kind,
    /// Its sequence number in that log.
    pub seq: u64,
    /// The device, where it is known.
    pub device_id: Option<String>,
    /// The same JSON as in lists.
    pub json: String,
}

/// Both result logs and what follows them.
#[derive(Debug)]
pub struct Live {
    pub(super) windows: ResultLog,
    pub(super) errors: ResultLog,
    sender: broadcast::Sender<Arc<Event>>,
    /// Where the first of the present streams wants events from; `None` without streams.
    begin: Mutex<Option<Positions>>,
    signal: Arc<Signal>,
}

#[derive(Debug, Clone, Copy)]
struct Positions {
    windows: Lsn,
    errors: Lsn,
}

/// Wakes the thread: it is the waker that the logs get, too.
#[derive(Debug, Default)]
struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SignalState {
    raised: bool,
    stop: bool,
}

impl Signal {
    fn raise(&self, stop: bool) {
        let mut state = lock(&self.state);
        state.raised = true;
        state.stop |= stop;
        self.changed.notify_one();
    }

    fn is_stopped(&self) -> bool {
        lock(&self.state).stop
    }

    fn wait(&self) {
        let mut state = lock(&self.state);
        while !state.raised {
            state = wait(&self.changed, state);
        }
        state.raised = false;
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.raise(false);
    }
}

/// The reading end of one log, while there are streams.
struct Tail<'a> {
    results: &'a ResultLog,
    read: fn(u64, &[u8]) -> Result<Event, InvalidOutput>,
    reader: Option<Reader>,
    /// Whether the last attempt failed: a failure that lasts is logged once.
    failed: bool,
}

impl Live {
    /// Wraps the two logs. Nothing is followed until [`Live::run`].
    pub fn new(windows: Log, errors: Log) -> Arc<Self> {
        Arc::new(Self {
            windows: ResultLog::windows(windows),
            errors: ResultLog::errors(errors),
            sender: broadcast::Sender::new(EVENTS_KEPT),
            begin: Mutex::new(None),
            signal: Arc::default(),
        })
    }

    /// Follows both logs until [`Live::stop`]. Runs on a thread of its own, once.
    pub fn run(&self) {
        let waker = Waker::from(self.signal.clone());
        self.windows.log.watch(waker.clone());
        self.errors.log.watch(waker);
        let mut windows = Tail { results: &self.windows, read: window_event, reader: None, failed: false };
        let mut errors = Tail { results: &self.errors, read: error_event, reader: None, failed: false };
        while !self.signal.is_stopped() {
            windows.index(&self.signal);
            errors.index(&self.signal);
            match self.begin() {
                Some(begin) => {
                    windows.send(begin.windows, &self.sender);
                    errors.send(begin.errors, &self.sender);
                }
                None => {
                    windows.reader = None;
                    errors.reader = None;
                }
            }
            self.signal.wait();
        }
    }

    /// Ends [`Live::run`] soon.
    pub fn stop(&self) {
        self.signal.raise(true);
    }

    /// Events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        let mut begin = lock(&self.begin);
        begin.get_or_insert_with(|| Positions {
            windows: self.windows.log.readable(),
            errors: self.errors.log.readable(),
        });
        // Subscribed under the lock, so that the thread cannot conclude in between that there is no stream.
        let receiver = self.sender.subscribe();
        drop(begin);
        self.signal.raise(false);
        receiver
    }

    fn begin(&self) -> Option<Positions> {
        let mut begin = lock(&self.begin);
        if self.sender.receiver_count() == 0 {
            *begin = None;
        }
        *begin
    }
}

impl Tail<'_> {
    fn index(&mut self, signal: &Signal) {
        loop {
            match self.results.index(INDEX_STEP) {
                Ok(false) if !signal.is_stopped() => {}
                Ok(_) => return,
                Err(error) => return self.failed(&error),
            }
        }
    }

    /// Sends everything readable from `begin`, or from where the last call ended.
    fn send(&mut self, begin: Lsn, sender: &broadcast::Sender<Arc<Event>>) {
        let reader = self.reader.get_or_insert_with(|| self.results.log.reader(begin));
        loop {
            match reader.next_batch() {
                Ok(Some(batch)) => {
                    for (seq, record) in numbered(&batch).filter(|(seq, _)| *seq >= begin.0) {
                        match (self.read)(seq, record) {
                            // No receiver: the last stream has just ended.
                            Ok(event) => drop(sender.send(Arc::new(event))),
                            Err(error) => return self.failed(&error),
                        }
                    }
                }
                Ok(None) => {
                    self.failed = false;
                    return;
                }
                Err(error) => return self.failed(&error),
            }
        }
    }

    fn failed(&mut self, error: &dyn std::fmt::Display) {
        if !self.failed {
            tracing::error!(%error, "the live stream cannot read results");
        }
        self.failed = true;
    }
}

fn window_event(seq: u64, record: &[u8]) -> Result<Event, InvalidOutput> {
    let window = WindowResult::decode(record)?;
    let mut json = Vec::new();
    window.write_json(seq, &mut json);
    event(Kind::Window, seq, Some(window.device_id), json)
}

fn error_event(seq: u64, record: &[u8]) -> Result<Event, InvalidOutput> {
    let entry = ErrorEntry::decode(record)?;
    let mut json = Vec::new();
    entry.write_json(seq, &mut json);
    event(Kind::Error, seq, entry.device_id, json)
}

fn event(kind: Kind, seq: u64, device_id: Option<&str>, json: Vec<u8>) -> Result<Event, InvalidOutput> {
    let json = String::from_utf8(json).map_err(|_| InvalidOutput(DecodeError::NotUtf8))?;
    Ok(Event { kind, seq, device_id: device_id.map(str::to_owned), json })
}
