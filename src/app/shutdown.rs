//! What ends the process: a signal, or a part that cannot go on.

use std::panic::AssertUnwindSafe;

use anyhow::anyhow;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::exit;

/// Failures that wait to be looked at; one is enough to end the process.
const MAX_FAILURES: usize = 16;

/// Why the process ends.
#[derive(Debug)]
pub enum StopCause {
    /// SIGTERM or SIGINT.
    Signal(&'static str),
    /// A part failed.
    Failure(anyhow::Error),
}

/// Reports that a part cannot go on. Clones report to the same place.
#[derive(Debug, Clone)]
pub struct FailureReporter {
    sender: mpsc::Sender<anyhow::Error>,
}

impl FailureReporter {
    /// The reporting end and the one that is listened to.
    pub fn new() -> (Self, mpsc::Receiver<anyhow::Error>) {
        let (sender, receiver) = mpsc::channel(MAX_FAILURES);
        (Self { sender }, receiver)
    }

    /// Reports a failure. Beyond the first few nothing is added: the process is ending.
    pub fn report(&self, error: anyhow::Error) {
        let _ = self.sender.try_send(error);
    }

    /// Starts a thread whose error or panic ends the process.
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

/// Signals that end weir in an orderly way. Before these exist they end it at once, so they come before anything is served.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// From now on SIGTERM and SIGINT wait to be looked at.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the first cause to end.
    pub async fn wait(mut self, failures: &mut mpsc::Receiver<anyhow::Error>) -> StopCause {
        tokio::select! {
            _ = self.terminate.recv() => StopCause::Signal("SIGTERM"),
            _ = self.interrupt.recv() => StopCause::Signal("SIGINT"),
            Some(error) = failures.recv() => StopCause::Failure(error),
        }
    }
}

/// SIGHUPs from now on; they no longer end the process.
pub fn hangups() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// From now on a signal ends the process at once, which is safe: recovery is the tested path.
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
