//! Packets that weir sends to a simulated device.

use weir_test_kit::mqtt::{CONNACK, DISCONNECT, PUBACK, PUBCOMP, PUBREC, ReceivedPacket};

/// A packet that weir sends to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerAnswer {
    Connack { present: bool, code: u8 },
    Puback(u16),
    Pubrec(u16),
    Pubcomp(u16),
    Disconnect(u8),
}

/// Takes the next complete packet off `bytes`. Refusals are errors, except the answer to a PUBREL whose publish is
/// unknown.
pub fn take(bytes: &mut Vec<u8>) -> Result<Option<BrokerAnswer>, String> {
    const PACKET_ID_NOT_FOUND: u8 = 0x92;
    let Some(packet) = ReceivedPacket::take(bytes) else { return Ok(None) };
    let ReceivedPacket { kind, body, .. } = &packet;
    if *kind != DISCONNECT && body.len() < 2 {
        return Err(format!("a packet of type {kind} with a body of {} bytes", body.len()));
    }
    match *kind {
        CONNACK => Ok(Some(BrokerAnswer::Connack { present: body[0] & 1 == 1, code: body[1] })),
        PUBACK | PUBREC | PUBCOMP if packet.reason() >= 0x80 && packet.reason() != PACKET_ID_NOT_FOUND => {
            Err(format!("a packet of type {kind} with reason {:#x}", packet.reason()))
        }
        PUBACK => Ok(Some(BrokerAnswer::Puback(packet.id()))),
        PUBREC => Ok(Some(BrokerAnswer::Pubrec(packet.id()))),
        PUBCOMP => Ok(Some(BrokerAnswer::Pubcomp(packet.id()))),
        DISCONNECT => Ok(Some(BrokerAnswer::Disconnect(packet.reason()))),
        _ => Err(format!("a packet of type {kind} was not expected")),
    }
}
