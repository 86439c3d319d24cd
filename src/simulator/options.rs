//! Options of a fleet: size, load, disorder and faults.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::client::reachable;
use crate::config::{Config, SimulatorConfig};
use crate::simulator::SimulatorError;
use crate::simulator::format::DeviceFormat;

/// Largest number of readings of a verified run, which are held in memory.
const MAX_RECORDED_READINGS: u64 = 20_000_000;

/// When the devices stop producing. Cancelling ends a run earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunLength {
    /// When the run is cancelled.
    Endless,
    /// After this many messages of each device.
    Messages(u64),
    /// After this time.
    Time(Duration),
}

/// User name and password of all devices. Debug output does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct FleetCredentials {
    /// User name.
    pub user: String,
    /// Password of the user.
    pub password: String,
}

impl fmt::Debug for FleetCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Options of a fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetOptions {
    /// Form in which the devices publish.
    pub format: DeviceFormat,
    /// Address of the MQTT listener.
    pub address: SocketAddr,
    /// Credentials of all devices; `None` when they connect without.
    pub credentials: Option<FleetCredentials>,
    /// Prefix of device ids: `{prefix}-{index}`.
    pub prefix: String,
    /// Boot id that each message carries. Each run needs a new value: weir then sees restarted devices and not
    /// redelivery.
    pub boot: String,
    /// Topic of readings; the first `+` stands for the device id.
    pub telemetry_topic: String,
    /// Topic of faults; the first `+` stands for the device id.
    pub error_topic: String,
    /// Number of devices.
    pub devices: usize,
    /// Time between two messages of a device; zero for as fast as acknowledgements allow.
    pub interval: Duration,
    /// When devices stop producing.
    pub length: RunLength,
    /// Metrics of each device, at least one.
    pub metrics: Vec<String>,
    /// QoS of publishes: 0, 1 or 2.
    pub qos: u8,
    /// Largest number of unacknowledged publishes of one device, 1 to 65,534.
    pub in_flight: u16,
    /// Largest distance of an event time behind the device's clock.
    pub disorder_ms: u64,
    /// Largest error of a device's clock, in both directions.
    pub clock_skew_ms: u64,
    /// Share of devices that go offline now and then and come back with a backlog.
    pub offline_share: f64,
    /// Share of messages that are published twice.
    pub redelivery_share: f64,
    /// Share of messages that are not readings.
    pub malformed_share: f64,
    /// Share of messages that report a fault.
    pub fault_share: f64,
    /// Share of messages after which the device loses its connection, without waiting for acknowledgements.
    pub churn_share: f64,
    /// Seed of all random choices.
    pub seed: u64,
    /// Longest wait for missing acknowledgements at the end of the run.
    pub drain: Duration,
    /// Whether the report holds all messages that were sent, as [`crate::simulator::verify`] needs.
    pub record: bool,
}

impl Default for FleetOptions {
    /// The defaults of config.toml, without an end.
    fn default() -> Self {
        Self::from_config(&Config::default(), "0".to_owned())
    }
}

impl FleetOptions {
    /// The fleet and the MQTT listener that `config` describes. `boot` must be new for each run.
    pub fn from_config(config: &Config, boot: String) -> Self {
        let SimulatorConfig { devices, interval_ms, metrics, qos, disorder_ms, clock_skew_ms, .. } =
            config.simulator.clone();
        let first = |topics: &[String], default: &str| topics.first().map_or_else(|| default.to_owned(), Clone::clone);
        Self {
            format: DeviceFormat::Native,
            address: reachable(config.mqtt.listen),
            credentials: None,
            prefix: "sim".to_owned(),
            boot,
            telemetry_topic: first(&config.ingest.telemetry_topics, "devices/+/telemetry"),
            error_topic: first(&config.ingest.error_topics, "devices/+/errors"),
            devices,
            interval: Duration::from_millis(interval_ms),
            length: RunLength::Endless,
            metrics,
            qos,
            in_flight: 100,
            disorder_ms,
            clock_skew_ms,
            offline_share: config.simulator.offline_share,
            redelivery_share: config.simulator.redelivery_share,
            malformed_share: config.simulator.malformed_share,
            fault_share: config.simulator.fault_share,
            churn_share: 0.0,
            seed: config.simulator.seed,
            drain: Duration::from_secs(1),
            record: false,
        }
    }

    /// The id of device `index`.
    pub fn device_id(&self, index: usize) -> String {
        format!("{}-{index:05}", self.prefix)
    }

    /// Whether device `index` goes offline now and then. Such devices are spread evenly over the fleet.
    pub fn goes_offline(&self, index: usize) -> bool {
        let share = self.offline_share;
        ((index as f64 + 1.0) * share).floor() > (index as f64 * share).floor()
    }

