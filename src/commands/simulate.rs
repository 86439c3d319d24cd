//! `weir simulate`: runs a fleet, shows its progress, and prints its result.

use std::convert::Infallible;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use weir::client::HttpClient;
use weir::clock::{Clock, SystemClock};
use weir::config::Config;
use weir::simulator::progress::{FleetCounts, FleetProgress};
use weir::simulator::verify::{Expectations, Verification, verify};
use weir::simulator::{self, FleetReport, SimulateArguments, SimulatorError};
use weir::telemetry;

use crate::exit;

/// Time between two progress lines: on a terminal, and elsewhere.
const PROGRESS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Result of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct SimulationResult {
    /// Counts of the messages that were sent.
    pub report: FleetReport,
    /// Result of the verification; `None` without --verify.
    pub verification: Option<Verification>,
}

impl SimulationResult {
    /// Whether the exit code is 0.
    pub fn passed(&self) -> bool {
        self.verification.as_ref().is_none_or(Verification::passed)
    }
}

impl fmt::Display for SimulationResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FleetCounts { produced, published, readings, acknowledged, connections, errors, .. } = &self.report.totals;
        writeln!(
            f,
            "sent {produced} messages in {published} publishes ({readings} readings) over {connections} connections in \
             {:.1} s: {acknowledged} publishes acknowledged, {errors} connection errors",
            self.report.elapsed.as_secs_f64()
        )?;
        match &self.verification {
            Some(verification) => write!(f, "{verification}"),
            None => Ok(()),
        }
    }
}

/// Runs `weir simulate` and prints its result.
///
/// # Errors
/// An option cannot be used, or the devices cannot connect. A failed verification is an exit code.
pub fn run(arguments: SimulateArguments, config: &Config) -> anyhow::Result<ExitCode> {
    telemetry::logging::init(&config.log.level, config.log.format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let verdict = runtime.block_on(simulate(arguments, config))?;
    print!("{verdict}");
    Ok(if verdict.passed() { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILURE) })
}

/// Runs the fleet that arguments and configuration describe, until its length is reached or the process is interrupted.
/// Shows progress on standard error, and verifies the results if --verify is given.
///
/// # Errors
/// [`SimulatorError`] when the run could not begin. A failed verification is a [`SimulationResult`].
async fn simulate(arguments: SimulateArguments, config: &Config) -> Result<SimulationResult, SimulatorError> {
    let options = arguments.options(config, SystemClock.now_ms())?;
    // Before the run: a missing token must not show after an hour.
    let client = arguments.verify.then(|| HttpClient::new(&arguments.http_url(config), &arguments.api)).transpose()?;
    let expectations = Expectations::new(config, &options);
    let (devices, address) = (options.devices, options.address);
    eprintln!("{devices} devices {}-… towards {address}, seed {}", options.prefix, options.seed);
    let cancel = CancellationToken::new();
    let progress = Arc::new(FleetProgress::default());
    let running = simulator::run(options, cancel.clone(), Arc::clone(&progress));
    tokio::pin!(running);
    let report = tokio::select! {
        report = &mut running => report?,
        never = show(&progress, devices) => match never {},
        () = interrupted() => {
            cancel.cancel();
            eprintln!("interrupted: waiting for missing acknowledgements");
            tokio::select! {
                report = &mut running => report?,
                never = show(&progress, devices) => match never {},
            }
        }
    };
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    let verification = match client {
        Some(client) => {
            eprintln!("asking {} for windows and errors", client.base());
            Some(verify(&report.ledgers, &expectations, &client).await)
        }
        None => None,
    };
    Ok(SimulationResult { report, verification })
}

/// Shows a progress line at an interval, forever.
async fn show(progress: &FleetProgress, devices: usize) -> Infallible {
    let terminal = std::io::stderr().is_terminal();
    let mut ticks = interval(if terminal { PROGRESS.0 } else { PROGRESS.1 });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut before = (progress.snapshot(), Instant::now());
    loop {
        ticks.tick().await;
        let now = (progress.snapshot(), Instant::now());
        let line = now.0.line(&before.0, (now.1 - before.1).as_secs_f64(), devices);
        let mut stderr = std::io::stderr().lock();
        // A closed terminal is no reason to stop sending.
        let _ = if terminal { write!(stderr, "\r\x1b[K{line}") } else { writeln!(stderr, "{line}") };
        let _ = stderr.flush();
        before = now;
    }
}

async fn interrupted() {
    // Without a signal handler Ctrl-C ends the process at once, which is fine too.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(differences: Option<Vec<String>>) -> SimulationResult {
        let verification = differences.map(|differences| Verification {
            devices: 1,
            readings: 2,
            windows: 1,
            differing: differences.len(),
            differences,
            ..Verification::default()
        });
        SimulationResult { report: FleetReport::default(), verification }
    }

    #[test]
    fn only_a_failed_verification_fails() {
        assert!(verdict(None).passed());
        assert!(verdict(Some(Vec::new())).passed());
        assert!(!verdict(Some(vec!["one reading is missing".into()])).passed());
    }

    #[test]
    fn the_verdict_names_what_differs() {
        let text = verdict(Some(vec!["one reading is missing".into()])).to_string();
        assert!(text.contains("sent 0 messages") && text.contains("one reading is missing"), "{text}");
    }
}
