//! The audit log: who connected, what was refused to whom, and who changed something.
//!
//! Events have fixed names and fields (docs/audit.md). They are lines of weir's log with the target [`TARGET`], and never
//! hold a secret. Clients cause these events, so each kind of event has a limit: events beyond it are counted, and the next
//! event of the kind says how many are missing. The callers decide what is worth an event.

use std::fmt;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::names;
use crate::sync::lock;
use crate::token_bucket::TokenBucket;

/// Target of all audit events: `log.level = "warn,audit=info"` shows them alone.
pub const TARGET: &str = "audit";

/// Largest number of events of one kind per second, also at once.
const EVENTS_PER_SECOND: u64 = 200;

/// Longest text of a client that an event shows, in bytes. Longer texts are cut.
const MAX_TEXT_BYTES: usize = 256;

/// Longest message of a reload, in bytes: one event has all faults or all keys. The text is the operator's own.
const MAX_RELOAD_TEXT_BYTES: usize = 16 * 1024;

/// The client or user that an event is about, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct AuditActor<'a> {
    /// MQTT client identifier.
    pub client_id: Option<&'a str>,
    /// User name, or name of the HTTP token.
    pub user: Option<&'a str>,
    /// Remote address.
    pub address: Option<IpAddr>,
}

/// A kind of event. The names are part of weir's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditEvent {
    /// An MQTT client has logged in.
    MqttConnected,
    /// The connection of a logged-in MQTT client has ended.
    MqttDisconnected,
    /// An MQTT client was refused before or at its login.
    MqttRefused,
    /// A publish was denied by the access rules.
    PublishDenied,
    /// A subscription was denied by the access rules.
    SubscribeDenied,
    /// A will was denied by the access rules.
    WillDenied,
    /// An HTTP request was refused.
    HttpRefused,
    /// A user of the HTTP API made weir do something: take a savepoint, replay errors.
    AdminAction,
    /// The configuration was read again and took effect.
    Reloaded,
    /// The configuration was read again and refused as a whole, or some of its changes need a restart.
    ReloadRefused,
}

impl AuditEvent {
    /// All kinds.
    pub const ALL: [AuditEvent; 10] = [
        AuditEvent::MqttConnected,
        AuditEvent::MqttDisconnected,
        AuditEvent::MqttRefused,
        AuditEvent::PublishDenied,
        AuditEvent::SubscribeDenied,
        AuditEvent::WillDenied,
        AuditEvent::HttpRefused,
        AuditEvent::AdminAction,
        AuditEvent::Reloaded,
        AuditEvent::ReloadRefused,
    ];

    /// The value of the field `event`.
    pub fn as_str(self) -> &'static str {
        match self {
            AuditEvent::MqttConnected => "mqtt_connected",
            AuditEvent::MqttDisconnected => "mqtt_disconnected",
            AuditEvent::MqttRefused => "mqtt_refused",
            AuditEvent::PublishDenied => "publish_denied",
            AuditEvent::SubscribeDenied => "subscribe_denied",
            AuditEvent::WillDenied => "will_denied",
            AuditEvent::HttpRefused => "http_refused",
            AuditEvent::AdminAction => "admin_action",
            AuditEvent::Reloaded => "reloaded",
            AuditEvent::ReloadRefused => "reload_refused",
        }
    }

    fn is_refusal(self) -> bool {
        !matches!(
            self,
            AuditEvent::MqttConnected | AuditEvent::MqttDisconnected | AuditEvent::AdminAction | AuditEvent::Reloaded
        )
    }
}

/// Writes an event, unless too many of its kind were written within the last second. `subject` is the object of the event (a
/// topic, a path, a file), `detail` the reason or the roles; both may be empty.
pub fn record(event: AuditEvent, actor: &AuditActor<'_>, subject: &str, detail: &str) {
    let Some(suppressed) = LIMITS[event as usize].admit(Instant::now()) else {
        return count_suppressed(event);
    };
    let suppressed = (suppressed > 0).then_some(suppressed);
    let shown = |text| ClientText(text, MAX_TEXT_BYTES);
    let client_id = actor.client_id.map(shown);
    let user = actor.user.map(shown);
    let address = actor.address.map(tracing::field::display);
    let subject = (!subject.is_empty()).then_some(shown(subject));
    let detail = (!detail.is_empty()).then_some(shown(detail));
    macro_rules! write_at {
        ($level:expr) => {
            tracing::event!(
                target: TARGET,
                $level,
                event = event.as_str(),
                client_id = client_id.map(tracing::field::display),
                user = user.map(tracing::field::display),
                address,
                subject = subject.map(tracing::field::display),
                detail = detail.map(tracing::field::display),
                suppressed,
            )
        };
    }
    if event.is_refusal() {
        write_at!(tracing::Level::WARN);
    } else {
        write_at!(tracing::Level::INFO);
    }
}

