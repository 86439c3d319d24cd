//! Properties of MQTT 5.0 (section 2.2.2.2): which packet may carry which property, how often, and of which type. Properties
//! that a PUBLISH or a will carries for subscribers stay encoded.

use std::time::{Duration, Instant};

use super::close::CloseReason;
use super::fields::{put_variable_length, take_field, variable_length, variable_length_bytes};
use super::topic;

const PAYLOAD_FORMAT: u8 = 0x01;
const MESSAGE_EXPIRY: u8 = 0x02;
const CONTENT_TYPE: u8 = 0x03;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;
const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
const SESSION_EXPIRY: u8 = 0x11;
const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
const SERVER_KEEP_ALIVE: u8 = 0x13;
const AUTHENTICATION_METHOD: u8 = 0x15;
const AUTHENTICATION_DATA: u8 = 0x16;
const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
const WILL_DELAY: u8 = 0x18;
const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
const RESPONSE_INFORMATION: u8 = 0x1A;
const SERVER_REFERENCE: u8 = 0x1C;
const REASON_STRING: u8 = 0x1F;
const RECEIVE_MAXIMUM: u8 = 0x21;
const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
const TOPIC_ALIAS: u8 = 0x23;
const MAXIMUM_QOS: u8 = 0x24;
const RETAIN_AVAILABLE: u8 = 0x25;
const USER_PROPERTY: u8 = 0x26;
const MAXIMUM_PACKET_SIZE: u8 = 0x27;
const WILDCARD_AVAILABLE: u8 = 0x28;
const IDENTIFIERS_AVAILABLE: u8 = 0x29;
const SHARED_AVAILABLE: u8 = 0x2A;

/// Packets that carry properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PropertyCarrier {
    Connect,
    Will,
    Publish,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    Ack,
    Subscribe,
    Unsubscribe,
    Disconnect,
}

impl PropertyCarrier {
    fn allows(self, id: u8) -> bool {
        match self {
            PropertyCarrier::Connect => matches!(
                id,
                SESSION_EXPIRY
                    | RECEIVE_MAXIMUM
                    | MAXIMUM_PACKET_SIZE
                    | TOPIC_ALIAS_MAXIMUM
                    | REQUEST_RESPONSE_INFORMATION
                    | REQUEST_PROBLEM_INFORMATION
                    | AUTHENTICATION_METHOD
                    | AUTHENTICATION_DATA
            ),
            PropertyCarrier::Will => matches!(
                id,
                WILL_DELAY | PAYLOAD_FORMAT | MESSAGE_EXPIRY | CONTENT_TYPE | RESPONSE_TOPIC | CORRELATION_DATA
            ),
            // A client must not send subscription identifiers [MQTT-3.3.4-6].
            PropertyCarrier::Publish => matches!(
                id,
                PAYLOAD_FORMAT | MESSAGE_EXPIRY | TOPIC_ALIAS | RESPONSE_TOPIC | CORRELATION_DATA | CONTENT_TYPE
            ),
            PropertyCarrier::Ack => id == REASON_STRING,
            PropertyCarrier::Subscribe => id == SUBSCRIPTION_IDENTIFIER,
            PropertyCarrier::Unsubscribe => false,
            // Some clients send the Server Reference, which only a server should. It is accepted and not used.
            PropertyCarrier::Disconnect => matches!(id, SESSION_EXPIRY | REASON_STRING | SERVER_REFERENCE),
        }
    }

    /// The error for a property that belongs to another packet. A SUBSCRIBE or UNSUBSCRIBE is then malformed, because only the
    /// listed properties can stand between packet identifier and filters.
    fn misplaced(self) -> CloseReason {
        match self {
            PropertyCarrier::Subscribe | PropertyCarrier::Unsubscribe => CloseReason::Malformed,
            _ => CloseReason::Protocol,
        }
    }
}

/// A property's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PropertyValue<'a> {
    Number(u32),
    Bytes(&'a [u8]),
    Pair,
}

