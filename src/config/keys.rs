//! The keys of the configuration: the only list of them.

use std::path::PathBuf;

use crate::config::fault::Problem;
use crate::config::sections::{ClientCertificates, Config, MetricsAccess, Output};
use crate::config::value::{Raw, at_least_ms};
use crate::core::settings::{MetricRange, TimestampUnit, WatermarkScope};
use crate::telemetry::logging::LogFormat;

/// One key and how its value is read into the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// Table of the file.
    pub section: &'static str,
    /// Key in the table.
    pub name: &'static str,
    /// Reads the value.
    pub read: Read<Config>,
}

/// One key of `[validate.metrics.NAME]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct MetricKey {
    /// Key in the table.
    pub name: &'static str,
    /// Reads the value.
    pub read: Read<MetricRange>,
}

type Read<T> = fn(&mut T, Raw<'_>) -> Result<(), Problem>;

const fn key(section: &'static str, name: &'static str, read: Read<Config>) -> Key {
    Key { section, name, read }
}

fn put<T>(slot: &mut T, value: Result<T, Problem>) -> Result<(), Problem> {
    *slot = value?;
    Ok(())
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY_MS: i64 = 86_400_000;
/// Beyond a tebibyte a size is a slip of the pen on an edge box.
const LARGEST: u64 = 1024 * GIB;

const TIMESTAMP_UNITS: &[(&str, TimestampUnit)] = &[
    ("auto", TimestampUnit::Auto),
    ("s", TimestampUnit::S),
    ("ms", TimestampUnit::Ms),
    ("us", TimestampUnit::Us),
    ("ns", TimestampUnit::Ns),
];
const WATERMARKS: &[(&str, WatermarkScope)] = &[("device", WatermarkScope::Device), ("global", WatermarkScope::Global)];
const CLIENT_CERTIFICATES: &[(&str, ClientCertificates)] = &[
    ("off", ClientCertificates::Off),
    ("optional", ClientCertificates::Optional),
    ("required", ClientCertificates::Required),
];
const METRICS_ACCESS: &[(&str, MetricsAccess)] = &[("token", MetricsAccess::Token), ("open", MetricsAccess::Open)];
const LOG_FORMATS: &[(&str, LogFormat)] =
    &[("text", LogFormat::Text), ("json", LogFormat::Json), ("journald", LogFormat::Journald)];

/// Every key outside `[validate.metrics]`, in the order of config.toml.
pub(super) const KEYS: &[Key] = &[
    key("node", "name", |c, v| put(&mut c.node.name, v.text())),
    key("node", "data_dir", |c, v| put(&mut c.node.data_dir, v.text().map(PathBuf::from))),
    key("mqtt", "listen", |c, v| put(&mut c.mqtt.listen, v.address())),
    key("mqtt", "connect_timeout", |c, v| put(&mut c.mqtt.connect_timeout_ms, v.duration_ms(1..=3_600_000))),
    key("mqtt", "max_connections", |c, v| put(&mut c.mqtt.max_connections, v.whole(1..=1_000_000))),
    // MQTT's remaining length ends at 256 MiB less one byte [MQTT-1.5.5].
    key("mqtt", "max_packet_size", |c, v| put(&mut c.mqtt.max_packet_size_bytes, v.size_bytes(KIB..=255 * MIB))),
    key("mqtt", "max_inflight", |c, v| put(&mut c.mqtt.max_inflight, v.whole(1..=65_535))),
    key("mqtt", "max_queued_messages", |c, v| put(&mut c.mqtt.max_queued_messages, v.whole(1..=1_000_000))),
    key("mqtt", "max_queued_bytes", |c, v| put(&mut c.mqtt.max_queued_bytes, v.size_bytes(KIB..=GIB))),
    key("mqtt", "max_retained_messages", |c, v| put(&mut c.mqtt.max_retained_messages, v.whole(1..=10_000_000))),
    key("mqtt", "max_retained_bytes", |c, v| put(&mut c.mqtt.max_retained_bytes, v.size_bytes(KIB..=16 * GIB))),
    key("mqtt", "max_session_expiry", |c, v| {
        put(&mut c.mqtt.max_session_expiry_ms, v.duration_or_off_ms(1_000..=49_710 * DAY_MS))
    }),
    key("mqtt", "max_keep_alive", |c, v| put(&mut c.mqtt.max_keep_alive_ms, v.duration_or_off_ms(1_000..=65_535_000))),
    key("mqtt", "sys_interval", |c, v| put(&mut c.mqtt.sys_interval_ms, v.duration_or_off_ms(1_000..=DAY_MS))),
    key("mqtt", "allow_anonymous", |c, v| put(&mut c.mqtt.allow_anonymous, v.switch())),
    key("mqtt", "max_connections_per_address", |c, v| {
        put(&mut c.mqtt.max_connections_per_address, v.whole_or_off(1..=1_000_000))
    }),
    key("mqtt", "max_subscriptions_per_client", |c, v| {
        put(&mut c.mqtt.max_subscriptions_per_client, v.whole(1..=200_000))
    }),
    // Not less than the topics of weir's own results have.
    key("mqtt", "max_topic_levels", |c, v| put(&mut c.mqtt.max_topic_levels, v.whole(4..=201))),
    key("mqtt", "max_messages_per_second", |c, v| {
        put(&mut c.mqtt.rates.messages_per_second, v.whole_or_off(1..=u64::from(u32::MAX)))
    }),
    key("mqtt", "max_bytes_per_second", |c, v| {
        put(&mut c.mqtt.rates.bytes_per_second, v.size_or_off_bytes(KIB..=LARGEST))
    }),
    key("mqtt.tls", "listen", |c, v| put(&mut c.mqtt.tls.listen, v.address_or_off())),
    key("mqtt.tls", "cert", |c, v| put(&mut c.mqtt.tls.files.cert, v.text().map(PathBuf::from))),
    key("mqtt.tls", "key", |c, v| put(&mut c.mqtt.tls.files.key, v.text().map(PathBuf::from))),
    key("mqtt.tls", "client_ca", |c, v| put(&mut c.mqtt.tls.files.client_ca, v.text().map(PathBuf::from))),
    key("mqtt.tls", "client_certificates", |c, v| {
        put(&mut c.mqtt.tls.files.client_certificates, v.choice(CLIENT_CERTIFICATES))
    }),
    key("mqtt.tls", "max_handshakes", |c, v| put(&mut c.mqtt.tls.max_handshakes, v.whole(1..=1_000_000))),
    key("ingest", "telemetry_topics", |c, v| put(&mut c.ingest.telemetry_topics, v.texts())),
    key("ingest", "error_topics", |c, v| put(&mut c.ingest.error_topics, v.texts())),
    key("ingest", "timestamp_unit", |c, v| put(&mut c.ingest.timestamp_unit, v.choice(TIMESTAMP_UNITS))),
    key("ingest", "numeric_strings", |c, v| put(&mut c.ingest.numeric_strings, v.switch())),
    key("ingest", "max_readings_per_message", |c, v| {
        put(&mut c.ingest.max_readings_per_message, v.whole(1..=1_000_000))
    }),
    key("validate", "max_future", |c, v| put(&mut c.validate.max_future_ms, v.duration_or_off_ms(at_least_ms(0)))),
    key("validate", "max_age", |c, v| put(&mut c.validate.max_age_ms, v.duration_or_off_ms(at_least_ms(1)))),
    key("validate", "allowed_devices", |c, v| put(&mut c.validate.allowed_devices, v.texts())),
    key("dedup", "enabled", |c, v| put(&mut c.dedup.enabled, v.switch())),
    key("window", "size", |c, v| put(&mut c.window.size_ms, v.duration_ms(1..=DAY_MS))),
    key("window", "watermark", |c, v| put(&mut c.window.watermark, v.choice(WATERMARKS))),
    key("window", "out_of_orderness", |c, v| put(&mut c.window.out_of_orderness_ms, v.duration_ms(at_least_ms(0)))),
    key("window", "allowed_lateness", |c, v| put(&mut c.window.allowed_lateness_ms, v.duration_ms(at_least_ms(0)))),
    key("window", "idle_timeout", |c, v| put(&mut c.window.idle_timeout_ms, v.duration_or_off_ms(at_least_ms(1)))),
    key("limits", "devices", |c, v| put(&mut c.limits.devices, v.whole(1..=100_000_000))),
    key("limits", "metrics_per_device", |c, v| put(&mut c.limits.metrics_per_device, v.whole(1..=1_000_000))),
    key("journal", "segment_size", |c, v| put(&mut c.journal.segment_size_bytes, v.size_bytes(MIB..=4 * GIB))),
    key("journal", "retention", |c, v| put(&mut c.journal.retention_ms, v.duration_or_off_ms(at_least_ms(1)))),
    key("journal", "retention_bytes", |c, v| put(&mut c.journal.retention_bytes, v.size_bytes(MIB..=LARGEST))),
    key("journal", "commit_max_bytes", |c, v| put(&mut c.journal.commit_max_bytes, v.size_bytes(4 * KIB..=GIB))),
    key("journal", "min_free_disk", |c, v| put(&mut c.journal.min_free_disk_bytes, v.size_bytes(0..=LARGEST))),
    key("state", "checkpoint_interval", |c, v| {
        put(&mut c.state.checkpoint_interval_ms, v.duration_ms(100..=3_600_000))
    }),
    key("state", "device_ttl", |c, v| put(&mut c.state.device_ttl_ms, v.duration_or_off_ms(at_least_ms(1)))),
    key("state", "savepoint_interval", |c, v| {
        put(&mut c.state.savepoint_interval_ms, v.duration_or_off_ms(at_least_ms(1_000)))
    }),
    key("state", "savepoints_kept", |c, v| put(&mut c.state.savepoints_kept, v.whole(1..=1_000))),
    key("windows", "retention", |c, v| retention(&mut c.windows, v)),
    key("windows", "retention_bytes", |c, v| retention_bytes(&mut c.windows, v)),
    key("windows", "publish", |c, v| put(&mut c.windows.publish, v.switch())),
    key("errors", "retention", |c, v| retention(&mut c.errors.output, v)),
    key("errors", "retention_bytes", |c, v| retention_bytes(&mut c.errors.output, v)),
    key("errors", "publish", |c, v| put(&mut c.errors.output.publish, v.switch())),
    key("errors", "store_duplicates", |c, v| put(&mut c.errors.store_duplicates, v.switch())),
    key("http", "listen", |c, v| put(&mut c.http.listen, v.address())),
    key("http", "allow_anonymous", |c, v| put(&mut c.http.allow_anonymous, v.switch_or_auto())),
    key("http", "metrics_max_series", |c, v| put(&mut c.http.metrics_max_series, v.whole(0..=1_000_000))),
    key("http", "metrics_series_ttl", |c, v| put(&mut c.http.metrics_series_ttl_ms, v.duration_ms(at_least_ms(1)))),
    key("http", "websocket_origins", |c, v| put(&mut c.http.websocket_origins, v.texts())),
    key("http.auth", "tokens", |c, v| put(&mut c.http.auth.tokens, v.path_or_none())),
    key("http.auth", "metrics", |c, v| put(&mut c.http.auth.metrics, v.choice(METRICS_ACCESS))),
    key("http.tls", "listen", |c, v| put(&mut c.http.tls.listen, v.address_or_off())),
    key("http.tls", "cert", |c, v| put(&mut c.http.tls.files.cert, v.text().map(PathBuf::from))),
    key("http.tls", "key", |c, v| put(&mut c.http.tls.files.key, v.text().map(PathBuf::from))),
    key("log", "level", |c, v| put(&mut c.log.level, v.text())),
    key("log", "format", |c, v| put(&mut c.log.format, v.choice(LOG_FORMATS))),
    key("simulator", "enabled", |c, v| put(&mut c.simulator.enabled, v.switch())),
    key("simulator", "devices", |c, v| put(&mut c.simulator.devices, v.whole(1..=1_000_000))),
    key("simulator", "interval", |c, v| put(&mut c.simulator.interval_ms, v.duration_ms(1..=DAY_MS))),
    key("simulator", "metrics", |c, v| put(&mut c.simulator.metrics, v.texts())),
    key("simulator", "qos", |c, v| put(&mut c.simulator.qos, v.whole(0..=2))),
    key("simulator", "disorder", |c, v| put(&mut c.simulator.disorder_ms, v.duration_ms(0..=DAY_MS))),
    key("simulator", "clock_skew", |c, v| put(&mut c.simulator.clock_skew_ms, v.duration_ms(at_least_ms(0)))),
    key("simulator", "offline_share", |c, v| put(&mut c.simulator.offline_share, v.share())),
    key("simulator", "redelivery_share", |c, v| put(&mut c.simulator.redelivery_share, v.share())),
    key("simulator", "malformed_share", |c, v| put(&mut c.simulator.malformed_share, v.share())),
    key("simulator", "fault_share", |c, v| put(&mut c.simulator.fault_share, v.share())),
    // TOML's integers end at i64::MAX.
    key("simulator", "seed", |c, v| put(&mut c.simulator.seed, v.whole(0..=i64::MAX as u64))),
];

/// The keys of one metric.
pub(super) const METRIC_KEYS: &[MetricKey] = &[
    MetricKey { name: "min", read: |range, v| put(&mut range.min, v.number().map(Some)) },
    MetricKey { name: "max", read: |range, v| put(&mut range.max, v.number().map(Some)) },
    MetricKey { name: "unit", read: |range, v| put(&mut range.unit, v.text().map(Some)) },
];

fn retention(output: &mut Output, value: Raw<'_>) -> Result<(), Problem> {
    put(&mut output.retention_ms, value.duration_or_off_ms(at_least_ms(1)))
}

fn retention_bytes(output: &mut Output, value: Raw<'_>) -> Result<(), Problem> {
    put(&mut output.retention_bytes, value.size_bytes(MIB..=LARGEST))
}

/// The key of that name in that section.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// Whether there is a section of that name.
pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.section == name)
}

/// What an unknown key of a section may have meant.
pub(super) fn suggest_key(section: &str, name: &str) -> Option<String> {
    let siblings = KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
    if let Some(near) = nearest(name, siblings.chain((section == "validate").then_some("metrics"))) {
        return Some(format!("{section}.{near}"));
    }
    KEYS.iter().find(|key| key.name == name).map(|key| format!("{}.{}", key.section, key.name))
}

/// What an unknown section may have meant.
pub(super) fn suggest_section(name: &str) -> Option<String> {
    nearest(name, KEYS.iter().map(|key| key.section)).map(str::to_owned)
}

/// The candidate that the fewest edits turn `name` into, if that is a third of its letters or fewer.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let nearest = candidates.map(|candidate| (edits(name, candidate), candidate)).min_by_key(|(edits, _)| *edits)?;
    (nearest.0 <= nearest.1.len().div_ceil(3)).then_some(nearest.1)
}

/// Levenshtein distance in bytes; names longer than any key count as far away.
fn edits(from: &str, to: &str) -> usize {
    if from.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
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
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
