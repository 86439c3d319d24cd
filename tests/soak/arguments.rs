//! The command line.

use std::fmt;
use std::path::PathBuf;

use weir_test_kit::wait::now_ms;

const SHORT_SECONDS: u64 = 20;
const USAGE: &str = "known are --minutes N, --seconds N, --seed N, --report FILE, --rate N, --keep-running";

/// What to run.
#[derive(Debug)]
pub struct SoakArguments {
    pub seconds: u64,
    pub seed: u64,
    pub report: Option<PathBuf>,
    /// Messages per second of the whole fleet.
    pub rate: u64,
    /// No faults that end the process.
    pub keep_running: bool,
}

impl SoakArguments {
    /// `None`: nothing is to be run. `cargo test` gives every test program the options of the usual test harness; of
    /// those only a filter matters.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut parsed =
            Self { seconds: SHORT_SECONDS, seed: now_ms() as u64, report: None, rate: 2_000, keep_running: false };
        while let Some(argument) = arguments.next() {
            let mut number = || {
                let value = arguments.next().and_then(|text| text.parse::<u64>().ok());
                value.ok_or_else(|| format!("{argument} needs a whole number; {USAGE}"))
            };
            match argument.as_str() {
                "--minutes" => parsed.seconds = number()? * 60,
                "--seconds" => parsed.seconds = number()?,
                "--seed" => parsed.seed = number()?,
                "--rate" => parsed.rate = number()?.max(1),
                "--keep-running" => parsed.keep_running = true,
                "--report" => parsed.report = Some(arguments.next().ok_or(USAGE)?.into()),
                "--list" => {
                    println!("soak: test");
                    return Ok(None);
                }
                "--test-threads" | "--skip" | "--format" | "--color" | "--logfile" => drop(arguments.next()),
                option if option.starts_with('-') => {}
                filter if "soak".contains(filter) => {}
                _ => return Ok(None),
            }
        }
        Ok(Some(parsed))
    }

    /// Whether the run is long enough for a steady state.
    pub fn is_long(&self) -> bool {
        self.seconds >= 600
    }
}

impl fmt::Display for SoakArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--seconds {} --seed {} --rate {}", self.seconds, self.seed, self.rate)?;
        if self.keep_running { write!(f, " --keep-running") } else { Ok(()) }
    }
}
