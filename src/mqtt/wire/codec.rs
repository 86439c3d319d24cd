//! CONNECT, SUBSCRIBE, UNSUBSCRIBE and DISCONNECT in; CONNACK, SUBACK and UNSUBACK out.
//!
//! Incoming packets are decoded here, to the letter of the standard: rumqttd's codecs accept repeated and misplaced
//! properties, reserved bits, and bytes after the end of a packet. Outgoing packets are encoded by rumqttd's codecs. A panic
//! of a codec is caught and ends this connection only.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Packet, Protocol, SubAck, SubscribeReasonCode, UnsubAck,
    UnsubAckReason,
};

use super::close::CloseReason;
use super::fields::{self, take_field, take_u16};
use super::frame::Frame;
use super::properties::{self, ConnectProperties, PropertyCarrier, PublishProperties};
use super::topic;
use crate::access::Password;
use crate::mqtt::ProtocolVersion;

/// A CONNECT.
#[derive(Debug, Clone)]
pub(crate) struct ConnectRequest {
    pub version: ProtocolVersion,
    /// Whether the client speaks MQTT 3.1. Such a client is served as 3.1.1, except that it may not leave the client identifier
    /// empty.
    pub is_3_1: bool,
    pub client_id: String,
    /// Clean session of 3.1.1, clean start of 5.0.
    pub clean: bool,
    /// Keep-alive in seconds; 0: no keep-alive.
    pub keep_alive_s: u16,
    /// Session expiry interval in seconds; `u32::MAX`: the session never expires.
    pub session_expiry_s: u32,
    /// Receive maximum of the client: unacknowledged QoS 1 and 2 publishes that it takes.
    pub receive_maximum: u16,
    /// Topic Alias Maximum of the client; 0: it takes none.
    pub topic_alias_maximum: u16,
    /// Maximum Packet Size of the client, in bytes.
    pub max_packet_bytes: usize,
    pub will: Option<ConnectWill>,
    /// User name of the CONNECT.
    pub user_name: Option<String>,
    /// Password of the CONNECT.
    pub password: Option<Password>,
    /// Whether the client asks for enhanced authentication, MQTT 5.0 section 4.12.
    pub enhanced_auth: bool,
    /// Largest packet that may carry a Reason String, in bytes; `None` where the client does not ask for problem information.
    pub explain_within: Option<usize>,
}

/// A will message.
#[derive(Debug, Clone)]
pub(crate) struct ConnectWill {
    /// Topic name, not checked yet.
    pub topic: Bytes,
    pub payload: Bytes,
    pub qos: u8,
    pub retain: bool,
    /// Encoded properties that are forwarded to subscribers.
    pub properties: Vec<u8>,
    /// Topic on which a response is asked for.
    pub response_topic: Option<String>,
    /// Message expiry interval in seconds.
    pub expiry_s: Option<u32>,
    /// Will delay interval in seconds.
    pub delay_s: u32,
    /// Whether the payload is UTF-8 where its payload format indicator says so.
    pub is_formatted: bool,
}

/// Why a CONNECT cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectError {
    /// The bytes are not a CONNECT of any version.
    Malformed,
    /// weir does not speak this protocol level.
    Level,
    /// The version is known, and the packet breaks one of its rules.
    Invalid(ProtocolVersion, CloseReason),
}

/// Facts at the beginning of a CONNECT, by which its size is judged before the rest is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectPrelude {
    /// Version of the client; `None`: weir does not speak it.
    pub version: Option<ProtocolVersion>,
    /// Whether the packet carries a will.
    pub has_will: bool,
}

/// Reads the beginning of a CONNECT from the first bytes of its body. `None`: more bytes are needed.
pub(crate) fn connect_prelude(body: &[u8]) -> Option<ConnectPrelude> {
    let (length, rest) = body.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    if length > b"MQIsdp".len() {
        return Some(ConnectPrelude { version: None, has_will: false });
    }
    let (name, &[level, flags, ..]) = rest.split_at_checked(length)? else { return None };
    let version = protocol(name, level).ok().map(|(version, _)| version);
    Some(ConnectPrelude { version, has_will: version.is_some() && flags & WILL > 0 })
}

