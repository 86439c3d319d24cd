//! `$SYS`: the broker's own numbers under the names that dashboards and tools know from mosquitto.

use std::time::Duration;

use super::BrokerStats;
use super::traffic::TrafficCounts;

/// Topics and values.
pub(crate) fn messages(
    stats: &BrokerStats,
    counts: &TrafficCounts,
    dropped: u64,
    uptime: Duration,
) -> Vec<(&'static str, String)> {
    let count = |number: usize| number.to_string();
    vec![
        ("$SYS/broker/version", format!("weir version {}", env!("CARGO_PKG_VERSION"))),
        ("$SYS/broker/uptime", format!("{} seconds", uptime.as_secs())),
        ("$SYS/broker/clients/total", count(stats.sessions)),
        ("$SYS/broker/clients/connected", count(stats.connections)),
        ("$SYS/broker/clients/active", count(stats.connections)),
        ("$SYS/broker/clients/disconnected", count(stats.sessions - stats.connections.min(stats.sessions))),
        ("$SYS/broker/clients/inactive", count(stats.sessions - stats.connections.min(stats.sessions))),
        ("$SYS/broker/clients/maximum", count(stats.most_connections)),
        ("$SYS/broker/clients/expired", count(stats.sessions_expired)),
        ("$SYS/broker/messages/received", counts.packets_received.to_string()),
        ("$SYS/broker/messages/sent", counts.packets_sent.to_string()),
        ("$SYS/broker/messages/stored", count(stats.retained + stats.queued_messages)),
        ("$SYS/broker/store/messages/count", count(stats.retained + stats.queued_messages)),
        ("$SYS/broker/store/messages/bytes", count(stats.retained_bytes + stats.queued_bytes)),
        ("$SYS/broker/publish/messages/received", counts.publishes_received.to_string()),
        ("$SYS/broker/publish/messages/sent", counts.publishes_sent.to_string()),
        ("$SYS/broker/publish/messages/dropped", (counts.publishes_dropped + dropped).to_string()),
        ("$SYS/broker/bytes/received", counts.bytes_received.to_string()),
        ("$SYS/broker/bytes/sent", counts.bytes_sent.to_string()),
        ("$SYS/broker/subscriptions/count", count(stats.subscriptions)),
        ("$SYS/broker/shared_subscriptions/count", count(stats.shared_subscriptions)),
        ("$SYS/broker/retained messages/count", count(stats.retained)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_mosquittos() {
        let stats = BrokerStats { connections: 1, sessions: 3, retained: 2, ..BrokerStats::default() };
        let counts = TrafficCounts { publishes_dropped: 2, ..TrafficCounts::default() };
        let messages = messages(&stats, &counts, 3, Duration::from_secs(61));
        let value = |name: &str| messages.iter().find(|(topic, _)| *topic == name).map(|(_, value)| value.as_str());
        assert_eq!(value("$SYS/broker/uptime"), Some("61 seconds"));
        assert_eq!(value("$SYS/broker/clients/disconnected"), Some("2"));
        assert_eq!(value("$SYS/broker/publish/messages/dropped"), Some("5"));
        assert_eq!(value("$SYS/broker/retained messages/count"), Some("2"));
    }
}
