//! Deliveries to one session: the queue, the window of unacknowledged messages, packet identifiers. Pure: no lock, no
//! clock, no socket.

mod aliases;
mod encode;
mod stored;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::account::Account;
use super::message::Message;
use crate::mqtt::ProtocolVersion;
use crate::mqtt::wire::close::CloseReason;
use crate::mqtt::wire::frame;
use aliases::{MAX_ALIASES, OutgoingAliases};
use encode::{PacketTarget, put};
pub(crate) use stored::StoredDelivery;

/// Bounds of one session's queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    pub messages: usize,
    /// Bound of the queued bytes. The same bound holds for the unacknowledged bytes.
    pub bytes: usize,
    /// Bound of the memory of all sessions' messages together, in bytes.
    pub total_bytes: usize,
}

/// How far packet identifiers may run ahead of the oldest unacknowledged one, beyond the window.
const MAX_AHEAD: usize = 1_024;

/// How a message is sent to one subscriber.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeliveryGrant {
    pub qos: u8,
    /// RETAIN flag of the packet.
    pub retain: bool,
    /// Subscription identifiers of all subscriptions that matched. An empty list does not allocate.
    pub identifiers: Vec<u32>,
    /// Shared subscription that chose this subscriber; `None` for an ordinary one.
    pub share: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
struct QueuedMessage {
    message: Arc<Message>,
    grant: DeliveryGrant,
    /// Whether the message counts in the bounds of the queue. Retained messages of a new subscription do not.
    counted: bool,
}

/// A message of a shared subscription whose subscriber can no longer take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReturnedMessage {
    pub share: Arc<str>,
    pub message: Arc<Message>,
}

/// Messages that were removed from a session because its client may no longer receive them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct WithdrawnMessages {
    /// Number of messages that were removed.
    pub messages: u64,
    /// Removed messages that other members of their shared subscriptions can take.
    pub returned: Vec<ReturnedMessage>,
    /// Whether forbidden messages are left: the connection was sent them, and their acknowledgements are awaited.
    pub left: bool,
}

impl WithdrawnMessages {
    fn take(&mut self, queued: &QueuedMessage, returns: bool) {
        self.messages += 1;
        if let Some(share) = queued.grant.share.clone().filter(|_| returns) {
            self.returned.push(ReturnedMessage { share, message: Arc::clone(&queued.message) });
        }
    }
}

#[derive(Debug, Clone)]
enum InFlight {
    /// PUBLISH sent; awaits PUBACK (QoS 1) or PUBREC (QoS 2).
    Published(QueuedMessage),
    /// PUBREL sent; awaits PUBCOMP.
    Released,
}

impl InFlight {
    fn bytes(&self) -> usize {
        match self {
            InFlight::Published(queued) => queued.message.bytes(),
            InFlight::Released => 0,
        }
    }
}

/// Outcome of offering a message to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfferOutcome {
    /// The message waits to be sent.
    Queued,
    /// The queue is at its bound: this subscriber misses the message.
    Full,
    /// The subscriber's user or tenant is at its quota of queued bytes: this subscriber misses the message.
    OverQuota,
    /// All sessions together are at their bound, and the subscriber's user holds its share: this subscriber misses the message.
    NoRoom,
}

/// Counts of one [`Delivery::write`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct WriteOutcome {
    /// PUBLISH packets sent, by QoS.
    pub sent: [u64; 3],
    /// Messages dropped because they exceed the client's Maximum Packet Size.
    pub too_large: u64,
    /// Messages dropped because their message expiry interval had passed.
    pub expired: u64,
    /// Whether there is more to send: the output reached `max_bytes`.
    pub more: bool,
}

/// Outgoing messages of one session. Packet identifiers follow a sequence, so `inflight` is in the order of sending, and the
/// entry of an identifier is found by subtraction.
#[derive(Debug)]
pub(crate) struct Delivery {
    queue: VecDeque<QueuedMessage>,
    counted_messages: usize,
    queued_bytes: usize,
    /// Time before which no message of `queue` expires; `None` where none can expire.
    next_expiry: Option<Instant>,
    /// Unacknowledged messages in the order of sending; `None` where a later message was acknowledged first.
    inflight: VecDeque<Option<InFlight>>,
    /// Sequence number of `inflight[0]`. The packet identifier is the sequence number modulo 65,535, plus 1.
    first: u64,
    /// Entries of `inflight` that are not `None`.
    unacknowledged: usize,
    /// Bytes of the unacknowledged messages.
    inflight_bytes: usize,
    /// Entries of `inflight` below this index were sent on the present connection.
    sent: usize,
    /// Entries of `inflight` below `sent` that are not `None`.
    sent_open: usize,
    window: usize,
    aliases: OutgoingAliases,
    limits: QueueLimits,
}

