//! Every setting and its default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::core::settings::{MetricRange, Settings, TimestampUnit, WatermarkScope};
use crate::telemetry::logging::LogFormat;

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// `[node]`
    pub node: NodeConfig,
    /// `[mqtt]`
    pub mqtt: MqttConfig,
    /// `[ingest]`
    pub ingest: IngestConfig,
    /// `[validate]`
    pub validate: ValidateConfig,
    /// `[dedup]`
    pub dedup: DedupConfig,
    /// `[window]`
    pub window: WindowConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[journal]`
    pub journal: JournalConfig,
    /// `[state]`
    pub state: StateConfig,
    /// `[windows]`
    pub windows: OutputConfig,
    /// `[errors]`
    pub errors: ErrorsConfig,
    /// `[http]`
    pub http: HttpConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[simulator]`
    pub simulator: SimulatorConfig,
}

/// Who this box is.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeConfig {
    /// Name in results' metadata, client ids and metrics; the host's name where config has none.
    pub name: String,
    /// Directory of all durable data.
    pub data_dir: PathBuf,
}

/// The MQTT door.
#[derive(Debug, Clone, PartialEq)]
pub struct MqttConfig {
    /// Address of the MQTT listener.
    pub listen: SocketAddr,
    /// Time a connection has to send its CONNECT.
    pub connect_timeout_ms: u64,
    /// Open connections at most.
    pub max_connections: usize,
    /// Largest packet accepted.
    pub max_packet_size_bytes: usize,
    /// Receive maximum towards clients; the socket is not read beyond it.
    pub max_inflight: u16,
    /// Messages that wait for one subscriber at most.
    pub max_queued_messages: usize,
    /// Their bytes at most, and those of unacknowledged ones.
    pub max_queued_bytes: usize,
    /// Memory of what all sessions hold at most.
    pub max_queued_bytes_total: usize,
    /// Retained messages at most.
    pub max_retained_messages: usize,
    /// Their bytes at most.
    pub max_retained_bytes: usize,
    /// Longest time that a session is kept without a connection; `None`: for ever.
    pub max_session_expiry_ms: Option<i64>,
    /// Longest keep-alive of a 5.0 client; `None`: any.
    pub max_keep_alive_ms: Option<i64>,
    /// Time between two publishes of `$SYS`; `None`: off.
    pub sys_interval_ms: Option<i64>,
    /// Whether clients may connect without credentials; `None`: see [`MqttConfig::allows_anonymous`].
    pub allow_anonymous: Option<bool>,
    /// Open connections from one address at most, from other machines; `None`: off.
    pub max_connections_per_address: Option<usize>,
    /// Subscriptions of one session at most.
    pub max_subscriptions_per_client: usize,
    /// Levels of a topic or filter at most.
    pub max_topic_levels: usize,
    /// How fast one client may send.
    pub rates: RatesConfig,
    /// `[mqtt.auth]`
    pub auth: MqttAuthConfig,
    /// `[mqtt.tls]`
    pub tls: MqttTlsConfig,
}

/// What becomes of a publish of a 3.1.1 client that the access rules deny: there is no reason code to tell it by
/// [MQTT-3.3.5-2].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDeniedPublish {
    /// The connection is closed.
    #[default]
    Disconnect,
    /// It is acknowledged and dropped.
    Ignore,
}

impl Config {
    /// Every listener that is on, with the key that says where.
    pub fn listeners(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let listeners = [
            ("mqtt.listen", Some(self.mqtt.listen)),
            ("mqtt.tls.listen", self.mqtt.tls.listen),
            ("http.listen", Some(self.http.listen)),
            ("http.tls.listen", self.http.tls.listen),
        ];
        listeners.into_iter().filter_map(|(key, address)| Some((key, address?)))
    }
}