/// The version of a protocol name and level, and whether it is 3.1.
fn protocol(name: &[u8], level: u8) -> Result<(ProtocolVersion, bool), ConnectError> {
    match (name, level) {
        (b"MQTT", 4) => Ok((ProtocolVersion::V4, false)),
        (b"MQTT", 5) => Ok((ProtocolVersion::V5, false)),
        (b"MQIsdp", 3) => Ok((ProtocolVersion::V4, true)),
        (b"MQTT" | b"MQIsdp", _) => Err(ConnectError::Level),
        _ => Err(ConnectError::Malformed),
    }
}

/// Reads a CONNECT, MQTT 5.0 section 3.1.
pub(crate) fn decode_connect(frame: &Frame<'_>) -> Result<ConnectRequest, ConnectError> {
    let mut body = frame.body;
    let name = take_field(&mut body).map_err(|_| ConnectError::Malformed)?;
    let (level, rest) = body.split_first().ok_or(ConnectError::Malformed)?;
    let (version, is_3_1) = protocol(name, *level)?;
    // MQTT 3.1 gives every packet header flags and does not say which values its reserved bits must have.
    if frame.flags != 0 && !is_3_1 {
        return Err(ConnectError::Invalid(version, CloseReason::Malformed));
    }
    let connect = read_connect(rest, version, is_3_1);
    connect.map_err(|close| ConnectError::Invalid(version, close))
}

const CLEAN: u8 = 0b10;
const WILL: u8 = 0b100;
const WILL_RETAIN: u8 = 0b10_0000;
const PASSWORD: u8 = 0b100_0000;
const USER_NAME: u8 = 0b1000_0000;

fn read_connect(mut body: &[u8], version: ProtocolVersion, is_3_1: bool) -> Result<ConnectRequest, CloseReason> {
    let (flags, rest) = body.split_first().ok_or(CloseReason::Malformed)?;
    body = rest;
    if !is_3_1 {
        check_connect_flags(*flags, version)?;
    }
    let keep_alive_s = take_u16(&mut body)?;
    let properties = ConnectProperties::parse(take_properties(&mut body, version)?)?;
    let client_id = take_plain_text(&mut body)?.to_owned();
    let will = if flags & WILL > 0 { Some(take_will(*flags, &mut body, version)?) } else { None };
    let user_name = if flags & USER_NAME > 0 { Some(take_plain_text(&mut body)?.to_owned()) } else { None };
    let password = if flags & PASSWORD > 0 { Some(Password::new(take_field(&mut body)?)) } else { None };
    if !body.is_empty() {
        return Err(CloseReason::Malformed); // a field that no flag announces [MQTT-3.1.2-16], [MQTT-3.1.2-18]
    }
    let clean = flags & CLEAN > 0;
    let session_expiry_s = match version {
        // A 3.1.1 session without the clean flag never expires. A 5.0 session expires at its end unless the client says otherwise.
        ProtocolVersion::V4 => {
            if clean {
                0
            } else {
                u32::MAX
            }
        }
        ProtocolVersion::V5 => properties.session_expiry_s,
    };
    Ok(ConnectRequest {
        version,
        is_3_1,
        client_id,
        clean,
        keep_alive_s,
        session_expiry_s,
        receive_maximum: properties.receive_maximum,
        topic_alias_maximum: properties.topic_alias_maximum,
        max_packet_bytes: properties.maximum_packet_bytes as usize,
        will,
        user_name,
        password,
        enhanced_auth: properties.enhanced_auth,
        explain_within: properties.explain.then_some(properties.maximum_packet_bytes as usize),
    })
}

fn check_connect_flags(flags: u8, version: ProtocolVersion) -> Result<(), CloseReason> {
    let reserved = flags & 1 != 0; // [MQTT-3.1.2-3]
    let will_qos = flags >> 3 & 0b11;
    // [MQTT-3.1.2-11] to [MQTT-3.1.2-15]
    let will = if flags & WILL > 0 { will_qos == 3 } else { will_qos > 0 || flags & WILL_RETAIN > 0 };
    // A password without a user name: 5.0 allows it [MQTT-3.1.2-22].
    let password = version == ProtocolVersion::V4 && flags & PASSWORD > 0 && flags & USER_NAME == 0;
    if reserved || will || password { Err(CloseReason::Malformed) } else { Ok(()) }
}

