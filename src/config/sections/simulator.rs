//! `[simulator]`.

/// The simulated devices of `weir run`, and the defaults of `weir simulate`.
#[derive(Debug, Clone, PartialEq)]
pub struct SimulatorConfig {
    /// Whether `weir run` starts the simulated devices.
    pub enabled: bool,
    /// Number of devices.
    pub devices: usize,
    /// Time between two messages of a device.
    pub interval_ms: u64,
    /// Names of the metrics of each device.
    pub metrics: Vec<String>,
    /// QoS of the publishes.
    pub qos: u8,
    /// Largest disorder of event times.
    pub disorder_ms: u64,
    /// Largest error of a device's clock, in either direction.
    pub clock_skew_ms: u64,
    /// Share of devices that disconnect and return with a backlog.
    pub offline_share: f64,
    /// Share of messages that are sent twice.
    pub redelivery_share: f64,
    /// Share of messages that are not valid readings.
    pub malformed_share: f64,
    /// Share of messages that report a fault.
    pub fault_share: f64,
    /// Seed of the random generator: the same seed makes the same data.
    pub seed: u64,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            devices: 20,
            interval_ms: 1_000,
            metrics: vec!["temperature".into(), "humidity".into(), "vibration".into()],
            qos: 1,
            disorder_ms: 500,
            clock_skew_ms: 0,
            offline_share: 0.0,
            redelivery_share: 0.0,
            malformed_share: 0.01,
            fault_share: 0.005,
            seed: 1,
        }
    }
}
