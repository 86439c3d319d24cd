//! The table of all keys: for each one its section and name, its place in [`Config`], and how its value is read.
//!
//! This is the only list of keys. Ranges of values are here; conditions between keys are in `checks`.

use std::path::PathBuf;

use crate::config::fault::ConfigProblem;
use crate::config::nearest::nearest;
use crate::config::sections::{ClientCertificates, Config, MetricsAccess, OnDeniedPublish};
use crate::config::tenants::TENANTS;
use crate::config::value::{RawValue, at_least_ms};
use crate::core::settings::{MetricRange, SequenceBits, TimeSource, TimestampUnit, WatermarkScope};
use crate::telemetry::logging::LogFormat;

/// One key of the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConfigKey {
    /// Section of the file.
    pub section: &'static str,
    /// Name of the key in its section.
    pub name: &'static str,
    /// Reads a value into the configuration.
    pub read: ReadInto<Config>,
    /// `section.name`.
    pub path: &'static str,
    /// Whether two configurations have the same value of this key.
    pub same: fn(&Config, &Config) -> bool,
    /// Copies the value from the second configuration to the first.
    pub copy: fn(&mut Config, &Config),
}

/// One key of `[validate.metrics.NAME]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct MetricKey {
    /// Name of the key in its section.
    pub name: &'static str,
    /// Reads a value into the range of a metric.
    pub read: ReadInto<MetricRange>,
}

