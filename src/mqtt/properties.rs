//! PUBLISH and will properties of MQTT 5.0 (section 3.3.2.3): checked, the topic alias taken out, the rest kept as
//! bytes for subscribers.

use rumqttd::protocol::LastWillProperties;

use super::close::Close;
use super::frame::take_field;

const PAYLOAD_FORMAT: u8 = 0x01;
const MESSAGE_EXPIRY: u8 = 0x02;
const CONTENT_TYPE: u8 = 0x03;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;
const TOPIC_ALIAS: u8 = 0x23;
const USER_PROPERTY: u8 = 0x26;

/// What a PUBLISH's properties say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PublishProperties<'a> {
    /// Topic alias.
    pub alias: Option<u16>,
    /// The encoded properties before and after the alias: a subscriber is sent these unaltered [MQTT-3.3.2-17].
    pub forwarded: (&'a [u8], &'a [u8]),
}

impl<'a> PublishProperties<'a> {
    /// Checks the encoded properties. A property that a client may not send, or twice, is a protocol error.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Close> {
        let mut alias = None;
        let mut forwarded = (bytes, &bytes[bytes.len()..]);
        let mut seen = 0_u64;
        let mut rest = bytes;
        while let [id, after @ ..] = rest {
            let start = bytes.len() - rest.len();
            rest = after;
            if *id != USER_PROPERTY && *id < 64 && seen & 1 << id != 0 {
                return Err(Close::Protocol);
            }
            seen |= 1_u64.checked_shl(u32::from(*id)).unwrap_or(0);
            let value = take_value(*id, &mut rest)?;
            if let (TOPIC_ALIAS, [high, low]) = (*id, value) {
                alias = Some(u16::from_be_bytes([*high, *low]));
                forwarded = (&bytes[..start], rest);
            }
        }
        Ok(Self { alias, forwarded })
    }

    /// The properties for subscribers, in one piece.
    pub fn to_forwarded(self) -> Vec<u8> {
        [self.forwarded.0, self.forwarded.1].concat()
    }
}

fn take_value<'a>(id: u8, rest: &mut &'a [u8]) -> Result<&'a [u8], Close> {
    match id {
        PAYLOAD_FORMAT => match take_bytes(rest, 1)? {
            value @ [0 | 1] => Ok(value),
            _ => Err(Close::Protocol),
        },
        MESSAGE_EXPIRY => take_bytes(rest, 4),
        TOPIC_ALIAS => take_bytes(rest, 2),
        CORRELATION_DATA => take_field(rest),
        CONTENT_TYPE => take_text(rest),
        RESPONSE_TOPIC => match take_text(rest)? {
            // [MQTT-3.3.2-14]
            topic if topic.iter().any(|byte| matches!(byte, b'+' | b'#')) => Err(Close::Protocol),
            topic => Ok(topic),
        },
        USER_PROPERTY => {
            take_text(rest)?;
            take_text(rest)
        }
        // Subscription identifiers (0x0B) among them: only a server sends those [MQTT-3.3.4-6].
        _ => Err(Close::Protocol),
    }
}

fn take_bytes<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Close> {
    let (value, after) = rest.split_at_checked(len).ok_or(Close::Malformed)?;
    *rest = after;
    Ok(value)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Close> {
    let text = take_field(rest)?;
    match std::str::from_utf8(text) {
        Ok(_) => Ok(text),
        Err(_) => Err(Close::Malformed),
    }
}

/// A will's properties as they stand in its PUBLISH.
pub(crate) fn encode_will(properties: &LastWillProperties) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(format) = properties.payload_format_indicator {
        out.extend_from_slice(&[PAYLOAD_FORMAT, format]);
    }
    if let Some(expiry) = properties.message_expiry_interval {
        out.push(MESSAGE_EXPIRY);
        out.extend_from_slice(&expiry.to_be_bytes());
    }
    if let Some(content_type) = &properties.content_type {
        put_field(CONTENT_TYPE, content_type.as_bytes(), &mut out);
    }
    if let Some(topic) = &properties.response_topic {
        put_field(RESPONSE_TOPIC, topic.as_bytes(), &mut out);
    }
    if let Some(data) = &properties.correlation_data {
        put_field(CORRELATION_DATA, data, &mut out);
    }
    for (name, value) in &properties.user_properties {
        put_field(USER_PROPERTY, name.as_bytes(), &mut out);
        put_length_and(value.as_bytes(), &mut out);
    }
    out
}

fn put_field(id: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(id);
    put_length_and(value, out);
}

/// The fields come from a decoded packet, where their length had two bytes.
fn put_length_and(value: &[u8], out: &mut Vec<u8>) {
    debug_assert!(value.len() <= usize::from(u16::MAX));
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &[u8], alias: Option<u16>, forwarded: &[u8]) {
        let parsed = PublishProperties::parse(bytes).unwrap();
        assert_eq!(parsed.alias, alias);
        assert_eq!(parsed.to_forwarded(), forwarded);
    }

    #[test]
    fn the_alias_is_taken_out_and_the_rest_is_kept() {
        check(&[], None, &[]);
        check(&[TOPIC_ALIAS, 0, 5], Some(5), &[]);
        check(&[1, 1, TOPIC_ALIAS, 1, 0, 3, 0, 1, b't'], Some(256), &[1, 1, 3, 0, 1, b't']);
        check(
            &[0x26, 0, 1, b'k', 0, 1, b'v', 0x26, 0, 0, 0, 0],
            None,
            &[0x26, 0, 1, b'k', 0, 1, b'v', 0x26, 0, 0, 0, 0],
        );
    }

    #[test]
    fn what_a_client_may_not_send_is_refused() {
        let refused = |bytes: &[u8]| PublishProperties::parse(bytes).unwrap_err();
        assert_eq!(refused(&[1, 1, 1, 1]), Close::Protocol, "twice");
        assert_eq!(refused(&[1, 2]), Close::Protocol, "payload format 2");
        assert_eq!(refused(&[0x0B, 1]), Close::Protocol, "subscription identifier");
        assert_eq!(refused(&[0xFF, 1]), Close::Protocol, "unknown");
        assert_eq!(refused(&[8, 0, 1, b'+']), Close::Protocol, "response topic with a wildcard");
        assert_eq!(refused(&[2, 0, 0]), Close::Malformed, "cut short");
        assert_eq!(refused(&[3, 0, 1, 0xFF]), Close::Malformed, "not UTF-8");
    }

    #[test]
    fn a_will_keeps_its_properties() {
        let properties = LastWillProperties {
            delay_interval: Some(5),
            payload_format_indicator: Some(1),
            message_expiry_interval: Some(9),
            content_type: Some("t".into()),
            response_topic: Some("r".into()),
            correlation_data: Some(vec![0xFF].into()),
            user_properties: vec![("k".into(), "v".into())],
        };
        let encoded = encode_will(&properties);
        check(&encoded, None, &encoded);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(0_u8..48, 0..40)) {
            if let Ok(parsed) = PublishProperties::parse(&bytes) {
                prop_assert!(parsed.to_forwarded().len() <= bytes.len());
            }
        }
    }
}
