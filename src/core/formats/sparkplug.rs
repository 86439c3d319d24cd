//! Sparkplug B: payloads in protocol buffers, whose metrics have names and types by the births before them.

mod messages;
mod metric;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::rc::Rc;

use crate::core::decode::unpacked;
use crate::core::formats::edge_node::{BirthRoom, EdgeNode};
use crate::core::formats::memory::MapMemory;
use crate::core::formats::protobuf::{FieldsReader, WireValue};
use crate::core::formats::{MAX_SAMPLES, Sample, SampleNames, SampleTime, SampleValue};

use metric::SparkplugMetric;

/// Name of the metric with the number of the session of an edge node.
const SESSION: &str = "bdSeq";
/// `uuid` of a payload whose body is another payload, compressed.
const COMPRESSED: &[u8] = b"SPBV1.0_COMPRESSED";

/// What the topic of a message says.
#[derive(Debug, Clone, Copy)]
pub(in crate::core) struct SparkplugTopic<'a> {
    /// Group of the edge node.
    pub group: &'a str,
    /// Type of the message, as in `NBIRTH`.
    pub message_type: &'a str,
    /// Edge node.
    pub node: &'a str,
    /// Device of the edge node; `None`: the message is of the node itself.
    pub device: Option<&'a str>,
}

/// What a message gives.
#[derive(Debug, PartialEq, Default)]
pub(in crate::core) struct SparkplugMessage<'a> {
    /// The metrics, in the order of the message.
    pub samples: Vec<Sample<'a>>,
    /// Number of the message among those of its edge node since the birth of the node, continued to 64 bits.
    pub position: Option<u64>,
    /// Whether the node or the device is online, where the message says it.
    pub online: Option<bool>,
    /// Ids of other devices of the node that are offline from now on.
    pub offline: Vec<Box<str>>,
    /// What tells the runs of the edge node apart, of which each begins with a birth. It is the same for all its devices.
    pub boot: Option<String>,
    /// The edge node must be asked for its births: it sent an alias that they do not define, they are not known, or messages of it
    /// are missing.
    pub rebirth: bool,
}

/// Type of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageType {
    NodeBirth,
    DeviceBirth,
    Data,
    NodeDeath,
    DeviceDeath,
    Other,
}

/// The metrics of a message. `memory` has the births before it, and is changed by those in it. `id` gives the device id of the
/// topic. Commands and states of hosts give nothing.
///
/// # Errors
/// A payload that is no protocol buffer of Sparkplug B, or a message of an unknown type. Nothing of it changes the memory.
pub(in crate::core) fn decode<'a>(
    topic: SparkplugTopic<'_>,
    payload: &'a [u8],
    arrival_ms: i64,
    id: impl FnOnce() -> Box<str>,
    memory: &mut MapMemory,
) -> Result<SparkplugMessage<'a>, String> {
    let message_type = message_type(topic)?;
    if message_type == MessageType::Other {
        return Ok(SparkplugMessage::default());
    }
    let payload = Payload::read(payload)?;
    let key = memory.key(topic.group, topic.node);
    // A death says nothing about a node that is not known, and makes it no better known.
    if message_type == MessageType::NodeDeath && memory.node(&key).is_none() {
        return Ok(SparkplugMessage { online: Some(false), ..SparkplugMessage::default() });
    }
    let device = topic.device.unwrap_or_default();
    let change = |node: &mut EdgeNode, room: BirthRoom| match message_type {
        MessageType::NodeBirth => payload.node_birth(node, arrival_ms, id(), room),
        MessageType::DeviceBirth => payload.device_birth(device, node, arrival_ms, id(), room),
        MessageType::NodeDeath => payload.node_death(node),
        MessageType::DeviceDeath => payload.device_death(device, node, arrival_ms),
        MessageType::Data | MessageType::Other => payload.data(device, node, arrival_ms),
    };
    Ok(memory.change(&key, change).unwrap_or_else(|| payload.without_node(message_type)))
}