impl MqttConfig {
    /// Whether clients may connect without credentials: as configured, else where there is nothing by which clients could
    /// say who they are.
    pub fn allows_anonymous(&self) -> bool {
        let certified = self.tls.listen.is_some() && self.tls.files.client_certificates != ClientCertificates::Off;
        self.allow_anonymous.unwrap_or(self.auth.users.is_none() && !certified)
    }
}

/// Who may connect, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MqttAuthConfig {
    /// The users file; `None`: there is none.
    pub users: Option<PathBuf>,
    /// The ACL file; `None`: the built-in roles only.
    pub acl: Option<PathBuf>,
    /// What becomes of a denied publish of a 3.1.1 client.
    pub on_denied_publish: OnDeniedPublish,
}

/// How fast one client may send; beyond it its socket is read later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RatesConfig {
    /// Publishes per second; `None`: off.
    pub messages_per_second: Option<u32>,
    /// Bytes per second; `None`: off.
    pub bytes_per_second: Option<u64>,
}

/// MQTT over TLS.
#[derive(Debug, Clone, PartialEq)]
pub struct MqttTlsConfig {
    /// Address of the listener; `None`: off.
    pub listen: Option<SocketAddr>,
    /// Certificates.
    pub files: TlsFiles,
    /// Handshakes in progress at most.
    pub max_handshakes: usize,
}

/// HTTP over TLS.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HttpTlsConfig {
    /// Address of the listener; `None`: off.
    pub listen: Option<SocketAddr>,
    /// Certificates.
    pub files: TlsFiles,
}

/// Who a TLS listener is and whom it asks to prove who they are.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TlsFiles {
    /// PEM file: the listener's certificate, then those that lead to the root.
    pub cert: PathBuf,
    /// PEM file: its private key.
    pub key: PathBuf,
    /// PEM file: roots of client certificates; empty: none.
    pub client_ca: PathBuf,
    /// PEM file: which client certificates are revoked; empty: none.
    pub client_crl: PathBuf,
    /// Whether clients show certificates.
    pub client_certificates: ClientCertificates,
}

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    Off,
    /// They are asked; without one they are as anonymous as over plain TCP.
    Optional,
    /// Without one there is no connection.
    Required,
}

/// What is journaled and how payloads are read.
#[derive(Debug, Clone, PartialEq)]
pub struct IngestConfig {
    /// Patterns of topics that carry readings.
    pub telemetry_topics: Vec<String>,
    /// Patterns of topics that carry faults reported by devices.
    pub error_topics: Vec<String>,
    /// Unit of numeric timestamps.
    pub timestamp_unit: TimestampUnit,
    /// Whether numeric strings are values.
    pub numeric_strings: bool,
    /// Readings in one message at most.
    pub max_readings_per_message: usize,
}

/// Which readings are right.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidateConfig {
    /// Event times further ahead are rejected; `None`: off.
    pub max_future_ms: Option<i64>,
    /// Event times further behind are rejected; `None`: off.
    pub max_age_ms: Option<i64>,
    /// Devices that may send; empty: all.
    pub allowed_devices: Vec<String>,
    /// `[validate.metrics.NAME]`
    pub metrics: BTreeMap<String, MetricRange>,
}

/// Deduplication.
#[derive(Debug, Clone, PartialEq)]
pub struct DedupConfig {
    /// Whether it is on.
    pub enabled: bool,
}

/// Event-time windows.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowConfig {
    /// Length.
    pub size_ms: i64,
    /// Whose event time closes windows.
    pub watermark: WatermarkScope,
    /// How far the watermark stays behind the newest event time.
    pub out_of_orderness_ms: i64,
    /// How long a fired window accepts readings.
    pub allowed_lateness_ms: i64,
    /// Silence after which windows close without data; `None`: off.
    pub idle_timeout_ms: Option<i64>,
}

/// Bounds of the state.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitsConfig {
    /// Devices at most.
    pub devices: usize,
    /// Metrics of one device at most.
    pub metrics_per_device: usize,
}

