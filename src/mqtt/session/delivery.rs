//! What one session is to receive: the queue, the window of unacknowledged messages, packet identifiers. Pure.

mod aliases;
mod encode;
mod stored;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

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
    /// Bytes that wait, and as many that are unacknowledged.
    pub bytes: usize,
    /// What all sessions may hold together.
    pub total_bytes: usize,
}

/// Numbers that the sequence of packet ids may run ahead of the oldest unacknowledged one, beyond the window.
const MAX_AHEAD: usize = 1_024;

/// How a subscriber is to get a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeliveryGrant {
    pub qos: u8,
    /// The RETAIN flag to send.
    pub retain: bool,
    /// Identifiers of all subscriptions that matched; none without allocation.
    pub identifiers: Vec<u32>,
    /// The shared subscription that chose this subscriber.
    pub share: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
struct QueuedMessage {
    message: Arc<Message>,
    grant: DeliveryGrant,
    /// Whether it counts in the bounds.
    counted: bool,
}

/// A message of a shared subscription that its subscriber can no longer take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReturnedMessage {
    pub share: Arc<str>,
    pub message: Arc<Message>,
}

/// What was taken from a session because its client may not have it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct WithdrawnMessages {
    /// How many messages.
    pub messages: u64,
    /// Those of shared subscriptions that others can have.
    pub returned: Vec<ReturnedMessage>,
    /// Whether such messages are left, since the connection was sent them.
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

/// What became of an offered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfferOutcome {
    /// It waits to be sent.
    Queued,
    /// The queue is at its bound: this subscriber misses it.
    Full,
}

/// What [`Delivery::write`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct WriteOutcome {
    /// PUBLISH packets by QoS.
    pub sent: [u64; 3],
    /// Messages dropped because the client takes no packets that large.
    pub too_large: u64,
    /// Messages dropped because their time was over.
    pub expired: u64,
    /// Whether it stopped at `max_bytes` with more to send.
    pub more: bool,
}

/// OutgoingPublish messages of one session. Packet ids follow a sequence, so `inflight` is in sending order and an id is
/// found by subtraction.
#[derive(Debug)]
pub(crate) struct Delivery {
    queue: VecDeque<QueuedMessage>,
    counted_messages: usize,
    queued_bytes: usize,
    /// Nothing in `queue` expires before.
    next_expiry: Option<Instant>,
    /// `None`: acknowledged out of order.
    inflight: VecDeque<Option<InFlight>>,
    /// Sequence number of `inflight[0]`; packet id = sequence number % 65,535 + 1.
    first: u64,
    /// Entries of `inflight` that are not `None`.
    unacknowledged: usize,
    /// Bytes of the messages among them.
    inflight_bytes: usize,
    /// `inflight` below this index was sent on this connection.
    sent: usize,
    /// Entries below `sent` that are not `None`.
    sent_open: usize,
    window: usize,
    aliases: OutgoingAliases,
    limits: QueueLimits,
}

impl Delivery {
    /// `window`: unacknowledged messages at most.
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

    /// Messages that wait to be sent.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Their bytes.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Messages that the session holds, queued and unacknowledged.
    pub fn held(&self) -> usize {
        self.queue.len() + self.unacknowledged
    }

    /// All of them.
    pub fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        let published = self.inflight.iter().flatten().filter_map(|stage| match stage {
            InFlight::Published(queued) => Some(queued),
            InFlight::Released => None,
        });
        published.chain(&self.queue).map(|queued| &queued.message)
    }

    /// Whether all sessions together hold so much that this one gets no more: clients that keep up go on first.
    pub fn is_out_of_room(&self, held_bytes: usize) -> bool {
        let limit = self.limits.total_bytes;
        held_bytes >= limit && (self.held() > 0 || held_bytes >= limit.saturating_mul(2))
    }

    /// Queues a message. Where the queue is full, what expired by `now` makes room.
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

    /// Queues a retained message because of a subscribe. It shares what the retained store holds; whoever calls this sees
    /// to it that they do not become many.
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

    /// A queue that stays full is not searched for each message that it misses: only once something in it has expired.
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

    /// The session continues on a new connection: what is unacknowledged is sent again [MQTT-4.4.0-1].
    pub fn resume(&mut self, window: u16) {
        self.window = usize::from(window);
        self.sent = 0;
        self.sent_open = 0;
        self.aliases = OutgoingAliases::default(); // they end with the connection [MQTT-3.3.2-7]
    }

    /// The client of this connection takes so many topic aliases.
    pub fn allow_aliases(&mut self, max: u16) {
        self.aliases.max = usize::from(max.min(MAX_ALIASES));
    }

    /// Takes out what shared subscriptions gave to this session and another subscriber can have: what was not sent, and
    /// what was sent at QoS 1 [section 4.8.2]. What was sent at QoS 2 is this client's alone [MQTT-4.8.2-5].
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

    /// Takes away the messages on topics that are not `allowed`. What a connection was sent stays until it is
    /// acknowledged: the window of its client counts on that.
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

    /// Forgets everything: the session is discarded.
    pub fn clear(&mut self) {
        *self = Self::new(self.limits, 0);
    }

    /// Appends packets until `out` holds `max_bytes` or the window is full.
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

    /// A message that is not sent takes its number all the same: what a client sees of the sequence tells what it missed.
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

    /// A PUBACK, PUBREC or PUBCOMP of the client. Returns whether a PUBREL answers it. One that does not belong to the
    /// message's QoS or stage is a protocol error; one for an unknown packet id is none, for it may be old.
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
