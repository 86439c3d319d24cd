//! Notices that the process stood still: it was stopped, its virtual machine was paused, or its threads were not scheduled.
//!
//! During such a stall weir reads nothing, so the silence of a client says nothing about the client, and a peer that was slow may
//! have sent everything. Whoever judges a peer by a deadline gives it the whole time again after a stall.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::time::error::Elapsed;

/// Time between two beats of [`StallWatch`].
const BEAT: Duration = Duration::from_millis(250);
/// A beat that is later than this is a stall. Shorter pauses are covered by reading a socket before its client is judged.
const STALL: Duration = Duration::from_secs(1);
/// Time after a stall in which clients that lost their connection during it can connect again before weir concludes that
/// they are gone.
const RETURN_TIME: Duration = Duration::from_secs(5);

/// Knows when the process stood still last, from a timer that should fire every quarter of a second.
#[derive(Debug)]
pub struct StallWatch {
    origin: OnceLock<Instant>,
    /// Time of the last beat in nanoseconds since `origin`; 0 while nobody beats.
    beat_ns: AtomicU64,
    /// End of the last stall in nanoseconds since `origin`; 0 where there was none.
    stalled_until_ns: AtomicU64,
}

impl StallWatch {
    /// A watch that knows of no stall and that nobody beats yet.
    pub const fn new() -> Self {
        Self { origin: OnceLock::new(), beat_ns: AtomicU64::new(0), stalled_until_ns: AtomicU64::new(0) }
    }

    fn ns(&self, now: Instant) -> u64 {
        let origin = *self.origin.get_or_init(|| now.checked_sub(BEAT).unwrap_or(now));
        u64::try_from(now.saturating_duration_since(origin).as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn at(&self, ns: u64) -> Option<Instant> {
        self.origin.get()?.checked_add(Duration::from_nanos(ns))
    }

    /// Beats at `now`. Returns how long the process stood still since the last beat, if it did.
    pub fn beat(&self, now: Instant) -> Option<Duration> {
        let now_ns = self.ns(now);
        let before = self.beat_ns.swap(now_ns, Ordering::AcqRel);
        let late = Duration::from_nanos(now_ns.saturating_sub(before)).saturating_sub(BEAT);
        if before == 0 || late < STALL {
            return None;
        }
        self.stalled_until_ns.fetch_max(now_ns, Ordering::AcqRel);
        Some(late)
    }

    /// Nobody beats any more: time that passes from now on is no stall.
    pub fn end(&self) {
        self.beat_ns.store(0, Ordering::Release);
    }

    /// End of the last stall; `now` where the beat is overdue, since the process has only just continued; `None` where there
    /// was no stall.
    pub fn last_end(&self, now: Instant) -> Option<Instant> {
        let beat = self.beat_ns.load(Ordering::Acquire);
        if beat > 0 && self.at(beat).is_some_and(|at| now.saturating_duration_since(at) >= BEAT + STALL) {
            return Some(now);
        }
        match self.stalled_until_ns.load(Ordering::Acquire) {
            0 => None,
            until => self.at(until),
        }
    }
}

impl Default for StallWatch {
    fn default() -> Self {
        Self::new()
    }
}

/// The watch of this process.
static PROCESS: StallWatch = StallWatch::new();

/// End of the last stall of this process, see [`StallWatch::last_end`].
pub fn last_end(now: Instant) -> Option<Instant> {
    PROCESS.last_end(now)
}

/// Beats the watch of this process, until the returned future is dropped. `stalled` is called after each stall with its
/// length.
pub async fn watch(mut stalled: impl FnMut(Duration)) {
    struct EndOfBeats;
    impl Drop for EndOfBeats {
        fn drop(&mut self) {
            PROCESS.end();
        }
    }
    let _end = EndOfBeats;
    loop {
        if let Some(length) = PROCESS.beat(Instant::now()) {
            stalled(length);
        }
        tokio::time::sleep(BEAT).await;
    }
}

/// Waits for `future` no longer than `limit`, which begins anew after a stall of the process.
///
/// # Errors
/// The limit passed.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(tokio::time::Instant::now() + limit, future).await
}

/// Waits for `future` until `deadline`. After a stall of the process it gets the time again that it had at the beginning.
///
/// # Errors
/// The deadline passed.
pub async fn timeout_at<F: Future>(deadline: tokio::time::Instant, future: F) -> Result<F::Output, Elapsed> {
    let limit = deadline.saturating_duration_since(tokio::time::Instant::now());
    let mut future = std::pin::pin!(future);
    let mut deadline = deadline;
    loop {
        match tokio::time::timeout_at(deadline, future.as_mut()).await {
            Ok(output) => return Ok(output),
            Err(elapsed) => deadline = renewed(limit, Instant::now()).ok_or(elapsed)?.into(),
        }
    }
}

/// Sleeps for `limit`, which begins anew after a stall of the process.
pub async fn sleep(limit: Duration) {
    // The future never completes, so this always is the end of the limit.
    let _ = timeout(limit, std::future::pending::<()>()).await;
}

/// Waits for a value no longer than `limit`, on a thread. The time is counted in short steps, so a stall of the process counts as
/// one step, also before anybody beats the watch.
///
/// # Errors
/// The limit passed, or the sender is gone.
pub fn receive<T>(receiver: &Receiver<T>, limit: Duration) -> Result<T, RecvTimeoutError> {
    let mut left = limit;
    loop {
        let step = left.min(BEAT);
        match receiver.recv_timeout(step) {
            Err(RecvTimeoutError::Timeout) if left > step => left -= step,
            received => return received,
        }
    }
}

/// The deadline after `limit` that a stall has renewed, if it lies ahead.
pub fn renewed(limit: Duration, now: Instant) -> Option<Instant> {
    last_end(now).map(|end| end + limit).filter(|deadline| *deadline > now)
}

/// Waits until clients had time to connect again after the last stall; at once where there was none lately.
pub async fn clients_returned() {
    while let Some(at) = renewed(RETURN_TIME, Instant::now()) {
        tokio::time::sleep_until(at.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_beat_is_a_stall_that_is_known_before_the_beat() {
        let (watch, start) = (StallWatch::new(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(watch.last_end(after(60_000)), None, "nobody beats");
        assert_eq!(watch.beat(after(0)), None);
        assert_eq!(watch.beat(after(1_200)), None, "not late enough");
        assert_eq!(watch.last_end(after(2_400)), None);
        assert_eq!(watch.last_end(after(9_200)), Some(after(9_200)), "it has just continued");
        assert_eq!(watch.beat(after(9_200)), Some(Duration::from_millis(7_750)));
        assert_eq!(watch.beat(after(9_450)), None);
        assert_eq!(watch.last_end(after(9_500)), Some(after(9_200)));
    }

    #[test]
    fn a_value_is_received_or_the_limit_passes() {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        assert_eq!(receive::<u8>(&receiver, Duration::from_millis(600)), Err(RecvTimeoutError::Timeout));
        sender.send(7).expect("a receiver");
        assert_eq!(receive(&receiver, Duration::ZERO), Ok(7));
        drop(sender);
        assert_eq!(receive(&receiver, Duration::MAX), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn after_the_end_of_the_beats_nothing_is_a_stall() {
        let (watch, start) = (StallWatch::new(), Instant::now());
        watch.beat(start);
        watch.end();
        assert_eq!(watch.last_end(start + Duration::from_secs(60)), None);
        assert_eq!(watch.beat(start + Duration::from_secs(60)), None);
    }
}