/// The write-ahead log.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalConfig {
    /// A segment is closed at this size.
    pub segment_size_bytes: u64,
    /// Kept beyond what recovery needs; `None`: off.
    pub retention_ms: Option<i64>,
    /// Bound of what retention keeps.
    pub retention_bytes: u64,
    /// Group commit cap.
    pub commit_max_bytes: usize,
    /// Below this much free space sockets are not read.
    pub min_free_disk_bytes: u64,
}

/// Checkpoints and savepoints.
#[derive(Debug, Clone, PartialEq)]
pub struct StateConfig {
    /// Time between checkpoints.
    pub checkpoint_interval_ms: u64,
    /// Silence after which a device is forgotten; `None`: off.
    pub device_ttl_ms: Option<i64>,
    /// Time between automatic savepoints; `None`: off.
    pub savepoint_interval_ms: Option<u64>,
    /// Automatic savepoints kept.
    pub savepoints_kept: usize,
}

/// An output log.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputConfig {
    /// Entries older than this go; `None`: off.
    pub retention_ms: Option<i64>,
    /// Bound of its size.
    pub retention_bytes: u64,
    /// Whether entries are published over MQTT.
    pub publish: bool,
}

/// The errors log.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorsConfig {
    /// As for windows.
    pub output: OutputConfig,
    /// Whether duplicates are stored.
    pub store_duplicates: bool,
}

/// The HTTP server.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpConfig {
    /// Address of the HTTP listener.
    pub listen: SocketAddr,
    /// Whether requests need no token; `None`: see [`HttpConfig::allows_anonymous`].
    pub allow_anonymous: Option<bool>,
    /// Series in /metrics/devices at most.
    pub metrics_max_series: usize,
    /// Series whose last window ended longer ago are left out.
    pub metrics_series_ttl_ms: i64,
    /// Web origins beside the server's own whose pages may open MQTT over WebSocket; `*`: all.
    pub websocket_origins: Vec<String>,
    /// `[http.auth]`
    pub auth: HttpAuthConfig,
    /// `[http.tls]`
    pub tls: HttpTlsConfig,
}

impl HttpConfig {
    /// Whether requests need no token: as configured, else where there are no tokens.
    pub fn allows_anonymous(&self) -> bool {
        self.allow_anonymous.unwrap_or(self.auth.tokens.is_none())
    }

    /// Listeners that other machines reach, each with its key.
    pub fn exposed(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let listeners = [("http.listen", Some(self.listen)), ("http.tls.listen", self.tls.listen)];
        let exposed = |(key, address): (_, Option<SocketAddr>)| Some((key, address?));
        listeners.into_iter().filter_map(exposed).filter(|(_, address)| !address.ip().is_loopback())
    }

    /// Those of them that need no token although nobody said so.
    pub fn open_by_accident(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let accident = self.allow_anonymous.is_none() && self.allows_anonymous();
        self.exposed().filter(move |_| accident)
    }
}

/// Who may use the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpAuthConfig {
    /// The tokens file; `None`: there is none.
    pub tokens: Option<PathBuf>,
    /// Whether metrics need a token too.
    pub metrics: MetricsAccess,
}

/// Whether `/metrics` and `/metrics/devices` need a token where the API does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetricsAccess {
    /// As the API.
    #[default]
    Token,
    /// Never.
    Open,
}

/// weir's own log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// Level or filter directives.
    pub level: String,
    /// Form.
    pub format: LogFormat,
}

/// The device fleet inside `weir run`, and the defaults of `weir simulate`.
#[derive(Debug, Clone, PartialEq)]
pub struct SimulatorConfig {
    /// Whether `weir run` starts it.
    pub enabled: bool,
    /// Devices.
    pub devices: usize,
    /// Time between two messages of a device.
    pub interval_ms: u64,
    /// Metrics of each device.
    pub metrics: Vec<String>,
    /// QoS of publishes.
    pub qos: u8,
    /// Event times are out of order by up to this.
    pub disorder_ms: u64,
    /// Clocks are wrong by up to this, either way.
    pub clock_skew_ms: u64,
    /// Share of devices that go away and come back with a backlog.
    pub offline_share: f64,
    /// Share of messages sent again.
    pub redelivery_share: f64,
    /// Share of messages that are not readings.
    pub malformed_share: f64,
    /// Share of messages that report a fault.
    pub fault_share: f64,
    /// Seed of everything random.
    pub seed: u64,
}

