//! Messages that a subscriber misses because a bound is reached: counted by reason, logged, and told to the publisher.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Broker;
use crate::mqtt::session::Session;
use crate::mqtt::session::delivery::OfferOutcome;
use crate::mqtt::session::message::Message;
use crate::sync::lock;

/// Shortest time between two log lines about missed messages.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What became of one message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DeliveryReport {
    /// Number of subscriptions and queues that were examined.
    pub touched: usize,
    /// Whether a quota or a bound of all users kept the message from being retained, or from a session without a connection
    /// that subscribes with QoS 1 or 2.
    pub over_quota: bool,
}

/// Messages for absent subscribers that were missed since the last log line.
#[derive(Debug, Default)]
pub(super) struct MissedMessages(Mutex<MissedSince>);

#[derive(Debug, Default)]
struct MissedSince {
    logged: Option<Instant>,
    count: u64,
}

impl MissedMessages {
    /// Notes one more. Returns how many came since the last line if a line is due.
    fn note(&self, now: Instant) -> Option<u64> {
        let mut since = lock(&self.0);
        since.count += 1;
        if since.logged.is_some_and(|at| now.saturating_duration_since(at) < LOG_INTERVAL) {
            return None;
        }
        since.logged = Some(now);
        Some(std::mem::take(&mut since.count))
    }
}

impl Broker {
    /// Counts a message that `session`, which would get it with this QoS, misses. Returns whether the publisher is to be told:
    /// an absent session should have got it with QoS 1 or 2, and a quota or the bound of all sessions is the reason.
    #[cold]
    pub(super) fn miss(&self, message: &Message, session: &Session, qos: u8, missed: OfferOutcome) -> bool {
        let (reason, told) = match missed {
            OfferOutcome::Queued => return false,
            OfferOutcome::Full => {
                ("the queue of the session is full (mqtt.max_queued_messages, mqtt.max_queued_bytes)", false)
            }
            OfferOutcome::OverQuota => ("the user or tenant of the session is at its quota queued_bytes", true),
            OfferOutcome::NoRoom => ("all sessions together are at mqtt.max_queued_bytes_total", true),
        };
        match missed {
            OfferOutcome::OverQuota => self.meters.dropped_over_quota.increment(1),
            OfferOutcome::NoRoom => self.meters.dropped_no_room.increment(1),
            _ => self.meters.dropped_queue_full.increment(1),
        }
        let is_absent = qos > 0 && !session.is_connected();
        if is_absent && let Some(count) = self.missed.note(self.timeline.now()) {
            tracing::warn!(
                client_id = &*session.client_id,
                user = session.user.as_deref(),
                topic = &*message.topic,
                reason,
                count,
                "messages for absent subscribers were not queued; this is the newest of them"
            );
        }
        is_absent && told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_rare_and_none_is_left_uncounted() {
        let (missed, start) = (MissedMessages::default(), Instant::now());
        assert_eq!(missed.note(start), Some(1));
        assert_eq!(missed.note(start), None);
        assert_eq!(missed.note(start + LOG_INTERVAL), Some(2));
    }
}