fn take_will(flags: u8, body: &mut &[u8], version: ProtocolVersion) -> Result<ConnectWill, CloseReason> {
    let properties = PublishProperties::parse(take_properties(body, version)?, PropertyCarrier::Will)?;
    let topic = take_plain_text(body)?;
    if topic.is_empty() {
        return Err(CloseReason::Malformed); // [MQTT-4.7.3-1]
    }
    let payload = take_field(body)?;
    Ok(ConnectWill {
        topic: Bytes::copy_from_slice(topic.as_bytes()),
        payload: Bytes::copy_from_slice(payload),
        qos: (flags >> 3 & 0b11).min(2),
        retain: flags & WILL_RETAIN > 0,
        properties: properties.to_forwarded(),
        response_topic: properties.response_topic.map(str::to_owned),
        expiry_s: properties.expiry_s,
        delay_s: properties.delay_s,
        is_formatted: properties.allow(payload),
    })
}

fn take_properties<'a>(body: &mut &'a [u8], version: ProtocolVersion) -> Result<&'a [u8], CloseReason> {
    match version {
        ProtocolVersion::V4 => Ok(&[]),
        ProtocolVersion::V5 => fields::take_properties(body),
    }
}

fn take_plain_text<'a>(body: &mut &'a [u8]) -> Result<&'a str, CloseReason> {
    topic::plain_text(take_field(body)?).ok_or(CloseReason::Malformed)
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicSubscription {
    pub filter: String,
    pub qos: u8,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain: RetainHandling,
    /// Subscription identifier of the SUBSCRIBE.
    pub identifier: Option<u32>,
}

/// When retained messages are sent, MQTT 5.0 section 3.8.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetainHandling {
    /// At each SUBSCRIBE.
    Always,
    /// Only at a SUBSCRIBE that makes a new subscription.
    New,
    /// Never.
    Never,
}

/// A SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubscribePacket {
    pub packet_id: u16,
    pub filters: Vec<TopicSubscription>,
}

/// Reads a SUBSCRIBE.
pub(crate) fn decode_subscribe(frame: &Frame<'_>, version: ProtocolVersion) -> Result<SubscribePacket, CloseReason> {
    let mut body = frame.body;
    let (packet_id, properties) = take_head(frame, &mut body, version)?;
    let identifier = properties::subscription_identifier(properties)?;
    let mut filters = Vec::new();
    while !body.is_empty() {
        let filter = take_filter(&mut body)?;
        let (options, rest) = body.split_first().ok_or(CloseReason::Malformed)?;
        body = rest;
        let filter = with_options(filter, *options, version, identifier)?;
        if version == ProtocolVersion::V5 && topic::is_shared(&filter.filter) {
            // [MQTT-3.8.3-4], [MQTT-4.8.2-1], [MQTT-4.8.2-2]
            if filter.no_local || topic::split_shared(&filter.filter).is_none() {
                return Err(CloseReason::Protocol);
            }
        }
        filters.push(filter);
    }
    // [MQTT-3.8.3-2] of 5.0, [MQTT-3.8.3-3] of 3.1.1: at least one filter.
    if filters.is_empty() { Err(CloseReason::Malformed) } else { Ok(SubscribePacket { packet_id, filters }) }
}

fn with_options(
    filter: String,
    options: u8,
    version: ProtocolVersion,
    identifier: Option<u32>,
) -> Result<TopicSubscription, CloseReason> {
    // [MQTT-3.8.3-5] of 5.0, [MQTT-3-8.3-4] of 3.1.1
    let reserved = if version == ProtocolVersion::V5 { 0b1100_0000 } else { 0b1111_1100 };
    let retain = match options >> 4 & 0b11 {
        0 => RetainHandling::Always,
        1 => RetainHandling::New,
        2 => RetainHandling::Never,
        _ => return Err(CloseReason::Malformed),
    };
    if options & reserved != 0 || options & 0b11 == 3 {
        return Err(CloseReason::Malformed);
    }
    let (no_local, retain_as_published) = (options & 0b100 > 0, options & 0b1000 > 0);
    Ok(TopicSubscription { filter, qos: options & 0b11, no_local, retain_as_published, retain, identifier })
}

/// Decodes packet identifier and properties of a SUBSCRIBE or UNSUBSCRIBE [MQTT-3.8.1-1], [MQTT-3.10.1-1].
fn take_head<'a>(
    frame: &Frame<'a>,
    body: &mut &'a [u8],
    version: ProtocolVersion,
) -> Result<(u16, &'a [u8]), CloseReason> {
    if frame.flags != 0b0010 {
        return Err(CloseReason::Malformed);
    }
    let packet_id = take_u16(body)?;
    let properties = take_properties(body, version)?;
    // [MQTT-2.2.1-3]
    if packet_id == 0 { Err(CloseReason::Malformed) } else { Ok((packet_id, properties)) }
}

