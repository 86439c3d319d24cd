//! Command line options of `weir simulate`, and the options of the fleet that are built from them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::access::secret_file;
use crate::client;
use crate::client::ApiArguments;
use crate::config::{Config, parse_duration};
use crate::simulator::SimulatorError;
use crate::simulator::compatible;
use crate::simulator::format::DeviceFormat;
use crate::simulator::options::{FleetCredentials, FleetOptions, RunLength};

/// Longest wait of `weir simulate` for missing acknowledgements at its end. A restart of weir takes less.
const DRAIN: Duration = Duration::from_secs(30);
/// Environment variable that holds the password when --password-file is not given. There is no option for the password
/// itself: every user of the machine sees the arguments of a process.
const PASSWORD_VARIABLE: &str = "WEIR_PASSWORD";
/// Length of a run with --verify and without a given length.
const DEFAULT_VERIFIED: Duration = Duration::from_secs(30);

/// Options of `weir simulate`. Their defaults come from the section `simulator` of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct SimulateArguments {
    /// Form in which the devices publish
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    pub format: DeviceFormat,
    /// MQTT listener [default: mqtt.listen of the config]
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<SocketAddr>,
    /// User name of all devices; the user's role must allow publishing for every device, as the role bridge does
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// File with the user's password [default: the variable WEIR_PASSWORD]
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// Base URL of the HTTP API for --verify [default: http.listen of the config]
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    pub http: Option<String>,
    /// Number of devices
    #[arg(long, value_name = "N")]
    pub devices: Option<usize>,
    /// Time between two messages of a device, such as 500ms; 0s to send as fast as acknowledgements allow
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub interval: Option<Duration>,
    /// Number of messages of each device, after which the run ends
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    pub messages: Option<u64>,
    /// Length of the run [default without --messages: until interrupted; with --verify: 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Metrics of each device, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub metrics: Option<Vec<String>>,
    /// QoS of publishes
    #[arg(long, value_name = "0|1|2", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: Option<u8>,
    /// Largest number of unacknowledged publishes of one device [default: 100]
    #[arg(long, value_name = "N")]
    pub in_flight: Option<u16>,
    /// Largest distance of an event time behind the device's clock
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub disorder: Option<Duration>,
    /// Largest error of a device's clock, in both directions
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub clock_skew: Option<Duration>,
    /// Share of devices that go offline now and then and come back with a backlog
    #[arg(long, value_name = "0..1")]
    pub offline_share: Option<f64>,
    /// Share of messages that are published twice
    #[arg(long, value_name = "0..1")]
    pub redelivery_share: Option<f64>,
    /// Share of messages that are not readings
    #[arg(long, value_name = "0..1")]
    pub malformed_share: Option<f64>,
    /// Share of messages that report a fault of the device; only weir's own form has them
    #[arg(long, value_name = "0..1")]
    pub fault_share: Option<f64>,
    /// Share of messages after which the device loses its connection without waiting for acknowledgements
    #[arg(long, value_name = "0..1")]
    pub churn_share: Option<f64>,
    /// Seed of all random choices
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Prefix of device ids, as in PREFIX-00000 [default: sim; with --verify a new prefix for each run]
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Compare weir's windows and errors with the readings that were sent; the exit code is 1 if they differ
    #[arg(long)]
    pub verify: bool,
    /// Options of the HTTP API for --verify.
    #[command(flatten)]
    pub api: ApiArguments,
}

impl SimulateArguments {
    /// The options of a run that starts at `now_ms`.
    ///
    /// # Errors
    /// [`SimulatorError::Invalid`] when a value is out of its range, or the password cannot be read.
    pub fn options(&self, config: &Config, now_ms: i64) -> Result<FleetOptions, SimulatorError> {
        let mut options = FleetOptions::from_config(config, format!("{now_ms:x}"));
        options.format = self.format;
        if self.format != DeviceFormat::Native {
            options.fault_share = 0.0;
        }
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        set(&mut options.address, self.address);
        options.credentials = self.credentials()?;
        set(&mut options.devices, self.devices);
        set(&mut options.interval, self.interval);
        set(&mut options.metrics, self.metrics.clone());
        set(&mut options.qos, self.qos);
        set(&mut options.in_flight, self.in_flight);
        set(&mut options.disorder_ms, self.disorder.map(ms));
        set(&mut options.clock_skew_ms, self.clock_skew.map(ms));
        set(&mut options.offline_share, self.offline_share);
        set(&mut options.redelivery_share, self.redelivery_share);
        set(&mut options.malformed_share, self.malformed_share);
        set(&mut options.fault_share, self.fault_share);
        set(&mut options.churn_share, self.churn_share);
        set(&mut options.seed, self.seed);
        options.length = match (self.messages, self.duration) {
            (Some(messages), _) => RunLength::Messages(messages),
            (None, Some(duration)) => RunLength::Time(duration),
            (None, None) if self.verify => RunLength::Time(DEFAULT_VERIFIED),
            (None, None) => RunLength::Endless,
        };
        options.drain = DRAIN;
        options.record = self.verify;
        if self.verify {
            // No earlier run used this prefix, so all results of these devices belong to this run.
            options.prefix = format!("sim-{:x}-{now_ms:x}", options.seed);
            check_clocks(&options, config)?;
        }
        set(&mut options.prefix, self.prefix.clone());
        options.check()?;
        compatible::check(&options, config)?;
        Ok(options)
    }

