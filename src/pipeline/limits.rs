//! Warns when a limit of the state rejects readings.

use metrics::counter;

use crate::core::reason::Reason;
use crate::core::totals::Totals;
use crate::telemetry::names;

#[derive(Debug)]
struct StateLimit {
    key: &'static str,
    reason: Reason,
    /// Rejections counted so far; `None` before the first look. Rejections before it came with the checkpoint and were
    /// counted by an earlier run.
    seen: Option<u64>,
    warned: bool,
}

/// Counts the readings that each limit rejected, and warns once per limit and run.
#[derive(Debug)]
pub(super) struct StateLimits([StateLimit; 2]);

impl StateLimits {
    pub(super) fn new() -> Self {
        let limit = |key, reason| StateLimit { key, reason, seen: None, warned: false };
        Self([
            limit("limits.devices", Reason::TooManyDevices),
            limit("limits.metrics_per_device", Reason::TooManyMetrics),
        ])
    }

    /// Looks at the present totals.
    pub(super) fn look(&mut self, totals: &Totals) {
        for limit in &mut self.0 {
            let count = totals.rejected[limit.reason as usize];
            let refused = count - limit.seen.replace(count).unwrap_or(count);
            counter!(names::LIMITS_HIT, "limit" => limit.key).increment(refused);
            if refused > 0 && !limit.warned {
                limit.warned = true;
                tracing::warn!(limit = limit.key, "readings are rejected at a limit; raise it if the fleet has grown");
            }
        }
    }
}