impl Delivery {
    /// Makes an empty delivery. `window` is the largest number of unacknowledged messages.
    pub fn new(limits: QueueLimits, window: u16) -> Self {
        Self {
            queue: VecDeque::new(),
            counted_messages: 0,
            queued_bytes: 0,
            next_expiry: None,
            inflight: VecDeque::new(),
            first: 0,
            unacknowledged: 0,
            inflight_bytes: 0,
            sent: 0,
            sent_open: 0,
            window: usize::from(window),
            aliases: OutgoingAliases::default(),
            limits,
        }
    }

    /// Number of messages that wait to be sent.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Bytes of the messages that wait to be sent.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Number of messages that are queued or unacknowledged.
    pub fn held(&self) -> usize {
        self.queue.len() + self.unacknowledged
    }

    /// Bytes that the session's user has to answer for: of the messages that are queued or unacknowledged. Queued retained
    /// messages do not count.
    pub fn held_bytes(&self) -> usize {
        self.queued_bytes + self.inflight_bytes
    }

    /// All messages that are queued or unacknowledged.
    pub fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        let published = self.inflight.iter().flatten().filter_map(|stage| match stage {
            InFlight::Published(queued) => Some(queued),
            InFlight::Released => None,
        });
        published.chain(&self.queue).map(|queued| &queued.message)
    }

    /// Whether this session gets no further message because all sessions together, which hold `held_bytes`, are at their bound.
    /// Beyond the bound, sessions that hold no message still get messages until a quarter more, so that clients that keep up are
    /// served. Users that hold less than their share of three quarters of the bound still get messages until twice the bound,
    /// whatever other users hold.
    pub fn is_out_of_room(&self, held_bytes: usize, account: &Account) -> bool {
        let limit = self.limits.total_bytes;
        if held_bytes < limit {
            return false;
        }
        let spare = limit / 4;
        let keeps_up = self.held() == 0 && held_bytes < limit.saturating_add(spare);
        let is_light = held_bytes < limit.saturating_mul(2) && account.is_below_share(limit - spare);
        !keeps_up && !is_light
    }

    /// Queues a message. In a full queue, messages that expired by `now` are dropped first.
    pub fn offer(&mut self, message: &Arc<Message>, grant: DeliveryGrant, now: Instant) -> OfferOutcome {
        if self.is_full(message) {
            self.drop_expired(now);
            if self.is_full(message) {
                return OfferOutcome::Full;
            }
        }
        self.counted_messages += 1;
        self.queued_bytes += message.bytes();
        self.push(message, grant, true);
        OfferOutcome::Queued
    }

    /// Queues a retained message for a new subscription, outside the bounds of the queue. The message is shared with the
    /// retained messages, so it takes little memory; the caller limits how many are queued at a time.
    pub fn offer_retained(&mut self, message: &Arc<Message>, grant: DeliveryGrant) {
        self.push(message, grant, false);
    }

    fn push(&mut self, message: &Arc<Message>, grant: DeliveryGrant, counted: bool) {
        self.next_expiry = [self.next_expiry, message.expires].into_iter().flatten().min();
        self.queue.push_back(QueuedMessage { message: Arc::clone(message), grant, counted });
    }

    fn is_full(&self, message: &Message) -> bool {
        self.counted_messages >= self.limits.messages || self.queued_bytes + message.bytes() > self.limits.bytes
    }

    /// Drops expired messages. `next_expiry` keeps a queue that stays full from being searched for each missed message.
    #[cold]
    fn drop_expired(&mut self, now: Instant) {
        if self.next_expiry.is_none_or(|at| at > now) {
            return;
        }
        self.queue.retain(|queued| !queued.message.is_expired(now));
        self.count_queue();
    }

    fn count_queue(&mut self) {
        let counted = || self.queue.iter().filter(|queued| queued.counted);
        self.counted_messages = counted().count();
        self.queued_bytes = counted().map(|queued| queued.message.bytes()).sum();
        self.next_expiry = self.queue.iter().filter_map(|queued| queued.message.expires).min();
    }

    /// Continues the session on a new connection: unacknowledged messages are sent again [MQTT-4.4.0-1].
    pub fn resume(&mut self, window: u16) {
        self.window = usize::from(window);
        self.sent = 0;
        self.sent_open = 0;
        self.aliases = OutgoingAliases::default(); // they end with the connection [MQTT-3.3.2-7]
    }

    /// Sets how many topic aliases the client of the present connection takes.
    pub fn allow_aliases(&mut self, max: u16) {
        self.aliases.max = usize::from(max.min(MAX_ALIASES));
    }

    /// Removes and returns the messages of shared subscriptions that another member can take: those not sent, and those sent at
    /// QoS 1 [section 4.8.2]. A message sent at QoS 2 may not go to another client [MQTT-4.8.2-5].
    pub fn take_shared(&mut self) -> Vec<ReturnedMessage> {
        let sent = self.inflight.iter().flatten().filter_map(|stage| match stage {
            InFlight::Published(queued) if queued.grant.qos == 1 => Some(queued),
            _ => None,
        });
        let returned = sent.chain(&self.queue).filter_map(|queued| {
            let share = queued.grant.share.clone()?;
            Some(ReturnedMessage { share, message: Arc::clone(&queued.message) })
        });
        returned.collect()
    }

    /// Removes the messages on topics that are not `allowed`. Messages that were sent to an open connection stay until they are
    /// acknowledged, because the client counts them in its receive maximum.
    pub fn withdraw(&mut self, online: bool, allowed: impl Fn(&str) -> bool) -> WithdrawnMessages {
        let mut withdrawn = WithdrawnMessages::default();
        let from = if online { self.sent } else { 0 };
        for index in from..self.inflight.len() {
            let Some(InFlight::Published(queued)) = &self.inflight[index] else { continue };
            if allowed(&queued.message.topic) {
                continue;
            }
            withdrawn.take(queued, queued.grant.qos == 1);
            self.take_inflight(index);
        }
        withdrawn.left = online
            && self.inflight.iter().take(self.sent).flatten().any(|stage| match stage {
                InFlight::Published(queued) => !allowed(&queued.message.topic),
                InFlight::Released => false,
            });
        let before = withdrawn.messages;
        self.queue.retain(|queued| {
            let keep = allowed(&queued.message.topic);
            if !keep {
                withdrawn.take(queued, true);
            }
            keep
        });
        if withdrawn.messages > before {
            self.count_queue();
        }
        self.forget_acknowledged();
        withdrawn
    }

    /// Forgets all messages, for a session that is discarded.
    pub fn clear(&mut self) {
        *self = Self::new(self.limits, 0);
    }

    /// Appends packets to `out` until it holds `max_bytes` or the window is full.
    pub fn write(
        &mut self,
        version: ProtocolVersion,
        max_packet_bytes: usize,
        max_bytes: usize,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> WriteOutcome {
        let to = PacketTarget { version, max_packet_bytes, now };
        let mut written = WriteOutcome::default();
        while self.sent < self.inflight.len() && self.sent_open < self.window {
            if out.len() >= max_bytes {
                written.more = true;
                return written;
            }
            self.resend(&to, &mut written, out);
        }
        while let Some(front) = self.queue.front() {
            if front.grant.qos > 0 && !self.has_window() {
                return written;
            }
            if out.len() >= max_bytes {
                written.more = true;
                return written;
            }
            let Some(queued) = self.pop() else { return written };
            self.send(queued, &to, &mut written, out);
        }
        written
    }

    fn has_window(&self) -> bool {
        let span = (self.window + MAX_AHEAD).min(usize::from(u16::MAX) - 1);
        self.sent == self.inflight.len()
            && self.unacknowledged < self.window
            && self.inflight_bytes < self.limits.bytes
            && self.inflight.len() < span
    }

    fn pop(&mut self) -> Option<QueuedMessage> {
        let queued = self.queue.pop_front()?;
        if queued.counted {
            self.counted_messages -= 1;
            self.queued_bytes -= queued.message.bytes();
        }
        Some(queued)
    }

    fn send(&mut self, queued: QueuedMessage, to: &PacketTarget, written: &mut WriteOutcome, out: &mut Vec<u8>) {
        let qos = queued.grant.qos;
        if queued.message.is_expired(to.now) {
            written.expired += 1;
            self.skip(qos);
            return;
        }
        let packet_id = if qos > 0 { self.packet_id(self.inflight.len()) } else { 0 };
        if !put(&queued, packet_id, false, to, &mut self.aliases, out) {
            written.too_large += 1;
            self.skip(qos);
            return;
        }
        written.sent[usize::from(qos)] += 1;
        if qos > 0 {
            self.inflight_bytes += queued.message.bytes();
            self.inflight.push_back(Some(InFlight::Published(queued)));
            self.unacknowledged += 1;
            self.sent = self.inflight.len();
            self.sent_open += 1;
        }
    }

    /// A message that is dropped here takes a packet identifier all the same: a gap in the identifiers shows the client that it
    /// missed a message.
    fn skip(&mut self, qos: u8) {
        if qos > 0 {
            self.inflight.push_back(None);
            self.sent = self.inflight.len();
            self.forget_acknowledged();
        }
    }

    fn resend(&mut self, to: &PacketTarget, written: &mut WriteOutcome, out: &mut Vec<u8>) {
        let index = self.sent;
        let packet_id = self.packet_id(index);
        self.sent += 1;
        match &self.inflight[index] {
            None => {}
            Some(InFlight::Released) => {
                self.sent_open += 1;
                frame::put_ack(frame::PUBREL, packet_id, 0, to.version, out);
            }
            Some(InFlight::Published(queued)) => {
                self.sent_open += 1;
                if put(queued, packet_id, true, to, &mut self.aliases, out) {
                    written.sent[usize::from(queued.grant.qos)] += 1;
                } else {
                    written.too_large += 1;
                    self.remove(index);
                }
            }
        }
    }

    fn packet_id(&self, index: usize) -> u16 {
        ((self.first + index as u64) % u64::from(u16::MAX)) as u16 + 1
    }

    fn index(&self, packet_id: u16) -> Option<usize> {
        let first = self.packet_id(0);
        let ids = usize::from(u16::MAX);
        let index = (usize::from(packet_id) + ids - usize::from(first)) % ids;
        (packet_id > 0 && self.inflight.get(index)?.is_some()).then_some(index)
    }

    fn remove(&mut self, index: usize) {
        self.take_inflight(index);
        self.forget_acknowledged();
    }

    fn take_inflight(&mut self, index: usize) {
        let Some(stage) = self.inflight[index].take() else { return };
        self.inflight_bytes -= stage.bytes();
        self.unacknowledged -= 1;
        self.sent_open -= usize::from(index < self.sent);
    }

    fn forget_acknowledged(&mut self) {
        while let Some(None) = self.inflight.front() {
            self.inflight.pop_front();
            self.first += 1;
            self.sent = self.sent.saturating_sub(1);
        }
    }

    /// Takes a PUBACK, PUBREC or PUBCOMP of the client. Returns whether a PUBREL answers it. An acknowledgement with an unknown
    /// packet identifier is passed over: it may belong to an earlier connection.
    ///
    /// # Errors
    /// The acknowledgement does not fit the QoS or the stage of its message: a protocol error.
    pub fn acknowledge(&mut self, kind: u8, packet_id: u16, reason: u8) -> Result<bool, CloseReason> {
        let refused = reason >= 0x80;
        let Some(index) = self.index(packet_id) else { return Ok(kind == frame::PUBREC && !refused) };
        match (kind, &self.inflight[index]) {
            (frame::PUBACK, Some(InFlight::Published(queued))) if queued.grant.qos == 1 => self.remove(index),
            (frame::PUBCOMP, Some(InFlight::Released)) => self.remove(index),
            (frame::PUBREC, Some(InFlight::Published(queued))) if queued.grant.qos == 2 => {
                if refused {
                    self.remove(index); // [section 4.3.3]
                    return Ok(false);
                }
                self.inflight_bytes -= queued.message.bytes();
                self.inflight[index] = Some(InFlight::Released);
                return Ok(true);
            }
            (frame::PUBREC, Some(InFlight::Released)) => return Ok(!refused),
            _ => return Err(CloseReason::Protocol),
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests;
