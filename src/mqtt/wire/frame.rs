//! Frames on the wire: the fixed header, PUBLISH parsed in place, and the packets of two to five bytes.
//!
//! PUBLISH and its acknowledgements are the hot path: they are decoded and encoded here without copies. Every other packet
//! goes through [`super::codec`].

use super::close::CloseReason;
use super::fields::{
    put_variable_length, take_field, take_properties, take_u16, variable_length, variable_length_bytes,
};
use super::properties::{self, PropertyCarrier};
use crate::mqtt::ProtocolVersion;

pub(crate) const CONNECT: u8 = 1;
pub(crate) const CONNACK: u8 = 2;
pub(crate) const PUBLISH: u8 = 3;
pub(crate) const PUBACK: u8 = 4;
pub(crate) const PUBREC: u8 = 5;
pub(crate) const PUBREL: u8 = 6;
pub(crate) const PUBCOMP: u8 = 7;
pub(crate) const SUBSCRIBE: u8 = 8;
pub(crate) const SUBACK: u8 = 9;
pub(crate) const UNSUBSCRIBE: u8 = 10;
pub(crate) const UNSUBACK: u8 = 11;
pub(crate) const PINGREQ: u8 = 12;
pub(crate) const PINGRESP: u8 = 13;
pub(crate) const DISCONNECT: u8 = 14;
pub(crate) const AUTH: u8 = 15;

/// One packet of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// Packet type, the high half of the first byte.
    pub kind: u8,
    /// The low half of the first byte.
    pub flags: u8,
    /// The whole packet, fixed header included.
    pub bytes: &'a [u8],
    /// Bytes after the fixed header.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// The packet without its DUP flag. MQTT 3.1 clients set it when they repeat a PUBREL, SUBSCRIBE or UNSUBSCRIBE; in later
    /// versions the bit is reserved.
    pub fn without_repetition(self) -> Self {
        const DUP: u8 = 0b1000;
        match self.kind {
            PUBREL | SUBSCRIBE | UNSUBSCRIBE => Self { flags: self.flags & !DUP, ..self },
            _ => self,
        }
    }
}

/// The packet at the beginning of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextFrame<'a> {
    /// A whole packet.
    Frame(Frame<'a>),
    /// An incomplete packet, with its total length where the fixed header is complete.
    Partial(Option<usize>),
}

/// Finds the packet at the beginning of `bytes`. A packet longer than `max_packet_bytes` is refused as soon as its fixed
/// header is complete, before its body is buffered.
#[inline]
pub(crate) fn next(bytes: &[u8], max_packet_bytes: usize) -> Result<NextFrame<'_>, CloseReason> {
    let [first, lengths @ ..] = bytes else { return Ok(NextFrame::Partial(None)) };
    let Some((remaining, length_bytes)) = variable_length(lengths)? else { return Ok(NextFrame::Partial(None)) };
    let header = 1 + length_bytes;
    let total = header + remaining;
    if total > max_packet_bytes {
        return Err(CloseReason::PacketTooLarge);
    }
    let Some(frame) = bytes.get(..total) else { return Ok(NextFrame::Partial(Some(total))) };
    Ok(NextFrame::Frame(Frame { kind: first >> 4, flags: first & 0x0F, bytes: frame, body: &frame[header..] }))
}

/// A PUBLISH as it stands in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IncomingPublish<'a> {
    pub dup: bool,
    /// QoS: 0, 1 or 2.
    pub qos: u8,
    pub retain: bool,
    /// Topic name, not checked yet; empty where a topic alias stands for it.
    pub topic: &'a [u8],
    /// Packet identifier; 0 for QoS 0.
    pub packet_id: u16,
    /// Properties without their length, not checked yet; empty in 3.1.1.
    pub properties: &'a [u8],
    pub payload: &'a [u8],
}

impl<'a> IncomingPublish<'a> {
    /// Decodes a PUBLISH, MQTT 5.0 section 3.3. Topic and properties are located, not checked.
    #[inline]
    pub fn parse(flags: u8, mut body: &'a [u8], version: ProtocolVersion) -> Result<Self, CloseReason> {
        let qos = flags >> 1 & 0b11;
        let dup = flags & 0b1000 != 0;
        // [MQTT-3.3.1-2] DUP without an acknowledgement means nothing; [MQTT-3.3.1-4] there is no QoS 3.
        if qos == 3 || (dup && qos == 0) {
            return Err(CloseReason::Malformed);
        }
        let topic = take_field(&mut body)?;
        let packet_id = if qos > 0 { take_u16(&mut body)? } else { 0 };
        if qos > 0 && packet_id == 0 {
            return Err(CloseReason::Protocol); // [MQTT-2.2.1-3]
        }
        let properties = match version {
            ProtocolVersion::V4 => &[],
            ProtocolVersion::V5 => take_properties(&mut body)?,
        };
        Ok(Self { dup, qos, retain: flags & 1 != 0, topic, packet_id, properties, payload: body })
    }
}