/// Calls `each` with identifier, value, start and end for every property in `bytes`. Types, repetition and the packet are
/// checked.
///
/// # Errors
/// The bytes are malformed, a property is repeated, or it belongs to another packet. Malformed bytes take precedence.
fn walk<'a>(
    bytes: &'a [u8],
    carrier: PropertyCarrier,
    mut each: impl FnMut(u8, PropertyValue<'a>, (usize, usize)) -> Result<(), CloseReason>,
) -> Result<(), CloseReason> {
    let mut seen = 0_u64;
    let mut wrong = None;
    let mut rest = bytes;
    while let [id, after @ ..] = rest {
        let start = bytes.len() - rest.len();
        rest = after;
        let value = take_value(*id, &mut rest)?;
        if *id != USER_PROPERTY {
            if !carrier.allows(*id) {
                wrong.get_or_insert(carrier.misplaced());
            } else if seen & 1 << id != 0 {
                wrong.get_or_insert(CloseReason::Protocol);
            }
            seen |= 1 << id; // identifiers with a value are below 64
        }
        each(*id, value, (start, bytes.len() - rest.len()))?;
    }
    wrong.map_or(Ok(()), Err)
}

fn take_value<'a>(id: u8, rest: &mut &'a [u8]) -> Result<PropertyValue<'a>, CloseReason> {
    match id {
        PAYLOAD_FORMAT
        | REQUEST_PROBLEM_INFORMATION
        | REQUEST_RESPONSE_INFORMATION
        | MAXIMUM_QOS
        | RETAIN_AVAILABLE
        | WILDCARD_AVAILABLE
        | IDENTIFIERS_AVAILABLE
        | SHARED_AVAILABLE => match take_number(rest, 1)? {
            flag @ 0..=1 => Ok(PropertyValue::Number(flag)),
            _ => Err(CloseReason::Protocol),
        },
        SERVER_KEEP_ALIVE | RECEIVE_MAXIMUM | TOPIC_ALIAS_MAXIMUM | TOPIC_ALIAS => {
            take_number(rest, 2).map(PropertyValue::Number)
        }
        MESSAGE_EXPIRY | SESSION_EXPIRY | WILL_DELAY | MAXIMUM_PACKET_SIZE => {
            take_number(rest, 4).map(PropertyValue::Number)
        }
        SUBSCRIPTION_IDENTIFIER => take_identifier(rest),
        CORRELATION_DATA | AUTHENTICATION_DATA => take_field(rest).map(PropertyValue::Bytes),
        CONTENT_TYPE
        | RESPONSE_TOPIC
        | ASSIGNED_CLIENT_IDENTIFIER
        | AUTHENTICATION_METHOD
        | RESPONSE_INFORMATION
        | SERVER_REFERENCE
        | REASON_STRING => take_text(rest).map(PropertyValue::Bytes),
        USER_PROPERTY => {
            take_text(rest)?;
            take_text(rest)?;
            Ok(PropertyValue::Pair)
        }
        _ => Err(CloseReason::Malformed), // unknown: its length is too [section 2.2.2.2]
    }
}

fn take_number(rest: &mut &[u8], len: usize) -> Result<u32, CloseReason> {
    let (value, after) = rest.split_at_checked(len).ok_or(CloseReason::Malformed)?;
    *rest = after;
    Ok(value.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

/// 1 to 268,435,455 [section 3.8.2.1.2], in as few bytes as it needs [MQTT-1.5.5-1].
fn take_identifier<'a>(rest: &mut &'a [u8]) -> Result<PropertyValue<'a>, CloseReason> {
    let (value, len) = variable_length(rest)?.ok_or(CloseReason::Malformed)?;
    if value == 0 || len != variable_length_bytes(value) {
        return Err(CloseReason::Malformed);
    }
    *rest = &rest[len..];
    Ok(PropertyValue::Number(value as u32))
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], CloseReason> {
    let text = take_field(rest)?;
    if topic::text(text).is_some() { Ok(text) } else { Err(CloseReason::Malformed) }
}

/// Checks properties that weir does not use.
pub(crate) fn check(bytes: &[u8], carrier: PropertyCarrier) -> Result<(), CloseReason> {
    walk(bytes, carrier, |_, _, _| Ok(()))
}

/// Decoded properties of a PUBLISH or a will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PublishProperties<'a> {
    /// Topic alias.
    pub alias: Option<u16>,
    /// Message expiry interval in seconds.
    pub expiry_s: Option<u32>,
    /// Will delay interval in seconds.
    pub delay_s: u32,
    /// Whether the payload format indicator is 1 (UTF-8).
    pub is_text: bool,
    /// Topic on which a response is asked for.
    pub response_topic: Option<&'a str>,
    bytes: &'a [u8],
    /// Byte ranges that are not forwarded unchanged: topic alias, message expiry interval, will delay interval.
    left_out: [(usize, usize); 3],
}