type ReadInto<T> = fn(&mut T, RawValue<'_>) -> Result<(), ConfigProblem>;

/// Makes a [`ConfigKey`] of a section, a name, a field of [`Config`], and a function that reads the value.
macro_rules! key {
    ($section:literal, $name:literal, $($field:ident).+, $read:expr) => {
        ConfigKey {
            section: $section,
            name: $name,
            path: concat!($section, ".", $name),
            read: |config, value| put(&mut config.$($field).+, value, $read),
            same: |one, other| one.$($field).+ == other.$($field).+,
            copy: |to, from| to.$($field).+.clone_from(&from.$($field).+),
        }
    };
}

fn put<T>(
    slot: &mut T,
    value: RawValue<'_>,
    read: impl FnOnce(RawValue<'_>) -> Result<T, ConfigProblem>,
) -> Result<(), ConfigProblem> {
    *slot = read(value)?;
    Ok(())
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY_MS: i64 = 86_400_000;
/// Largest size of a key: a tebibyte. On an edge box more is a mistake.
const LARGEST: u64 = 1024 * GIB;

const TIME_SOURCES: &[(&str, TimeSource)] = &[("event", TimeSource::Event), ("arrival", TimeSource::Arrival)];
const TIMESTAMP_UNITS: &[(&str, TimestampUnit)] = &[
    ("auto", TimestampUnit::Auto),
    ("s", TimestampUnit::S),
    ("ms", TimestampUnit::Ms),
    ("us", TimestampUnit::Us),
    ("ns", TimestampUnit::Ns),
];
const SEQUENCE_BITS: &[(u64, SequenceBits)] =
    &[(8, SequenceBits::Bits8), (16, SequenceBits::Bits16), (32, SequenceBits::Bits32), (64, SequenceBits::Bits64)];
const BACKLOGS: &[(&str, bool)] = &[("on", true), ("off", false)];
const WATERMARKS: &[(&str, WatermarkScope)] = &[("device", WatermarkScope::Device), ("global", WatermarkScope::Global)];
const CLIENT_CERTIFICATES: &[(&str, ClientCertificates)] = &[
    ("off", ClientCertificates::Off),
    ("optional", ClientCertificates::Optional),
    ("required", ClientCertificates::Required),
];
const ON_DENIED_PUBLISH: &[(&str, OnDeniedPublish)] =
    &[("disconnect", OnDeniedPublish::Disconnect), ("ignore", OnDeniedPublish::Ignore)];
const METRICS_ACCESS: &[(&str, MetricsAccess)] = &[("token", MetricsAccess::Token), ("open", MetricsAccess::Open)];
const LOG_FORMATS: &[(&str, LogFormat)] =
    &[("text", LogFormat::Text), ("json", LogFormat::Json), ("journald", LogFormat::Journald)];

/// Every key outside `[validate.metrics]`, in the order of config.toml.
pub(super) const KEYS: &[ConfigKey] = &[
    key!("node", "name", node.name, |v| v.text()),
    key!("node", "data_dir", node.data_dir, |v| v.text().map(PathBuf::from)),
    key!("node", "clock_jump_hold", node.clock_jump_hold_ms, |v| v.duration_ms(60_000..=365 * DAY_MS)),
    key!("node", "clock_tolerance", node.clock_tolerance_ms, |v| v.duration_ms(1_000..=DAY_MS)),
    key!("node", "wait_for_clock", node.wait_for_clock_ms, |v| v.duration_or_off_ms(1_000..=DAY_MS)),
    key!("mqtt", "listen", mqtt.listen, |v| v.address()),
    key!("mqtt", "connect_timeout", mqtt.connect_timeout_ms, |v| v.duration_ms(1..=3_600_000)),
    key!("mqtt", "max_connections", mqtt.max_connections, |v| v.whole(1..=1_000_000)),
    // The remaining length of MQTT is at most 256 MiB less one byte [MQTT-1.5.5].
    key!("mqtt", "max_packet_size", mqtt.max_packet_size_bytes, |v| v.size_bytes(KIB..=255 * MIB)),
    key!("mqtt", "max_connect_size", mqtt.max_connect_size_bytes, |v| v.size_bytes(KIB..=255 * MIB)),
    key!("mqtt", "max_inflight", mqtt.max_inflight, |v| v.whole(1..=65_535)),
    key!("mqtt", "max_queued_messages", mqtt.max_queued_messages, |v| v.whole(1..=1_000_000)),
    key!("mqtt", "max_queued_bytes", mqtt.max_queued_bytes, |v| v.size_bytes(KIB..=GIB)),
    key!("mqtt", "max_queued_bytes_total", mqtt.max_queued_bytes_total, |v| v.size_bytes(MIB..=64 * GIB)),
    key!("mqtt", "max_retained_messages", mqtt.max_retained_messages, |v| v.whole(1..=10_000_000)),
    key!("mqtt", "max_retained_bytes", mqtt.max_retained_bytes, |v| v.size_bytes(KIB..=16 * GIB)),
    key!("mqtt", "max_session_expiry", mqtt.max_session_expiry_ms, |v| v.duration_or_off_ms(1_000..=49_710 * DAY_MS)),
    key!("mqtt", "max_keep_alive", mqtt.max_keep_alive_ms, |v| v.duration_or_off_ms(1_000..=65_535_000)),
    key!("mqtt", "sys_interval", mqtt.sys_interval_ms, |v| v.duration_or_off_ms(1_000..=DAY_MS)),
    key!("mqtt", "allow_anonymous", mqtt.allow_anonymous, |v| v.switch_or_auto()),
    key!("mqtt", "max_connections_per_address", mqtt.max_connections_per_address, |v| v.whole_or_off(1..=1_000_000)),
    key!("mqtt", "max_subscriptions_per_client", mqtt.max_subscriptions_per_client, |v| v.whole(1..=200_000)),
    // At least four: topics of weir's own results have as many levels.
    key!("mqtt", "max_topic_levels", mqtt.max_topic_levels, |v| v.whole(4..=201)),
    key!("mqtt", "max_messages_per_second", mqtt.rates.messages_per_second, |v| v
        .whole_or_off(1..=u64::from(u32::MAX))),
    key!("mqtt", "max_bytes_per_second", mqtt.rates.bytes_per_second, |v| v.size_or_off_bytes(KIB..=LARGEST)),
    key!("mqtt.auth", "users", mqtt.auth.users, |v| v.path_or_none()),
    key!("mqtt.auth", "acl", mqtt.auth.acl, |v| v.path_or_none()),
    key!("mqtt.auth", "on_denied_publish", mqtt.auth.on_denied_publish, |v| v.choice(ON_DENIED_PUBLISH)),
    key!("mqtt.tls", "listen", mqtt.tls.listen, |v| v.address_or_off()),
    key!("mqtt.tls", "cert", mqtt.tls.files.cert, |v| v.text().map(PathBuf::from)),
    key!("mqtt.tls", "key", mqtt.tls.files.key, |v| v.text().map(PathBuf::from)),
    key!("mqtt.tls", "client_ca", mqtt.tls.files.client_ca, |v| v.text().map(PathBuf::from)),
    key!("mqtt.tls", "client_crl", mqtt.tls.files.client_crl, |v| v.text().map(PathBuf::from)),
    key!("mqtt.tls", "client_certificates", mqtt.tls.files.client_certificates, |v| v.choice(CLIENT_CERTIFICATES)),
    key!("mqtt.tls", "max_handshakes", mqtt.tls.max_handshakes, |v| v.whole(1..=1_000_000)),
    key!("ingest", "telemetry_topics", ingest.telemetry_topics, |v| v.texts()),
    key!("ingest", "error_topics", ingest.error_topics, |v| v.texts()),
    key!("ingest", "time", ingest.time, |v| v.choice(TIME_SOURCES)),
    key!("ingest", "timestamp_unit", ingest.timestamp_unit, |v| v.choice(TIMESTAMP_UNITS)),
    key!("ingest", "timezone", ingest.timezone, |v| v.time_zone_or_none()),
    key!("ingest", "numeric_strings", ingest.numeric_strings, |v| v.switch()),
    key!("ingest", "seq_bits", ingest.seq_bits, |v| v.width_or_auto(SEQUENCE_BITS, SequenceBits::Auto)),
    key!("ingest", "max_readings_per_message", ingest.max_readings_per_message, |v| v.whole(1..=1_000_000)),
    key!("ingest", "presets", ingest.presets, |v| v.presets()),
    key!("ingest", "map_files", ingest.map_files, |v| v.path_or_none()),
    key!("ingest", "sparkplug_host_id", ingest.sparkplug_host_id, |v| v.topic_level_or_none()),
    key!("validate", "max_future", validate.max_future_ms, |v| v.duration_or_off_ms(at_least_ms(0))),
    key!("validate", "max_age", validate.max_age_ms, |v| v.duration_or_off_ms(at_least_ms(1))),
    key!("validate", "allowed_devices", validate.allowed_devices, |v| v.texts()),
    key!("dedup", "enabled", dedup.enabled, |v| v.switch()),
    key!("window", "size", window.size_ms, |v| v.duration_ms(1..=DAY_MS)),
    key!("window", "watermark", window.watermark, |v| v.choice(WATERMARKS)),
    key!("window", "out_of_orderness", window.out_of_orderness_ms, |v| v.duration_ms(at_least_ms(0))),
    key!("window", "allowed_lateness", window.allowed_lateness_ms, |v| v.duration_ms(at_least_ms(0))),
    key!("window", "idle_timeout", window.idle_timeout_ms, |v| v.duration_or_off_ms(at_least_ms(1))),
    key!("window", "backlog", window.backlog, |v| v.choice(BACKLOGS)),
    key!("limits", "devices", limits.devices, |v| v.whole(1..=100_000_000)),
    key!("limits", "devices_share", limits.devices_share, |v| v.share()),
    key!("limits", "new_devices_per_hour", limits.new_devices_per_hour, |v| v.whole_or_off(1..=100_000_000)),
    key!("limits", "metrics_per_device", limits.metrics_per_device, |v| v.whole(1..=1_000_000)),
    key!("limits", "backlog_windows_per_device", limits.backlog_windows_per_device, |v| v.whole(16..=1_000_000)),
    key!("limits", "backlog_windows", limits.backlog_windows, |v| v.whole(1_024..=100_000_000)),
    key!("limits", "pending_bytes", limits.pending_bytes, |v| v.size_bytes(MIB..=GIB)),
    key!("journal", "segment_size", journal.segment_size_bytes, |v| v.size_bytes(MIB..=4 * GIB)),
    key!("journal", "retention", journal.retention_ms, |v| v.duration_or_off_ms(at_least_ms(1))),
    key!("journal", "retention_bytes", journal.retention_bytes, |v| v.size_bytes(MIB..=LARGEST)),
    key!("journal", "commit_max_bytes", journal.commit_max_bytes, |v| v.size_bytes(4 * KIB..=GIB)),
    key!("journal", "min_free_disk", journal.min_free_disk_bytes, |v| v.size_bytes(0..=LARGEST)),
    key!("journal", "sync_timeout", journal.sync_timeout_ms, |v| v.duration_or_off_ms(at_least_ms(5_000))),
    key!("state", "checkpoint_interval", state.checkpoint_interval_ms, |v| v.duration_ms(100..=3_600_000)),
    key!("state", "device_ttl", state.device_ttl_ms, |v| v.duration_or_off_ms(at_least_ms(1))),
    key!("state", "savepoint_interval", state.savepoint_interval_ms, |v| v.duration_or_off_ms(at_least_ms(1_000))),
    key!("state", "savepoints_kept", state.savepoints_kept, |v| v.whole(1..=1_000)),
    key!("windows", "retention", windows.retention_ms, |v| v.duration_or_off_ms(at_least_ms(1))),
    key!("windows", "retention_bytes", windows.retention_bytes, |v| v.size_bytes(MIB..=LARGEST)),
    key!("windows", "publish", windows.publish, |v| v.switch()),
    key!("errors", "retention", errors.output.retention_ms, |v| v.duration_or_off_ms(at_least_ms(1))),
    key!("errors", "retention_bytes", errors.output.retention_bytes, |v| v.size_bytes(MIB..=LARGEST)),
    key!("errors", "publish", errors.output.publish, |v| v.switch()),
    key!("errors", "device_share", errors.device_share, |v| v.share()),
    key!("errors", "store_duplicates", errors.store_duplicates, |v| v.switch()),
    key!("http", "listen", http.listen, |v| v.address()),
    key!("http", "allow_anonymous", http.allow_anonymous, |v| v.switch_or_auto()),
    key!("http", "allowed_hosts", http.allowed_hosts, |v| v.hosts()),
    key!("http", "metrics_max_series", http.metrics_max_series, |v| v.whole(0..=1_000_000)),
    key!("http", "metrics_series_ttl", http.metrics_series_ttl_ms, |v| v.duration_ms(at_least_ms(1))),
    key!("http", "websocket_origins", http.websocket_origins, |v| v.texts()),
    key!("http.auth", "tokens", http.auth.tokens, |v| v.path_or_none()),
    key!("http.auth", "metrics", http.auth.metrics, |v| v.choice(METRICS_ACCESS)),
    key!("http.tls", "listen", http.tls.listen, |v| v.address_or_off()),
    key!("http.tls", "cert", http.tls.files.cert, |v| v.text().map(PathBuf::from)),
    key!("http.tls", "key", http.tls.files.key, |v| v.text().map(PathBuf::from)),
    key!("log", "level", log.level, |v| v.text()),
    key!("log", "format", log.format, |v| v.choice(LOG_FORMATS)),
    key!("simulator", "enabled", simulator.enabled, |v| v.switch()),
    key!("simulator", "devices", simulator.devices, |v| v.whole(1..=1_000_000)),
    key!("simulator", "interval", simulator.interval_ms, |v| v.duration_ms(1..=DAY_MS)),
    key!("simulator", "metrics", simulator.metrics, |v| v.texts()),
    key!("simulator", "qos", simulator.qos, |v| v.whole(0..=2)),
    key!("simulator", "disorder", simulator.disorder_ms, |v| v.duration_ms(0..=DAY_MS)),
    key!("simulator", "clock_skew", simulator.clock_skew_ms, |v| v.duration_ms(at_least_ms(0))),
    key!("simulator", "offline_share", simulator.offline_share, |v| v.share()),
    key!("simulator", "redelivery_share", simulator.redelivery_share, |v| v.share()),
    key!("simulator", "malformed_share", simulator.malformed_share, |v| v.share()),
    key!("simulator", "fault_share", simulator.fault_share, |v| v.share()),
    // The largest integer of TOML is i64::MAX.
    key!("simulator", "seed", simulator.seed, |v| v.whole(0..=i64::MAX as u64)),
];

/// The keys of `[validate.metrics.NAME]`.
pub(super) const METRIC_KEYS: &[MetricKey] = &[
    MetricKey { name: "min", read: |range, v| put(&mut range.min, v, |v| v.number().map(Some)) },
    MetricKey { name: "max", read: |range, v| put(&mut range.max, v, |v| v.number().map(Some)) },
    MetricKey { name: "unit", read: |range, v| put(&mut range.unit, v, |v| v.text().map(Some)) },
];

/// Keys whose changes take effect at a reload. Changes of all other keys need a restart: results depend on them, or they
/// belong to something that is opened once, such as a listener or a log.
pub(super) const RELOADABLE: &[&str] = &[
    "mqtt.allow_anonymous",
    "mqtt.max_messages_per_second",
    "mqtt.max_bytes_per_second",
    "mqtt.auth.users",
    "mqtt.auth.acl",
    "mqtt.auth.on_denied_publish",
    "mqtt.tls.cert",
    "mqtt.tls.key",
    "mqtt.tls.client_ca",
    "mqtt.tls.client_crl",
    "http.allow_anonymous",
    "http.allowed_hosts",
    "http.auth.tokens",
    "http.auth.metrics",
    "http.tls.cert",
    "http.tls.key",
    "log.level",
];

/// The key `name` of `section`.
pub(super) fn find(section: &str, name: &str) -> Option<&'static ConfigKey> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// Whether there is a section called `name`.
pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.section == name)
}

/// The key that an unknown key of a section probably means.
pub(super) fn suggest_key(section: &str, name: &str) -> Option<String> {
    let siblings = KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
    let tables = (section == "validate").then_some("metrics").into_iter().chain((section == "ingest").then_some("map"));
    if let Some(near) = nearest(name, siblings.chain(tables)) {
        return Some(format!("{section}.{near}"));
    }
    KEYS.iter().find(|key| key.name == name).map(|key| format!("{}.{}", key.section, key.name))
}

/// The section that an unknown section probably means.
pub(super) fn suggest_section(name: &str) -> Option<String> {
    nearest(name, KEYS.iter().map(|key| key.section).chain([TENANTS])).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_stands_twice() {
        let mut names: Vec<_> = KEYS.iter().map(|key| (key.section, key.name)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KEYS.len());
    }

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        assert_eq!(suggest_key("mqtt", "listn").as_deref(), Some("mqtt.listen"));
        assert_eq!(suggest_key("validate", "metric").as_deref(), Some("validate.metrics"));
        assert_eq!(suggest_key("mqtt", "watermark").as_deref(), Some("window.watermark"));
        assert_eq!(suggest_key("mqtt", "xyzzy"), None);
        assert_eq!(suggest_section("windwo").as_deref(), Some("window"));
        assert_eq!(suggest_section("kafka"), None);
    }
}