/// Decodes a PUBACK, PUBREC, PUBREL or PUBCOMP: packet identifier and reason code (0 where it is left out). Properties are
/// checked and not used.
pub(crate) fn parse_ack(frame: &Frame<'_>, version: ProtocolVersion) -> Result<(u16, u8), CloseReason> {
    let expected_flags = if frame.kind == PUBREL { 0b0010 } else { 0 };
    if frame.flags != expected_flags {
        return Err(CloseReason::Malformed);
    }
    let mut body = frame.body;
    let packet_id = take_u16(&mut body)?;
    if packet_id == 0 {
        return Err(CloseReason::Protocol);
    }
    let reason = match (version, body) {
        (_, []) => 0,
        (ProtocolVersion::V4, _) => return Err(CloseReason::Malformed),
        (ProtocolVersion::V5, [reason]) => *reason,
        (ProtocolVersion::V5, [reason, rest @ ..]) => {
            let mut rest = rest;
            let properties = take_properties(&mut rest)?;
            if !rest.is_empty() {
                return Err(CloseReason::Malformed);
            }
            properties::check(properties, PropertyCarrier::Ack)?;
            *reason
        }
    };
    if knows_reason(frame.kind, reason) { Ok((packet_id, reason)) } else { Err(CloseReason::Protocol) }
}

/// Whether a reason code exists for this acknowledgement, MQTT 5.0 sections 3.4.2.1, 3.5.2.1, 3.6.2.1 and 3.7.2.1. A PUBREL may
/// also carry the failure codes of a PUBREC, since weir does not use its code.
fn knows_reason(kind: u8, reason: u8) -> bool {
    const FAILURES: [u8; 7] = [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    match kind {
        PUBACK | PUBREC => matches!(reason, 0 | 0x10) || FAILURES.contains(&reason),
        PUBREL => matches!(reason, 0 | 0x92) || FAILURES.contains(&reason),
        _ => matches!(reason, 0 | 0x92),
    }
}

/// A PUBLISH to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutgoingPublish<'a> {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub packet_id: u16,
    pub topic: &'a str,
    /// Encoded properties without their length; left out in 3.1.1.
    pub properties: &'a [u8],
    pub payload: &'a [u8],
}

impl OutgoingPublish<'_> {
    fn remaining(&self, version: ProtocolVersion) -> usize {
        let packet_id = if self.qos > 0 { 2 } else { 0 };
        let properties = match version {
            ProtocolVersion::V4 => 0,
            ProtocolVersion::V5 => variable_length_bytes(self.properties.len()) + self.properties.len(),
        };
        2 + self.topic.len() + packet_id + properties + self.payload.len()
    }

    /// Length of the whole packet in bytes.
    pub fn packet_bytes(&self, version: ProtocolVersion) -> usize {
        let remaining = self.remaining(version);
        1 + variable_length_bytes(remaining) + remaining
    }

    /// Appends the packet.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        debug_assert!(self.topic.len() <= usize::from(u16::MAX));
        out.push(PUBLISH << 4 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain));
        put_variable_length(self.remaining(version), out);
        out.extend_from_slice(&(self.topic.len() as u16).to_be_bytes());
        out.extend_from_slice(self.topic.as_bytes());
        if self.qos > 0 {
            out.extend_from_slice(&self.packet_id.to_be_bytes());
        }
        if version == ProtocolVersion::V5 {
            put_variable_length(self.properties.len(), out);
            out.extend_from_slice(self.properties);
        }
        out.extend_from_slice(self.payload);
    }
}

/// Appends PUBACK, PUBREC, PUBREL or PUBCOMP. A reason of 0 is left out, as 3.1.1 demands and 5.0 permits.
#[inline]
pub(crate) fn put_ack(kind: u8, packet_id: u16, reason: u8, version: ProtocolVersion, out: &mut Vec<u8>) {
    let first = kind << 4 | if kind == PUBREL { 0b0010 } else { 0 };
    let [high, low] = packet_id.to_be_bytes();
    if reason == 0 || version == ProtocolVersion::V4 {
        out.extend_from_slice(&[first, 2, high, low]);
    } else {
        out.extend_from_slice(&[first, 3, high, low, reason]);
    }
}

