//! Warns when a limit of the state rejects readings.

use metrics::counter;

use crate::core::owners::DeviceLimit;
use crate::core::reason::Reason;
use crate::core::totals::Totals;
use crate::telemetry::names;

#[derive(Debug)]
struct StateLimit {
    key: &'static str,
    /// Rejections counted so far; `None` before the first look. Rejections before it came with the checkpoint and were
    /// counted by an earlier run.
    seen: Option<u64>,
    warned: bool,
}

/// Counts the readings that each limit rejected, and warns once per limit and run.
#[derive(Debug)]
pub(super) struct StateLimits(Vec<StateLimit>);

impl StateLimits {
    pub(super) fn new() -> Self {
        let keys = DeviceLimit::NAMES.into_iter().chain(["limits.metrics_per_device"]);
        Self(keys.map(|key| StateLimit { key, seen: None, warned: false }).collect())
    }

    /// Looks at the present totals.
    pub(super) fn look(&mut self, totals: &Totals) {
        let metrics = totals.rejected[Reason::TooManyMetrics as usize];
        for (limit, count) in self.0.iter_mut().zip(totals.devices_refused.into_iter().chain([metrics])) {
            let refused = count - limit.seen.replace(count).unwrap_or(count);
            counter!(names::LIMITS_HIT, "limit" => limit.key).increment(refused);
            if refused > 0 && !limit.warned {
                limit.warned = true;
                tracing::warn!(limit = limit.key, "readings are rejected at a limit; raise it if the fleet has grown");
            }
        }
    }
}
