//! CONNECT, SUBSCRIBE, UNSUBSCRIBE and DISCONNECT in, CONNACK, SUBACK and UNSUBACK out, through rumqttd's codecs.
//!
//! The codecs panic on some input and some output, so the packet type is checked first and each call is guarded:
//! a panic is this connection's end and nobody else's.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{
    ConnAck, ConnAckProperties, ConnectProperties, ConnectReturnCode, LastWill, LastWillProperties, Packet, Protocol,
    RetainForwardRule, SubAck, SubscribeReasonCode, UnsubAck, UnsubAckReason,
};

use super::Version;
use super::close::Close;
use super::frame::{self, Frame};
use super::properties;

/// A CONNECT.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    pub version: Version,
    pub client_id: String,
    /// Clean session of 3.1.1, clean start of 5.0.
    pub clean: bool,
    /// Seconds; 0: off.
    pub keep_alive_s: u16,
    /// How long the session outlives the connection, in seconds; `u32::MAX`: for ever.
    pub session_expiry_s: u32,
    /// Unacknowledged publishes that the client takes.
    pub receive_maximum: u16,
    /// Largest packet that the client takes.
    pub max_packet_bytes: usize,
    pub will: Option<Will>,
    /// Whether the client asks for enhanced authentication, MQTT 5.0 section 4.12.
    pub enhanced_auth: bool,
}

/// A will message.
#[derive(Debug, Clone)]
pub(crate) struct Will {
    /// Not yet checked.
    pub topic: Bytes,
    pub payload: Bytes,
    pub qos: u8,
    pub retain: bool,
    /// Encoded properties of its PUBLISH.
    pub properties: Vec<u8>,
}

/// Why a CONNECT cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectError {
    /// Not a CONNECT of any version.
    Malformed,
    /// A protocol level that weir does not speak; newer than 5 where the flag says so.
    Level { newer: bool },
    /// A known version, but the packet breaks its rules with this reason code of 5.0.
    Invalid(Version, u8),
    /// The codec panicked.
    Defect,
}

/// Reads a CONNECT, MQTT 5.0 section 3.1.
pub(crate) fn decode_connect(frame: &Frame<'_>) -> Result<Connect, ConnectError> {
    let (version, flags) = connect_version(frame)?;
    if frame.flags != 0 || flags & 1 != 0 {
        return Err(ConnectError::Invalid(version, 0x81)); // [MQTT-3.1.2-3]
    }
    if version == Version::V4 && flags & 0b1100_0000 == 0b0100_0000 {
        return Err(ConnectError::Invalid(version, 0x81)); // a password without a user name [MQTT-3.1.2-22]
    }
    match decode(frame, version) {
        Ok(Packet::Connect(connect, properties, will, will_properties, _)) => {
            let mut accepted = from_packet(version, connect, will, will_properties);
            if let Some(properties) = properties {
                apply_properties(&mut accepted, &properties)?;
            }
            Ok(accepted)
        }
        Err(Close::Defect) => Err(ConnectError::Defect),
        _ => Err(ConnectError::Invalid(version, 0x81)),
    }
}

fn connect_version(frame: &Frame<'_>) -> Result<(Version, u8), ConnectError> {
    let mut body = frame.body;
    let name = frame::take_field(&mut body).map_err(|_| ConnectError::Malformed)?;
    match (name, body) {
        (b"MQTT", [4, flags, ..]) => Ok((Version::V4, *flags)),
        (b"MQTT", [5, flags, ..]) => Ok((Version::V5, *flags)),
        (b"MQTT" | b"MQIsdp", [level, ..]) => Err(ConnectError::Level { newer: *level > 5 }),
        _ => Err(ConnectError::Malformed),
    }
}

