//! What the messages of Sparkplug B change and give, by their type.

use std::borrow::Cow;
use std::rc::Rc;

use super::{MessageType, Payload, SparkplugMessage};
use crate::core::formats::edge_node::{BirthEffect, BirthRoom, EdgeNode, NodeBirth};
use crate::core::formats::{Sample, SampleNames, SampleValue};

impl<'a> Payload<'a> {
    /// A birth of a node.
    pub(super) fn node_birth(
        &self,
        node: &mut EdgeNode,
        arrival_ms: i64,
        id: Box<str>,
        room: BirthRoom,
    ) -> SparkplugMessage<'a> {
        let birth = NodeBirth { timestamp: self.timestamp, session: self.session(), seq: self.seq, arrival_ms };
        let BirthEffect { is_repeated, position, offline } = node.node_birth(birth);
        let samples = if is_repeated { self.samples_of_birth() } else { self.birth("", node, id, room) };
        SparkplugMessage { samples, position, online: Some(true), offline, boot: node.run(), rebirth: false }
    }

    /// A birth of a device. Where that of its node is not known, the node is asked.
    pub(super) fn device_birth(
        &self,
        device: &str,
        node: &mut EdgeNode,
        arrival_ms: i64,
        id: Box<str>,
        room: BirthRoom,
    ) -> SparkplugMessage<'a> {
        let (position, missed) = self.follow(node);
        let samples = self.birth(device, node, id, room);
        let rebirth = (missed || !node.is_online) && node.asks_rebirth(arrival_ms);
        let online = Some(true);
        SparkplugMessage { samples, position, online, boot: node.run(), rebirth, ..SparkplugMessage::default() }
    }

    /// A death of a node. It has no number.
    pub(super) fn node_death(&self, node: &mut EdgeNode) -> SparkplugMessage<'a> {
        match node.node_death(self.session()) {
            Some(offline) => SparkplugMessage { online: Some(false), offline, ..SparkplugMessage::default() },
            None => SparkplugMessage::default(),
        }
    }

    /// A death of a device.
    pub(super) fn device_death(&self, device: &str, node: &mut EdgeNode, arrival_ms: i64) -> SparkplugMessage<'a> {
        let (position, missed) = self.follow(node);
        node.device_death(device);
        let rebirth = missed && node.asks_rebirth(arrival_ms);
        SparkplugMessage { position, online: Some(false), rebirth, ..SparkplugMessage::default() }
    }

    /// Data of a node or of a device of it.
    pub(super) fn data(&self, device: &str, node: &mut EdgeNode, arrival_ms: i64) -> SparkplugMessage<'a> {
        let (position, missed) = self.follow(node);
        let (samples, has_unknown) = self.samples_of_data(device, Some(node));
        let rebirth = (has_unknown || missed || !node.is_born(device)) && node.asks_rebirth(arrival_ms);
        SparkplugMessage { samples, position, boot: node.run(), rebirth, ..SparkplugMessage::default() }
    }

    /// A message of a node for which there is no room: it stands for itself.
    pub(super) fn without_node(&self, message_type: MessageType) -> SparkplugMessage<'a> {
        let (samples, online) = match message_type {
            MessageType::NodeBirth | MessageType::DeviceBirth => (self.samples_of_birth(), Some(true)),
            MessageType::NodeDeath | MessageType::DeviceDeath => (Vec::new(), Some(false)),
            MessageType::Data | MessageType::Other => (self.samples_of_data("", None).0, None),
        };
        SparkplugMessage { samples, online, ..SparkplugMessage::default() }
    }

    /// The number of the message, and whether messages before it are missing.
    fn follow(&self, node: &mut EdgeNode) -> (Option<u64>, bool) {
        let followed = node.sequence.follow(self.seq);
        (followed.map(|number| number.position), followed.is_some_and(|number| number.missed > 0))
    }

    /// The metrics of a birth of `device`, which are remembered.
    fn birth(&self, device: &str, node: &mut EdgeNode, id: Box<str>, room: BirthRoom) -> Vec<Sample<'a>> {
        let mut samples = self.samples_of_birth();
        node.device_birth(device, id, room);
        let named = self.metrics.iter().filter_map(|metric| Some((metric, metric.name?)));
        let beyond =
            named.filter(|(metric, name)| !node.define(device, metric.alias, name, metric.form(), room)).count();
        if beyond > 0 {
            let what = format!(
                "{beyond} metrics of the birth are more than weir remembers (limits.metrics_per_device: {})",
                room.of_device
            );
            samples.push(Sample::new(Rc::default(), "".into(), SampleValue::Malformed(what)));
        }
        samples
    }

    fn samples_of_birth(&self) -> Vec<Sample<'a>> {
        let names = Rc::default();
        let sample = |metric| self.sample_of_birth(&names, metric);
        self.metrics.iter().map(sample).collect()
    }

    fn sample_of_birth(&self, names: &Rc<SampleNames<'a>>, metric: &super::SparkplugMetric<'a>) -> Sample<'a> {
        match metric.name {
            Some(name) => self.sample(names, metric, name.into(), metric.value(0)),
            None => {
                let what = "a metric of the birth has no name".to_owned();
                self.sample(names, metric, "".into(), SampleValue::Malformed(what))
            }
        }
    }

    /// The metrics of data, by the births before, and whether there is an alias that they do not define.
    fn samples_of_data(&self, device: &str, node: Option<&EdgeNode>) -> (Vec<Sample<'a>>, bool) {
        let names = Rc::default();
        let mut samples = Vec::with_capacity(self.metrics.len());
        let mut has_unknown = false;
        for metric in &self.metrics {
            let definition = metric.alias.and_then(|alias| node?.alias(alias));
            let named = || metric.name.and_then(|name| node?.named(device, name));
            let form = definition.map(|definition| &definition.form).or_else(named);
            let value = metric.value(form.map_or(0, |form| form.datatype));
            let (key, value) = match (metric.name, definition, metric.alias) {
                (Some(name), ..) => (name.into(), value),
                (None, Some(definition), _) => (Cow::Owned(definition.name.to_string()), value),
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
        (samples, has_unknown)
    }
}
