//! Metrics of MQTT. The handles are looked up once; the hot path adds to them once per read.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Histogram, counter, histogram};

use super::traffic::{ReceivedCounts, TrafficCounters};
use crate::mqtt::ProtocolVersion;
use crate::mqtt::session::delivery::WriteOutcome;
use crate::mqtt::wire::close::CloseReason;
use crate::mqtt::wire::refusal::RefusalReason;

use crate::telemetry::names;

/// Handles of the MQTT metrics. They must be made after the metrics recorder is installed.
pub(crate) struct MqttMeters {
    opened: [Counter; 2],
    ingest: [Counter; 3],
    other: [Counter; 3],
    ingest_bytes: Counter,
    unmatched: Counter,
    repeated: Counter,
    refused_reserved: Counter,
    refused_denied: Counter,
    refused_misformatted: Counter,
    pub subscriptions_denied: Counter,
    pub subscriptions_withdrawn: Counter,
    delivered: [Counter; 3],
    /// Counts for `$SYS`.
    pub traffic: TrafficCounters,
    pub dropped_queue_full: DropCounter,
    pub dropped_over_quota: DropCounter,
    pub dropped_no_room: DropCounter,
    dropped_too_large: Counter,
    dropped_expired: Counter,
    pub dropped_will: Counter,
    pub dropped_will_denied: Counter,
    pub dropped_withdrawn: Counter,
    pub ack_seconds: Histogram,
    pub backpressure_seconds: Counter,
}

impl std::fmt::Debug for MqttMeters {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("MqttMeters").finish_non_exhaustive()
    }
}

impl Default for MqttMeters {
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
            unmatched: counter!(names::MQTT_PUBLISHES_UNMATCHED),
            repeated: counter!(names::MQTT_PUBLISHES_REPEATED),
            refused_reserved: counter!(names::MQTT_PUBLISHES_REFUSED, "reason" => "reserved_topic"),
            refused_denied: counter!(names::MQTT_PUBLISHES_REFUSED, "reason" => "denied"),
            refused_misformatted: counter!(names::MQTT_PUBLISHES_REFUSED, "reason" => "payload_format"),
            subscriptions_denied: counter!(names::MQTT_SUBSCRIPTIONS_DENIED, "when" => "subscribe"),
            subscriptions_withdrawn: counter!(names::MQTT_SUBSCRIPTIONS_DENIED, "when" => "reload"),
            delivered: QOS.map(|qos| counter!(names::MQTT_DELIVERED, "qos" => qos)),
            traffic: TrafficCounters::default(),
            dropped_queue_full: DropCounter::new(dropped("queue_full")),
            dropped_over_quota: DropCounter::new(dropped("over_quota")),
            dropped_no_room: DropCounter::new(dropped("no_room")),
            dropped_expired: dropped("expired"),
            dropped_too_large: dropped("too_large"),
            dropped_will: dropped("will_not_journaled"),
            dropped_will_denied: dropped("will_denied"),
            dropped_withdrawn: dropped("access_withdrawn"),
            ack_seconds: histogram!(names::MQTT_ACK_SECONDS),
            backpressure_seconds: counter!(names::MQTT_BACKPRESSURE_SECONDS),
        }
    }
}

impl MqttMeters {
    /// Counts an accepted connection.
    pub fn opened(&self, version: ProtocolVersion) {
        self.opened[usize::from(version == ProtocolVersion::V5)].increment(1);
    }

    /// Counts a connection that was refused at or before its CONNECT.
    pub fn refused(&self, reason: RefusalReason) {
        counter!(names::MQTT_CONNECTIONS_REFUSED, "reason" => reason.as_str()).increment(1);
    }

    /// Counts the end of an accepted connection.
    pub fn closed(&self, close: CloseReason) {
        counter!(names::MQTT_CONNECTIONS_CLOSED, "reason" => close.as_str()).increment(1);
        if close == CloseReason::TopicName {
            counter!(names::MQTT_PUBLISHES_REFUSED, "reason" => "invalid_topic").increment(1);
        }
    }

    /// Counts a refusal by a limit.
    pub fn limit(&self, limit: MqttLimit) {
        counter!(names::LIMITS_HIT, "limit" => limit.as_str()).increment(1);
    }

    /// Counts something that the user with most of it lost, because another user needed the room.
    pub fn pushed_out(&self, what: &'static str) {
        counter!(names::MQTT_PUSHED_OUT, "what" => what).increment(1);
    }