fn from_packet(
    version: Version,
    connect: rumqttd::protocol::Connect,
    will: Option<LastWill>,
    will_properties: Option<LastWillProperties>,
) -> Connect {
    let will = will.map(|will| Will {
        topic: will.topic,
        payload: will.message,
        qos: will.qos as u8,
        retain: will.retain,
        properties: will_properties.as_ref().map(properties::encode_will).unwrap_or_default(),
    });
    // 3.1.1 keeps a session without the clean flag for ever; 5.0 says how long, and not at all by default.
    let kept = version == Version::V4 && !connect.clean_session;
    Connect {
        version,
        client_id: connect.client_id,
        clean: connect.clean_session,
        keep_alive_s: connect.keep_alive,
        session_expiry_s: if kept { u32::MAX } else { 0 },
        receive_maximum: u16::MAX,
        max_packet_bytes: usize::MAX,
        will,
        enhanced_auth: false,
    }
}

fn apply_properties(connect: &mut Connect, properties: &ConnectProperties) -> Result<(), ConnectError> {
    // [MQTT-3.1.2-24] and its like: a maximum of 0 is a protocol error.
    if properties.receive_maximum == Some(0) || properties.max_packet_size == Some(0) {
        return Err(ConnectError::Invalid(connect.version, 0x82));
    }
    connect.session_expiry_s = properties.session_expiry_interval.unwrap_or(0);
    connect.receive_maximum = properties.receive_maximum.unwrap_or(u16::MAX);
    connect.max_packet_bytes = properties.max_packet_size.map_or(usize::MAX, |bytes| bytes as usize);
    connect.enhanced_auth = properties.authentication_method.is_some();
    Ok(())
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub filter: String,
    pub qos: u8,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain: RetainHandling,
}

/// When retained messages are sent, MQTT 5.0 section 3.8.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetainHandling {
    /// At each subscribe.
    Always,
    /// When the subscription is new.
    New,
    /// Not.
    Never,
}

/// A SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscribe {
    pub packet_id: u16,
    pub filters: Vec<Filter>,
    /// Whether a subscription identifier came with it.
    pub identified: bool,
}

/// Reads a SUBSCRIBE.
pub(crate) fn decode_subscribe(frame: &Frame<'_>, version: Version) -> Result<Subscribe, Close> {
    check_flags(frame)?;
    let Packet::Subscribe(subscribe, properties) = decode(frame, version)? else { return Err(Close::Malformed) };
    if subscribe.pkid == 0 {
        return Err(Close::Protocol);
    }
    let filters = subscribe.filters.into_iter().map(|filter| Filter {
        filter: filter.path,
        qos: filter.qos as u8,
        no_local: filter.nolocal,
        retain_as_published: filter.preserve_retain,
        retain: match filter.retain_forward_rule {
            RetainForwardRule::OnEverySubscribe => RetainHandling::Always,
            RetainForwardRule::OnNewSubscribe => RetainHandling::New,
            RetainForwardRule::Never => RetainHandling::Never,
        },
    });
    Ok(Subscribe {
        packet_id: subscribe.pkid,
        filters: filters.collect(),
        identified: properties.is_some_and(|properties| properties.id.is_some()),
    })
}

/// Reads an UNSUBSCRIBE: packet id and filters.
pub(crate) fn decode_unsubscribe(frame: &Frame<'_>, version: Version) -> Result<(u16, Vec<String>), Close> {
    check_flags(frame)?;
    match decode(frame, version)? {
        // [MQTT-3.10.3-2] at least one filter.
        Packet::Unsubscribe(unsubscribe, _) if unsubscribe.pkid == 0 || unsubscribe.filters.is_empty() => {
            Err(Close::Protocol)
        }
        Packet::Unsubscribe(unsubscribe, _) => Ok((unsubscribe.pkid, unsubscribe.filters)),
        _ => Err(Close::Malformed),
    }
}

/// [MQTT-3.8.1-1], [MQTT-3.10.1-1].
fn check_flags(frame: &Frame<'_>) -> Result<(), Close> {
    if frame.flags == 0b0010 { Ok(()) } else { Err(Close::Malformed) }
}

