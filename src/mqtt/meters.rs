//! Handles of the door's metrics, looked up once: the hot path adds to them once per read.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::Version;
use super::broker::BrokerStats;
use super::close::Close;
use super::session::Received;
use crate::telemetry::names;

/// All of them. Build it after the recorder is installed.
pub(crate) struct Meters {
    opened: [Counter; 2],
    ingest: [Counter; 3],
    other: [Counter; 3],
    ingest_bytes: Counter,
    repeated: Counter,
    refused_reserved: Counter,
    delivered: [Counter; 3],
    pub dropped_queue_full: Counter,
    pub dropped_too_large: Counter,
    pub dropped_will: Counter,
    pub ack_seconds: Histogram,
    pub backpressure_seconds: Counter,
    connections: Gauge,
    sessions: Gauge,
    subscriptions: Gauge,
    retained: Gauge,
    queued: Gauge,
    queued_bytes: Gauge,
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Meters").finish_non_exhaustive()
    }
}

impl Default for Meters {
    fn default() -> Self {
        const QOS: [&str; 3] = ["0", "1", "2"];
        let received =
            |kind: &'static str| QOS.map(|qos| counter!(names::MQTT_PUBLISHES_RECEIVED, "qos" => qos, "kind" => kind));
        let dropped = |reason: &'static str| counter!(names::MQTT_DROPPED, "reason" => reason);
        Self {
            opened: ["3.1.1", "5.0"].map(|version| counter!(names::MQTT_CONNECTIONS_OPENED, "version" => version)),
            ingest: received("ingest"),
            other: received("other"),
            ingest_bytes: counter!(names::MQTT_PUBLISH_BYTES),
            repeated: counter!(names::MQTT_PUBLISHES_REPEATED),
            refused_reserved: counter!(names::MQTT_PUBLISHES_REFUSED, "reason" => "reserved_topic"),
            delivered: QOS.map(|qos| counter!(names::MQTT_DELIVERED, "qos" => qos)),
            dropped_queue_full: dropped("queue_full"),
            dropped_too_large: dropped("too_large"),
            dropped_will: dropped("will_not_journaled"),
            ack_seconds: histogram!(names::MQTT_ACK_SECONDS),
            backpressure_seconds: counter!(names::MQTT_BACKPRESSURE_SECONDS),
            connections: gauge!(names::MQTT_CONNECTIONS),
            sessions: gauge!(names::MQTT_SESSIONS),
            subscriptions: gauge!(names::MQTT_SUBSCRIPTIONS),
            retained: gauge!(names::MQTT_RETAINED),
            queued: gauge!(names::MQTT_QUEUED),
            queued_bytes: gauge!(names::MQTT_QUEUED_BYTES),
        }
    }
}

impl Meters {
    /// A connection was accepted.
    pub fn opened(&self, version: Version) {
        self.opened[usize::from(version == Version::V5)].increment(1);
    }

    /// A connection ended before or at its CONNECT.
    pub fn refused(&self, reason: &'static str) {
        counter!(names::MQTT_CONNECTIONS_REFUSED, "reason" => reason).increment(1);
    }

    /// An accepted connection ended.
    pub fn closed(&self, close: Close) {
        counter!(names::MQTT_CONNECTIONS_CLOSED, "reason" => close.label()).increment(1);
        if close == Close::TopicName {
            counter!(names::MQTT_PUBLISHES_REFUSED, "reason" => "invalid_topic").increment(1);
        }
    }

    /// A limit refused something.
    pub fn limit(&self, limit: &'static str) {
        counter!(names::LIMITS_HIT, "limit" => limit).increment(1);
    }

    /// A client that sent too fast was made to wait.
    pub fn throttled(&self, limit: &'static str) {
        counter!(names::MQTT_THROTTLED, "limit" => limit).increment(1);
    }

    /// What one read brought.
    pub fn received(&self, received: &Received) {
        for (counters, counts) in [(&self.ingest, &received.ingest), (&self.other, &received.other)] {
            for (counter, count) in counters.iter().zip(counts) {
                add(counter, *count);
            }
        }
        add(&self.ingest_bytes, received.ingest_bytes);
        add(&self.repeated, received.repeated);
        add(&self.refused_reserved, received.refused);
    }

    /// PUBLISH packets sent, by QoS.
    pub fn delivered(&self, sent: &[u64; 3]) {
        for (counter, count) in self.delivered.iter().zip(sent) {
            add(counter, *count);
        }
    }

    /// Sets the gauges.
    pub fn set(&self, stats: &BrokerStats) {
        for (gauge, value) in [
            (&self.connections, stats.connections),
            (&self.sessions, stats.sessions),
            (&self.subscriptions, stats.subscriptions),
            (&self.retained, stats.retained),
            (&self.queued, stats.queued_messages),
            (&self.queued_bytes, stats.queued_bytes),
        ] {
            gauge.set(value as f64);
        }
    }
}

/// Most counts are 0 in most reads: an atomic addition is saved.
fn add(counter: &Counter, count: u64) {
    if count > 0 {
        counter.increment(count);
    }
}