    fn credentials(&self) -> Result<Option<FleetCredentials>, SimulatorError> {
        let Some(user) = self.user.clone() else { return Ok(None) };
        let password = match &self.password_file {
            Some(path) => {
                let text = secret_file::read(path)
                    .map_err(|error| SimulatorError::Invalid(format!("--password-file: {error}")))?;
                text.lines().next().unwrap_or_default().to_owned()
            }
            None => std::env::var(PASSWORD_VARIABLE).map_err(|_| {
                SimulatorError::Invalid(format!("--user needs --password-file or the variable {PASSWORD_VARIABLE}"))
            })?,
        };
        Ok(Some(FleetCredentials { user, password }))
    }

    /// Base URL of the HTTP API.
    pub fn http_url(&self, config: &Config) -> String {
        client::base_url(self.http.as_deref(), config)
    }
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

/// Refuses clock errors for which weir would reject readings: such a run could not be verified.
fn check_clocks(options: &FleetOptions, config: &Config) -> Result<(), SimulatorError> {
    let off = |limit: Option<i64>, by: u64| limit.is_some_and(|limit| i64::try_from(by).map_or(true, |by| by >= limit));
    if off(config.validate.max_future_ms, options.clock_skew_ms) {
        return Err(SimulatorError::Invalid(
            "the clock skew reaches validate.max_future: such readings are rejected; give a smaller --clock-skew"
                .into(),
        ));
    }
    if off(config.validate.max_age_ms, options.clock_skew_ms.saturating_add(options.disorder_ms)) {
        return Err(SimulatorError::Invalid(
            "clock skew and disorder reach validate.max_age: such readings are rejected; give smaller ones".into(),
        ));
    }
    Ok(())
}

fn parse_url(text: &str) -> Result<String, String> {
    match client::split(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("give it as http://HOST:PORT or https://HOST:PORT".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MapState;
    use clap::{Parser, ValueEnum};

    #[derive(Parser)]
    struct SimulateCommand {
        #[command(flatten)]
        arguments: SimulateArguments,
    }

    fn parse(line: &str) -> Result<SimulateArguments, clap::Error> {
        SimulateCommand::try_parse_from(std::iter::once("simulate").chain(line.split_whitespace()))
            .map(|command| command.arguments)
    }

    fn options(line: &str) -> Result<FleetOptions, SimulatorError> {
        parse(line).unwrap().options(&Config::default(), 0x1000)
    }

    #[test]
    fn without_arguments_the_config_decides() {
        let options = options("").unwrap();
        let config = Config::default().simulator;
        assert_eq!(options.devices, config.devices);
        assert_eq!(options.metrics, config.metrics);
        assert_eq!(options.length, RunLength::Endless);
        assert_eq!((options.prefix.as_str(), options.record), ("sim", false));
    }

    #[test]
    fn arguments_win_over_the_config() {
        let line = "--address 10.0.0.1:1 --devices 3 --interval 0s --messages 7 --metrics a,b --qos 2 --disorder 1s \
                    --clock-skew 2s --offline-share 0.1 --redelivery-share 0.2 --malformed-share 0.3 \
                    --fault-share 0.4 --churn-share 0.5 --seed 9 --prefix p --in-flight 5";
        let options = options(line).unwrap();
        assert_eq!(options.address.to_string(), "10.0.0.1:1");
        assert_eq!((options.devices, options.interval, options.length), (3, Duration::ZERO, RunLength::Messages(7)));
        assert_eq!(options.metrics, ["a", "b"]);
        assert_eq!((options.qos, options.in_flight, options.seed), (2, 5, 9));
        assert_eq!((options.disorder_ms, options.clock_skew_ms), (1_000, 2_000));
        assert_eq!((options.offline_share, options.redelivery_share, options.malformed_share), (0.1, 0.2, 0.3));
        assert_eq!((options.fault_share, options.churn_share, options.prefix.as_str()), (0.4, 0.5, "p"));
    }

    #[test]
    fn a_verified_run_ends_and_has_a_prefix_of_its_own() {
        let options = options("--verify --seed 10").unwrap();
        assert_eq!(options.prefix, "sim-a-1000");
        assert_eq!(options.length, RunLength::Time(DEFAULT_VERIFIED));
        assert!(options.record);
    }

    #[test]
    fn a_clock_that_makes_readings_wrong_cannot_be_verified() {
        assert!(options("--verify --clock-skew 5m").is_err());
        assert!(options("--clock-skew 5m").is_ok());
        assert!(options("--verify --disorder 7d").is_err());
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for line in ["--qos 3", "--messages 1 --duration 1s", "--interval 5", "--http ftp://x", "--address here"] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(options("--churn-share 2").is_err());
    }

    #[test]
    fn a_format_that_no_map_takes_is_refused() {
        let options = |line: &str, config: &Config| parse(line).unwrap().options(config, 0);
        let mut config = Config::default();
        let refused = options("--format shelly_gen2", &config).unwrap_err().to_string();
        assert!(refused.contains("ingest.presets"), "{refused}");
        let optional = config.ingest.maps.iter_mut().filter(|map| map.settings.name == "shelly_gen2");
        optional.for_each(|map| map.state = MapState::On);
        for format in DeviceFormat::value_variants() {
            let line = format!("--format {}", format.to_possible_value().unwrap().get_name());
            assert_eq!(options(&line, &config).unwrap().format, *format);
        }
        let refused = options("--format shelly_gen2 --metrics id", &config).unwrap_err().to_string();
        assert!(refused.contains("does not make the metric switch:0.id"), "{refused}");
    }

    #[test]
    fn the_http_address() {
        let url = |line: &str| parse(line).unwrap().http_url(&Config::default());
        assert_eq!(url(""), "http://127.0.0.1:8080");
        assert_eq!(url("--http https://box:81"), "https://box:81");
    }
}
