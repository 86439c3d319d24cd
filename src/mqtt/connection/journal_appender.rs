//! Appends to the journal for connections and wills, and keeps account of pauses: times in which the journal had no
//! room.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::core::record;
use crate::log::{AppendError, Log, Lsn, Records};
use crate::mqtt::broker::meters::MqttMeters;
use crate::sync::lock;

/// Operations of the journal that connections need.
pub(crate) trait IngestJournal: Send + Sync + Debug {
    /// Queues records for the next group commit and returns the position after the last of them, see [`Log::append`].
    ///
    /// # Errors
    /// The journal has no room, the records are larger than a batch, or the journal takes nothing more.
    fn append(&self, records: &Records, waker: Option<&Waker>) -> Result<Lsn, AppendError>;
    /// Journal position below which everything is synced, see [`Log::durable`].
    fn durable(&self) -> Lsn;
    /// Ready when an append may succeed, see [`Log::poll_room`].
    fn poll_room(&self, context: &mut Context<'_>) -> Poll<()>;
}

impl IngestJournal for Log {
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

/// Shortest pause that is noted in the journal: in a longer one, a device may be silent only because weir does not read its
/// socket. Silence is measured in ticks, so this is the interval of ticks.
const RESUMED_AFTER: Duration = Duration::from_secs(1);

/// Appends to the journal, notes in the journal when sockets were not read for a while, and measures these pauses.
#[derive(Debug)]
pub(crate) struct JournalAppender {
    journal: Arc<dyn IngestJournal>,
    meters: Arc<MqttMeters>,
    /// Whether `pause` has a beginning. While the journal has room, an append looks only at this field.
    paused: AtomicBool,
    pause: Mutex<JournalPause>,
}

/// A time in which the journal had no room.
#[derive(Debug, Default)]
struct JournalPause {
    /// Time since which appends are refused; `None`: there is no pause.
    since: Option<Instant>,
    /// Time up to which the pause is counted in the metric.
    counted_until: Option<Instant>,
    /// Time below one second that is not counted in the metric yet.
    remainder: Duration,
    /// Time at which the last `resumed` record was appended.
    resumed_at: Option<Instant>,
}

impl JournalAppender {
    /// Makes an appender to `journal` that counts pauses in `meters`.
    pub fn new(journal: Arc<dyn IngestJournal>, meters: Arc<MqttMeters>) -> Self {
        Self { journal, meters, paused: AtomicBool::new(false), pause: Mutex::default() }
    }

    /// Journal position below which everything is synced.
    #[inline]
    pub fn durable(&self) -> Lsn {
        self.journal.durable()
    }

    /// Ready when an append may succeed, or when the journal takes nothing more. Otherwise the task is woken when there
    /// is room.
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        self.journal.poll_room(context)
    }

    /// Appends `records` and returns the position after them; `waker` is woken when this position is durable or the
    /// journal has failed. `waiting_since` is the time since which this connection is not read because of an earlier
    /// [`AppendError::Full`].
    ///
    /// A pause of at least a second ends with one `resumed` record before any publish, so that no device counts as
    /// silent for a time in which weir was not reading.
    ///
    /// # Errors
    /// The journal has no room, the records are larger than a batch, or the journal takes nothing more.
    pub fn append(
        &self,
        records: &Records,
        waker: Option<&Waker>,
        waiting_since: Option<Instant>,
        now: Instant,
    ) -> Result<Lsn, AppendError> {
        let paused = waiting_since.is_some() || self.paused.load(Ordering::Acquire);
        if paused {
            self.tell_of_pause(waiting_since, now)?;
        }
        let appended = self.journal.append(records, waker);
        match appended {
            Ok(_) if paused => self.end_pause(now),
            Err(AppendError::Full) => self.begin_pause(now),
            _ => {}
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

    fn tell_of_pause(&self, waiting_since: Option<Instant>, now: Instant) -> Result<(), AppendError> {
        let mut pause = lock(&self.pause);
        let since = pause.since.into_iter().chain(waiting_since).min();
        let long = |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) >= RESUMED_AFTER);
        // Other connections end the same pause: one `resumed` record within a second is enough for all of them.
        if long(since) && (pause.resumed_at.is_none() || long(pause.resumed_at)) {
            let mut resumed = Records::default();
            resumed.push_with(record::encode_resumed);
            self.journal.append(&resumed, None)?;
            pause.resumed_at = Some(now);
        }
        Ok(())
    }

    fn end_pause(&self, now: Instant) {
        let mut pause = lock(&self.pause);
        self.count(&mut pause, now);
        pause.since = None;
        pause.counted_until = None;
        self.paused.store(false, Ordering::Release);
    }

