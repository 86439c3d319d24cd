//! `[mqtt]`, `[mqtt.auth]` and `[mqtt.tls]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::tls::{ClientCertificates, TlsFiles};
use super::units::{DAY_MS, KIB, MIB};

/// The MQTT broker.
#[derive(Debug, Clone, PartialEq)]
pub struct MqttConfig {
    /// Address of the MQTT listener.
    pub listen: SocketAddr,
    /// Time within which a new connection must send its CONNECT.
    pub connect_timeout_ms: u64,
    /// Largest number of open connections.
    pub max_connections: usize,
    /// Largest packet that is accepted.
    pub max_packet_size_bytes: usize,
    /// Largest CONNECT without a will that is accepted.
    pub max_connect_size_bytes: usize,
    /// Largest number of unacknowledged QoS 1 and 2 publishes of one client (Receive Maximum). The socket is not read beyond
    /// it.
    pub max_inflight: u16,
    /// Largest number of messages that wait for one subscriber.
    pub max_queued_messages: usize,
    /// Largest number of bytes of messages that wait for one subscriber; the same limit again applies to messages that it
    /// has not acknowledged.
    pub max_queued_bytes: usize,
    /// Largest memory of the messages that all sessions hold.
    pub max_queued_bytes_total: usize,
    /// Largest number of retained messages.
    pub max_retained_messages: usize,
    /// Largest number of bytes of all retained messages.
    pub max_retained_bytes: usize,
    /// Longest time that a session is kept without a connection; `None`: as long as the client asks for, and for ever for
    /// MQTT 3.1.1 clients, which cannot ask.
    pub max_session_expiry_ms: Option<i64>,
    /// Keep-alive that weir assigns to an MQTT 5.0 client that asks for a longer one; `None`: it assigns none.
    pub max_keep_alive_ms: Option<i64>,
    /// Time between two publishes of the `$SYS` topics; `None`: they are not published.
    pub sys_interval_ms: Option<i64>,
    /// Whether clients may connect without credentials; `None`: see [`MqttConfig::allows_anonymous`].
    pub allow_anonymous: Option<bool>,
    /// Largest number of open connections from one address of another machine; `None`: no limit.
    pub max_connections_per_address: Option<usize>,
    /// Largest number of subscriptions of one session.
    pub max_subscriptions_per_client: usize,
    /// Largest number of levels of a topic or filter.
    pub max_topic_levels: usize,
    /// Limits on how fast one client may send.
    pub rates: RatesConfig,
    /// `[mqtt.auth]`
    pub auth: MqttAuthConfig,
    /// `[mqtt.tls]`
    pub tls: MqttTlsConfig,
}

/// What happens to a publish of an MQTT 3.1.1 client that the access rules deny. MQTT 3.1.1 has no reason code to report
/// the denial with [MQTT-3.3.5-2].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDeniedPublish {
    /// The connection is closed, so that the client notices the denial.
    #[default]
    Disconnect,
    /// The publish is acknowledged and dropped.
    Ignore,
}

impl MqttConfig {
    /// Whether clients may connect without credentials: as configured, else if neither a users file nor client certificates
    /// are configured.
    pub fn allows_anonymous(&self) -> bool {
        let certified = self.tls.listen.is_some() && self.tls.files.client_certificates != ClientCertificates::Off;
        self.allow_anonymous.unwrap_or(self.auth.users.is_none() && !certified)
    }
}

/// Files of users and access rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MqttAuthConfig {
    /// The users file; `None`: no user names are checked.
    pub users: Option<PathBuf>,
    /// The ACL file; `None`: only the built-in roles exist.
    pub acl: Option<PathBuf>,
    /// What happens to a denied publish of an MQTT 3.1.1 client.
    pub on_denied_publish: OnDeniedPublish,
}

/// Limits on how fast one client may send. The socket of a faster client is read later; nothing is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RatesConfig {
    /// PUBLISH, SUBSCRIBE and UNSUBSCRIBE packets per second; `None`: no limit.
    pub messages_per_second: Option<u32>,
    /// Bytes per second; `None`: no limit.
    pub bytes_per_second: Option<u64>,
}

/// MQTT over TLS.
#[derive(Debug, Clone, PartialEq)]
pub struct MqttTlsConfig {
    /// Address of the listener; `None`: there is no such listener.
    pub listen: Option<SocketAddr>,
    /// Certificate and key of the listener, and authorities of client certificates.
    pub files: TlsFiles,
    /// Largest number of handshakes in progress.
    pub max_handshakes: usize,
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
            connect_timeout_ms: 5_000,
            max_connections: 10_000,
            max_packet_size_bytes: 256 * KIB,
            max_connect_size_bytes: 16 * KIB,
            max_inflight: 1_000,
            max_queued_messages: 1_000,
            max_queued_bytes: 1024 * KIB,
            max_queued_bytes_total: 256 * MIB as usize,
            max_retained_messages: 100_000,
            max_retained_bytes: 64 * 1024 * KIB,
            max_session_expiry_ms: Some(30 * DAY_MS),
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
