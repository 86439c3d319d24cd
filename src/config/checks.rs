//! Checks that a single value's type cannot express: conditions between keys, and the forms of names and topics.

use std::net::SocketAddr;

use crate::config::document::Document;
use crate::config::fault::ConfigProblem;
use crate::config::nearest::nearest;
use crate::config::sections::ClientCertificates;
use crate::core::settings::WatermarkScope;
use crate::telemetry::logging;

/// Runs all checks and adds their faults to `document`.
pub(super) fn check(document: &mut Document<'_>) {
    node(document);
    listeners(document);
    simulator(document);
    http_access(document);
    tls(document);
    web_origins(document);
    topics(document);
    names(document);
    ranges(document);
    watermark(document);
    sizes(document);
    log_level(document);
}

fn fault(document: &mut Document<'_>, key: &str, wrong: impl Into<String>, expected: impl Into<String>) {
    document.fault(document.origin(key), key, ConfigProblem::new(wrong, expected));
}

fn node(document: &mut Document<'_>) {
    let name = &document.config.node.name;
    if name.len() > 128 || name.chars().any(char::is_control) {
        fault(document, "node.name", "this name cannot be used", "at most 128 bytes without control characters");
    }
    if document.config.node.data_dir.as_os_str().is_empty() {
        fault(document, "node.data_dir", "it is empty", "a directory such as \"data\" or \"/var/lib/weir\"");
    }
}

fn listeners(document: &mut Document<'_>) {
    let all: Vec<_> = document.config.listeners().collect();
    for (index, (key, address)) in all.iter().enumerate() {
        let same = |other: &SocketAddr| {
            let overlap = address.ip() == other.ip() || address.ip().is_unspecified() || other.ip().is_unspecified();
            address.port() == other.port() && address.port() != 0 && overlap
        };
        if let Some((taken_by, other)) = all[..index].iter().find(|(_, other)| same(other)) {
            let wrong = format!("{address} is taken by {taken_by} = \"{other}\"");
            fault(document, key, wrong, "another port");
        }
    }
    anonymous(document, &all);
}

/// A listener that other machines can reach must not accept clients without credentials unless the configuration says so.
/// The HTTP listeners count too, because MQTT over WebSocket is on their path /mqtt.
fn anonymous(document: &mut Document<'_>, listeners: &[(&'static str, SocketAddr)]) {
    let mqtt = &document.config.mqtt;
    if mqtt.allow_anonymous.is_some() || !mqtt.allows_anonymous() {
        return;
    }
    for (key, address) in listeners.iter().filter(|(_, address)| !address.ip().is_loopback()) {
        let way = if key.starts_with("http") { " (MQTT over WebSocket is on its path /mqtt)" } else { "" };
        let wrong = format!("{address} can be reached from other machines{way} and clients need no credentials");
        let expected = "mqtt.auth.users or client certificates, or mqtt.allow_anonymous = true or false; \
                        only loopback listeners may let anybody in without saying so";
        fault(document, key, wrong, expected);
    }
}

/// The simulated devices have no credentials, so they cannot connect where credentials are required.
fn simulator(document: &mut Document<'_>) {
    if document.config.simulator.enabled && !document.config.mqtt.allows_anonymous() {
        let wrong = "the simulator connects without credentials, and such clients are not allowed to connect";
        fault(document, "simulator.enabled", wrong, "false, or mqtt.allow_anonymous = true");
    }
}

/// The HTTP API must not be open to other machines unless the configuration says so, and must not be closed to everybody.
fn http_access(document: &mut Document<'_>) {
    let http = &document.config.http;
    if !http.allows_anonymous() && http.auth.tokens.is_none() {
        let wrong = "it is false and there are no tokens, so nobody could use the API";
        fault(document, "http.allow_anonymous", wrong, "http.auth.tokens, or http.allow_anonymous = true");
        return;
    }
    let accidents: Vec<_> = http.open_by_accident().collect();
    for (key, address) in accidents {
        let wrong = format!("{address} can be reached from other machines and requests need no token");
        let expected = "http.auth.tokens, or http.allow_anonymous = true; \
                        only loopback listeners may be open to everybody without saying so";
        fault(document, key, wrong, expected);
    }
}