/// The payload inside of a compressed one; `None`: this one is not compressed.
///
/// # Errors
/// A body that does not unpack.
pub(in crate::core) fn unpacked_body(payload: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let (mut is_compressed, mut body) = (false, None);
    let mut reader = FieldsReader::new(payload);
    // What cannot be read is told by the reader of the whole.
    while let Ok(Some((number, value))) = reader.next_field() {
        match (number, value) {
            (4, WireValue::Bytes(uuid)) => is_compressed = uuid == COMPRESSED,
            (5, WireValue::Bytes(bytes)) => body = Some(bytes),
            _ => {}
        }
    }
    match body.filter(|_| is_compressed).map(unpacked) {
        None => Ok(None),
        Some(Ok(Cow::Owned(body))) => Ok(Some(body)),
        Some(Ok(Cow::Borrowed(_))) => Err("the body of a compressed payload is neither zlib nor gzip".into()),
        Some(Err(malformed)) => Err(malformed.to_string()),
    }
}

fn message_type(topic: SparkplugTopic<'_>) -> Result<MessageType, String> {
    Ok(match (topic.message_type, topic.device) {
        ("NBIRTH", None) => MessageType::NodeBirth,
        ("DBIRTH", Some(_)) => MessageType::DeviceBirth,
        ("NDATA", None) | ("DDATA", Some(_)) => MessageType::Data,
        ("NDEATH", None) => MessageType::NodeDeath,
        ("DDEATH", Some(_)) => MessageType::DeviceDeath,
        ("NCMD" | "DCMD" | "STATE", _) => MessageType::Other,
        ("NBIRTH" | "NDATA" | "NDEATH", Some(_)) => {
            return Err(format!("the topic of an {} names a device, and that of a node has none", topic.message_type));
        }
        ("DBIRTH" | "DDATA" | "DDEATH", None) => {
            return Err(format!("the topic of a {} names no device", topic.message_type));
        }
        (other, _) => {
            let shown: String = other.chars().take(20).collect();
            return Err(format!("`{shown}` in the topic is no type of message of Sparkplug B"));
        }
    })
}

/// A payload.
#[derive(Debug, Default)]
struct Payload<'a> {
    timestamp: Option<u64>,
    seq: Option<u64>,
    metrics: Vec<SparkplugMetric<'a>>,
}

impl<'a> Payload<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut reader = FieldsReader::new(bytes);
        let mut payload = Self::default();
        while let Some((number, value)) = reader.next_field()? {
            match (number, value) {
                (1, value) => payload.timestamp = Some(value.integer()),
                (2, WireValue::Bytes(bytes)) => {
                    if payload.metrics.len() >= MAX_SAMPLES {
                        return Err(format!("the message has more than {MAX_SAMPLES} metrics"));
                    }
                    payload.metrics.push(SparkplugMetric::read(reader.of_message(bytes))?);
                }
                (3, value) => payload.seq = Some(value.integer()),
                _ => {}
            }
        }
        Ok(payload)
    }

    /// Number of the session of the edge node.
    fn session(&self) -> Option<u64> {
        let metric = self.metrics.iter().find(|metric| metric.name == Some(SESSION))?;
        match metric.value(0) {
            SampleValue::Number(number) => Some(number as u64),
            _ => None,
        }
    }

    fn sample(
        &self,
        names: &Rc<SampleNames<'a>>,
        metric: &SparkplugMetric<'a>,
        key: Cow<'a, str>,
        value: SampleValue<'a>,
    ) -> Sample<'a> {
        let time = metric
            .timestamp
            .or(self.timestamp)
            .map_or(SampleTime::None, |time_ms| SampleTime::At(i64::try_from(time_ms).unwrap_or(i64::MAX)));
        Sample {
            time,
            seq: self.seq,
            unit: metric.unit.map(Cow::Borrowed),
            is_historical: metric.is_historical,
            is_good: metric.is_good,
            ..Sample::new(Rc::clone(names), key, value)
        }
    }
}
