//! The PUBLISH packet that carries a message to one subscriber.

use std::time::Instant;

use super::QueuedMessage;
use super::aliases::{OutgoingAlias, OutgoingAliases};
use crate::mqtt::ProtocolVersion;
use crate::mqtt::wire::frame::OutgoingPublish;
use crate::mqtt::wire::properties;

/// Receiver of packets: protocol version and limits of the client.
pub(super) struct PacketTarget {
    pub version: ProtocolVersion,
    /// Maximum Packet Size of the client, in bytes.
    pub max_packet_bytes: usize,
    pub now: Instant,
}

/// Appends the PUBLISH; `false` where it exceeds the client's Maximum Packet Size [MQTT-3.1.2-24].
pub(super) fn put(
    queued: &QueuedMessage,
    packet_id: u16,
    dup: bool,
    to: &PacketTarget,
    aliases: &mut OutgoingAliases,
    out: &mut Vec<u8>,
) -> bool {
    let QueuedMessage { message, grant, .. } = queued;
    let alias = aliases.of(&message.topic);
    let own = to.version == ProtocolVersion::V5
        && (message.expires.is_some() || !grant.identifiers.is_empty() || alias != OutgoingAlias::None);
    let mut properties = Vec::new();
    if own {
        if let OutgoingAlias::New(number) | OutgoingAlias::Known(number) = alias {
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
        topic: if matches!(alias, OutgoingAlias::Known(_)) { "" } else { &message.topic },
        properties: if own { &properties } else { &message.properties },
        payload: &message.payload,
    };
    if outgoing.packet_bytes(to.version) > to.max_packet_bytes {
        return false;
    }
    outgoing.encode(to.version, out);
    if let OutgoingAlias::New(_) = alias {
        aliases.topics.push(message.topic.clone());
    }
    true
}
