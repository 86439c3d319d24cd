//! Timers of hyper, for the time that the head of a request may take. They begin anew after a stall of the process.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

use crate::stall;

/// Makes hyper's timers.
#[derive(Debug, Clone, Copy)]
pub(super) struct StallTimer;

struct StallSleep(Pin<Box<dyn Future<Output = ()> + Send + Sync>>);

impl Future for StallSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl Sleep for StallSleep {}

impl Timer for StallTimer {
    fn sleep(&self, limit: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(StallSleep(Box::pin(stall::sleep(limit))))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(Instant::now()))
    }
}
