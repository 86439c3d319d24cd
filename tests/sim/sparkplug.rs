//! An edge node of Sparkplug B: births that define aliases, and data that uses them.

use std::collections::BTreeMap;

use weir::simulator::protobuf::ProtobufFields;

use super::device::{Element, SimContent, SimReading, SimSample};
use super::language::{SimPublish, present};

const GROUP: &str = "sim";

const INT64: u64 = 4;
const UINT64: u64 = 8;
const STRING: u64 = 12;

/// An edge node.
#[derive(Debug)]
pub struct SimNode {
    name: String,
    /// Number of its present session.
    session: u64,
    is_born: bool,
    /// Number of its next message, 0 to 255.
    seq: u8,
    /// By device and metric, those that births of this session defined.
    aliases: BTreeMap<(String, &'static str), u64>,
}

impl SimNode {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), session: 0, is_born: false, seq: 0, aliases: BTreeMap::new() }
    }

    pub fn device_id(&self, device: &str) -> String {
        format!("{GROUP}.{}.{device}", self.name)
    }

    /// Begins another session: the node and its devices are born anew, with other aliases.
    pub fn restart(&mut self) {
        self.session += 1;
        self.is_born = false;
        self.aliases.clear();
    }

    /// The birth of the node, if it is due.
    pub fn birth(&mut self) -> Option<SimPublish> {
        if std::mem::replace(&mut self.is_born, true) {
            return None;
        }
        self.seq = 0;
        let session = ProtobufFields::default().bytes(1, b"bdSeq").integer(4, UINT64).integer(11, self.session);
        // The standard demands a time. It tells births apart, and here the clock of the node begins anew with each session.
        let payload = ProtobufFields::default().integer(1, 1_000 + self.session).bytes(2, &session.0);
        Some(self.message("NBIRTH", None, payload, Vec::new()))
    }

    /// The message of one measurement: of the first of a device in this session, its birth.
    pub fn write(&mut self, element: Element) -> SimPublish {
        match &element.content {
            SimContent::Sample(sample) => self.sample(sample, element.readings),
            SimContent::Text(text) => {
                // A field that says that it is longer than the message.
                let cut = ProtobufFields::default().varint(2 << 3 | 2).varint(4_000);
                let payload = [cut.0, text.clone().into_bytes()].concat();
                SimPublish { topic: self.topic("NDATA", None), payload, readings: element.readings }
            }
        }
    }

    fn sample(&mut self, sample: &SimSample, readings: Vec<SimReading>) -> SimPublish {
        let mut payload = ProtobufFields::default();
        if let Some(time_ms) = sample.time_ms {
            payload = payload.integer(1, time_ms as u64);
        }
        for (metric, text) in &sample.values {
            payload = payload.bytes(2, &self.metric(sample, metric, text).0);
        }
        if let Some(number) = sample.number {
            let number = ProtobufFields::default().bytes(1, b"number").integer(4, UINT64).integer(11, number);
            payload = payload.bytes(2, &number.0);
        }
        if let Some(note) = &sample.note {
            let note = ProtobufFields::default().bytes(1, b"note").integer(4, STRING).bytes(15, note.as_bytes());
            payload = payload.bytes(2, &note.0);
        }
        let device = sample.device.rsplit('.').next();
        self.message(if sample.begins { "DBIRTH" } else { "DDATA" }, device, payload, present(readings))
    }

    fn metric(&mut self, sample: &SimSample, metric: &'static str, text: &str) -> ProtobufFields {
        // Aliases of another session are other ones.
        let next = 10 * self.session + self.aliases.len() as u64;
        let key = (sample.device.clone(), metric);
        let mut fields = ProtobufFields::default();
        if sample.begins {
            fields = fields.bytes(1, metric.as_bytes()).integer(4, INT64);
            self.aliases.insert(key.clone(), next);
        }
        let alias = self.aliases.get(&key).expect("the birth of the device defines the metric");
        fields = fields.integer(2, *alias);
        match text.parse::<i64>() {
            Ok(value) => fields.integer(11, value as u64),
            Err(_) if text.starts_with("\"broken") => fields.bytes(15, b"broken"),
            // There is no value.
            Err(_) => fields.integer(7, 1),
        }
    }

    fn topic(&self, message_type: &str, device: Option<&str>) -> String {
        let device = device.map(|device| format!("/{device}")).unwrap_or_default();
        format!("spBv1.0/{GROUP}/{message_type}/{}{device}", self.name)
    }

    fn message(
        &mut self,
        message_type: &str,
        device: Option<&str>,
        payload: ProtobufFields,
        readings: Vec<SimReading>,
    ) -> SimPublish {
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        let payload = payload.integer(3, seq.into()).0;
        SimPublish { topic: self.topic(message_type, device), payload, readings }
    }
}