const DAY_MS: i64 = 86_400_000;
const KIB: usize = 1024;
const MIB: u64 = 1024 * 1024;

impl Default for NodeConfig {
    fn default() -> Self {
        Self { name: String::new(), data_dir: PathBuf::from("data") }
    }
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
            connect_timeout_ms: 5_000,
            max_connections: 10_000,
            max_packet_size_bytes: 256 * KIB,
            max_inflight: 1_000,
            max_queued_messages: 1_000,
            max_queued_bytes: 1024 * KIB,
            max_queued_bytes_total: 256 * MIB as usize,
            max_retained_messages: 100_000,
            max_retained_bytes: 64 * 1024 * KIB,
            max_session_expiry_ms: Some(30 * 86_400_000),
            max_keep_alive_ms: Some(60_000),
            sys_interval_ms: Some(10_000),
            allow_anonymous: None,
            max_connections_per_address: Some(1_000),
            max_subscriptions_per_client: 20_000,
            max_topic_levels: 201,
            rates: RatesConfig::default(),
            auth: MqttAuthConfig::default(),
            tls: MqttTlsConfig::default(),
        }
    }
}

impl Default for MqttTlsConfig {
    fn default() -> Self {
        Self { listen: None, files: TlsFiles::default(), max_handshakes: 1_000 }
    }
}

impl Default for IngestConfig {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            telemetry_topics: settings.telemetry_topics,
            error_topics: settings.error_topics,
            timestamp_unit: settings.timestamp_unit,
            numeric_strings: settings.numeric_strings,
            max_readings_per_message: settings.max_readings_per_message,
        }
    }
}

impl Default for ValidateConfig {
    fn default() -> Self {
        Self {
            max_future_ms: Some(300_000),
            max_age_ms: Some(7 * DAY_MS),
            allowed_devices: Vec::new(),
            metrics: BTreeMap::new(),
        }
    }
}

impl Default for DedupConfig {
    fn default() -> Self {
        Self { enabled: true }
    }
}

impl Default for WindowConfig {
    fn default() -> Self {
        Self {
            size_ms: 5_000,
            watermark: WatermarkScope::Device,
            out_of_orderness_ms: 2_000,
            allowed_lateness_ms: 30_000,
            idle_timeout_ms: Some(10_000),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { devices: 100_000, metrics_per_device: 256 }
    }
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            segment_size_bytes: 64 * MIB,
            retention_ms: None,
            retention_bytes: 1024 * MIB,
            commit_max_bytes: 4 * MIB as usize,
            min_free_disk_bytes: 256 * MIB,
        }
    }
}

impl Default for StateConfig {
    fn default() -> Self {
        Self {
            checkpoint_interval_ms: 5_000,
            device_ttl_ms: Some(30 * DAY_MS),
            savepoint_interval_ms: Some(3_600_000),
            savepoints_kept: 3,
        }
    }
}

impl Default for OutputConfig {
    fn default() -> Self {
        Self { retention_ms: Some(7 * DAY_MS), retention_bytes: 1024 * MIB, publish: true }
    }
}

impl Default for ErrorsConfig {
    fn default() -> Self {
        Self {
            output: OutputConfig { retention_ms: Some(7 * DAY_MS), retention_bytes: 256 * MIB, publish: true },
            store_duplicates: false,
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            allow_anonymous: None,
            metrics_max_series: 10_000,
            metrics_series_ttl_ms: 300_000,
            websocket_origins: Vec::new(),
            auth: HttpAuthConfig::default(),
            tls: HttpTlsConfig::default(),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            enabled: true,
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
