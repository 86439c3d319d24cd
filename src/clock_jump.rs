//! A wall clock that jumps forward must not delete what is stored: everything would look old.
//!
//! [`JumpGuard`] compares the wall clock with the monotonic clock while weir runs, and at a start with the time that it stored
//! last. After a step forward of more than an hour nothing is deleted by age for `node.clock_jump_hold`. Nobody can tell a wrong
//! clock from a machine that was off for long, so both are treated alike. Deletion by size goes on.
//!
//! The rest of a hold is stored, so that a restart does not end it. Only the time in which weir runs counts.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::counter;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::core::FIRST_PLAUSIBLE_MS;
use crate::defects::{self, Defect};
use crate::disk::{Disk, replace_file};
use crate::sync::lock;
use crate::telemetry::names;

/// Smallest step of the wall clock that counts as a jump.
const STEP: Duration = Duration::from_secs(3_600);
/// A step at a start that is smaller is not suspicious: the machine was off.
const USUAL_OFF: Duration = Duration::from_secs(24 * 3_600);
/// weir is not ready for this time after a suspicious jump while it ran. If the clock stays where it is, a person may have set it.
/// A start is no reason to be unready: most machines that were off for long have a right clock.
const UNREADY: Duration = Duration::from_secs(600);
/// Time between two writes of the file, for the time that was seen last and the rest of a hold.
const STORE_EVERY: Duration = Duration::from_secs(600);
/// Name of the file in the data directory.
const FILE_NAME: &str = "clock.json";
/// Version of the file's format.
const FORMAT_VERSION: u32 = 1;

/// A clock that knows whether the age of stored data can be judged. Clones share it through an [`Arc`].
#[derive(Debug)]
pub struct JumpGuard {
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
    path: PathBuf,
    hold: Duration,
    /// The wall clock when the guard looked last, Unix milliseconds.
    looked_ms: AtomicI64,
    state: Mutex<GuardState>,
}

#[derive(Debug)]
struct GuardState {
    /// Where the wall clock is expected, and when it was there; `None` before [`JumpGuard::begin`].
    expected: Option<Sight>,
    held: Option<Hold>,
    jumps: u64,
    /// When the file was written last; `None`: it must be written.
    stored: Option<Duration>,
    /// What an earlier run stored.
    found: Option<StoredClock>,
}

/// The wall clock at a moment of the monotonic clock.
#[derive(Debug, Clone, Copy)]
struct Sight {
    wall_ms: i64,
    at: Duration,
}

impl Sight {
    /// Where the wall clock is at `at` if nobody sets it.
    fn wall_at(self, at: Duration) -> i64 {
        self.wall_ms.saturating_add(ms(at.saturating_sub(self.at)))
    }
}

