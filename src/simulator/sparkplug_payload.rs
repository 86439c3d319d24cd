//! Messages of Sparkplug B: births that define aliases, data that uses them, deaths.

use crate::simulator::family_payload::{NOT_READY, PayloadSource};
use crate::simulator::message::{MalformedPayload, MessageContent};
use crate::simulator::protobuf::{BYTES, ProtobufFields};

/// Group of all edge nodes.
pub(super) const GROUP: &str = "weir";

const UINT64: u64 = 8;
const DOUBLE: u64 = 10;
const BOOLEAN: u64 = 11;
const STRING: u64 = 12;

/// The topic of a message of an edge node.
pub(super) fn topic(message_type: &str, node: &str) -> String {
    format!("spBv1.0/{GROUP}/{message_type}/{node}")
}

fn named(name: &str, time_ms: i64, datatype: u64) -> ProtobufFields {
    ProtobufFields::default().bytes(1, name.as_bytes()).integer(3, time_ms as u64).integer(4, datatype)
}

/// The metric `bdSeq`, which tells a death which session it is of.
fn session_metric(session: u64, time_ms: i64) -> Vec<u8> {
    named("bdSeq", time_ms, UINT64).integer(11, session).0
}

/// Payload of NBIRTH. The metrics have aliases from 1 on, and no values yet.
pub(super) fn birth(metrics: &[String], session: u64, time_ms: i64) -> Vec<u8> {
    let mut payload = ProtobufFields::default().integer(1, time_ms as u64).bytes(2, &session_metric(session, time_ms));
    payload = payload.bytes(2, &named("Node Control/Rebirth", time_ms, BOOLEAN).integer(14, 0).0);
    for (alias, metric) in (1..).zip(metrics) {
        payload = payload.bytes(2, &named(metric, time_ms, DOUBLE).integer(2, alias).integer(7, 1).0);
    }
    payload.integer(3, 0).0
}

/// Payload of NDEATH, the last will of the session.
pub(super) fn death(session: u64, time_ms: i64) -> Vec<u8> {
    ProtobufFields::default().integer(1, time_ms as u64).bytes(2, &session_metric(session, time_ms)).0
}

/// Payload of NDATA without its number, which is known when it is sent. `uuid` tells the message.
pub(super) fn data(source: PayloadSource<'_>, uuid: &str, is_historical: bool) -> Vec<u8> {
    let time_ms = source.message.event_ms as u64;
    let start = ProtobufFields::default().integer(1, time_ms).bytes(4, uuid.as_bytes());
    let metric = |alias: u64| {
        let metric = ProtobufFields::default().integer(2, alias).integer(3, time_ms);
        if is_historical { metric.integer(5, 1) } else { metric }
    };
    match &source.message.content {
        MessageContent::Malformed(MalformedPayload::Text) => format!("message {uuid}: {NOT_READY}").into_bytes(),
        MessageContent::Malformed(MalformedPayload::Cut) => start.varint(2 << 3 | BYTES).varint(40).integer(2, 1).0,
        MessageContent::Readings(values) => {
            let add = |payload: ProtobufFields, (alias, value): (u64, &f64)| {
                payload.bytes(2, &metric(alias).double(13, *value).0)
            };
            (1..).zip(values).fold(start, add).0
        }
        MessageContent::Malformed(MalformedPayload::WrongType) | MessageContent::Fault => {
            start.bytes(2, &metric(1).integer(4, STRING).bytes(15, NOT_READY.as_bytes()).0).0
        }
    }
}

/// `payload` with the number of the message in its session, 0 to 255.
pub(super) fn numbered(payload: &[u8], seq: u8) -> Vec<u8> {
    ProtobufFields(payload.to_vec()).integer(3, seq.into()).0
}

/// The `uuid` of a payload that [`data`] made.
pub(super) fn uuid(payload: &[u8]) -> Option<&[u8]> {
    let time = payload.strip_prefix(&[1 << 3])?;
    let behind = time.iter().position(|byte| *byte < 0x80)? + 1;
    let (len, rest) = time.get(behind..)?.strip_prefix(&[4 << 3 | 2])?.split_first()?;
    rest.get(..usize::from(*len))
}