/// [MQTT-3.8.3-1], [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.3-1]. The reason 0x8F of a SUBACK is for filters that are
/// correctly formed [section 3.9.3].
fn take_filter(body: &mut &[u8]) -> Result<String, CloseReason> {
    let filter = take_plain_text(body)?;
    if !topic::valid_filter(filter) { Err(CloseReason::Malformed) } else { Ok(filter.to_owned()) }
}

/// Reads an UNSUBSCRIBE: packet id and filters.
pub(crate) fn decode_unsubscribe(
    frame: &Frame<'_>,
    version: ProtocolVersion,
) -> Result<(u16, Vec<String>), CloseReason> {
    let mut body = frame.body;
    let (packet_id, properties) = take_head(frame, &mut body, version)?;
    properties::check(properties, PropertyCarrier::Unsubscribe)?;
    let mut filters = Vec::new();
    while !body.is_empty() {
        filters.push(take_filter(&mut body)?);
    }
    // [MQTT-3.10.3-2]
    if filters.is_empty() { Err(CloseReason::Malformed) } else { Ok((packet_id, filters)) }
}

/// Decodes a DISCONNECT: its reason, and the session expiry interval that replaces the one of the CONNECT.
pub(crate) fn decode_disconnect(
    frame: &Frame<'_>,
    version: ProtocolVersion,
) -> Result<(CloseReason, Option<u32>), CloseReason> {
    if frame.flags != 0 {
        return Err(CloseReason::Malformed); // [MQTT-3.14.1-1]
    }
    let (reason, mut rest) = match (version, frame.body) {
        (_, []) => return Ok((CloseReason::Normal, None)),
        (ProtocolVersion::V4, _) => return Err(CloseReason::Malformed),
        (ProtocolVersion::V5, [reason, rest @ ..]) => (*reason, rest),
    };
    // Only the reason 0x00 discards the will [MQTT-3.14.4-3].
    let close = if reason == 0 { CloseReason::Normal } else { CloseReason::NormalWithWill };
    if rest.is_empty() {
        return Ok((close, None));
    }
    let properties = fields::take_properties(&mut rest)?;
    if !rest.is_empty() {
        return Err(CloseReason::Malformed);
    }
    Ok((close, properties::session_expiry(properties)?))
}

/// Contents of the CONNACK of an accepted connection.
#[derive(Debug, Clone)]
pub(crate) struct ConnackOptions {
    pub session_present: bool,
    /// Receive maximum that weir announces.
    pub receive_maximum: u16,
    /// Maximum Packet Size that weir announces, in bytes.
    pub max_packet_bytes: usize,
    /// Topic Alias Maximum that weir announces.
    pub topic_alias_maximum: u16,
    /// Client identifier that weir assigned; `None` where the client has its own.
    pub assigned_client_id: Option<String>,
    /// Server Keep Alive in seconds; `None` where the keep-alive of the client holds.
    pub keep_alive_s: Option<u16>,
    /// Session expiry interval in seconds; `None` where the client's holds.
    pub session_expiry_s: Option<u32>,
}

/// Appends the CONNACK of an accepted connection.
pub(crate) fn put_connack(
    accepted: &ConnackOptions,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) -> Result<(), CloseReason> {
    let connack = ConnAck { session_present: accepted.session_present, code: ConnectReturnCode::Success };
    let properties = ConnAckProperties {
        receive_max: Some(accepted.receive_maximum),
        max_packet_size: Some(u32::try_from(accepted.max_packet_bytes).unwrap_or(u32::MAX)),
        assigned_client_identifier: accepted.assigned_client_id.clone(),
        topic_alias_max: Some(accepted.topic_alias_maximum),
        server_keep_alive: accepted.keep_alive_s,
        session_expiry_interval: accepted.session_expiry_s,
        ..ConnAckProperties::default()
    };
    encode(Packet::ConnAck(connack, (version == ProtocolVersion::V5).then_some(properties)), version, out)
}