/// Appends PINGRESP.
pub(crate) fn put_pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xD0, 0]);
}

/// Appends the DISCONNECT that tells a 5.0 client the reason; 3.1.1 has no DISCONNECT from server to client. With
/// `explain_within` it carries a Reason String, unless the packet becomes longer than that many bytes [MQTT-3.14.2-3].
pub(crate) fn put_disconnect(
    close: CloseReason,
    version: ProtocolVersion,
    explain_within: Option<usize>,
    out: &mut Vec<u8>,
) {
    let (ProtocolVersion::V5, Some(code)) = (version, close.code()) else { return };
    let explained = explain_within.and_then(|max| explained(DISCONNECT, &[code], close.text(), max));
    match explained {
        Some(packet) => out.extend_from_slice(&packet),
        None => out.extend_from_slice(&[DISCONNECT << 4, 1, code]),
    }
}

/// Encodes a 5.0 packet whose only property is a Reason String; `None` where it exceeds `max` bytes.
pub(crate) fn explained(kind: u8, head: &[u8], text: &str, max_packet_bytes: usize) -> Option<Vec<u8>> {
    let mut properties = Vec::new();
    properties::put_reason_string(text, &mut properties);
    let mut packet = vec![kind << 4];
    put_variable_length(head.len() + variable_length_bytes(properties.len()) + properties.len(), &mut packet);
    packet.extend_from_slice(head);
    put_variable_length(properties.len(), &mut packet);
    packet.extend_from_slice(&properties);
    (packet.len() <= max_packet_bytes).then_some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outgoing<'a>(qos: u8, properties: &'a [u8], payload: &'a [u8]) -> OutgoingPublish<'a> {
        OutgoingPublish { dup: qos > 0, qos, retain: true, packet_id: 7, topic: "a/b", properties, payload }
    }

    fn check_round_trip(version: ProtocolVersion, outgoing: OutgoingPublish<'_>) {
        let mut bytes = Vec::new();
        outgoing.encode(version, &mut bytes);
        assert_eq!(bytes.len(), outgoing.packet_bytes(version));
        let Ok(NextFrame::Frame(frame)) = next(&bytes, usize::MAX) else { panic!("no frame in {bytes:?}") };
        assert_eq!((frame.kind, frame.bytes.len()), (PUBLISH, bytes.len()));
        let parsed = IncomingPublish::parse(frame.flags, frame.body, version).unwrap();
        let expected = IncomingPublish {
            dup: outgoing.dup,
            qos: outgoing.qos,
            retain: outgoing.retain,
            topic: outgoing.topic.as_bytes(),
            packet_id: if outgoing.qos > 0 { outgoing.packet_id } else { 0 },
            properties: if version == ProtocolVersion::V5 { outgoing.properties } else { &[] },
            payload: outgoing.payload,
        };
        assert_eq!(parsed, expected);
        for len in 0..bytes.len() {
            assert!(matches!(next(&bytes[..len], usize::MAX), Ok(NextFrame::Partial(_))), "prefix of {len} bytes");
        }
    }

    #[test]
    fn a_publish_reads_back() {
        for version in [ProtocolVersion::V4, ProtocolVersion::V5] {
            for qos in 0..=2 {
                check_round_trip(version, outgoing(qos, &[], b"payload"));
                check_round_trip(version, outgoing(qos, &[1, 1], &[9; 20_000]));
            }
        }
    }

    #[test]
    fn lengths_are_those_of_the_standard() {
        for (value, encoded) in [
            (0, &[0x00][..]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            let mut out = Vec::new();
            put_variable_length(value, &mut out);
            assert_eq!(out, encoded);
            assert_eq!(variable_length_bytes(value), encoded.len());
            assert_eq!(variable_length(encoded), Ok(Some((value, encoded.len()))));
            assert_eq!(variable_length(&encoded[..encoded.len() - 1]), Ok(None));
        }
        assert_eq!(variable_length(&[0xFF, 0xFF, 0xFF, 0x80]), Err(CloseReason::Malformed));
    }

    #[test]
    fn an_oversized_packet_is_refused_at_its_header() {
        let mut header = vec![PUBLISH << 4];
        put_variable_length(1_000, &mut header);
        assert_eq!(next(&header, 1_002), Err(CloseReason::PacketTooLarge));
        assert_eq!(next(&header, 1_003), Ok(NextFrame::Partial(Some(1_003))));
    }

    #[test]
    fn forbidden_publish_headers_are_refused() {
        let body = [0, 1, b'a', 0, 0];
        assert_eq!(IncomingPublish::parse(0b0110, &body, ProtocolVersion::V4), Err(CloseReason::Malformed), "QoS 3");
        assert_eq!(
            IncomingPublish::parse(0b1000, &body, ProtocolVersion::V4),
            Err(CloseReason::Malformed),
            "DUP at QoS 0"
        );
        assert_eq!(
            IncomingPublish::parse(0b0010, &body, ProtocolVersion::V4),
            Err(CloseReason::Protocol),
            "packet id 0"
        );
        assert_eq!(
            IncomingPublish::parse(0b0010, &body[..4], ProtocolVersion::V4),
            Err(CloseReason::Malformed),
            "cut short"
        );
    }

    #[test]
    fn acks_read_back() {
        for kind in [PUBACK, PUBREC, PUBREL, PUBCOMP] {
            let failure = if kind == PUBACK || kind == PUBREC { 0x87 } else { 0x92 };
            for (version, reason) in
                [(ProtocolVersion::V4, 0), (ProtocolVersion::V5, 0), (ProtocolVersion::V5, failure)]
            {
                let mut bytes = Vec::new();
                put_ack(kind, 300, reason, version, &mut bytes);
                let Ok(NextFrame::Frame(frame)) = next(&bytes, 100) else { panic!("no frame") };
                assert_eq!(frame.kind, kind);
                assert_eq!(parse_ack(&frame, version), Ok((300, reason)));
            }
        }
    }

    #[test]
    fn a_disconnect_is_explained_where_the_client_takes_it() {
        let disconnect = |version, explain_within| {
            let mut out = Vec::new();
            put_disconnect(CloseReason::TakenOver, version, explain_within, &mut out);
            out
        };
        let text = CloseReason::TakenOver.text();
        let len = text.len() as u8;
        let explained = [&[0xe0, len + 5, 0x8e, len + 3, 0x1f, 0, len], text.as_bytes()].concat();
        assert_eq!(disconnect(ProtocolVersion::V5, Some(explained.len())), explained);
        assert_eq!(disconnect(ProtocolVersion::V5, Some(explained.len() - 1)), [0xe0, 1, 0x8e]);
        assert_eq!(disconnect(ProtocolVersion::V5, None), [0xe0, 1, 0x8e]);
        assert_eq!(disconnect(ProtocolVersion::V4, Some(explained.len())), [0_u8; 0]);
    }

    #[test]
    fn an_ack_with_properties_must_end_with_them() {
        let frame = |body| Frame { kind: PUBACK, flags: 0, bytes: &[], body };
        assert_eq!(parse_ack(&frame(&[0, 1, 0x10, 0]), ProtocolVersion::V5), Ok((1, 0x10)));
        assert_eq!(parse_ack(&frame(&[0, 1, 0, 4, 0x1F, 0, 1, b'x']), ProtocolVersion::V5), Ok((1, 0)));
        assert_eq!(parse_ack(&frame(&[0, 1, 0, 4, 0x1F]), ProtocolVersion::V5), Err(CloseReason::Malformed));
        assert_eq!(parse_ack(&frame(&[0, 1, 0, 0, 0]), ProtocolVersion::V5), Err(CloseReason::Malformed));
        assert_eq!(
            parse_ack(&frame(&[0, 1, 0, 2, 1, 0]), ProtocolVersion::V5),
            Err(CloseReason::Protocol),
            "another packet's"
        );
        assert_eq!(parse_ack(&frame(&[0, 1, 0xFF]), ProtocolVersion::V5), Err(CloseReason::Protocol), "no reason code");
        assert_eq!(parse_ack(&frame(&[0, 1, 0]), ProtocolVersion::V4), Err(CloseReason::Malformed));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(NextFrame::Frame(frame)) = next(&bytes, 1 << 20) {
                for version in [ProtocolVersion::V4, ProtocolVersion::V5] {
                    let _ = IncomingPublish::parse(frame.flags, frame.body, version);
                    let _ = parse_ack(&frame, version);
                }
            }
        }
    }
}