    /// Adds the time of a pause that has passed to the metric, also while the pause lasts.
    pub fn count_pause(&self, now: Instant) {
        if self.paused.load(Ordering::Acquire) {
            self.count(&mut lock(&self.pause), now);
        }
    }

    fn count(&self, pause: &mut JournalPause, now: Instant) {
        let Some(counted_until) = pause.counted_until else { return };
        pause.remainder += now.saturating_duration_since(counted_until);
        pause.counted_until = Some(now);
        // The counter counts whole seconds.
        self.meters.backpressure_seconds.increment(pause.remainder.as_secs());
        pause.remainder = Duration::from_nanos(u64::from(pause.remainder.subsec_nanos()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::testing::TestJournal;

    fn publish(payload: &[u8]) -> Records {
        let publish = record::PublishRecord {
            client_id: "c",
            topic: "t",
            own_device: None,
            user: None,
            packet_id: 0,
            qos: 0,
            dup: false,
            retain: false,
            repeats_retained: false,
            payload,
        };
        let mut records = Records::default();
        records.push_with(|out| record::encode_publish(&publish, false, out));
        records
    }

    struct AppenderCase {
        journal: Arc<TestJournal>,
        appender: JournalAppender,
        start: Instant,
    }

    impl AppenderCase {
        fn new() -> Self {
            let journal = TestJournal::eager();
            let appender = JournalAppender::new(Arc::clone(&journal) as Arc<dyn IngestJournal>, Arc::default());
            Self { journal, appender, start: Instant::now() }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn append(&self, payload: &[u8], waiting_since_ms: Option<u64>, now_ms: u64) -> Result<Lsn, AppendError> {
            let since = waiting_since_ms.map(|ms| self.at(ms));
            self.appender.append(&publish(payload), None, since, self.at(now_ms))
        }
    }

    #[test]
    fn a_long_pause_ends_with_one_resumed_record() {
        let case = AppenderCase::new();
        case.append(b"1", None, 0).unwrap();
        case.journal.set_full(true);
        assert_eq!(case.append(b"2", None, 100), Err(AppendError::Full));
        assert_eq!(case.append(b"3", None, 200), Err(AppendError::Full));
        case.journal.set_full(false);
        case.append(b"4", None, 1_150).unwrap();
        case.append(b"2", Some(100), 1_160).unwrap();
        case.append(b"3", Some(200), 1_170).unwrap();
        let expected = ["c t 0/0 1", "resumed", "c t 0/0 4", "c t 0/0 2", "c t 0/0 3"];
        assert_eq!(case.journal.records(), expected, "before the first publish of any connection, and once");
    }

    #[test]
    fn a_short_pause_is_no_silence() {
        let case = AppenderCase::new();
        case.journal.set_full(true);
        assert_eq!(case.append(b"1", None, 0), Err(AppendError::Full));
        case.journal.set_full(false);
        case.append(b"1", Some(0), 999).unwrap();
        assert_eq!(case.journal.records(), ["c t 0/0 1"]);
    }

    #[test]
    fn a_connection_that_waited_long_resumes_though_others_had_room() {
        let case = AppenderCase::new();
        case.append(b"1", Some(0), 5_000).unwrap();
        assert_eq!(case.journal.records(), ["resumed", "c t 0/0 1"]);
    }

    #[test]
    fn a_pause_is_measured_while_it_lasts() {
        let case = AppenderCase::new();
        case.journal.set_full(true);
        assert_eq!(case.append(b"1", None, 0), Err(AppendError::Full));
        case.appender.count_pause(case.at(1_700));
        let (counted, remainder) = {
            let pause = lock(&case.appender.pause);
            (pause.counted_until, pause.remainder)
        };
        assert_eq!((counted, remainder), (Some(case.at(1_700)), Duration::from_millis(700)));
        case.journal.set_full(false);
        case.append(b"1", Some(0), 2_000).unwrap();
        assert_eq!(lock(&case.appender.pause).remainder, Duration::ZERO);
    }

    #[test]
    fn waking_for_durability_is_passed_on() {
        let journal = Arc::new(TestJournal::default());
        let appender = JournalAppender::new(Arc::clone(&journal) as Arc<dyn IngestJournal>, Arc::default());
        let (waker, count) = crate::mqtt::testing::CountingWaker::pair();
        let until = appender.append(&publish(b"1"), Some(&waker), None, Instant::now()).unwrap();
        assert!(appender.durable() < until && count.get() == 0);
        journal.sync();
        assert!(appender.durable() >= until && count.get() == 1);
    }
}
