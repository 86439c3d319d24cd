//! The stored form of a session's deliveries.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::{Delivery, DeliveryGrant, InFlight, QueueLimits, QueuedMessage};
use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_i64, put_u64};
use crate::mqtt::session::message::{HeldBytes, Message};
use crate::mqtt::session::timeline::Timeline;

/// Queued messages in the order of sending, and unacknowledged messages.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoredDelivery {
    first: u64,
    inflight: Vec<Option<InFlight>>,
    queue: Vec<QueuedMessage>,
}

impl Delivery {
    /// Makes the stored form, which shares the messages. QoS 0 messages are not kept for an absent client, so they are left
    /// out.
    pub fn to_stored(&self) -> StoredDelivery {
        StoredDelivery {
            first: self.first,
            inflight: self.inflight.iter().cloned().collect(),
            queue: self.queue.iter().filter(|queued| queued.grant.qos > 0).cloned().collect(),
        }
    }

    /// Restores the deliveries of a session without a connection.
    pub fn from_stored(stored: StoredDelivery, limits: QueueLimits) -> Self {
        let mut delivery = Self {
            first: stored.first,
            unacknowledged: stored.inflight.iter().flatten().count(),
            inflight_bytes: stored.inflight.iter().flatten().map(InFlight::bytes).sum(),
            inflight: stored.inflight.into(),
            queue: VecDeque::from(stored.queue),
            ..Self::new(limits, 0)
        };
        delivery.count_queue();
        delivery
    }
}

/// Packet identifiers that are skipped after a crash. The client may hold an identifier that was used after the last store;
/// with this many skipped, a collision needs more than this many messages to one client between two stores.
const PASSED_OVER: u64 = 1 << 15;

impl StoredDelivery {
    /// Adapts the stored form after a crash. It is not known which identifiers the client holds, and a new message under one of
    /// them would look like a repetition. So unacknowledged messages are queued again as new ones.
    pub fn after_a_crash(mut self) -> Self {
        let published = self.inflight.drain(..).filter_map(|stage| match stage {
            Some(InFlight::Published(queued)) => Some(QueuedMessage { counted: false, ..queued }),
            Some(InFlight::Released) | None => None,
        });
        let mut queue: Vec<QueuedMessage> = published.collect();
        queue.append(&mut self.queue);
        Self { first: self.first + PASSED_OVER, inflight: Vec::new(), queue }
    }
}

const ACKNOWLEDGED: u8 = 0;
const RELEASED: u8 = 1;
const PUBLISHED: u8 = 2;

impl StoredDelivery {
    /// Estimated size on disk, in bytes.
    pub fn bytes(&self) -> usize {
        let published = self.inflight.iter().flatten().filter_map(|stage| match stage {
            InFlight::Published(queued) => Some(queued),
            InFlight::Released => None,
        });
        let messages: usize = published.chain(&self.queue).map(|queued| queued.message.bytes() + 32).sum();
        messages + self.inflight.len()
    }

    /// Appends the encoded form to a buffer.
    pub fn encode(&self, timeline: &Timeline, out: &mut Vec<u8>) {
        put_u64(self.first, out);
        put_u64(self.inflight.len() as u64, out);
        for stage in &self.inflight {
            match stage {
                None => out.push(ACKNOWLEDGED),
                Some(InFlight::Released) => out.push(RELEASED),
                Some(InFlight::Published(queued)) => {
                    out.push(PUBLISHED);
                    put_queued(queued, timeline, out);
                }
            }
        }
        put_u64(self.queue.len() as u64, out);
        for queued in &self.queue {
            put_queued(queued, timeline, out);
        }
    }

    /// Decodes the bytes that [`StoredDelivery::encode`] wrote.
    pub fn decode(reader: &mut FieldReader<'_>, timeline: &Timeline) -> Result<Self, DecodeError> {
        let first = reader.u64()?;
        let stages = reader.count()?;
        // A client has one message per packet identifier, so there are no more than identifiers.
        if stages >= usize::from(u16::MAX) {
            return Err(DecodeError::Content("more in flight than there are packet ids"));
        }
        let mut inflight = Vec::with_capacity(stages);
        for _ in 0..stages {
            inflight.push(match reader.u8()? {
                ACKNOWLEDGED => None,
                RELEASED => Some(InFlight::Released),
                PUBLISHED => Some(InFlight::Published(queued(reader, timeline)?)),
                _ => return Err(DecodeError::Content("an unknown stage of a delivery")),
            });
        }
        let count = reader.count()?;
        let queue = (0..count).map(|_| queued(reader, timeline)).collect::<Result<_, _>>()?;
        Ok(Self { first, inflight, queue })
    }
}

const COUNTED: u8 = 1;
const RETAIN: u8 = 2;
const SHARED: u8 = 4;
const EXPIRES: u8 = 8;

fn put_queued(queued: &QueuedMessage, timeline: &Timeline, out: &mut Vec<u8>) {
    let QueuedMessage { message, grant, counted } = queued;
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    out.push(
        flag(*counted, COUNTED)
            | flag(grant.retain, RETAIN)
            | flag(grant.share.is_some(), SHARED)
            | flag(message.expires.is_some(), EXPIRES),
    );
    out.push(grant.qos);
    put_u64(grant.identifiers.len() as u64, out);
    for identifier in &grant.identifiers {
        put_u64(u64::from(*identifier), out);
    }
    if let Some(share) = &grant.share {
        put_bytes(share.as_bytes(), out);
    }
    if let Some(expires) = message.expires {
        put_i64(timeline.wall_ms(expires), out);
    }
    for field in [message.topic.as_bytes(), &message.properties, &message.payload] {
        put_bytes(field, out);
    }
}

fn queued(reader: &mut FieldReader<'_>, timeline: &Timeline) -> Result<QueuedMessage, DecodeError> {
    let (flags, qos) = (reader.u8()?, reader.u8()?);
    if !(1..=2).contains(&qos) {
        return Err(DecodeError::Content("a QoS that is not kept"));
    }
    let identifiers = reader.count()?;
    let identifiers = (0..identifiers).map(|_| reader.u32()).collect::<Result<_, _>>()?;
    let share = if flags & SHARED > 0 { Some(reader.str()?.into()) } else { None };
    let expires = if flags & EXPIRES > 0 { Some(timeline.at_wall_ms(reader.i64()?)) } else { None };
    let topic = reader.str()?.into();
    let properties = Bytes::copy_from_slice(reader.bytes()?);
    let payload = Bytes::copy_from_slice(reader.bytes()?);
    let held = HeldBytes::default();
    let message = Message { topic, payload, properties, qos, retain: false, publisher: 0, expires, held };
    let grant = DeliveryGrant { qos, retain: flags & RETAIN > 0, identifiers, share };
    Ok(QueuedMessage { message: Arc::new(message), grant, counted: flags & COUNTED > 0 })
}
