//! Liveness of devices.

use std::borrow::Cow;

use super::compiled::{CompiledMap, StatusRules};
use super::document::{MapDocument, ROOT};
use super::mapped::{Ignored, MappedStatus};
use super::names::device_id;
use super::pattern::Captures;
use super::reading::{MessageBuilder, ValuePlace};
use super::template::text_of;
use super::values::is_same_word;
use crate::core::json::{JsonToken, is_filler};

impl StatusRules {
    /// Whether a text says that a device is online; `None`: it says neither.
    fn is_online(&self, text: &str) -> Option<bool> {
        let text = text.trim_matches(is_filler);
        if self.online.iter().any(|word| **word == *text) {
            return Some(true);
        }
        if self.offline.iter().any(|word| **word == *text) {
            return Some(false);
        }
        let is_one_of = |words: &[Box<str>]| words.iter().any(|word| is_same_word(word, text));
        is_one_of(&self.online).then_some(true).or_else(|| is_one_of(&self.offline).then_some(false))
    }

    /// The text in a document: at the pointer, or the document itself where it is a text.
    fn text<'a>(&self, document: &MapDocument<'a>) -> Option<Cow<'a, str>> {
        match document.token(ROOT) {
            JsonToken::Object | JsonToken::Array => text_of(self.pointer.token(document, ROOT)),
            token => text_of(token),
        }
    }
}

impl CompiledMap {
    /// Reads a message of a status topic.
    pub(super) fn read_status<'a>(&'a self, text: &'a str, captures: &Captures<'a>, builder: &mut MessageBuilder<'a>) {
        let Some(status) = &self.status else { return };
        let document = MapDocument::parse(text.trim_start_matches('\u{feff}')).ok();
        let said = match &document {
            Some(document) => status.text(document),
            None => Some(Cow::Borrowed(text)),
        };
        let Some(said) = said else { return builder.message.ignore(Ignored::Absent, 1) };
        match status.is_online(&said) {
            Some(online) => self.set_status(document.as_ref(), captures, online, builder),
            None => builder.message.ignore(Ignored::Text, 1),
        }
    }

    /// Reads what a message on the map's own topics says about its device; whether it says anything.
    pub(super) fn own_status<'a>(
        &'a self,
        document: &MapDocument<'a>,
        captures: &Captures<'a>,
        builder: &mut MessageBuilder<'a>,
    ) -> bool {
        let Some(status) = self.status.as_ref().filter(|status| status.is_on_own_topics) else { return false };
        let online = text_of(status.pointer.token(document, ROOT)).and_then(|text| status.is_online(&text));
        if let Some(online) = online {
            self.set_status(Some(document), captures, online, builder);
        }
        online.is_some()
    }

    /// Says whether the device of the message is online.
    pub(super) fn set_status<'a>(
        &'a self,
        document: Option<&MapDocument<'a>>,
        captures: &Captures<'a>,
        online: bool,
        builder: &mut MessageBuilder<'a>,
    ) {
        let device = self.status_device(document, captures);
        builder.message.status = Some(MappedStatus { device, online });
    }

    /// Id of the device whose liveness a message tells.
    pub(super) fn status_device<'a>(
        &'a self,
        document: Option<&MapDocument<'a>>,
        captures: &Captures<'a>,
    ) -> Cow<'a, str> {
        let template = self.status.as_ref().and_then(|status| status.device.as_ref()).unwrap_or(&self.device);
        let place = ValuePlace { captures, document: document.map(|document| (document, ROOT)), sample: None };
        device_id(template.fill(place.input(&Cow::Borrowed(""))))
    }
}