impl<'a> PublishProperties<'a> {
    /// Decodes and checks the encoded properties.
    ///
    /// # Errors
    /// The bytes are malformed, or a property is repeated or may not be sent by a client (a protocol error).
    pub fn parse(bytes: &'a [u8], carrier: PropertyCarrier) -> Result<Self, CloseReason> {
        let mut parsed = Self { bytes, ..Self::default() };
        walk(bytes, carrier, |id, value, place| {
            match (id, value) {
                (TOPIC_ALIAS, PropertyValue::Number(alias)) => {
                    parsed.alias = Some(alias as u16);
                    parsed.left_out[0] = place;
                }
                (MESSAGE_EXPIRY, PropertyValue::Number(seconds)) => {
                    parsed.expiry_s = Some(seconds);
                    parsed.left_out[1] = place;
                }
                (WILL_DELAY, PropertyValue::Number(seconds)) => {
                    parsed.delay_s = seconds;
                    parsed.left_out[2] = place;
                }
                (PAYLOAD_FORMAT, PropertyValue::Number(format)) => parsed.is_text = format == 1,
                // [MQTT-3.3.2-14]
                (RESPONSE_TOPIC, PropertyValue::Bytes(name)) if name.iter().any(|byte| matches!(byte, b'+' | b'#')) => {
                    return Err(CloseReason::Protocol);
                }
                (RESPONSE_TOPIC, PropertyValue::Bytes(name)) => parsed.response_topic = topic::text(name),
                _ => {}
            }
            Ok(())
        })?;
        Ok(parsed)
    }

    /// Whether the payload is UTF-8 where its payload format indicator says so [section 3.3.2.3.2].
    pub fn allow(&self, payload: &[u8]) -> bool {
        !self.is_text || std::str::from_utf8(payload).is_ok()
    }

    /// Encoded properties that are forwarded unaltered and in their order [MQTT-3.3.2-17], [MQTT-3.3.2-18].
    pub fn to_forwarded(self) -> Vec<u8> {
        let mut left_out = self.left_out;
        left_out.sort_unstable();
        let mut kept = Vec::with_capacity(self.bytes.len());
        let mut at = 0;
        for (start, end) in left_out {
            if end > at {
                kept.extend_from_slice(&self.bytes[at..start]);
                at = end;
            }
        }
        kept.extend_from_slice(&self.bytes[at..]);
        kept
    }
}

/// Decoded properties of a CONNECT. An absent property has the default of the standard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectProperties {
    pub session_expiry_s: u32,
    pub receive_maximum: u16,
    pub maximum_packet_bytes: u32,
    pub topic_alias_maximum: u16,
    /// Whether the client names an authentication method.
    pub enhanced_auth: bool,
    /// Whether Request Problem Information is present and 1. The standard's default is 1 too, but clients that leave it out get
    /// the reason code alone: most of them look at nothing else.
    pub explain: bool,
}

impl ConnectProperties {
    /// Decodes and checks the encoded properties.
    ///
    /// # Errors
    /// The bytes are malformed, or a property is repeated, out of its range, or belongs to another packet.
    pub fn parse(bytes: &[u8]) -> Result<Self, CloseReason> {
        let mut parsed = Self {
            session_expiry_s: 0,
            receive_maximum: u16::MAX,
            maximum_packet_bytes: u32::MAX,
            topic_alias_maximum: 0,
            enhanced_auth: false,
            explain: false,
        };
        let mut auth_data = false;
        walk(bytes, PropertyCarrier::Connect, |id, value, _| {
            match (id, value) {
                (SESSION_EXPIRY, PropertyValue::Number(seconds)) => parsed.session_expiry_s = seconds,
                // A maximum of 0 is a protocol error [section 3.1.2.11.3 and 3.1.2.11.4].
                (RECEIVE_MAXIMUM | MAXIMUM_PACKET_SIZE, PropertyValue::Number(0)) => return Err(CloseReason::Protocol),
                (RECEIVE_MAXIMUM, PropertyValue::Number(count)) => parsed.receive_maximum = count as u16,
                (MAXIMUM_PACKET_SIZE, PropertyValue::Number(bytes)) => parsed.maximum_packet_bytes = bytes,
                (TOPIC_ALIAS_MAXIMUM, PropertyValue::Number(count)) => parsed.topic_alias_maximum = count as u16,
                (AUTHENTICATION_METHOD, _) => parsed.enhanced_auth = true,
                (AUTHENTICATION_DATA, _) => auth_data = true,
                (REQUEST_PROBLEM_INFORMATION, PropertyValue::Number(wanted)) => parsed.explain = wanted == 1,
                _ => {}
            }
            Ok(())
        })?;
        // Authentication data without a method is a protocol error [section 3.1.2.11.10].
        if auth_data && !parsed.enhanced_auth { Err(CloseReason::Protocol) } else { Ok(parsed) }
    }
}