/// Appends the CONNACK of a refused connection: `code` is a return code of 3.1.1 (section 3.2.2.3) or a reason code of
/// 5.0 (section 3.2.2.2).
pub(crate) fn put_refusal(code: u8, version: ProtocolVersion, out: &mut Vec<u8>) {
    match version {
        ProtocolVersion::V4 => out.extend_from_slice(&[0x20, 2, 0, code]),
        ProtocolVersion::V5 => out.extend_from_slice(&[0x20, 3, 0, code, 0]),
    }
}

/// Answer to one filter of a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubscribeOutcome {
    Granted(u8),
    InvalidFilter,
    QuotaExceeded,
    NotAuthorized,
}

impl SubscribeOutcome {
    /// Return code of 3.1.1, which has one code for every failure.
    fn reason(self, version: ProtocolVersion) -> SubscribeReasonCode {
        match (version, self) {
            (_, SubscribeOutcome::Granted(0)) => SubscribeReasonCode::QoS0,
            (_, SubscribeOutcome::Granted(1)) => SubscribeReasonCode::QoS1,
            (_, SubscribeOutcome::Granted(_)) => SubscribeReasonCode::QoS2,
            (ProtocolVersion::V4, _) => SubscribeReasonCode::Failure,
            (ProtocolVersion::V5, SubscribeOutcome::InvalidFilter) => SubscribeReasonCode::TopicFilterInvalid,
            (ProtocolVersion::V5, SubscribeOutcome::QuotaExceeded) => SubscribeReasonCode::QuotaExceeded,
            (ProtocolVersion::V5, SubscribeOutcome::NotAuthorized) => SubscribeReasonCode::NotAuthorized,
        }
    }
}

/// Appends a SUBACK.
pub(crate) fn put_suback(
    packet_id: u16,
    outcomes: &[SubscribeOutcome],
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) -> Result<(), CloseReason> {
    let return_codes = outcomes.iter().map(|outcome| outcome.reason(version)).collect();
    encode(Packet::SubAck(SubAck { pkid: packet_id, return_codes }, None), version, out)
}

/// Appends an UNSUBACK; `existed` says for each filter whether there was such a subscription.
pub(crate) fn put_unsuback(
    packet_id: u16,
    existed: &[bool],
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) -> Result<(), CloseReason> {
    let reason = |existed: &bool| {
        if *existed { UnsubAckReason::Success } else { UnsubAckReason::NoSubscriptionExisted }
    };
    let reasons = existed.iter().map(reason).collect();
    encode(Packet::UnsubAck(UnsubAck { pkid: packet_id, reasons }, None), version, out)
}