    /// Checks the ranges of all options.
    ///
    /// # Errors
    /// [`SimulatorError::Invalid`] with the option and its range.
    pub fn check(&self) -> Result<(), SimulatorError> {
        let shares = [
            ("offline share", self.offline_share),
            ("redelivery share", self.redelivery_share),
            ("malformed share", self.malformed_share),
            ("fault share", self.fault_share),
            ("churn share", self.churn_share),
        ];
        for (name, share) in shares {
            require((0.0..=1.0).contains(&share), || format!("{name} is {share}: give a number from 0 to 1"))?;
        }
        require(self.devices > 0, || "there are no devices: give at least 1".into())?;
        require(!self.metrics.is_empty(), || "there are no metrics: name at least one".into())?;
        require(self.qos <= 2, || format!("qos is {}: give 0, 1 or 2", self.qos))?;
        let in_flight = (1..u16::MAX).contains(&self.in_flight);
        require(in_flight, || format!("in-flight limit is {}: give 1 to 65534", self.in_flight))?;
        let id_characters = self.prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        require(id_characters && (1..=64).contains(&self.prefix.len()), || {
            format!("prefix {:?}: give 1 to 64 letters, digits, '.', '_' or '-'", self.prefix)
        })?;
        for topic in [&self.telemetry_topic, &self.error_topic] {
            let good = topic.matches('+').count() == 1 && !topic.contains('#');
            require(good, || format!("topic {topic:?}: it needs one '+' for the device id, and no '#'"))?;
        }
        self.check_format()?;
        self.check_recording()
    }

    /// Checks what the devices of a family cannot say.
    fn check_format(&self) -> Result<(), SimulatorError> {
        let Some(family) = self.format.map() else { return Ok(()) };
        require(self.fault_share == 0.0, || format!("{family} has no reports of faults: leave --fault-share out"))?;
        let is_plain = |metric: &String| {
            let mut characters = metric.bytes();
            let begins = characters.next().is_some_and(|first| first.is_ascii_alphabetic());
            begins && characters.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let odd = self.metrics.iter().find(|metric| !is_plain(metric));
        require(odd.is_none(), || {
            let odd = odd.map_or("", String::as_str);
            format!("metric {odd:?}: with --format give names of letters, digits and '_' that begin with a letter")
        })
    }

    fn check_recording(&self) -> Result<(), SimulatorError> {
        if !self.record {
            return Ok(());
        }
        let messages = match self.length {
            RunLength::Messages(messages) => messages,
            RunLength::Time(time) if !self.interval.is_zero() => {
                (time.as_nanos() / self.interval.as_nanos()).min(u128::from(u64::MAX)) as u64 + 1
            }
            RunLength::Time(_) | RunLength::Endless => {
                return Err(SimulatorError::Invalid(
                    "a verified run needs an end: give a number of messages, or a duration with an interval".into(),
                ));
            }
        };
        let readings = messages.saturating_mul(self.devices as u64).saturating_mul(self.metrics.len() as u64);
        require(readings <= MAX_RECORDED_READINGS, || {
            format!("{readings} readings are too many to verify: at most {MAX_RECORDED_READINGS}; send fewer messages")
        })
    }
}

fn require(good: bool, message: impl FnOnce() -> String) -> Result<(), SimulatorError> {
    if good { Ok(()) } else { Err(SimulatorError::Invalid(message())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut FleetOptions), expected: &str) {
        let mut options = FleetOptions::default();
        change(&mut options);
        let text = options.check().err().map_or_else(String::new, |error| error.to_string());
        assert!(text.contains(expected), "{text:?} does not say {expected:?}");
        assert_eq!(text.is_empty(), expected.is_empty());
    }

    #[test]
    fn faults_are_told() {
        check(|_| (), "");
        check(|options| options.devices = 0, "no devices");
        check(|options| options.metrics.clear(), "no metrics");
        check(|options| options.qos = 3, "give 0, 1 or 2");
        check(|options| options.churn_share = 1.5, "churn share is 1.5");
        check(|options| options.fault_share = f64::NAN, "fault share");
        check(|options| options.in_flight = 0, "in-flight");
        check(|options| options.prefix = "a/b".into(), "prefix");
        check(|options| options.prefix = String::new(), "prefix");
        check(|options| options.telemetry_topic = "devices/#".into(), "one '+'");
        check(|options| options.format = DeviceFormat::Senml, "senml has no reports of faults");
        let tasmota = |options: &mut FleetOptions, metric: &str| {
            (options.format, options.fault_share) = (DeviceFormat::Tasmota, 0.0);
            options.metrics = vec![metric.to_owned()];
        };
        check(|options| tasmota(options, "temperature"), "");
        check(|options| tasmota(options, "a b"), "metric \"a b\"");
    }

    #[test]
    fn a_recorded_run_is_bounded() {
        let record = |length, interval| {
            move |options: &mut FleetOptions| {
                options.record = true;
                options.length = length;
                options.interval = interval;
            }
        };
        let second = Duration::from_secs(1);
        check(record(RunLength::Messages(10), Duration::ZERO), "");
        check(record(RunLength::Time(second), Duration::from_millis(1)), "");
        check(record(RunLength::Time(second), Duration::ZERO), "needs an end");
        check(record(RunLength::Endless, second), "needs an end");
        check(record(RunLength::Messages(u64::MAX), second), "too many to verify");
    }

    #[test]
    fn the_share_of_devices_that_go_away_is_met() {
        let options = FleetOptions { offline_share: 0.25, ..FleetOptions::default() };
        assert_eq!((0..100).filter(|index| options.goes_offline(*index)).count(), 25);
        let none = FleetOptions { offline_share: 0.0, ..FleetOptions::default() };
        assert!((0..100).all(|index| !none.goes_offline(index)));
        let all = FleetOptions { offline_share: 1.0, ..FleetOptions::default() };
        assert!((0..100).all(|index| all.goes_offline(index)));
    }
}