/// A TLS listener needs the paths of its files. The contents are checked when the files are loaded.
fn tls(document: &mut Document<'_>) {
    let config = &document.config;
    let sections = [
        ("mqtt.tls", config.mqtt.tls.listen, config.mqtt.tls.files.clone()),
        ("http.tls", config.http.tls.listen, config.http.tls.files.clone()),
    ];
    for (section, _, files) in sections.into_iter().filter(|(_, listen, _)| listen.is_some()) {
        for (name, path) in [("cert", &files.cert), ("key", &files.key)] {
            if path.as_os_str().is_empty() {
                let wrong = format!("it is empty while {section}.listen is on");
                fault(document, &format!("{section}.{name}"), wrong, "the path of a PEM file");
            }
        }
        if files.client_ca.as_os_str().is_empty() && !files.client_crl.as_os_str().is_empty() {
            let wrong =
                format!("it names a file, but {section}.client_ca names none, so no certificate would be trusted");
            let expected =
                format!("{section}.client_ca as well: the PEM file of the authorities that signed the lists");
            fault(document, &format!("{section}.client_crl"), wrong, expected);
        }
        let asked = files.client_certificates != ClientCertificates::Off;
        if asked && files.client_ca.as_os_str().is_empty() {
            let wrong = format!("it is empty while {section}.client_certificates is on");
            fault(document, &format!("{section}.client_ca"), wrong, "the path of a PEM file with the roots");
        }
    }
}

/// An origin of a web page is a scheme and a host, without a path.
fn web_origins(document: &mut Document<'_>) {
    for origin in document.config.http.websocket_origins.clone() {
        let plain = origin.split_once("://").is_some_and(|(scheme, host)| {
            matches!(scheme, "http" | "https") && !host.is_empty() && !host.contains(['/', ' '])
        });
        if !plain && origin != "*" {
            let wrong = format!("{origin:?} is not the origin of a web page");
            fault(document, "http.websocket_origins", wrong, "such as \"https://panel.example\", or \"*\"");
        }
    }
}

fn topics(document: &mut Document<'_>) {
    let ingest = document.config.ingest.clone();
    if ingest.telemetry_topics.is_empty() {
        fault(document, "ingest.telemetry_topics", "it is empty", "at least one topic such as \"devices/+/telemetry\"");
    }
    let lists = [("ingest.telemetry_topics", &ingest.telemetry_topics), ("ingest.error_topics", &ingest.error_topics)];
    for (key, patterns) in lists {
        for pattern in patterns {
            if let Some(wrong) = pattern_fault(pattern) {
                fault(document, key, format!("{pattern:?} {wrong}"), "a topic such as \"devices/+/telemetry\"");
            }
        }
    }
    for telemetry in &ingest.telemetry_topics {
        for error in ingest.error_topics.iter().filter(|error| overlap(telemetry, error)) {
            let wrong = format!("{error:?} and {telemetry:?} of ingest.telemetry_topics can be the same topic");
            fault(document, "ingest.error_topics", wrong, "topics that no topic of readings matches");
        }
    }
}

/// Why a pattern cannot be an ingest topic; `None`: it can. The level of a `+` is the device id, so there is at most one.
fn pattern_fault(pattern: &str) -> Option<&'static str> {
    let levels: Vec<&str> = pattern.split('/').collect();
    if pattern.is_empty() {
        Some("is empty")
    } else if pattern.len() > usize::from(u16::MAX) || pattern.chars().any(char::is_control) {
        Some("is too long or has control characters")
    } else if pattern.contains('#') {
        Some("holds a #")
    } else if levels.iter().any(|level| level.contains('+') && *level != "+") {
        Some("has a + that is not a whole level")
    } else if levels.iter().filter(|level| **level == "+").count() > 1 {
        Some("has more than one +")
    } else if matches!(levels[0], "weir" | "+") && levels.len() > 1 || pattern.starts_with('$') {
        Some("reaches below weir/ or $, where clients cannot publish")
    } else {
        None
    }
}

/// Whether one topic can match both patterns.
fn overlap(a: &str, b: &str) -> bool {
    let (a, b): (Vec<&str>, Vec<&str>) = (a.split('/').collect(), b.split('/').collect());
    a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a == b || *a == "+" || *b == "+")
}