/// Reads a DISCONNECT: why the client goes, and the session expiry it sets instead of its CONNECT's.
pub(crate) fn decode_disconnect(frame: &Frame<'_>, version: Version) -> Result<(Close, Option<u32>), Close> {
    if frame.flags != 0 {
        return Err(Close::Malformed);
    }
    let reason = match (version, frame.body) {
        (_, []) => return Ok((Close::Normal, None)),
        (Version::V4, _) => return Err(Close::Malformed),
        (Version::V5, [reason, ..]) => *reason,
    };
    // Only the reason 0x00 discards the will [MQTT-3.14.4-3].
    let close = if reason == 0 { Close::Normal } else { Close::NormalWithWill };
    if frame.body.len() == 1 {
        return Ok((close, None));
    }
    match decode(frame, version)? {
        Packet::Disconnect(_, properties) => {
            Ok((close, properties.and_then(|properties| properties.session_expiry_interval)))
        }
        _ => Err(Close::Malformed),
    }
}

/// The caller has checked the packet type: some types make the codecs panic.
fn decode(frame: &Frame<'_>, version: Version) -> Result<Packet, Close> {
    debug_assert!(matches!(frame.kind, frame::CONNECT | frame::SUBSCRIBE | frame::UNSUBSCRIBE | frame::DISCONNECT));
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        let mut bytes = BytesMut::from(frame.bytes);
        let max = frame.bytes.len();
        match version {
            Version::V4 => V4.read_mut(&mut bytes, max),
            Version::V5 => V5.read_mut(&mut bytes, max),
        }
    }));
    match decoded {
        Ok(packet) => packet.map_err(|_| Close::Malformed),
        Err(_) => Err(Close::Defect),
    }
}

/// What weir tells a client that it accepts.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub session_present: bool,
    /// Receive maximum of weir.
    pub receive_maximum: u16,
    /// Largest packet that weir takes.
    pub max_packet_bytes: usize,
    /// Topic aliases that weir remembers.
    pub topic_alias_maximum: u16,
    /// The client identifier, if weir made it up.
    pub assigned_client_id: Option<String>,
}

/// Appends the CONNACK of an accepted connection.
pub(crate) fn put_connack(accepted: &Accepted, version: Version, out: &mut Vec<u8>) -> Result<(), Close> {
    let connack = ConnAck { session_present: accepted.session_present, code: ConnectReturnCode::Success };
    let properties = ConnAckProperties {
        receive_max: Some(accepted.receive_maximum),
        max_packet_size: Some(u32::try_from(accepted.max_packet_bytes).unwrap_or(u32::MAX)),
        assigned_client_identifier: accepted.assigned_client_id.clone(),
        topic_alias_max: Some(accepted.topic_alias_maximum),
        // Left out until they are built; a client that asks all the same gets 0xA1 and 0x9E.
        subscription_identifiers_available: Some(0),
        shared_subscription_available: Some(0),
        ..ConnAckProperties::default()
    };
    encode(Packet::ConnAck(connack, (version == Version::V5).then_some(properties)), version, out)
}

/// Appends the CONNACK of a refused connection: `code` is a return code of 3.1.1 (section 3.2.2.3) or a reason code of
/// 5.0 (section 3.2.2.2).
pub(crate) fn put_refusal(code: u8, version: Version, out: &mut Vec<u8>) {
    match version {
        Version::V4 => out.extend_from_slice(&[0x20, 2, 0, code]),
        Version::V5 => out.extend_from_slice(&[0x20, 3, 0, code, 0]),
    }
}

/// Answer to one filter of a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubscribeOutcome {
    Granted(u8),
    InvalidFilter,
    QuotaExceeded,
    SharedNotSupported,
    IdentifierNotSupported,
}

impl SubscribeOutcome {
    /// 3.1.1 knows one failure only.
    fn reason(self, version: Version) -> SubscribeReasonCode {
        match (version, self) {
            (_, SubscribeOutcome::Granted(0)) => SubscribeReasonCode::QoS0,
            (_, SubscribeOutcome::Granted(1)) => SubscribeReasonCode::QoS1,
            (_, SubscribeOutcome::Granted(_)) => SubscribeReasonCode::QoS2,
            (Version::V4, _) => SubscribeReasonCode::Failure,
            (Version::V5, SubscribeOutcome::InvalidFilter) => SubscribeReasonCode::TopicFilterInvalid,
            (Version::V5, SubscribeOutcome::QuotaExceeded) => SubscribeReasonCode::QuotaExceeded,
            (Version::V5, SubscribeOutcome::SharedNotSupported) => SubscribeReasonCode::SharedSubscriptionsNotSupported,
            (Version::V5, SubscribeOutcome::IdentifierNotSupported) => SubscribeReasonCode::SubscriptionIdNotSupported,
        }
    }
}

