//! Notices and reports that the process stood still.

use std::time::Duration;

use metrics::counter;
use tokio_util::sync::CancellationToken;

use weir::stall;
use weir::telemetry::names;

/// Watches for stalls of the process until `cancel`.
pub async fn watch(cancel: CancellationToken) {
    counter!(names::STALLS).increment(0);
    counter!(names::STALL_SECONDS).increment(0);
    cancel.run_until_cancelled(stall::watch(report)).await;
}

fn report(length: Duration) {
    counter!(names::STALLS).increment(1);
    counter!(names::STALL_SECONDS).increment(length.as_secs().max(1));
    tracing::warn!(
        seconds = length.as_secs_f64(),
        "the process stood still (stopped, machine paused, or no processor time): time limits of clients begin anew"
    );
}
