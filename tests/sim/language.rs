//! How clients write what their devices measured: in weir's own form, as documents that a map reads, or in Sparkplug B.

use std::fmt;

use weir::core::formats::{MapSettings, OtherText, PayloadFormat, TimeUnit};
use weir::random::Random;

use super::device::{Element, Expect, SimContent, SimReading, SimSample};
use super::sparkplug::SimNode;

/// What the second version of the map of documents appends to the names of metrics.
const SECOND_SUFFIX: &str = ".second";

/// Clocks that show 2001 are wrong ones, and not missing.
const NO_CLOCK_BEFORE: &str = "2000-01-01";

/// The form in which a client publishes.
#[derive(Debug)]
pub enum SimLanguage {
    /// weir's own form.
    Native,
    /// Arrays of objects that a map reads. All counters have 8 bits, or none.
    Documents { is_narrow: bool },
    /// Sparkplug B: the client is an edge node.
    Sparkplug(SimNode),
}

/// A message as it is sent.
#[derive(Debug)]
pub struct SimPublish {
    pub topic: String,
    pub payload: Vec<u8>,
    pub readings: Vec<SimReading>,
}

impl SimLanguage {
    pub fn new(client: &str, qos: u8, random: &mut Random) -> Self {
        match random.below(6) {
            0 => Self::Documents { is_narrow: random.one_in(2) },
            // Births must not be lost.
            1 if qos > 0 => Self::Sparkplug(SimNode::new(client)),
            _ => Self::Native,
        }
    }

    /// Whether messages are told apart by a number, so that they may come again without DUP.
    pub fn numbers_messages(&self) -> bool {
        matches!(self, Self::Sparkplug(_))
    }

    /// Whether devices may number their readings. `remaps`: the maps change at starts. What comes again under another name is another
    /// reading for the numbers, so that only MQTT's identity tells it.
    pub fn has_device_numbers(&self, remaps: bool) -> bool {
        match self {
            Self::Native => true,
            Self::Documents { .. } => !remaps,
            Self::Sparkplug(_) => false,
        }
    }

    /// The width of the counters of all devices, if they have one in common: whether it is 8 bits.
    pub fn is_narrow(&self) -> Option<bool> {
        match self {
            Self::Documents { is_narrow } => Some(*is_narrow),
            Self::Native | Self::Sparkplug(_) => None,
        }
    }

    /// The id of a device, as weir makes it of the topic.
    pub fn device_id(&self, device: &str) -> String {
        match self {
            Self::Sparkplug(node) => node.device_id(device),
            Self::Native | Self::Documents { .. } => device.to_owned(),
        }
    }

    /// Whether several measurements fit into one message.
    pub fn packs(&self) -> bool {
        !matches!(self, Self::Sparkplug(_))
    }

    /// The message that has to be sent before `next`, if there is one: the birth of the edge node.
    pub fn before(&mut self) -> Option<SimPublish> {
        match self {
            Self::Sparkplug(node) => node.birth(),
            Self::Native | Self::Documents { .. } => None,
        }
    }

    /// Writes measurements. More than one only where [`SimLanguage::packs`] and [`Element::packs`] allow it.
    pub fn write(&mut self, native_topic: &str, client: &str, elements: Vec<Element>) -> SimPublish {
        match self {
            Self::Native => {
                let texts = elements.iter().map(|element| native(&element.content));
                let payload = list(texts.collect(), elements.len() > 1);
                SimPublish { topic: native_topic.to_owned(), payload, readings: readings(elements) }
            }
            Self::Documents { is_narrow } => {
                let width = if *is_narrow { 8 } else { 64 };
                let is_list = !matches!(elements[..], [Element { content: SimContent::Text(_), .. }]);
                let payload = list(elements.iter().map(|element| document(&element.content)).collect(), is_list);
                let topic = format!("stations/{width}/{client}");
                SimPublish { topic, payload, readings: present(readings(elements)) }
            }
            Self::Sparkplug(node) => {
                let [element] = <[Element; 1]>::try_from(elements).expect("a message of one measurement");
                node.write(element)
            }
        }
    }
}

