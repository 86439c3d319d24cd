//! Finds calls of the file system that hang: a frozen file system gives no error, it only never answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::counter;
use tokio_util::sync::CancellationToken;

use weir::config::Config;
use weir::disk::pending::{self, PendingCall};
use weir::http::process_status::{HealthCheck, PendingDiskCall};
use weir::log::Log;
use weir::stall;
use weir::telemetry::names;

/// Directories of the logs: without them weir cannot do its work.
const LOGS: [&str; 3] = ["journal", "windows", "errors"];
/// Directories of the stores beside the logs.
const STORES: [&str; 4] = ["state", "savepoints", "retained", "sessions"];
/// Time between two looks at the pending calls.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A call that takes longer is logged.
const WARN_AFTER: Duration = Duration::from_secs(1);
/// With a call that takes longer, or an append that waits longer, weir is not ready.
const UNREADY_AFTER: Duration = Duration::from_secs(5);
/// Time between two warnings about calls of one directory that are slow and do not make weir unready.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Judges how long the calls on the directories of the data directory have taken so far.
pub struct DiskWatch {
    data_dir: PathBuf,
    logs: [Log; 3],
    /// Age of a call on a log from which on weir is unhealthy; `None`: it never is.
    unhealthy_after: Option<Duration>,
}

impl DiskWatch {
    /// Watches the data directory of `config`. `logs` are the journal, the windows log and the errors log.
    pub fn new(config: &Config, logs: [&Log; 3]) -> Arc<Self> {
        let unhealthy_after = config.journal.sync_timeout_ms.map(Duration::from_millis);
        Arc::new(Self { data_dir: config.node.data_dir.clone(), logs: logs.map(Log::clone), unhealthy_after })
    }

    fn oldest(&self, directory: &str) -> Option<PendingCall> {
        pending::oldest(&self.data_dir.join(directory))
    }

    /// The call on a log that has taken longer than `journal.sync_timeout`.
    fn dead(&self) -> Option<PendingCall> {
        let limit = self.unhealthy_after?;
        LOGS.iter().filter_map(|directory| self.oldest(directory)).find(|call| call.age >= limit)
    }

    /// Whether the disk answers well enough to feed the watchdog.
    pub fn is_alive(&self) -> bool {
        self.dead().is_none()
    }

    /// Fails once a call on a log has taken longer than `journal.sync_timeout`.
    pub fn liveness(&self) -> HealthCheck {
        let found = self.dead().map(|call| format!("{} (journal.sync_timeout)", sentence(&call)));
        check(found)
    }

    /// Fails once a call on any directory, or an append to a log, has waited for five seconds.
    pub fn readiness(&self) -> HealthCheck {
        let calls = LOGS.iter().chain(&STORES).filter_map(|directory| self.oldest(directory));
        let slow = calls.filter(|call| call.age >= UNREADY_AFTER).max_by_key(|call| call.age);
        check(slow.map(|call| sentence(&call)).or_else(|| self.late_append()))
    }

    /// An append that waits although its log has disk space and no call hangs.
    fn late_append(&self) -> Option<String> {
        let running = stall::last_end(Instant::now()).map_or(Duration::MAX, |end| end.elapsed());
        LOGS.iter().zip(&self.logs).find_map(|(name, log)| {
            let stats = log.stats();
            let age = stats.oldest_append_age.filter(|_| !stats.disk_full && stats.failure.is_none())?.min(running);
            (age >= UNREADY_AFTER)
                .then(|| format!("the oldest append to the {name} log has waited for {} s", age.as_secs()))
        })
    }

