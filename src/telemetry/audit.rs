//! The audit log: who connected, who was refused what, and who changed something. Events have fixed names and fields
//! (docs/audit.md), go to weir's log with the target [`TARGET`], and never hold a secret.
//!
//! Clients cause these events, so each kind has a bound: what comes faster is counted, and the next event of the kind
//! says how many are missing.

use std::fmt;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::names;
use crate::sync::lock;

/// Target of all audit events: `log.level = "warn,audit=info"` shows them alone.
pub const TARGET: &str = "audit";

/// Events of one kind per second; as many may come at once.
const RATE: f64 = 200.0;

/// Longest text that a client chose and an event shows, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// Whom an event is about, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct AuditActor<'a> {
    /// MQTT client identifier.
    pub client_id: Option<&'a str>,
    /// User name, or name of the HTTP token.
    pub user: Option<&'a str>,
    /// Address of the other end.
    pub address: Option<IpAddr>,
}

/// Kinds of events. Their names are part of weir's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditEvent {
    /// An MQTT client was let in.
    MqttConnected,
    /// Its connection ended.
    MqttDisconnected,
    /// An MQTT client was not let in.
    MqttRefused,
    /// A publish was denied by the access rules.
    PublishDenied,
    /// A subscription was denied by the access rules.
    SubscribeDenied,
    /// A will was denied by the access rules.
    WillDenied,
    /// An HTTP request was not allowed.
    HttpRefused,
    /// Somebody had weir do something: a savepoint, a replay of errors.
    AdminAction,
    /// The configuration or a file that it names was read again and taken.
    Reloaded,
    /// It was read again and refused; nothing changed.
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
    pub fn name(self) -> &'static str {
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

/// Writes an event. `subject` is what it was about (a topic, a path, a file), `detail` the reason or the roles.
pub fn record(kind: AuditEvent, who: &AuditActor<'_>, subject: &str, detail: &str) {
    let Some(suppressed) = BUCKETS[kind as usize].take(Instant::now()) else {
        return count_suppressed(kind);
    };
    let suppressed = (suppressed > 0).then_some(suppressed);
    let client_id = who.client_id.map(Shown);
    let user = who.user.map(Shown);
    let address = who.address.map(tracing::field::display);
    let subject = (!subject.is_empty()).then_some(Shown(subject));
    let detail = (!detail.is_empty()).then_some(Shown(detail));
    macro_rules! write_at {
        ($level:expr) => {
            tracing::event!(
                target: TARGET,
                $level,
                event = kind.name(),
                client_id = client_id.map(tracing::field::display),
                user = user.map(tracing::field::display),
                address,
                subject = subject.map(tracing::field::display),
                detail = detail.map(tracing::field::display),
                suppressed,
            )
        };
    }
    if kind.is_refusal() {
        write_at!(tracing::Level::WARN);
    } else {
        write_at!(tracing::Level::INFO);
    }
}

/// An event that is not written, since there are too many of its kind.
pub fn suppress(kind: AuditEvent) {
    BUCKETS[kind as usize].suppressed.fetch_add(1, Ordering::Relaxed);
    count_suppressed(kind);
}

fn count_suppressed(kind: AuditEvent) {
    metrics::counter!(names::AUDIT_SUPPRESSED, "event" => kind.name()).increment(1);
}

/// Text that a client chose: cut, and without the control characters that would forge a line or move a cursor.
#[derive(Debug, Clone, Copy)]
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = (0..=MAX_TEXT_BYTES.min(self.0.len())).rev().find(|end| self.0.is_char_boundary(*end)).unwrap_or(0);
        for character in self.0[..end].chars() {
            if character.is_control() {
                write!(formatter, "{}", character.escape_default())?;
            } else {
                write!(formatter, "{character}")?;
            }
        }
        if end < self.0.len() { formatter.write_str("…") } else { Ok(()) }
    }
}

static BUCKETS: [EventBucket; AuditEvent::ALL.len()] = [const { EventBucket::new() }; AuditEvent::ALL.len()];

/// A token bucket, full at first.
#[derive(Debug)]
struct EventBucket {
    /// Tokens and when they were counted; `None`: full.
    level: Mutex<Option<(f64, Instant)>>,
    suppressed: AtomicU64,
}

impl EventBucket {
    const fn new() -> Self {
        Self { level: Mutex::new(None), suppressed: AtomicU64::new(0) }
    }

    /// Takes a token; returns how many had to go without since the last one. `None`: there is none.
    fn take(&self, now: Instant) -> Option<u64> {
        let mut level = lock(&self.level);
        let tokens = level.map_or(RATE, |(tokens, counted)| {
            (tokens + now.saturating_duration_since(counted).as_secs_f64() * RATE).min(RATE)
        });
        if tokens < 1.0 {
            *level = Some((tokens, now));
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        *level = Some((tokens - 1.0, now));
        Some(self.suppressed.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_kind_has_its_own_place_and_name() {
        for (index, kind) in AuditEvent::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
        let names: std::collections::BTreeSet<_> = AuditEvent::ALL.map(AuditEvent::name).into();
        assert_eq!(names.len(), AuditEvent::ALL.len());
    }

    #[test]
    fn what_comes_too_fast_is_counted_and_told() {
        let (bucket, start) = (EventBucket::new(), Instant::now());
        let taken = (0..1_000).filter(|_| bucket.take(start).is_some()).count();
        assert_eq!(taken, RATE as usize);
        assert_eq!(bucket.take(start + Duration::from_secs(1)), Some(1_000 - RATE as u64));
        assert_eq!(bucket.take(start + Duration::from_secs(1)), Some(0));
    }

    #[test]
    fn what_a_client_chose_cannot_forge_a_line() {
        assert_eq!(Shown("a\nb\u{1b}[31m").to_string(), "a\\nb\\u{1b}[31m");
        let long = "é".repeat(MAX_TEXT_BYTES);
        let shown = Shown(&long).to_string();
        assert!(shown.ends_with('…') && shown.len() <= MAX_TEXT_BYTES + '…'.len_utf8());
    }
}