/// A jump whose hold lasts.
#[derive(Debug, Clone, Copy)]
struct Hold {
    /// Where the wall clock would be without the jump.
    before: Sight,
    /// Where the jump brought it.
    after: Sight,
    /// End of the hold on the monotonic clock.
    until: Duration,
    /// Until then weir is not ready.
    unready_until: Duration,
}

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredClock {
    version: u32,
    /// Where the wall clock was expected when the file was written, Unix milliseconds.
    seen_ms: i64,
    hold: Option<StoredHold>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredHold {
    /// Wall clock without the jump, and with it, when the file was written.
    from_ms: i64,
    to_ms: i64,
    left_ms: i64,
}

/// A jump of the wall clock, for status and readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockJump {
    /// How far the clock jumped.
    pub step: Duration,
    /// How long nothing is deleted by age from now on.
    pub hold_left: Duration,
    /// How long weir is not ready from now on.
    pub unready_left: Duration,
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn duration(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

impl JumpGuard {
    /// Reads what an earlier run stored in `data_dir`. Until [`JumpGuard::begin`] nothing is deleted by age.
    pub fn open(clock: Arc<dyn Clock>, disk: Arc<dyn Disk>, data_dir: &Path, hold: Duration) -> Arc<Self> {
        let path = data_dir.join(FILE_NAME);
        let found = match read(&*disk, &path) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the stored time cannot be read");
                None
            }
        };
        let state = GuardState { expected: None, held: None, jumps: 0, stored: None, found };
        Arc::new(Self { clock, disk, path, hold, looked_ms: AtomicI64::new(i64::MIN), state: Mutex::new(state) })
    }

    /// Compares the clock with the time that was stored last; without a stored time, with `newest_ms`, the newest arrival time
    /// in the logs.
    pub fn begin(&self, newest_ms: Option<i64>) {
        let now = self.now();
        let mut state = lock(&self.state);
        let found = state.found.take();
        if let Some(hold) = found.as_ref().and_then(|found| found.hold.as_ref()) {
            let until = now.at + duration(hold.left_ms).min(self.hold);
            let before = Sight { wall_ms: hold.from_ms, at: now.at };
            let after = Sight { wall_ms: hold.to_ms, at: now.at };
            state.held = Some(Hold { before, after, until, unready_until: now.at });
        }
        let seen_ms = found.map(|found| found.seen_ms).or(newest_ms).unwrap_or(now.wall_ms);
        state.expected = Some(Sight { wall_ms: seen_ms, at: now.at });
        self.judge(&mut state, now, true);
    }

    /// Looks at the clock, and stores what the next start needs, if that is due. Called every second.
    pub fn look(&self) {
        let now = self.now();
        let mut state = lock(&self.state);
        self.judge(&mut state, now, false);
        let due = state.stored.is_none_or(|at| now.at.saturating_sub(at) >= STORE_EVERY);
        if state.expected.is_none() || !due {
            return;
        }
        state.stored = Some(now.at);
        let stored = state.to_store(now);
        drop(state);
        if !self.store(&stored) {
            // The next look tries again.
            lock(&self.state).stored = None;
        }
    }

    /// Stores what the next start needs.
    pub fn store_now(&self) {
        lock(&self.state).stored = None;
        self.look();
    }

    /// The jump whose hold lasts.
    pub fn jump(&self) -> Option<ClockJump> {
        let now = self.now();
        let mut state = lock(&self.state);
        self.judge(&mut state, now, false);
        state.held.map(|held| ClockJump {
            step: duration(held.after.wall_at(now.at).saturating_sub(held.before.wall_at(now.at))),
            hold_left: held.until.saturating_sub(now.at),
            unready_left: held.unready_until.saturating_sub(now.at),
        })
    }

    fn now(&self) -> Sight {
        Sight { wall_ms: self.clock.now_ms(), at: self.clock.monotonic() }
    }

    /// Compares the clock with where it is expected.
    fn judge(&self, state: &mut GuardState, now: Sight, is_start: bool) {
        let Some(expected) = state.expected else { return };
        self.looked_ms.store(now.wall_ms, Ordering::Relaxed);
        if state.held.is_some_and(|held| held.until <= now.at) {
            state.held = None;
            state.stored = None;
            tracing::info!("entries are deleted by age again: the hold after the clock's jump is over");
        }
        // A clock that leaves the time to which it jumped is compared with the time before that jump.
        let left = state.held.filter(|held| now.wall_ms < held.after.wall_at(now.at).saturating_sub(ms(STEP)));
        let base_ms = left.map_or(expected, |held| held.before).wall_at(now.at);
        let step = duration(now.wall_ms.saturating_sub(base_ms));
        if step > STEP {
            self.begin_hold(state, base_ms, now, is_start);
        } else if left.is_some() {
            state.held = None;
            state.stored = None;
            tracing::info!("the clock is back from its jump: entries are deleted by age again");
        } else if duration(base_ms.saturating_sub(now.wall_ms)) > STEP {
            // weir may be killed before the clock is set right. Then the next start compares the clock with this time.
            state.stored = None;
        }
        // Slow corrections are followed. Steps that are too small to be a jump add up, as long as they come faster than this.
        let followed_ms = match now.wall_ms.saturating_sub(base_ms) {
            ahead_ms @ 1.. if step <= STEP => ahead_ms.min(ms(now.at.saturating_sub(expected.at)) / 10),
            ahead_ms => ahead_ms,
        };
        state.expected = Some(Sight { wall_ms: base_ms.saturating_add(followed_ms), at: now.at });
    }

    fn begin_hold(&self, state: &mut GuardState, base_ms: i64, now: Sight, is_start: bool) {
        let step = duration(now.wall_ms.saturating_sub(base_ms));
        // Machines without a battery start with such a time, and their first step is a correction.
        let is_correction = base_ms < FIRST_PLAUSIBLE_MS;
        let is_suspicious = !is_correction && (!is_start || step >= USUAL_OFF);
        let unready_until = if is_suspicious && !is_start { now.at + UNREADY } else { now.at };
        // A second jump in the same direction does not move the time before the first one.
        let before = state.held.map_or(Sight { wall_ms: base_ms, at: now.at }, |held| held.before);
        state.held = Some(Hold { before, after: now, until: now.at + self.hold, unready_until });
        state.stored = None;
        state.jumps += 1;
        counter!(names::CLOCK_JUMPS).increment(1);
        let (from, to) = (utc(base_ms), utc(now.wall_ms));
        let hold_seconds = self.hold.as_secs();
        if is_suspicious && is_start {
            tracing::warn!(
                from,
                to,
                hold_seconds,
                "the clock is far ahead of the time that was stored last: weir was off for long, or the clock is wrong. \
                 Nothing is deleted by age for a while (node.clock_jump_hold)"
            );
        } else if is_suspicious {
            tracing::warn!(
                from,
                to,
                hold_seconds,
                "the clock jumped forward: nothing is deleted by age for a while (node.clock_jump_hold)"
            );
        } else {
            tracing::info!(
                from,
                to,
                hold_seconds,
                "the clock was set, or weir was off: nothing is deleted by age for a while (node.clock_jump_hold)"
            );
        }
    }

    /// Whether it was stored.
    fn store(&self, stored: &StoredClock) -> bool {
        let written = serde_json::to_vec(stored)
            .map_err(io::Error::from)
            .and_then(|bytes| replace_file(&*self.disk, &self.path, &bytes));
        if let Err(error) = &written {
            tracing::debug!(%error, "the time could not be stored");
        }
        written.is_ok()
    }
}

