//! weir's own publishes: windows and errors as they enter their logs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use super::broker::Broker;
use crate::core::output::{ErrorEntry, WindowResult};
use crate::log::{Batch, Log, Lsn, Reader};

const WINDOWS: &str = "weir/windows/";
const ERRORS: &str = "weir/errors/";
/// QoS of results: the subscriber's own QoS decides below it.
const QOS: u8 = 1;
/// How long the thread sleeps without being woken, so that it notices `stop` without a wake-up too.
const PARK: Duration = Duration::from_millis(500);

/// Follows the output logs and publishes what enters them. Results are not retained.
#[derive(Debug)]
pub struct Results {
    broker: Arc<Broker>,
    windows: Option<Follower>,
    errors: Option<Follower>,
}

#[derive(Debug)]
struct Follower {
    log: Log,
    reader: Reader,
    prefix: &'static str,
    publish: fn(&Broker, u64, &[u8], &mut Scratch),
}

#[derive(Debug, Default)]
struct Scratch {
    topic: String,
    json: Vec<u8>,
}

impl Results {
    /// Publishes windows from position `.1` of the log `.0` on, and errors likewise; `None` where config says not to.
    pub fn new(broker: Arc<Broker>, windows: Option<(Log, Lsn)>, errors: Option<(Log, Lsn)>) -> Self {
        let follow = |prefix, publish| {
            move |(log, from): (Log, Lsn)| Follower { reader: log.reader(from), log, prefix, publish }
        };
        Self {
            broker,
            windows: windows.map(follow(WINDOWS, publish_window)),
            errors: errors.map(follow(ERRORS, publish_error)),
        }
    }

    /// Runs until `stop` is set; meant for a thread of its own. Unpark the thread after setting `stop`, or it notices
    /// within half a second.
    pub fn run(mut self, stop: &AtomicBool) {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        for follower in self.windows.iter().chain(&self.errors) {
            follower.log.watch(waker.clone());
        }
        let mut scratch = Scratch::default();
        while !stop.load(Ordering::Acquire) {
            let mut idle = true;
            for follower in self.windows.iter_mut().chain(&mut self.errors) {
                idle &= follower.step(&self.broker, &mut scratch);
            }
            if idle {
                thread::park_timeout(PARK);
            }
        }
    }
}

impl Follower {
    /// Publishes one batch; `true` if there was none.
    fn step(&mut self, broker: &Broker, scratch: &mut Scratch) -> bool {
        let from = self.reader.position();
        match self.reader.next_batch() {
            Ok(Some(batch)) => {
                if broker.may_have_subscribers(self.prefix) {
                    for (position, record) in positions(&batch).filter(|(position, _)| *position >= from.0) {
                        (self.publish)(broker, position, record, scratch);
                    }
                }
                false
            }
            Ok(None) => true,
            Err(error) => {
                // Retention overtook the cursor, or the file is damaged: subscribers go on with what is new.
                tracing::warn!(%error, prefix = self.prefix, "results were not published over MQTT; going on at the end");
                self.reader = self.log.reader(self.log.readable());
                true
            }
        }
    }
}

fn positions(batch: &Batch) -> impl Iterator<Item = (u64, &[u8])> {
    (batch.first().0..).zip(batch.records())
}

fn publish_window(broker: &Broker, seq: u64, record: &[u8], scratch: &mut Scratch) {
    let Ok(window) = WindowResult::decode(record) else {
        tracing::error!(seq, "a record of the windows log cannot be read; it is not published");
        return;
    };
    scratch.begin(&[WINDOWS, window.device_id, "/", window.metric]);
    window.write_json(seq, &mut scratch.json);
    scratch.publish(broker);
}

fn publish_error(broker: &Broker, seq: u64, record: &[u8], scratch: &mut Scratch) {
    let Ok(entry) = ErrorEntry::decode(record) else {
        tracing::error!(seq, "a record of the errors log cannot be read; it is not published");
        return;
    };
    scratch.begin(&[ERRORS, entry.reason.as_str()]);
    entry.write_json(seq, &mut scratch.json);
    scratch.publish(broker);
}

impl Scratch {
    fn begin(&mut self, topic: &[&str]) {
        self.topic.clear();
        self.topic.extend(topic.iter().copied());
        self.json.clear();
    }

    fn publish(&self, broker: &Broker) {
        if broker.has_subscribers(&self.topic) {
            broker.publish(&self.topic, self.json.clone().into(), QOS, false);
        }
    }
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