/// A value that is absent takes no place among the readings of a map.
pub fn present(mut readings: Vec<SimReading>) -> Vec<SimReading> {
    readings.retain(|reading| reading.expect != Expect::Absent);
    readings
}

fn readings(elements: Vec<Element>) -> Vec<SimReading> {
    elements.into_iter().flat_map(|element| element.readings).collect()
}

fn list(texts: Vec<String>, is_list: bool) -> Vec<u8> {
    let joined = texts.join(",");
    if is_list { format!("[{joined}]").into_bytes() } else { joined.into_bytes() }
}

/// `"name":value`, where there is a value.
fn field(name: &str, value: Option<impl fmt::Display>) -> Option<String> {
    value.map(|value| format!(r#""{name}":{value}"#))
}

fn quoted(text: &str) -> String {
    format!(r#""{text}""#)
}

fn values(sample: &SimSample) -> String {
    let pairs = sample.values.iter().map(|(metric, text)| format!(r#""{metric}":{text}"#));
    pairs.collect::<Vec<_>>().join(",")
}

fn object(fields: impl IntoIterator<Item = Option<String>>) -> String {
    format!("{{{}}}", fields.into_iter().flatten().collect::<Vec<_>>().join(","))
}

/// A measurement in weir's own form.
fn native(content: &SimContent) -> String {
    let sample = match content {
        SimContent::Text(text) => return text.clone(),
        SimContent::Sample(sample) => sample,
    };
    let values = match &sample.values[..] {
        [] => None,
        [(metric, text)] => Some(format!(r#""metric":"{metric}","value":{text}"#)),
        _ => Some(format!(r#""metrics":{{{}}}"#, values(sample))),
    };
    object([
        field("device_id", Some(quoted(&sample.device))),
        field("timestamp", sample.time_ms),
        field("boot", sample.boot),
        field("seq", sample.seq),
        field("number", sample.number),
        values,
        field("error", sample.fault.as_deref().map(quoted)),
        field("note", sample.note.as_deref().map(quoted)),
    ])
}

/// A measurement as [`maps`] reads it.
fn document(content: &SimContent) -> String {
    let sample = match content {
        SimContent::Text(text) => return text.clone(),
        SimContent::Sample(sample) => sample,
    };
    let origin = object([field("id", Some(quoted(&sample.device))), field("run", sample.boot), field("n", sample.seq)]);
    object([
        Some(format!(r#""from":{origin}"#)),
        field("at", sample.time_ms),
        field("number", sample.number),
        Some(format!(r#""read":{{{}}}"#, values(sample))),
        field("note", sample.note.as_deref().map(quoted)),
    ])
}

/// The maps of all clients. In the second version metrics of documents have other names.
pub fn maps(is_second: bool) -> Vec<MapSettings> {
    let stations = |bits: u8| MapSettings {
        name: format!("stations_{bits}"),
        topics: vec![format!("stations/{bits}/{{client}}")],
        each: vec!["/*".into()],
        device: "{./from/id}".into(),
        metric: format!("{{key}}{}", if is_second { SECOND_SUFFIX } else { "" }),
        value: "./read".into(),
        time: vec!["./at".into()],
        time_unit: TimeUnit::Ms,
        no_clock_before: NO_CLOCK_BEFORE.into(),
        seq: "./from/n".into(),
        seq_bits: (bits < 64).then_some(bits),
        boot: "./from/run".into(),
        text: OtherText::Error,
        ..MapSettings::default()
    };
    let sparkplug = MapSettings {
        name: "sparkplug_b".into(),
        topics: vec!["spBv1.0/{group}/{type}/{node}".into(), "spBv1.0/{group}/{type}/{node}/{device}".into()],
        payload: PayloadFormat::SparkplugB,
        device: "{group}.{node}.{device|}".into(),
        exclude: vec!["bdSeq".into(), "note".into(), "number".into()],
        seq_bits: Some(8),
        no_clock_before: NO_CLOCK_BEFORE.into(),
        text: OtherText::Error,
        ..MapSettings::default()
    };
    vec![stations(8), stations(64), sparkplug]
}

/// The name of a metric, whichever version of the maps read it.
pub fn metric_name(metric: &str) -> &str {
    metric.strip_suffix(SECOND_SUFFIX).unwrap_or(metric)
}
