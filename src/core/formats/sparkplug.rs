//! Sparkplug B: payloads in protocol buffers, whose metrics have names and types by the births before them.

mod metric;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::rc::Rc;

use crate::core::formats::memory::MapMemory;
use crate::core::formats::protobuf::{FieldsReader, WireValue};
use crate::core::formats::{MAX_SAMPLES, Sample, SampleNames, SampleTime, SampleValue};

use metric::SparkplugMetric;

/// Name of the metric with the number of the session of an edge node.
const SESSION: &str = "bdSeq";

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
    /// Whether the node or the device is online, where the message says it.
    pub online: Option<bool>,
    /// What tells the runs of the edge node apart: the time of its last birth. It is the same for all its devices.
    pub boot: Option<u64>,
    /// The edge node must be asked for its births: it sent an alias that they do not define.
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

/// The metrics of a message. `memory` has the births before it, and is changed by those in it. Commands and states of hosts give
/// nothing.
///
/// # Errors
/// A payload that is no protocol buffer of Sparkplug B, or a message of an unknown type. Nothing of it changes the memory.
pub(in crate::core) fn decode<'a>(
    topic: SparkplugTopic<'_>,
    payload: &'a [u8],
    arrival_ms: i64,
    memory: &mut MapMemory,
) -> Result<SparkplugMessage<'a>, String> {
    let message_type = message_type(topic)?;
    if message_type == MessageType::Other {
        return Ok(SparkplugMessage::default());
    }
    let payload = Payload::read(payload)?;
    match message_type {
        MessageType::NodeDeath => return Ok(node_death(topic, &payload, memory)),
        MessageType::DeviceDeath => {
            follow(topic, &payload, memory);
            return Ok(SparkplugMessage { online: Some(false), ..SparkplugMessage::default() });
        }
        MessageType::NodeBirth => node_birth(topic, &payload, memory),
        _ => follow(topic, &payload, memory),
    }
    let is_birth = message_type != MessageType::Data;
    let mut message = SparkplugMessage { online: is_birth.then_some(true), ..SparkplugMessage::default() };
    if is_birth {
        let what = if message_type == MessageType::NodeBirth { None } else { Some(device_of(topic)) };
        memory.forget(topic.group, topic.node, what);
        message.samples = payload.birth(topic, memory);
    } else {
        let has_unknown = payload.data(topic, memory, &mut message.samples);
        message.rebirth =
            has_unknown && memory.node_mut(topic.group, topic.node).is_some_and(|node| node.asks_rebirth(arrival_ms));
    }
    message.boot = memory.node(topic.group, topic.node).and_then(|node| node.birth);
    Ok(message)
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

fn device_of(topic: SparkplugTopic<'_>) -> &str {
    topic.device.unwrap_or_default()
}

fn node_birth(topic: SparkplugTopic<'_>, payload: &Payload<'_>, memory: &mut MapMemory) {
    if let Some(node) = memory.node_mut(topic.group, topic.node) {
        (node.is_online, node.session, node.birth) = (true, payload.session(), payload.timestamp);
        node.begin(payload.seq);
    }
}

/// The death of a session before the last birth says nothing: the broker may send a will late.
fn node_death(topic: SparkplugTopic<'_>, payload: &Payload<'_>, memory: &mut MapMemory) -> SparkplugMessage<'static> {
    let known = memory.node(topic.group, topic.node);
    let sessions = known.filter(|node| node.is_online).and_then(|node| node.session).zip(payload.session());
    if sessions.is_some_and(|(born, died)| born != died) {
        return SparkplugMessage::default();
    }
    if known.is_some_and(|node| node.is_online)
        && let Some(node) = memory.node_mut(topic.group, topic.node)
    {
        node.is_online = false;
    }
    SparkplugMessage { online: Some(false), ..SparkplugMessage::default() }
}

/// Counts a message of a node whose births are known.
fn follow(topic: SparkplugTopic<'_>, payload: &Payload<'_>, memory: &mut MapMemory) {
    if let Some(seq) = payload.seq
        && memory.node(topic.group, topic.node).is_some()
        && let Some(node) = memory.node_mut(topic.group, topic.node)
    {
        node.follow(seq);
    }
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

    /// The metrics of a birth, which are remembered.
    fn birth(&self, topic: SparkplugTopic<'_>, memory: &mut MapMemory) -> Vec<Sample<'a>> {
        let names = Rc::default();
        let mut samples = Vec::with_capacity(self.metrics.len());
        let mut beyond = 0_usize;
        for metric in &self.metrics {
            let Some(name) = metric.name else {
                let what = "a metric of the birth has no name".to_owned();
                samples.push(self.sample(&names, metric, "".into(), SampleValue::Malformed(what)));
                continue;
            };
            let place = (topic.group, topic.node, device_of(topic));
            beyond += usize::from(!memory.define(place, metric.alias, name, metric.form()));
            samples.push(self.sample(&names, metric, name.into(), metric.value(0)));
        }
        if beyond > 0 {
            let what = format!("{beyond} metrics of the birth are more than weir remembers (1024 of an edge node)");
            samples.push(Sample::new(names, "".into(), SampleValue::Malformed(what)));
        }
        samples
    }

    /// The metrics of data, by the births before. Returns whether there is an alias that they do not define.
    fn data(&self, topic: SparkplugTopic<'_>, memory: &MapMemory, samples: &mut Vec<Sample<'a>>) -> bool {
        let node = memory.node(topic.group, topic.node);
        let names = Rc::default();
        let mut has_unknown = false;
        for metric in &self.metrics {
            let definition = metric.alias.and_then(|alias| node?.alias(alias));
            let named = || metric.name.and_then(|name| node?.named(device_of(topic), name));
            let form = definition.map(|definition| &definition.form).or_else(named);
            let value = metric.value(form.map_or(0, |form| form.datatype));
            let (key, value) = match (metric.name, definition, metric.alias) {
                (Some(name), ..) => (name.into(), value),
                (None, Some(definition), _) => (definition.name.clone().into_string().into(), value),
                (None, None, Some(alias)) => {
                    has_unknown = true;
                    ("".into(), SampleValue::UnknownAlias(alias))
                }
                (None, None, None) => {
                    let what = "a metric has neither a name nor an alias".to_owned();
                    ("".into(), SampleValue::Malformed(what))
                }
            };
            let mut sample = self.sample(&names, metric, key, value);
            if sample.unit.is_none() {
                sample.unit = form.and_then(|form| form.unit.as_deref()).map(|unit| unit.to_owned().into());
            }
            samples.push(sample);
        }
        has_unknown
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