fn encode(packet: Packet, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), CloseReason> {
    let encoded = catch_unwind(AssertUnwindSafe(|| {
        let mut bytes = BytesMut::new();
        match version {
            ProtocolVersion::V4 => V4.write(packet, &mut bytes),
            ProtocolVersion::V5 => V5.write(packet, &mut bytes),
        }
        .map(|_| bytes)
    }));
    match encoded {
        Ok(Ok(bytes)) => {
            out.extend_from_slice(&bytes);
            Ok(())
        }
        _ => Err(CloseReason::Defect),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::testing::client;
    use crate::mqtt::wire::frame;
    use proptest::prelude::*;

    fn frame(bytes: &[u8]) -> Frame<'_> {
        match frame::next(bytes, usize::MAX) {
            Ok(frame::NextFrame::Frame(frame)) => frame,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_connect_reads_back() {
        for version in [ProtocolVersion::V4, ProtocolVersion::V5] {
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
        let v4 = client(ProtocolVersion::V4).kept().connect("c");
        assert_eq!(decode_connect(&frame(&v4)).unwrap().session_expiry_s, u32::MAX);
        let v5 = client(ProtocolVersion::V5).kept().connect("c");
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
        check(b"MQIsdp", 2, ConnectError::Level);
        check(b"MQTT", 6, ConnectError::Level);
        check(b"HTTP", 4, ConnectError::Malformed);
        check(b"MQTT", 4, ConnectError::Invalid(ProtocolVersion::V4, CloseReason::Malformed));
    }

    #[test]
    fn mqtt_3_1_is_read_as_3_1_1() {
        let bytes = [0x10, 15, 0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, 2, 0, 10, 0, 1, b'p'];
        let connect = decode_connect(&frame(&bytes)).unwrap();
        assert!(connect.is_3_1 && connect.version == ProtocolVersion::V4 && connect.client_id == "p");
    }

    #[test]
    fn what_no_flag_announces_is_malformed() {
        let connect = |flags: u8, fields: &[u8]| {
            let mut bytes = vec![0x10, (10 + fields.len()) as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 0];
            bytes.extend_from_slice(fields);
            decode_connect(&frame(&bytes))
                .map(|connect| (connect.user_name, connect.password.map(|p| p.as_bytes().to_vec())))
        };
        let malformed = ConnectError::Invalid(ProtocolVersion::V4, CloseReason::Malformed);
        let both = connect(0b1100_0010, &[0, 1, b'c', 0, 1, b'u', 0, 1, 0]).unwrap();
        assert_eq!(both, (Some("u".into()), Some(vec![0])));
        for (flags, fields) in [
            (0b0000_0010, &[0, 1, b'c', 0, 0][..]),
            (0b1000_0010, &[0, 1, b'c']),
            (0b0010_0010, &[0, 1, b'c']),
            (0b0000_1010, &[0, 1, b'c']),
            (0b0001_1110, &[0, 1, b'c', 0, 1, b't', 0, 0]),
            (0b1000_0010, &[0, 1, b'c', 0, 1, 1]),
        ] {
            assert_eq!(connect(flags, fields).unwrap_err(), malformed, "{flags:#b} {fields:?}");
        }
    }

    #[test]
    fn reserved_bits_of_a_connect_are_refused() {
        let mut bytes = client(ProtocolVersion::V5).connect("c");
        bytes[9] |= 1;
        assert_eq!(
            decode_connect(&frame(&bytes)).unwrap_err(),
            ConnectError::Invalid(ProtocolVersion::V5, CloseReason::Malformed)
        );
        let mut bytes = client(ProtocolVersion::V4).connect("c");
        bytes[9] |= 0b0100_0000;
        assert_eq!(
            decode_connect(&frame(&bytes)).unwrap_err(),
            ConnectError::Invalid(ProtocolVersion::V4, CloseReason::Malformed)
        );
    }

    #[test]
    fn a_disconnect_says_what_becomes_of_the_will() {
        let check = |bytes: &[u8], version, expected| {
            assert_eq!(decode_disconnect(&frame(bytes), version), expected, "{bytes:?}");
        };
        check(&[0xE0, 0], ProtocolVersion::V4, Ok((CloseReason::Normal, None)));
        check(&[0xE0, 0], ProtocolVersion::V5, Ok((CloseReason::Normal, None)));
        check(&[0xE0, 1, 0], ProtocolVersion::V5, Ok((CloseReason::Normal, None)));
        check(&[0xE0, 1, 4], ProtocolVersion::V5, Ok((CloseReason::NormalWithWill, None)));
        check(&[0xE0, 7, 4, 5, 0x11, 0, 0, 0, 9], ProtocolVersion::V5, Ok((CloseReason::NormalWithWill, Some(9))));
        check(&[0xE0, 1, 0], ProtocolVersion::V4, Err(CloseReason::Malformed));
        check(&[0xE1, 0], ProtocolVersion::V5, Err(CloseReason::Malformed));
    }

    #[test]
    fn subscriptions_read_back() {
        for version in [ProtocolVersion::V4, ProtocolVersion::V5] {
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
        let outcomes = [SubscribeOutcome::Granted(1), SubscribeOutcome::QuotaExceeded];
        let check = |version, expected: &[u8]| {
            let mut out = Vec::new();
            put_suback(7, &outcomes, version, &mut out).unwrap();
            assert_eq!(out, expected);
        };
        check(ProtocolVersion::V4, &[0x90, 4, 0, 7, 1, 0x80]);
        check(ProtocolVersion::V5, &[0x90, 5, 0, 7, 0, 1, 0x97]);
    }

    #[test]
    fn every_truncated_packet_is_an_error() {
        for version in [ProtocolVersion::V4, ProtocolVersion::V5] {
            let client = client(version).will("w", b"x", 2);
            for whole in [client.connect("c1"), client.subscribe(1, &[("a", 0)]), client.unsubscribe(1, &["a"])] {
                let body = frame(&whole).body;
                for len in 0..body.len() {
                    let mut cut = vec![whole[0]];
                    crate::mqtt::wire::fields::put_variable_length(len, &mut cut);
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
            for version in [ProtocolVersion::V4, ProtocolVersion::V5] {
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
