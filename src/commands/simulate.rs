//! `weir simulate`: a run with a progress line, and its verdict.

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

/// Time between two progress lines on a terminal, and elsewhere.
const PROGRESS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// How a run of `weir simulate` ended.
#[derive(Debug, Clone, PartialEq)]
pub struct SimulationResult {
    /// What was sent.
    pub report: FleetReport,
    /// What came out, with `--verify`.
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
pub fn run(arguments: SimulateArguments, config: &Config) -> anyhow::Result<ExitCode> {
    telemetry::logging::init(&config.log.level, config.log.format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let verdict = runtime.block_on(simulate(arguments, config))?;
    print!("{verdict}");
    Ok(if verdict.passed() { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILURE) })
}

/// Runs the fleet that the arguments and the config describe, until its length is reached or the process is
/// interrupted; shows progress on standard error; verifies where that is asked for.
///
/// # Errors
/// [`SimulatorError`] when the run could not begin. A failed verification is a [`SimulationResult`].
async fn simulate(arguments: SimulateArguments, config: &Config) -> Result<SimulationResult, SimulatorError> {
    let options = arguments.options(config, SystemClock.now_ms())?;
    // Before the run: nobody wants to learn after an hour that the token is missing.
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

/// Shows a line now and then, for ever.
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
    // Without a signal handler the process ends at once, which is what the user wanted.
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