fn names(document: &mut Document<'_>) {
    let expected = "1 to 128 bytes without control characters, /, + and #, and without white space at either end";
    let tenants = document.config.tenants.clone();
    for full in document.config.validate.allowed_devices.clone() {
        // The id of a tenant's device begins with the prefix of the tenant.
        let tenant = tenants.of_topic(&full).map_or("", |tenant| &*tenant.prefix);
        let device = full.strip_prefix(tenant).unwrap_or(&full);
        let forbidden = |c: char| c.is_control() || matches!(c, '/' | '+' | '#');
        if device.is_empty() || device.len() > 128 || device.chars().any(forbidden) || device.trim() != device {
            fault(document, "validate.allowed_devices", format!("{full:?} cannot be a device id"), expected);
        }
    }
    let expected = "1 to 64 characters of A-Z a-z 0-9 . _ : / -";
    for metric in document.config.validate.metrics.clone().into_keys().filter(|name| !is_metric(name)) {
        let key = format!("validate.metrics.{metric}");
        fault(document, &key, format!("{metric:?} cannot be a metric"), expected);
    }
    let metrics = document.config.simulator.metrics.clone();
    for metric in metrics.iter().filter(|name| !is_metric(name)) {
        fault(document, "simulator.metrics", format!("{metric:?} cannot be a metric"), expected);
    }
    if metrics.is_empty() {
        fault(document, "simulator.metrics", "it is empty", "at least one metric");
    }
}

fn is_metric(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

fn ranges(document: &mut Document<'_>) {
    for (metric, range) in document.config.validate.metrics.clone() {
        if let (Some(min), Some(max)) = (range.min, range.max)
            && min > max
        {
            let key = format!("validate.metrics.{metric}.min");
            fault(document, &key, format!("{min} is above max = {max}"), "min at or below max");
        }
    }
}

/// Largest size of one append to the journal without its last packet: earlier publishes of the same read, and the topic of
/// a packet that only had a topic alias.
const APPEND_MARGIN_BYTES: usize = 256 * 1024;

fn sizes(document: &mut Document<'_>) {
    let (packet, commit) = (document.config.mqtt.max_packet_size_bytes, document.config.journal.commit_max_bytes);
    if packet + APPEND_MARGIN_BYTES > commit {
        let wrong = format!("{packet} bytes do not fit into a group commit of {commit} bytes");
        fault(document, "mqtt.max_packet_size", wrong, "at most journal.commit_max_bytes less 256KiB");
    }
    let settings = document.config.settings().to_json().len();
    if settings + APPEND_MARGIN_BYTES > commit {
        let wrong =
            format!("the list comes to {settings} bytes, which do not fit into a group commit of {commit} bytes");
        fault(document, "validate.allowed_devices", wrong, "a shorter list, or a larger journal.commit_max_bytes");
    }
    let segment = document.config.journal.segment_size_bytes;
    if commit as u64 > segment {
        let wrong = format!("{commit} bytes do not fit into a segment of {segment} bytes");
        fault(document, "journal.commit_max_bytes", wrong, "at most journal.segment_size");
    }
}

/// With one watermark for all devices, the clock of one tenant's device would close the windows of the others.
fn watermark(document: &mut Document<'_>) {
    if !document.config.tenants.is_empty() && document.config.window.watermark == WatermarkScope::Global {
        let wrong = "devices of different tenants would share one watermark";
        fault(document, "window.watermark", wrong, "\"device\", or no [[tenants]]");
    }
}

fn log_level(document: &mut Document<'_>) {
    if let Err(wrong) = logging::check_filter(&document.config.log.level) {
        let near = nearest(&document.config.log.level, logging::LEVELS.iter().copied());
        let hint = near.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
        let expected = format!(
            "a level (off, error, warn, info, debug, trace) or directives such as \"info,weir::mqtt=debug\"{hint}"
        );
        fault(document, "log.level", wrong.to_string(), expected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_patterns() {
        for good in ["devices/+/telemetry", "a", "/+", "plant/line-1/+", "weir-readings/+", "weir"] {
            assert_eq!(pattern_fault(good), None, "{good}");
        }
        for bad in ["", "devices/#", "+/+", "devices/a+/x", "$SYS/x", "weir/windows/+", "+/x", "a\u{0}b"] {
            assert!(pattern_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn overlapping_patterns() {
        assert!(overlap("a/+/t", "a/b/t"));
        assert!(overlap("a/+", "+/b"));
        assert!(!overlap("a/+/t", "a/+/e"));
        assert!(!overlap("a/+", "a/b/c"));
    }

    #[test]
    fn metric_names() {
        assert!(is_metric("Motor.1_rpm:x/y-z"));
        for bad in ["", "a b", "é", &"x".repeat(65)] {
            assert!(!is_metric(bad), "{bad}");
        }
    }
}
