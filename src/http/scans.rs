//! Work on the output logs for a request: a few at a time, on threads that may wait for the disk.

use tokio::sync::TryAcquireError;

use crate::http::problem::ApiProblem;
use crate::http::state::ApiShared;
use crate::results::error::ScanError;
use crate::telemetry::names;

/// Runs `scan` on a thread that may wait, if fewer than [`MAX_SCANS`](super::limits::MAX_SCANS) run.
///
/// # Errors
/// Too many scans run, or this one failed.
pub(super) async fn run_scan<T: Send + 'static>(
    state: &ApiShared,
    scan: impl FnOnce() -> Result<T, ScanError> + Send + 'static,
) -> Result<T, ApiProblem> {
    let permit = match state.scans.clone().try_acquire_owned() {
        Ok(permit) => permit,
        Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
            metrics::counter!(names::LIMITS_HIT, "limit" => "http_scans").increment(1);
            return Err(ApiProblem::unavailable("other requests are reading results just now; try again in a second"));
        }
    };
    let scanned = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        scan()
    });
    Ok(scanned.await??)
}
