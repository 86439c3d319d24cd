//! What a map makes of a payload, by its form.

use std::borrow::Cow;
use std::sync::Arc;

use super::compiled::CompiledMap;
use super::document::{MapDocument, shared};
use super::mapped::{Ignored, MapRole, MappedMessage};
use super::names::mark_twice;
use super::pattern::Captures;
use super::reading::{KnownTopic, MessageBuilder};
use super::settings::{EmptyPayload, PayloadFormat};
use super::sparkplug::{self, SparkplugTopic};
use super::{MapMatch, MapMemory, discovery, line, ruuvi, senml};
use crate::core::decode::{DecodeRules, MalformedMessage, RecoveredText, unpacked};

/// The readings of a mapped message are counted where all readings are.
const RULES: DecodeRules = DecodeRules { max_readings: usize::MAX, lenient: true };

impl CompiledMap {
    /// What a message gives. Fails with a sentence.
    pub(super) fn map<'a>(
        &'a self,
        found: MapMatch,
        topic: &'a str,
        payload: &'a [u8],
        arrival_ms: i64,
        known: KnownTopic,
        memory: &mut MapMemory,
    ) -> Result<MappedMessage<'a>, String> {
        let mut captures = self.captures(found.role, found.pattern, topic);
        let mut builder = MessageBuilder::default();
        match found.role {
            MapRole::Ignore => builder.message.ignore(Ignored::Topic, 1),
            MapRole::Readings if payload.is_empty() && self.empty == EmptyPayload::StatusOffline => {
                self.set_status(None, &captures, false, &mut builder);
            }
            // A protocol buffer without fields is empty.
            _ if payload.is_empty() && self.payload != PayloadFormat::SparkplugB => {
                builder.message.ignore(Ignored::Empty, 1);
            }
            MapRole::Status => return self.text(TextForm::Status, payload, &captures, arrival_ms, None),
            MapRole::Readings => return self.readings(topic, payload, &mut captures, arrival_ms, known, memory),
        }
        Ok(builder.message)
    }

    fn readings<'a>(
        &'a self,
        topic: &'a str,
        payload: &'a [u8],
        captures: &mut Captures<'a>,
        arrival_ms: i64,
        known: KnownTopic,
        memory: &mut MapMemory,
    ) -> Result<MappedMessage<'a>, String> {
        match self.payload {
            PayloadFormat::Json | PayloadFormat::HomeassistantDiscovery => self.json(payload, captures, known),
            PayloadFormat::Scalar => self.text(TextForm::Scalar, payload, captures, arrival_ms, known),
            PayloadFormat::Line => self.text(TextForm::Line, payload, captures, arrival_ms, known),
            PayloadFormat::Ruuvi => self.text(TextForm::Ruuvi, payload, captures, arrival_ms, known),
            PayloadFormat::Senml => self.text(TextForm::Senml, payload, captures, arrival_ms, known),
            PayloadFormat::SenmlCbor => self.cbor(payload, captures, arrival_ms),
            PayloadFormat::SparkplugB => self.sparkplug(topic, payload, captures, arrival_ms, memory),
        }
    }

    /// What a payload of SenML in CBOR gives.
    fn cbor<'a>(
        &'a self,
        payload: &'a [u8],
        captures: &Captures<'a>,
        arrival_ms: i64,
    ) -> Result<MappedMessage<'a>, String> {
        match unpacked(payload).map_err(|malformed| malformed.to_string())? {
            Cow::Borrowed(payload) => self.of_cbor(payload, captures, arrival_ms),
            Cow::Owned(payload) => self.of_cbor(&payload, captures, arrival_ms).map(MappedMessage::into_owned),
        }
    }

    fn of_cbor<'a>(
        &'a self,
        payload: &'a [u8],
        captures: &Captures<'a>,
        arrival_ms: i64,
    ) -> Result<MappedMessage<'a>, String> {
        let mut builder = MessageBuilder::default();
        self.read_samples(senml::decode_cbor(payload)?, None, captures, arrival_ms, &mut builder);
        Ok(builder.finish(false))
    }

    /// What a message of Sparkplug B gives. Its topic has group, type, node and device behind the namespace.
    fn sparkplug<'a>(
        &'a self,
        topic: &'a str,
        payload: &'a [u8],
        captures: &Captures<'a>,
        arrival_ms: i64,
        memory: &mut MapMemory,
    ) -> Result<MappedMessage<'a>, String> {
        let mut levels = topic.splitn(5, '/').skip(1);
        let [Some(group), Some(message_type), Some(node)] = [levels.next(), levels.next(), levels.next()] else {
            return Err(format!("the topic {topic:?} is none of Sparkplug: expected spBv1.0/GROUP/TYPE/NODE[/DEVICE]"));
        };
        let of_topic = SparkplugTopic { group, message_type, node, device: levels.next() };
        match sparkplug::unpacked_body(payload)? {
            None => self.of_sparkplug(of_topic, payload, captures, arrival_ms, memory),
            Some(body) => {
                self.of_sparkplug(of_topic, &body, captures, arrival_ms, memory).map(MappedMessage::into_owned)
            }
        }
    }

    fn of_sparkplug<'a>(
        &'a self,
        topic: SparkplugTopic<'a>,
        payload: &'a [u8],
        captures: &Captures<'a>,
        arrival_ms: i64,
        memory: &mut MapMemory,
    ) -> Result<MappedMessage<'a>, String> {
        let id = || self.status_device(None, captures).into();
        let read = sparkplug::decode(topic, payload, arrival_ms, id, memory)?;
        let mut builder = MessageBuilder::default();
        self.read_samples(read.samples, None, captures, arrival_ms, &mut builder);
        if let Some(online) = read.online {
            self.set_status(None, captures, online, &mut builder);
        }
        let boot = read.boot.map(Cow::Owned);
        for element in &mut builder.message.elements {
            element.boot.clone_from(&boot);
            element.position = read.position;
        }
        builder.message.offline = read.offline;
        let is_asked = read.rebirth && self.rebirth;
        if is_asked {
            memory.count_rebirth();
        }
        builder.message.rebirth = is_asked.then_some((Cow::Borrowed(topic.group), Cow::Borrowed(topic.node)));
        Ok(builder.finish(false))
    }

    /// What a JSON payload gives.
    fn json<'a>(
        &'a self,
        payload: &'a [u8],
        captures: &mut Captures<'a>,
        known: KnownTopic,
    ) -> Result<MappedMessage<'a>, String> {
        let malformed = match simdutf8::basic::from_utf8(payload).map(MapDocument::parse) {
            Ok(Ok(document)) => return Ok(self.of_document(&document, captures, known)),
            Ok(Err(syntax)) => MalformedMessage::Syntax(syntax),
            Err(_) => MalformedMessage::NotUtf8(0),
        };
        self.recovered_json(payload, captures, known, malformed)
    }

    /// What a JSON payload gives that could not be read as it came.
    #[cold]
    fn recovered_json<'a>(
        &'a self,
        payload: &'a [u8],
        captures: &Captures<'a>,
        known: KnownTopic,
        malformed: MalformedMessage,
    ) -> Result<MappedMessage<'a>, String> {
        let recovered = RecoveredText::of(payload, RULES, malformed).map_err(|malformed| malformed.to_string())?;
        let document = MapDocument::parse(recovered.text());
        let document = document.map_err(|syntax| recovered.malformed(syntax.into()).to_string())?;
        Ok(self.of_document(&document, &mut captures.clone(), known).into_owned())
    }

    fn of_document<'a>(
        &'a self,
        document: &MapDocument<'a>,
        captures: &mut Captures<'a>,
        known: KnownTopic,
    ) -> MappedMessage<'a> {
        if self.payload == PayloadFormat::HomeassistantDiscovery {
            return discovery::read(document);
        }
        let mut builder = MessageBuilder { known, ..MessageBuilder::default() };
        self.read_document(document, captures, &mut builder);
        builder.finish(true)
    }

    /// What a payload gives that is a text.
    fn text<'a>(
        &'a self,
        form: TextForm,
        payload: &'a [u8],
        captures: &Captures<'a>,
        arrival_ms: i64,
        known: KnownTopic,
    ) -> Result<MappedMessage<'a>, String> {
        match text_of(payload)? {
            Cow::Borrowed(text) => self.of_text(form, text, captures, arrival_ms, known),
            Cow::Owned(text) => self.of_text(form, &text, captures, arrival_ms, known).map(MappedMessage::into_owned),
        }
    }

    fn of_text<'a>(
        &'a self,
        form: TextForm,
        text: &'a str,
        captures: &Captures<'a>,
        arrival_ms: i64,
        known: KnownTopic,
    ) -> Result<MappedMessage<'a>, String> {
        let mut builder = MessageBuilder { known, ..MessageBuilder::default() };
        match form {
            TextForm::Status => self.read_status(text, captures, &mut builder),
            TextForm::Scalar => self.read_scalar(text, captures, &mut builder),
            TextForm::Line => {
                let samples = line::decode(text, self.time_unit)?;
                self.read_samples(samples, None, captures, arrival_ms, &mut builder);
            }
            TextForm::Senml => {
                let samples = senml::decode(text)?;
                self.read_samples(samples, None, captures, arrival_ms, &mut builder);
            }
            TextForm::Ruuvi => {
                let samples = ruuvi::decode(text)?;
                let document = MapDocument::parse(text).ok();
                self.read_samples(samples, document.as_ref(), captures, arrival_ms, &mut builder);
            }
        }
        Ok(builder.finish(false))
    }
}

/// Form of a payload that is a text.
#[derive(Debug, Clone, Copy)]
enum TextForm {
    Status,
    Scalar,
    Line,
    Senml,
    Ruuvi,
}

/// The text of a payload, unpacked, without a byte order mark. Bytes that are no UTF-8 are replaced.
pub(super) fn text_of(payload: &[u8]) -> Result<Cow<'_, str>, String> {
    let text = match unpacked(payload).map_err(|malformed| malformed.to_string())? {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    };
    Ok(match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Cow::Owned(text) => match text.strip_prefix('\u{feff}') {
            Some(rest) => Cow::Owned(rest.to_owned()),
            None => Cow::Owned(text),
        },
    })
}

impl<'a> MessageBuilder<'a> {
    fn finish(mut self, is_document: bool) -> MappedMessage<'a> {
        mark_twice(&mut self.message, self.altered, is_document);
        if let Some(known) = self.known.filter(|known| !known.about.is_empty())
            && let [first, others @ ..] = &*self.message.elements
            && others.iter().all(|element| element.device == first.device)
        {
            self.message.about.push((shared(&first.device), Arc::clone(&known.about)));
        }
        self.message
    }
}