/// Writes the outcome of a reload: [`AuditEvent::Reloaded`], or [`AuditEvent::ReloadRefused`] if not everything took effect.
/// Unlike other events it has a message, with all faults and keys, because `journalctl` shows only messages. `detail` is the
/// short form for programs.
pub fn record_reload(is_refused: bool, source: &str, detail: &str, message: &str) {
    let shown = |text| ClientText(text, MAX_RELOAD_TEXT_BYTES);
    let (source, detail, message) = (shown(source), shown(detail), shown(message));
    if is_refused {
        let event = AuditEvent::ReloadRefused.as_str();
        tracing::warn!(target: TARGET, event, subject = %source, %detail, "{message}");
    } else {
        let event = AuditEvent::Reloaded.as_str();
        tracing::info!(target: TARGET, event, subject = %source, %detail, "{message}");
    }
}

/// Counts an event that the caller does not write because there are too many of its kind.
pub fn suppress(event: AuditEvent) {
    LIMITS[event as usize].suppressed.fetch_add(1, Ordering::Relaxed);
    count_suppressed(event);
}

fn count_suppressed(event: AuditEvent) {
    metrics::counter!(names::AUDIT_SUPPRESSED, "event" => event.as_str()).increment(1);
}

/// Displays text of a client, cut to this number of bytes. The log's format escapes it, so that a client can neither forge a line or
/// a field nor move the cursor of a terminal.
#[derive(Debug, Clone, Copy)]
struct ClientText<'a>(&'a str, usize);

impl fmt::Display for ClientText<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = (0..=self.1.min(self.0.len())).rev().find(|end| self.0.is_char_boundary(*end)).unwrap_or(0);
        formatter.write_str(&self.0[..end])?;
        if end < self.0.len() { formatter.write_str("…") } else { Ok(()) }
    }
}

static LIMITS: [EventLimit; AuditEvent::ALL.len()] = [const { EventLimit::new() }; AuditEvent::ALL.len()];

/// Limits the events of one kind, and counts the suppressed ones.
#[derive(Debug)]
struct EventLimit {
    /// `None`: no event has been written yet, so the bucket is full.
    bucket: Mutex<Option<TokenBucket>>,
    /// Suppressed events since the last written one.
    suppressed: AtomicU64,
}

impl EventLimit {
    const fn new() -> Self {
        Self { bucket: Mutex::new(None), suppressed: AtomicU64::new(0) }
    }

    /// Whether an event may be written now. `Some`: yes, and the number says how many were suppressed since the last one.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut bucket = lock(&self.bucket);
        let bucket = bucket.get_or_insert_with(|| TokenBucket::full(EVENTS_PER_SECOND, now));
        if bucket.tokens(now) == 0 {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        bucket.take(1, now);
        Some(self.suppressed.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_event_has_its_own_limit_and_name() {
        for (index, event) in AuditEvent::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, index);
        }
        let names: std::collections::BTreeSet<_> = AuditEvent::ALL.map(AuditEvent::as_str).into();
        assert_eq!(names.len(), AuditEvent::ALL.len());
    }

    #[test]
    fn events_beyond_the_limit_are_counted_and_reported() {
        let (limit, start) = (EventLimit::new(), Instant::now());
        let taken = (0..1_000).filter(|_| limit.admit(start).is_some()).count();
        assert_eq!(taken, EVENTS_PER_SECOND as usize);
        assert_eq!(limit.admit(start + Duration::from_secs(1)), Some(1_000 - EVENTS_PER_SECOND));
        assert_eq!(limit.admit(start + Duration::from_secs(1)), Some(0));
    }

    #[test]
    fn long_text_of_a_client_is_cut() {
        assert_eq!(ClientText("a", MAX_TEXT_BYTES).to_string(), "a");
        let long = "é".repeat(MAX_TEXT_BYTES);
        let shown = ClientText(&long, MAX_TEXT_BYTES).to_string();
        assert!(shown.ends_with('…') && shown.len() <= MAX_TEXT_BYTES + '…'.len_utf8());
    }
}
