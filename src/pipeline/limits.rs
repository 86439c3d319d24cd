//! Says when a limit of the state refuses readings.

use metrics::counter;

use crate::core::reason::Reason;
use crate::core::totals::Totals;
use crate::telemetry::names;

#[derive(Debug)]
struct StateLimit {
    key: &'static str,
    reason: Reason,
    /// Rejections so far; `None` before the first look: what a checkpoint brings is not news.
    seen: Option<u64>,
    warned: bool,
}

/// Counts what each limit refused, and warns once per limit and run.
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

    /// Takes the totals of now.
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