/// Appends a SUBACK.
pub(crate) fn put_suback(
    packet_id: u16,
    outcomes: &[SubscribeOutcome],
    version: Version,
    out: &mut Vec<u8>,
) -> Result<(), Close> {
    let return_codes = outcomes.iter().map(|outcome| outcome.reason(version)).collect();
    encode(Packet::SubAck(SubAck { pkid: packet_id, return_codes }, None), version, out)
}

/// Appends an UNSUBACK; `existed` says for each filter whether there was such a subscription.
pub(crate) fn put_unsuback(packet_id: u16, existed: &[bool], version: Version, out: &mut Vec<u8>) -> Result<(), Close> {
    let reason = |existed: &bool| {
        if *existed { UnsubAckReason::Success } else { UnsubAckReason::NoSubscriptionExisted }
    };
    let reasons = existed.iter().map(reason).collect();
    encode(Packet::UnsubAck(UnsubAck { pkid: packet_id, reasons }, None), version, out)
}

fn encode(packet: Packet, version: Version, out: &mut Vec<u8>) -> Result<(), Close> {
    let encoded = catch_unwind(AssertUnwindSafe(|| {
        let mut bytes = BytesMut::new();
        match version {
            Version::V4 => V4.write(packet, &mut bytes),
            Version::V5 => V5.write(packet, &mut bytes),
        }
        .map(|_| bytes)
    }));
    match encoded {
        Ok(Ok(bytes)) => {
            out.extend_from_slice(&bytes);
            Ok(())
        }
        _ => Err(Close::Defect),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::testing::client;
    use proptest::prelude::*;

    fn frame(bytes: &[u8]) -> Frame<'_> {
        match frame::next(bytes, usize::MAX) {
            Ok(frame::Next::Frame(frame)) => frame,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_connect_reads_back() {
        for version in [Version::V4, Version::V5] {
            let bytes = client(version).will("w/t", b"gone", 1).keep_alive(30).connect("c1");
            let connect = decode_connect(&frame(&bytes)).unwrap();
            assert_eq!((connect.version, connect.client_id.as_str(), connect.keep_alive_s), (version, "c1", 30));
            assert!(connect.clean && connect.session_expiry_s == 0);
            let will = connect.will.unwrap();
            assert_eq!((&will.topic[..], &will.payload[..], will.qos), (&b"w/t"[..], &b"gone"[..], 1));
        }
    }

    #[test]
    fn a_session_is_kept_as_each_version_says_it() {
        let v4 = client(Version::V4).kept().connect("c");
        assert_eq!(decode_connect(&frame(&v4)).unwrap().session_expiry_s, u32::MAX);
        let v5 = client(Version::V5).kept().connect("c");
        assert_eq!(decode_connect(&frame(&v5)).unwrap().session_expiry_s, 3_600);
    }

    #[test]
    fn other_protocol_levels_are_told_apart() {
        let check = |name: &[u8], level: u8, expected: ConnectError| {
            let mut bytes = vec![0x10, (2 + name.len() + 4) as u8, 0, name.len() as u8];
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(&[level, 2, 0, 0]);
            assert_eq!(decode_connect(&frame(&bytes)).unwrap_err(), expected);
        };
        check(b"MQIsdp", 3, ConnectError::Level { newer: false });
        check(b"MQTT", 6, ConnectError::Level { newer: true });
        check(b"HTTP", 4, ConnectError::Malformed);
        check(b"MQTT", 4, ConnectError::Invalid(Version::V4, 0x81));
    }

    #[test]
    fn reserved_bits_of_a_connect_are_refused() {
        let mut bytes = client(Version::V5).connect("c");
        bytes[9] |= 1;
        assert_eq!(decode_connect(&frame(&bytes)).unwrap_err(), ConnectError::Invalid(Version::V5, 0x81));
        let mut bytes = client(Version::V4).connect("c");
        bytes[9] |= 0b0100_0000;
        assert_eq!(decode_connect(&frame(&bytes)).unwrap_err(), ConnectError::Invalid(Version::V4, 0x81));
    }

    #[test]
    fn a_disconnect_says_what_becomes_of_the_will() {
        let check = |bytes: &[u8], version, expected| {
            assert_eq!(decode_disconnect(&frame(bytes), version), expected, "{bytes:?}");
        };
        check(&[0xE0, 0], Version::V4, Ok((Close::Normal, None)));
        check(&[0xE0, 0], Version::V5, Ok((Close::Normal, None)));
        check(&[0xE0, 1, 0], Version::V5, Ok((Close::Normal, None)));
        check(&[0xE0, 1, 4], Version::V5, Ok((Close::NormalWithWill, None)));
        check(&[0xE0, 7, 4, 5, 0x11, 0, 0, 0, 9], Version::V5, Ok((Close::NormalWithWill, Some(9))));
        check(&[0xE0, 1, 0], Version::V4, Err(Close::Malformed));
        check(&[0xE1, 0], Version::V5, Err(Close::Malformed));
    }

    #[test]
    fn subscriptions_read_back() {
        for version in [Version::V4, Version::V5] {
            let bytes = client(version).subscribe(9, &[("a/+", 1), ("b/#", 2)]);
            let subscribe = decode_subscribe(&frame(&bytes), version).unwrap();
            let filters: Vec<_> = subscribe.filters.iter().map(|filter| (filter.filter.as_str(), filter.qos)).collect();
            assert_eq!((subscribe.packet_id, filters), (9, vec![("a/+", 1), ("b/#", 2)]));
            let bytes = client(version).unsubscribe(10, &["a/+"]);
            assert_eq!(decode_unsubscribe(&frame(&bytes), version), Ok((10, vec!["a/+".to_owned()])));
        }
    }

    #[test]
    fn a_suback_has_the_codes_of_its_version() {
        let outcomes = [SubscribeOutcome::Granted(1), SubscribeOutcome::SharedNotSupported];
        let check = |version, expected: &[u8]| {
            let mut out = Vec::new();
            put_suback(7, &outcomes, version, &mut out).unwrap();
            assert_eq!(out, expected);
        };
        check(Version::V4, &[0x90, 4, 0, 7, 1, 0x80]);
        check(Version::V5, &[0x90, 5, 0, 7, 0, 1, 0x9E]);
    }

    #[test]
    fn every_truncated_packet_is_an_error() {
        for version in [Version::V4, Version::V5] {
            let client = client(version).will("w", b"x", 2);
            for whole in [client.connect("c1"), client.subscribe(1, &[("a", 0)]), client.unsubscribe(1, &["a"])] {
                let body = frame(&whole).body;
                for len in 0..body.len() {
                    let mut cut = vec![whole[0]];
                    frame::put_variable_length(len, &mut cut);
                    cut.extend_from_slice(&body[..len]);
                    let frame = frame(&cut);
                    let failed = match frame.kind {
                        frame::CONNECT => decode_connect(&frame).is_err(),
                        frame::SUBSCRIBE => decode_subscribe(&frame, version).is_err(),
                        _ => decode_unsubscribe(&frame, version).is_err(),
                    };
                    assert!(failed, "{version:?} type {} cut to {len} bytes", frame.kind);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn random_bodies_never_escape(
            kind in proptest::sample::select(vec![0x10_u8, 0x82, 0xA2, 0xE0]),
            body in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut bytes = vec![kind, body.len() as u8];
            bytes.extend_from_slice(&body);
            let frame = frame(&bytes);
            for version in [Version::V4, Version::V5] {
                match frame.kind {
                    frame::CONNECT => drop(decode_connect(&frame)),
                    frame::SUBSCRIBE => drop(decode_subscribe(&frame, version)),
                    frame::UNSUBSCRIBE => drop(decode_unsubscribe(&frame, version)),
                    _ => drop(decode_disconnect(&frame, version)),
                }
            }
        }
    }
}
