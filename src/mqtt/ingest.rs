//! The gate to the journal.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::handle::lock;
use super::meters::Meters;
use crate::core::record;
use crate::log::{AppendError, Log, Lsn, Records};

/// What the door needs of the journal.
pub(crate) trait Journal: Send + Sync + Debug {
    /// See [`Log::append`].
    fn append(&self, records: &Records, waker: Option<&Waker>) -> Result<Lsn, AppendError>;
    /// See [`Log::durable`].
    fn durable(&self) -> Lsn;
    /// See [`Log::poll_room`].
    fn poll_room(&self, context: &mut Context<'_>) -> Poll<()>;
}

impl Journal for Log {
    fn append(&self, records: &Records, waker: Option<&Waker>) -> Result<Lsn, AppendError> {
        Log::append(self, records, waker)
    }
    fn durable(&self) -> Lsn {
        Log::durable(self)
    }
    fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        Log::poll_room(self, context)
    }
}

/// A pause from which on silence is no longer the devices' own: the granularity of ticks.
const RESUMED_AFTER: Duration = Duration::from_secs(1);

/// Appends to the journal, tells it when sockets were not read for a while, and measures that.
#[derive(Debug)]
pub(crate) struct Gate {
    journal: Arc<dyn Journal>,
    meters: Arc<Meters>,
    /// Whether `pause` has a beginning: the only thing looked at while there is room.
    paused: AtomicBool,
    pause: Mutex<Pause>,
}

#[derive(Debug, Default)]
struct Pause {
    /// Since when appends have been refused.
    since: Option<Instant>,
    /// Up to when the pause is in the metric.
    counted_until: Option<Instant>,
    /// Less than a second, not yet in the metric.
    remainder: Duration,
    /// When the last `resumed` record was appended.
    resumed_at: Option<Instant>,
}

impl Gate {
    pub fn new(journal: Arc<dyn Journal>, meters: Arc<Meters>) -> Self {
        Self { journal, meters, paused: AtomicBool::new(false), pause: Mutex::default() }
    }

    /// Everything below is synced.
    #[inline]
    pub fn durable(&self) -> Lsn {
        self.journal.durable()
    }

    /// Ready when an append may succeed.
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        self.journal.poll_room(context)
    }

    /// Appends; `waker` is woken when the returned position is durable. `waiting_since`: how long this connection has
    /// not been reading because of an earlier `Full`. A pause of at least a second ends with one `resumed` record
    /// before any publish, so that nobody's silence is measured while weir was not listening.
    pub fn append(
        &self,
        records: &Records,
        waker: Option<&Waker>,
        waiting_since: Option<Instant>,
        now: Instant,
    ) -> Result<Lsn, AppendError> {
        if waiting_since.is_some() || self.paused.load(Ordering::Acquire) {
            self.end_pause(waiting_since, now)?;
        }
        let appended = self.journal.append(records, waker);
        if appended == Err(AppendError::Full) {
            self.begin_pause(now);
        }
        appended
    }

    fn begin_pause(&self, now: Instant) {
        let mut pause = lock(&self.pause);
        if pause.since.is_none() {
            pause.since = Some(now);
            pause.counted_until = Some(now);
            self.paused.store(true, Ordering::Release);
        }
    }

    fn end_pause(&self, waiting_since: Option<Instant>, now: Instant) -> Result<(), AppendError> {
        let mut pause = lock(&self.pause);
        let since = pause.since.into_iter().chain(waiting_since).min();
        let long = |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) >= RESUMED_AFTER);
        // Other connections end the same pause: one record within a second is enough.
        if long(since) && (pause.resumed_at.is_none() || long(pause.resumed_at)) {
            let mut resumed = Records::default();
            resumed.push_with(record::encode_resumed);
            self.journal.append(&resumed, None)?;
            pause.resumed_at = Some(now);
        }
        self.count(&mut pause, now);
        pause.since = None;
        pause.counted_until = None;
        self.paused.store(false, Ordering::Release);
        Ok(())
    }

    /// Adds what passed of a pause to the metric, also while it lasts.
    pub fn count_pause(&self, now: Instant) {
        if self.paused.load(Ordering::Acquire) {
            self.count(&mut lock(&self.pause), now);
        }
    }

    fn count(&self, pause: &mut Pause, now: Instant) {
        let Some(counted_until) = pause.counted_until else { return };
        pause.remainder += now.saturating_duration_since(counted_until);
        pause.counted_until = Some(now);
        // The counter has whole seconds.
        self.meters.backpressure_seconds.increment(pause.remainder.as_secs());
        pause.remainder = Duration::from_nanos(u64::from(pause.remainder.subsec_nanos()));
    }
}
