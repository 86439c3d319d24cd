//! Causes to end the process: a signal, or the failure of a part.

use std::panic::AssertUnwindSafe;

use anyhow::anyhow;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::exit;

/// Largest number of failures in the queue. One is enough to end the process.
const MAX_FAILURES: usize = 16;

/// Why the process ends.
#[derive(Debug)]
pub enum StopCause {
    /// The signal SIGTERM or SIGINT, by name.
    Signal(&'static str),
    /// A part cannot continue.
    Failure(anyhow::Error),
}

/// Reports failures of parts. Clones report to the same receiver.
#[derive(Debug, Clone)]
pub struct FailureReporter {
    sender: mpsc::Sender<anyhow::Error>,
}

impl FailureReporter {
    /// A reporter and the receiver of its failures.
    pub fn new() -> (Self, mpsc::Receiver<anyhow::Error>) {
        let (sender, receiver) = mpsc::channel(MAX_FAILURES);
        (Self { sender }, receiver)
    }

    /// Reports a failure. A failure is dropped when the queue is full: the process is ending already.
    pub fn report(&self, error: anyhow::Error) {
        let _ = self.sender.try_send(error);
    }

    /// Starts a thread whose error or panic ends the process.
    ///
    /// # Errors
    /// The operating system cannot start a thread.
    pub fn spawn(
        &self,
        name: &'static str,
        work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        let failures = self.clone();
        std::thread::Builder::new().name(name.into()).spawn(move || {
            match std::panic::catch_unwind(AssertUnwindSafe(work)) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failures.report(error),
                Err(_) => failures.report(anyhow!("the {name} thread panicked; please report this defect")),
            }
        })
    }
}

/// Signals that stop weir in an orderly way. Without these handlers a signal ends the process at once, so they are
/// installed before anything is served.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Installs handlers for SIGTERM and SIGINT.
    ///
    /// # Errors
    /// The operating system refuses a handler.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the first cause to stop.
    pub async fn wait(mut self, failures: &mut mpsc::Receiver<anyhow::Error>) -> StopCause {
        tokio::select! {
            _ = self.terminate.recv() => StopCause::Signal("SIGTERM"),
            _ = self.interrupt.recv() => StopCause::Signal("SIGINT"),
            Some(error) = failures.recv() => StopCause::Failure(error),
        }
    }
}

/// Installs a handler for SIGHUP, which otherwise ends the process.
///
/// # Errors
/// The operating system refuses the handler.
pub fn hangups() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Makes a further SIGTERM or SIGINT end the process at once. This is safe: the next start recovers from the journal.
///
/// # Errors
/// The operating system refuses a handler.
pub fn exit_on_second_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("second signal: exiting at once; the next start replays the journal");
        std::process::exit(exit::FAILURE.into());
    });
    Ok(())
}
