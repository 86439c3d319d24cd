//! Messages of a device of a family, and what it says when it connects.

use bytes::Bytes;

use crate::simulator::family_payload::PayloadSource;
use crate::simulator::format::DeviceFormat;
use crate::simulator::message::{DeviceMessage, MalformedPayload, MessageContent, Publication};
use crate::simulator::options::FleetOptions;
use crate::simulator::sparkplug_payload;

/// Encodes the messages of one device of a family as publishes.
#[derive(Debug, Clone)]
pub struct FamilyEncoder {
    format: DeviceFormat,
    device: String,
    boot: String,
    metrics: Vec<String>,
    topic: String,
    /// Number of the session, from 0, of Sparkplug B.
    session: u64,
    /// Number of the next message of the session.
    next_seq: u8,
}

impl FamilyEncoder {
    /// An encoder for the device `device` of the fleet; `None` for weir's own form.
    pub fn new(options: &FleetOptions, device: &str) -> Option<Self> {
        let format = options.format;
        format.map().map(|_| Self {
            format,
            device: device.to_owned(),
            boot: options.boot.clone(),
            metrics: options.metrics.clone(),
            topic: format.topic(device),
            session: 0,
            next_seq: 0,
        })
    }

    /// Encodes one message as a publish. `is_backlog` says that it comes after a time without connection.
    pub fn encode(&self, message: &DeviceMessage, is_backlog: bool) -> Publication {
        let readings = match &message.content {
            MessageContent::Readings(values) => values.len() as u64,
            _ => 0,
        };
        Publication {
            topic: self.topic.clone(),
            payload: Bytes::from(self.payload(message, is_backlog)),
            seqs: message.seq..=message.seq,
            readings,
            retain: false,
        }
    }

    fn payload(&self, message: &DeviceMessage, is_backlog: bool) -> Vec<u8> {
        let source = PayloadSource { device: &self.device, metrics: &self.metrics, message };
        match self.format {
            DeviceFormat::SparkplugB => sparkplug_payload::data(source, &self.uuid(message), is_backlog),
            format => source.text(format).into_bytes(),
        }
    }

    fn uuid(&self, message: &DeviceMessage) -> String {
        format!("{}-{}", self.boot, message.seq)
    }

    /// What tells the message in the error log: its payload, or its uuid.
    pub fn identity(&self, message: &DeviceMessage) -> Vec<u8> {
        let is_text = message.content == MessageContent::Malformed(MalformedPayload::Text);
        match self.format {
            DeviceFormat::SparkplugB if !is_text => self.uuid(message).into_bytes(),
            _ => self.payload(message, false),
        }
    }

    /// The identity of a message with this payload.
    pub fn identity_of(&self, payload: &[u8]) -> Vec<u8> {
        match self.format {
            DeviceFormat::SparkplugB => sparkplug_payload::uuid(payload).unwrap_or(payload).to_vec(),
            _ => payload.to_vec(),
        }
    }

    /// Begins a session: a new connection. Returns its last will.
    pub fn begin_session(&mut self, now_ms: i64) -> Option<Publication> {
        self.session += 1;
        self.next_seq = 1;
        let (topic, payload) = match self.format {
            DeviceFormat::Tasmota => (format!("tele/{}/LWT", self.device), b"Offline".to_vec()),
            DeviceFormat::ShellyGen2 => (format!("{}/online", self.device), b"false".to_vec()),
            DeviceFormat::SparkplugB => {
                (sparkplug_payload::topic("NDEATH", &self.device), sparkplug_payload::death(self.session, now_ms))
            }
            _ => return None,
        };
        Some(self.beside_readings(topic, payload))
    }

    /// What the device says first in its session.
    pub fn greeting(&self, now_ms: i64) -> Option<Publication> {
        let (topic, payload) = match self.format {
            DeviceFormat::Tasmota => (format!("tele/{}/LWT", self.device), b"Online".to_vec()),
            DeviceFormat::ShellyGen2 => (format!("{}/online", self.device), b"true".to_vec()),
            DeviceFormat::SparkplugB => (
                sparkplug_payload::topic("NBIRTH", &self.device),
                sparkplug_payload::birth(&self.metrics, self.session, now_ms),
            ),
            _ => return None,
        };
        Some(self.beside_readings(topic, payload))
    }

    /// A publish that is none of the fleet's messages. Tasmota and Shelly retain it.
    fn beside_readings(&self, topic: String, payload: Vec<u8>) -> Publication {
        Publication::beside_readings(topic, payload, self.format != DeviceFormat::SparkplugB)
    }

    /// The payload of a publish that is about to be sent: with its number in the session, in Sparkplug B.
    pub fn payload_to_send(&mut self, publication: &Publication) -> Vec<u8> {
        let is_numbered = self.format == DeviceFormat::SparkplugB && publication.readings > 0;
        if !is_numbered {
            return publication.payload.to_vec();
        }
        let seq = self.next_seq;
        self.next_seq = seq.wrapping_add(1);
        sparkplug_payload::numbered(&publication.payload, seq)
    }
}
