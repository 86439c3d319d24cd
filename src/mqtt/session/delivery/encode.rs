//! The PUBLISH packet that carries a message to one subscriber.

use std::time::Instant;

use super::Queued;
use super::aliases::{Alias, Aliases};
use crate::mqtt::ProtocolVersion;
use crate::mqtt::wire::frame::OutgoingPublish;
use crate::mqtt::wire::properties;

/// Receiver of packets: protocol version and limits of the client.
pub(super) struct Target {
    pub version: ProtocolVersion,
    /// Maximum Packet Size of the client, in bytes.
    pub max_packet_bytes: usize,
    pub now: Instant,
}

/// Appends the PUBLISH; `false` where it exceeds the client's Maximum Packet Size [MQTT-3.1.2-24].
pub(super) fn put(
    queued: &Queued,
    packet_id: u16,
    dup: bool,
    to: &Target,
    aliases: &mut Aliases,
    out: &mut Vec<u8>,
) -> bool {
    let Queued { message, grant, .. } = queued;
    let alias = aliases.of(&message.topic);
    let own = to.version == ProtocolVersion::V5
        && (message.expires.is_some() || !grant.identifiers.is_empty() || alias != Alias::None);
    let mut properties = Vec::new();
    if own {
        if let Alias::New(number) | Alias::Known(number) = alias {
            properties::put_alias(number, &mut properties);
        }
        properties::put_delivery(message.expires, to.now, &grant.identifiers, &mut properties);
        properties.extend_from_slice(&message.properties);
    }
    let outgoing = OutgoingPublish {
        dup,
        qos: grant.qos,
        retain: grant.retain,
        packet_id,
        topic: if matches!(alias, Alias::Known(_)) { "" } else { &message.topic },
        properties: if own { &properties } else { &message.properties },
        payload: &message.payload,
    };
    if outgoing.packet_bytes(to.version) > to.max_packet_bytes {
        return false;
    }
    outgoing.encode(to.version, out);
    if let Alias::New(_) = alias {
        aliases.topics.push(message.topic.clone());
    }
    true
}