    /// The oldest call on each directory that has not returned.
    pub fn pending(&self) -> BTreeMap<&'static str, Option<PendingDiskCall>> {
        let one = |directory: &'static str| {
            let call = self.oldest(directory).map(|call| PendingDiskCall {
                call: call.call,
                path: call.path.display().to_string(),
                seconds: call.age.as_secs_f64(),
            });
            (directory, call)
        };
        LOGS.into_iter().chain(STORES).map(one).collect()
    }

    /// Logs calls that hang, and their end, until `cancel`.
    pub async fn watch(self: Arc<Self>, cancel: CancellationToken) {
        let mut reports: BTreeMap<_, _> =
            LOGS.into_iter().chain(STORES).map(|directory| (directory, HangReport::default())).collect();
        for directory in reports.keys() {
            counter!(names::DISK_HANGS, "directory" => *directory).increment(0);
        }
        while cancel.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            for (directory, report) in &mut reports {
                match report.look(Instant::now(), self.oldest(directory)) {
                    None => {}
                    Some(HangChange::Begun(call)) => {
                        counter!(names::DISK_HANGS, "directory" => *directory).increment(1);
                        tracing::warn!(
                            directory,
                            call = call.call,
                            path = %call.path.display(),
                            seconds = call.age.as_secs_f64(),
                            "the disk does not answer: nothing is acknowledged that needs this call"
                        );
                    }
                    Some(HangChange::Ended(took)) => {
                        tracing::info!(directory, seconds = took.as_secs_f64(), "the disk answers again");
                    }
                }
            }
        }
    }
}

fn check(found: Option<String>) -> HealthCheck {
    let ok = found.is_none();
    HealthCheck { name: "disk", ok, message: found.unwrap_or_else(|| "answers".into()), warns: false }
}

fn sentence(call: &PendingCall) -> String {
    format!("the disk does not answer: {} {} has taken {} s so far", call.call, call.path.display(), call.age.as_secs())
}

/// What is to be logged about one directory.
#[derive(Debug, PartialEq, Eq)]
enum HangChange {
    /// This call hangs.
    Begun(PendingCall),
    /// The call that hung has returned after this time.
    Ended(Duration),
}

/// Remembers what was logged about one directory.
#[derive(Debug, Default)]
struct HangReport {
    /// Begin of the call that was logged and has not returned.
    hanging_since: Option<Instant>,
    /// Until then only a call that makes weir unready is logged.
    quiet_until: Option<Instant>,
}

impl HangReport {
    /// Compares the oldest call with the one that was logged.
    fn look(&mut self, now: Instant, oldest: Option<PendingCall>) -> Option<HangChange> {
        if let Some(since) = self.hanging_since {
            // A call that began after the logged one was logged is another call.
            let hangs = oldest.is_some_and(|call| call.age + WARN_AFTER > now.saturating_duration_since(since));
            if !hangs {
                self.hanging_since = None;
                return Some(HangChange::Ended(now.saturating_duration_since(since)));
            }
            return None;
        }
        let call = oldest.filter(|call| call.age >= WARN_AFTER)?;
        if self.quiet_until.is_some_and(|until| now < until) && call.age < UNREADY_AFTER {
            return None;
        }
        self.hanging_since = now.checked_sub(call.age);
        self.quiet_until = Some(now + WARN_EVERY);
        Some(HangChange::Begun(call))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(age_ms: u64) -> Option<PendingCall> {
        Some(PendingCall { call: "sync", path: "journal/0.seg".into(), age: Duration::from_millis(age_ms) })
    }

    #[test]
    fn a_hang_is_reported_once_and_so_is_its_end() {
        let (mut report, start) = (HangReport::default(), Instant::now() + Duration::from_secs(3_600));
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(report.look(after(0), call(999)), None);
        assert_eq!(report.look(after(250), call(1_249)), call(1_249).map(HangChange::Begun));
        assert_eq!(report.look(after(9_000), call(9_999)), None);
        assert_eq!(report.look(after(9_250), None), Some(HangChange::Ended(Duration::from_millis(10_249))));
        assert_eq!(report.look(after(9_500), None), None);
    }

    #[test]
    fn slow_calls_one_after_the_other_are_reported_now_and_then() {
        let (mut report, start) = (HangReport::default(), Instant::now() + Duration::from_secs(3_600));
        let after = |ms| start + Duration::from_millis(ms);
        assert!(matches!(report.look(after(0), call(1_500)), Some(HangChange::Begun(_))));
        assert!(matches!(report.look(after(1_000), call(400)), Some(HangChange::Ended(_))), "another call");
        assert_eq!(report.look(after(2_000), call(1_400)), None, "too soon");
        assert!(matches!(report.look(after(9_000), call(5_000)), Some(HangChange::Begun(_))), "weir is not ready");
        assert!(matches!(report.look(after(9_250), None), Some(HangChange::Ended(_))));
        assert!(matches!(report.look(after(80_000), call(1_000)), Some(HangChange::Begun(_))));
    }
}
