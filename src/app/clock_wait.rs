//! Waits at the start until the kernel says that its clock is synchronised, if the configuration asks for it.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use weir::clock::Clock;

use super::notify;

/// Time between two looks at the clock.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Time between two messages to the service manager.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Time that the service manager gives the start from each message on. It is that of the unit file (`TimeoutStartSec`), so
/// that the start has as long after the wait as it has without one.
const START_LIMIT: Duration = Duration::from_secs(300);

/// Waits for a synchronised clock, at most for `limit`. Nothing is listening meanwhile, so that nothing is stored with a wrong
/// time.
pub fn wait_for_clock(clock: &dyn Clock, limit: Duration) {
    let begun = Instant::now();
    let mut told: Option<Instant> = None;
    loop {
        match clock.is_synchronized() {
            Some(true) => {
                if told.is_some() {
                    tracing::info!(took = ?begun.elapsed(), "the clock is synchronised");
                }
                return;
            }
            None => {
                tracing::warn!(
                    "the kernel does not tell whether its clock is synchronised: node.wait_for_clock has no effect"
                );
                return;
            }
            Some(false) => {}
        }
        let left = limit.saturating_sub(begun.elapsed());
        if left.is_zero() {
            tracing::warn!(
                waited = ?limit,
                "the clock is not synchronised: weir starts all the same (node.wait_for_clock). Once the clock is set, journal time \
                 follows it"
            );
            return;
        }
        if told.is_none() {
            tracing::info!(at_most = ?limit, "waiting until the kernel says that its clock is synchronised (node.wait_for_clock)");
        }
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            told = Some(Instant::now());
            let limit_us = u32::try_from(START_LIMIT.as_micros()).unwrap_or(u32::MAX);
            let status = format!("waiting for a synchronised clock, at most {} s more", left.as_secs());
            notify::send(&[NotifyState::ExtendTimeoutUsec(limit_us), NotifyState::Status(&status)]);
        }
        std::thread::sleep(LOOK_EVERY.min(left));
    }
}