/// Session expiry interval of a DISCONNECT, in seconds.
pub(crate) fn session_expiry(bytes: &[u8]) -> Result<Option<u32>, CloseReason> {
    let mut expiry = None;
    walk(bytes, PropertyCarrier::Disconnect, |id, value, _| {
        if let (SESSION_EXPIRY, PropertyValue::Number(seconds)) = (id, value) {
            expiry = Some(seconds);
        }
        Ok(())
    })?;
    Ok(expiry)
}

/// Subscription identifier of a SUBSCRIBE.
pub(crate) fn subscription_identifier(bytes: &[u8]) -> Result<Option<u32>, CloseReason> {
    let mut identifier = None;
    walk(bytes, PropertyCarrier::Subscribe, |id, value, _| {
        if let (SUBSCRIPTION_IDENTIFIER, PropertyValue::Number(number)) = (id, value) {
            identifier = Some(number);
        }
        Ok(())
    })?;
    Ok(identifier)
}

/// Appends a Reason String.
pub(crate) fn put_reason_string(text: &str, out: &mut Vec<u8>) {
    debug_assert!(text.len() <= usize::from(u16::MAX));
    out.push(REASON_STRING);
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a topic alias.
pub(crate) fn put_alias(alias: u16, out: &mut Vec<u8>) {
    out.push(TOPIC_ALIAS);
    out.extend_from_slice(&alias.to_be_bytes());
}

/// Appends the properties of a PUBLISH that differ by subscriber: the rest of the message expiry interval, and the
/// identifiers of the matching subscriptions.
pub(crate) fn put_delivery(expires: Option<Instant>, now: Instant, identifiers: &[u32], out: &mut Vec<u8>) {
    if let Some(expires) = expires {
        out.push(MESSAGE_EXPIRY);
        out.extend_from_slice(&remaining_s(expires, now).to_be_bytes());
    }
    for identifier in identifiers {
        out.push(SUBSCRIPTION_IDENTIFIER);
        put_variable_length(*identifier as usize, out);
    }
}

/// Rest of the message expiry interval in seconds, rounded up: an unexpired message has at least 1 [MQTT-3.3.2-6].
fn remaining_s(expires: Instant, now: Instant) -> u32 {
    let left = expires.saturating_duration_since(now) + Duration::from_millis(999);
    u32::try_from(left.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(bytes: &[u8]) -> Result<PublishProperties<'_>, CloseReason> {
        PublishProperties::parse(bytes, PropertyCarrier::Publish)
    }

    fn check_publish(bytes: &[u8], alias: Option<u16>, expiry_s: Option<u32>, forwarded: &[u8]) {
        let parsed = parse(bytes).unwrap();
        assert_eq!((parsed.alias, parsed.expiry_s), (alias, expiry_s));
        assert_eq!(parsed.to_forwarded(), forwarded);
    }

    #[test]
    fn alias_and_expiry_are_taken_out_and_the_rest_is_kept_in_order() {
        check_publish(&[], None, None, &[]);
        check_publish(&[TOPIC_ALIAS, 0, 5], Some(5), None, &[]);
        check_publish(&[1, 1, TOPIC_ALIAS, 1, 0, 3, 0, 1, b't'], Some(256), None, &[1, 1, 3, 0, 1, b't']);
        let pairs = [0x26, 0, 1, b'k', 0, 1, b'v', 0x26, 0, 0, 0, 0];
        check_publish(&pairs, None, None, &pairs);
        let mixed = [2, 0, 0, 1, 0, 1, 0, TOPIC_ALIAS, 0, 1, 9, 0, 1, 7];
        check_publish(&mixed, Some(1), Some(256), &[1, 0, 9, 0, 1, 7]);
    }

    #[test]
    fn what_a_client_may_not_send_is_refused() {
        let refused = |bytes: &[u8]| parse(bytes).unwrap_err();
        assert_eq!(refused(&[1, 1, 1, 1]), CloseReason::Protocol, "twice");
        assert_eq!(refused(&[1, 2]), CloseReason::Protocol, "payload format 2");
        assert_eq!(refused(&[0x0B, 1]), CloseReason::Protocol, "subscription identifier");
        assert_eq!(refused(&[0xFF, 1]), CloseReason::Malformed, "unknown");
        assert_eq!(refused(&[8, 0, 1, b'+']), CloseReason::Protocol, "response topic with a wildcard");
        assert_eq!(refused(&[2, 0, 0]), CloseReason::Malformed, "cut short");
        assert_eq!(refused(&[3, 0, 1, 0xFF]), CloseReason::Malformed, "not UTF-8");
        assert_eq!(refused(&[0x18, 0, 0, 0, 1]), CloseReason::Protocol, "a will's delay");
    }

    #[test]
    fn a_payload_that_is_said_to_be_text_must_be() {
        for (properties, payload, allowed) in [
            (&[1, 1][..], &b"text"[..], true),
            (&[1, 1], &[], true),
            (&[1, 1], &[0xC3], false),
            (&[1, 1], &[0xED, 0xA0, 0x80], false),
            (&[1, 0], &[0xC3], true),
            (&[], &[0xC3], true),
        ] {
            assert_eq!(parse(properties).unwrap().allow(payload), allowed, "{properties:?} {payload:?}");
        }
    }

    #[test]
    fn a_wills_delay_is_not_forwarded() {
        let bytes = [0x18, 0, 0, 0, 7, 1, 1];
        let will = PublishProperties::parse(&bytes, PropertyCarrier::Will).unwrap();
        assert_eq!((will.delay_s, will.to_forwarded()), (7, vec![1, 1]));
    }

    #[test]
    fn subscription_identifiers_are_bounded_and_short() {
        assert_eq!(subscription_identifier(&[0x0B, 0xFF, 0xFF, 0xFF, 0x7F]), Ok(Some(268_435_455)));
        assert_eq!(subscription_identifier(&[]), Ok(None));
        for wrong in [&[0x0B, 0][..], &[0x0B, 0x80, 0x00], &[0x0B, 0x80, 0x80, 0x80, 0x80, 1], &[0x01, 1]] {
            assert_eq!(subscription_identifier(wrong), Err(CloseReason::Malformed), "{wrong:?}");
        }
        assert_eq!(subscription_identifier(&[0x0B, 1, 0x0B, 2]), Err(CloseReason::Protocol));
    }

    #[test]
    fn a_connects_properties_have_defaults_and_bounds() {
        let defaults = ConnectProperties::parse(&[]).unwrap();
        assert_eq!((defaults.session_expiry_s, defaults.receive_maximum), (0, 65_535));
        assert_eq!(ConnectProperties::parse(&[RECEIVE_MAXIMUM, 0, 0]), Err(CloseReason::Protocol));
        assert_eq!(ConnectProperties::parse(&[AUTHENTICATION_DATA, 0, 0]), Err(CloseReason::Protocol));
        assert_eq!(ConnectProperties::parse(&[TOPIC_ALIAS, 0, 1]), Err(CloseReason::Protocol));
    }

    #[test]
    fn the_rest_of_a_life_is_rounded_up() {
        let now = Instant::now();
        let mut out = Vec::new();
        put_delivery(Some(now + Duration::from_millis(1_001)), now, &[1, 300], &mut out);
        assert_eq!(out, [2, 0, 0, 0, 2, 0x0B, 1, 0x0B, 0xAC, 0x02]);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(0_u8..48, 0..40)) {
            if let Ok(parsed) = parse(&bytes) {
                prop_assert!(parsed.to_forwarded().len() <= bytes.len());
            }
            let _ = ConnectProperties::parse(&bytes);
            let _ = session_expiry(&bytes);
        }
    }
}
