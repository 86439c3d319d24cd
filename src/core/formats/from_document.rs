//! Readings of JSON documents.

use std::borrow::Cow;
use std::sync::Arc;

use super::about::DeviceAbout;
use super::compiled::CompiledMap;
use super::document::{MapDocument, ROOT, shared};
use super::mapped::{Ignored, MappedElement, MappedReading, MappedTime};
use super::names::device_id;
use super::pattern::Captures;
use super::reading::{MessageBuilder, ValuePlace};
use super::template::text_of;
use super::values::FoundValue;
use crate::core::json::JsonToken;

impl CompiledMap {
    /// Adds what a document gives.
    pub(super) fn read_document<'a>(
        &'a self,
        document: &MapDocument<'a>,
        captures: &mut Captures<'a>,
        builder: &mut MessageBuilder<'a>,
    ) {
        if self.own_status(document, captures, builder) {
            return;
        }
        if self.each.is_empty() {
            return self.element(document, ROOT, captures, builder);
        }
        let mut element = |at, captures: &Captures<'a>| self.element(document, at, captures, builder);
        if !self.each.iter().any(|each| each.visit(document, captures, &mut element)) {
            builder.message.ignore(Ignored::Absent, 1);
        }
    }

    /// Adds what an element gives.
    fn element<'a>(
        &'a self,
        document: &MapDocument<'a>,
        at: u32,
        captures: &Captures<'a>,
        builder: &mut MessageBuilder<'a>,
    ) {
        let is_wanted = |path: &super::path::Path, values: &[serde_json::Value]| {
            let token = path.token(document, at);
            values.iter().any(|value| is_value(token, value))
        };
        if !self.when.iter().all(|(path, values)| is_wanted(path, values)) {
            return builder.message.ignore(Ignored::When, 1);
        }
        let Some(value) = self.value.find(document, at) else {
            return builder.message.ignore(Ignored::Absent, 1);
        };
        let place = ValuePlace { captures, document: Some((document, at)), sample: None };
        let mut flattening =
            Flattening { map: self, document, place, builder, key: String::new(), readings: Vec::new() };
        flattening.value(value, Cow::Borrowed(""));
        let readings = flattening.readings;
        if readings.is_empty() {
            return;
        }
        let device = device_id(self.device.fill(place.input(&Cow::Borrowed(""))));
        if let Some(about) = self.about(place) {
            builder.message.about.push((shared(&device), Arc::new(about)));
        }
        let element = MappedElement {
            device,
            time: self.time.read(document, at),
            seq: self.seq(document, at),
            position: None,
            boot: self.boot.as_ref().and_then(|path| text_of(path.token(document, at))),
            is_historical: false,
            readings,
        };
        builder.push(element);
    }

    /// What an element says of its device.
    fn about(&self, place: ValuePlace<'_, '_>) -> Option<DeviceAbout> {
        if self.device_name.is_none() && self.device_model.is_none() {
            return None;
        }
        let none = Cow::Borrowed("");
        let [name, model] = [&self.device_name, &self.device_model]
            .map(|template| template.as_ref().map(|template| template.fill(place.input(&none)).into_owned()));
        let about = DeviceAbout::new(name.as_deref(), model.as_deref(), None);
        Some(about).filter(|about| !about.is_empty())
    }

    /// The sequence number of an element. What is no number is none.
    fn seq(&self, document: &MapDocument<'_>, at: u32) -> Option<u64> {
        match self.seq.as_ref()?.token(document, at) {
            JsonToken::Number(number) => {
                number.as_integer().filter(|(negative, _)| !negative).map(|(_, number)| number)
            }
            JsonToken::Text(text) => text.trim().parse().ok(),
            none if none.is_none() => self.seq_default,
            _ => None,
        }
    }
}

impl<'a> MessageBuilder<'a> {
    /// Adds an element.
    pub(super) fn push(&mut self, element: MappedElement<'a>) {
        if element.time == MappedTime::NoClock {
            self.message.ignore(Ignored::NoClock, element.readings.len() as u32);
        }
        self.message.elements.push(element);
    }
}

/// Whether a value of a document is one of a map's settings.
fn is_value(token: &JsonToken<'_>, value: &serde_json::Value) -> bool {
    match (token, value) {
        (JsonToken::Null, serde_json::Value::Null) => true,
        (JsonToken::Bool(token), serde_json::Value::Bool(value)) => token == value,
        (JsonToken::Number(token), serde_json::Value::Number(value)) => value.as_f64() == Some(token.to_f64()),
        (JsonToken::Text(token), serde_json::Value::String(value)) => token == value,
        _ => false,
    }
}

/// Flattens the value of an element.
struct Flattening<'d, 'a> {
    map: &'a CompiledMap,
    document: &'d MapDocument<'a>,
    place: ValuePlace<'d, 'a>,
    builder: &'d mut MessageBuilder<'a>,
    /// Key of the container that is read.
    key: String,
    readings: Vec<MappedReading<'a>>,
}

impl<'a> Flattening<'_, 'a> {
    /// Adds the readings of the value `at`, whose last key is `name`.
    fn value(&mut self, at: u32, name: Cow<'a, str>) {
        let token = self.document.token(at);
        let is_array = match token {
            JsonToken::Array => true,
            JsonToken::Object => false,
            token => return self.scalar(FoundValue::of(token), name),
        };
        let behind = self.key.len();
        if !name.is_empty() {
            self.begin(&name);
        }
        let document = self.document;
        for (index, child) in document.children(at).enumerate() {
            let name = match (is_array, self.map.names.get(index)) {
                (true, Some(name)) => Cow::Borrowed(&**name),
                (true, None) => Cow::Owned(index.to_string()),
                (false, _) => document.node(child).map(|node| shared(&node.key)).unwrap_or_default(),
            };
            self.value(child, name);
        }
        self.key.truncate(behind);
    }

    /// Adds a part to the key.
    fn begin(&mut self, name: &str) {
        if !self.key.is_empty() {
            self.key.push_str(&self.map.separator);
        }
        self.key.push_str(name);
    }

    fn scalar(&mut self, found: FoundValue<'a>, name: Cow<'a, str>) {
        let at = (self.builder.message.elements.len() as u32, self.readings.len() as u32);
        let reading = if self.key.is_empty() {
            let key = shared(&name);
            self.map.reading(self.builder, at, self.place, &key, || name, (found, None))
        } else {
            let behind = self.key.len();
            self.begin(&name);
            let key = &self.key;
            let reading =
                self.map.reading(self.builder, at, self.place, key, || Cow::Owned(key.clone()), (found, None));
            self.key.truncate(behind);
            reading
        };
        self.readings.extend(reading);
    }
}