impl GuardState {
    fn to_store(&self, now: Sight) -> StoredClock {
        let hold = self.held.map(|held| StoredHold {
            from_ms: held.before.wall_at(now.at),
            to_ms: held.after.wall_at(now.at),
            left_ms: ms(held.until.saturating_sub(now.at)),
        });
        // Not where the clock is: small steps add up over restarts too.
        let seen_ms = self.expected.map_or(now.wall_ms, |expected| expected.wall_at(now.at));
        StoredClock { version: FORMAT_VERSION, seen_ms, hold }
    }
}

/// Reads the file; `None` where there is none.
fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<StoredClock>> {
    let file = match disk.open_read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = [0; 1_024];
    let count = file.read_at(&mut bytes, 0)?;
    let stored: StoredClock = serde_json::from_slice(bytes.get(..count).unwrap_or_default())?;
    if stored.version > FORMAT_VERSION {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it was written by a newer weir"));
    }
    Ok(Some(stored))
}

fn utc(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |at| at.to_string())
}

impl Clock for JumpGuard {
    /// What is stored with a time that the clock showed for less than a second must not look old when the clock is right again:
    /// the guard sees such a step here, and not at its next look.
    fn now_ms(&self) -> i64 {
        let now_ms = self.clock.now_ms();
        if now_ms < self.looked_ms.load(Ordering::Relaxed).saturating_sub(ms(STEP)) {
            self.judge(&mut lock(&self.state), self.now(), false);
        }
        now_ms
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    fn is_synchronized(&self) -> Option<bool> {
        self.clock.is_synchronized()
    }

    fn age_now_ms(&self) -> Option<i64> {
        let now = self.now();
        if defects::is(Defect::DeleteAfterClockJump) {
            return Some(now.wall_ms);
        }
        let mut state = lock(&self.state);
        self.judge(&mut state, now, false);
        let may_judge = state.expected.is_some() && state.held.is_none();
        may_judge.then_some(now.wall_ms)
    }
}

#[cfg(test)]
mod tests;