    /// Counts a refusal by a quota of a user or tenant.
    pub fn over_quota(&self, quota: &'static str) {
        counter!(names::MQTT_OVER_QUOTA, "quota" => quota).increment(1);
    }

    /// Counts a client that exceeded a rate and has to wait.
    pub fn throttled(&self, limit: LimitedRate) {
        counter!(names::MQTT_THROTTLED, "limit" => limit.as_str()).increment(1);
    }

    /// Counts the packets of one read.
    pub fn received(&self, received: &ReceivedCounts) {
        for (counters, counts) in [(&self.ingest, &received.ingest), (&self.other, &received.other)] {
            for (counter, count) in counters.iter().zip(counts) {
                add(counter, *count);
            }
        }
        add(&self.ingest_bytes, received.ingest_bytes);
        add(&self.unmatched, received.unmatched);
        add(&self.repeated, received.repeated);
        add(&self.refused_reserved, received.refused);
        add(&self.refused_denied, received.denied);
        add(&self.refused_misformatted, received.misformatted);
        self.traffic.received(received);
    }

    /// Number of messages that subscribers missed because a queue, a quota or all queues together were full.
    pub fn missed(&self) -> u64 {
        [&self.dropped_queue_full, &self.dropped_over_quota, &self.dropped_no_room].map(DropCounter::get).iter().sum()
    }

    /// Counts the packets of one delivery.
    pub fn written(&self, written: &WriteOutcome) {
        for (counter, count) in self.delivered.iter().zip(written.sent) {
            add(counter, count);
        }
        add(&self.dropped_too_large, written.too_large);
        add(&self.dropped_expired, written.expired);
        self.traffic.delivered(written);
    }
}

/// A rate of `mqtt.rates` that a client may exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitedRate {
    /// Messages per second.
    Messages,
    /// Bytes per second.
    Bytes,
    /// The quota `publish_rate` of the user or its tenant.
    User,
}

impl LimitedRate {
    /// Label `limit` in the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            LimitedRate::Messages => "messages",
            LimitedRate::Bytes => "bytes",
            LimitedRate::User => "user",
        }
    }
}

/// A limit of MQTT that may refuse something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MqttLimit {
    /// Accepting a socket failed, mostly for want of file descriptors.
    Accept,
    /// TLS handshakes at the same time.
    TlsHandshakes,
    /// `mqtt.max_connections`.
    Connections,
    /// `mqtt.max_connections_per_address`.
    ConnectionsPerAddress,
    /// `limits.pending_bytes`.
    PendingBytes,
    /// Published wills that the store still holds.
    Wills,
    /// Sessions, of which there are at most `mqtt.max_connections`.
    Sessions,
    /// Number and bytes of retained messages.
    Retained,
    /// `mqtt.max_topic_levels`.
    TopicLevels,
    /// Subscriptions of one session or of all sessions.
    Subscriptions,
    /// Size of a record of the journal.
    JournalRecord,
}

impl MqttLimit {
    /// Label `limit` in the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            MqttLimit::Accept => "mqtt_accept",
            MqttLimit::TlsHandshakes => "tls_handshakes",
            MqttLimit::Connections => "mqtt_connections",
            MqttLimit::ConnectionsPerAddress => "mqtt_connections_per_address",
            MqttLimit::PendingBytes => "pending_bytes",
            MqttLimit::Wills => "mqtt_wills",
            MqttLimit::Sessions => "mqtt_sessions",
            MqttLimit::Retained => "mqtt_retained",
            MqttLimit::TopicLevels => "mqtt_topic_levels",
            MqttLimit::Subscriptions => "mqtt_subscriptions",
            MqttLimit::JournalRecord => "journal_record",
        }
    }
}

/// Counts messages that subscribers missed, for the metrics and for `$SYS`.
pub(crate) struct DropCounter {
    counter: Counter,
    count: AtomicU64,
}

impl DropCounter {
    fn new(counter: Counter) -> Self {
        Self { counter, count: AtomicU64::new(0) }
    }

    pub fn increment(&self, count: u64) {
        self.counter.increment(count);
        self.count.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Adds a count. Most counts are 0 in most reads, so the atomic addition is skipped for them.
fn add(counter: &Counter, count: u64) {
    if count > 0 {
        counter.increment(count);
    }
}
