//! Decodes a payload into its elements. Whether a field has a valid value is not checked here but in `validate`.

mod fields;
mod foreign;
mod malformed;
mod text;
mod unpack;

use std::borrow::Cow;

use crate::core::json::{JsonScanner, JsonSyntaxError, JsonToken};
use crate::core::settings::Settings;

pub(super) use fields::{ElementFields, MetricEntry, MetricsField};
pub(super) use malformed::MalformedMessage;
pub(super) use text::RecoveredText;
pub(super) use unpack::unpacked;

/// How payloads are decoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct DecodeRules {
    /// Largest number of readings in one message.
    pub max_readings: usize,
    /// Whether the scanner is lenient, JSON lines are an array, and an `error` may stand beside readings.
    pub lenient: bool,
}

impl DecodeRules {
    /// The rules of `settings`.
    #[inline]
    pub fn of(settings: &Settings) -> Self {
        Self { max_readings: settings.max_readings_per_message, lenient: settings.has_field_rules() }
    }
}

/// Why a payload is no text.
#[cold]
fn not_utf8(payload: &[u8]) -> MalformedMessage {
    MalformedMessage::NotUtf8(std::str::from_utf8(payload).map_or_else(|error| error.valid_up_to(), str::len))
}

/// Longest payload in bytes that the standard library checks for UTF-8.
const SHORT_BYTES: usize = 256;

/// One element of an array.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all elements are objects")]
pub(super) enum MessageElement<'a> {
    /// An object.
    Object(ElementFields<'a>),
    /// Something else, which is no reading.
    Other(&'static str),
}

/// A decoded message. Its vectors are reused from message to message.
#[derive(Debug, Default)]
pub(super) struct DecodedMessage<'a> {
    /// The object of a message that is no array. It is filled in place, because moving it would cost more than reading
    /// it.
    single: ElementFields<'a>,
    is_single: bool,
    /// Elements of a message that is an array.
    pub elements: Vec<MessageElement<'a>>,
    /// Number of elements with an `error` field, and one for the object of a message that a map made.
    errors: usize,
    /// Entries of all `metrics` objects.
    pub entries: Vec<MetricEntry<'a>>,
}

impl<'a> DecodedMessage<'a> {
    /// Decodes `payload` in the place of the message before.
    pub fn decode(&mut self, payload: &'a [u8], rules: DecodeRules) -> Result<(), MalformedMessage> {
        // The wider steps of simdutf8 pay from a few hundred bytes on.
        let text = if payload.len() <= SHORT_BYTES {
            std::str::from_utf8(payload).ok()
        } else {
            simdutf8::basic::from_utf8(payload).ok()
        };
        match text {
            Some(text) => self.decode_text(text, rules),
            None => Err(not_utf8(payload)),
        }
    }

    /// Decodes the text of a payload in the place of the message before.
    pub fn decode_text(&mut self, text: &'a str, rules: DecodeRules) -> Result<(), MalformedMessage> {
        self.elements.clear();
        self.entries.clear();
        self.single.clear();
        self.errors = 0;
        let mut scanner = JsonScanner::with_leniency(text, rules.lenient);
        let first = scanner.peek();
        self.is_single = first == Some(b'{');
        match first {
            Some(b'{') => {
                self.single.read(&mut scanner, 0, &mut self.entries, rules.max_readings)?;
                self.errors = usize::from(self.single.error.is_some());
            }
            Some(b'[') => scanner.array(|scanner| self.element(scanner, 1, rules))?,
            _ => {
                let kind = scanner.value(0)?.kind();
                scanner.end()?;
                return Err(MalformedMessage::NotAForm(kind));
            }
        }
        if let Err(error) = scanner.end() {
            self.further_lines(&mut scanner, rules, error)?;
        }
        self.check_count(rules)
    }

    /// Reads further objects, one per line (JSON lines), as elements of an array. `error` says that something follows the
    /// first value.
    #[cold]
    fn further_lines(
        &mut self,
        scanner: &mut JsonScanner<'a>,
        rules: DecodeRules,
        error: JsonSyntaxError,
    ) -> Result<(), JsonSyntaxError> {
        if !(rules.lenient && self.is_single) {
            return Err(error);
        }
        self.is_single = false;
        self.elements.push(MessageElement::Object(std::mem::take(&mut self.single)));
        loop {
            if !(scanner.peek() == Some(b'{') && scanner.is_new_line()) {
                return scanner.end();
            }
            self.element(scanner, 0, rules)?;
        }
    }

    /// Refuses a message without readings or with too many. Decoding keeps more entries than the
    /// limit, and one element more, where there are so many, which is enough to see it.
    fn check_count(&self, rules: DecodeRules) -> Result<(), MalformedMessage> {
        let count = if self.is_single {
            self.single.count(rules.lenient)
        } else {
            let counts = self.elements.iter().map(|element| match element {
                MessageElement::Object(fields) => fields.count(rules.lenient),
                MessageElement::Other(_) => 1,
            });
            counts.sum()
        };
        match count {
            0 => Err(MalformedMessage::EmptyArray),
            _ if count.max(self.entries.len()) > rules.max_readings => {
                Err(MalformedMessage::TooManyReadings(rules.max_readings))
            }
            _ => Ok(()),
        }
    }

    /// Puts one reading of a map in the place of the message before.
    pub fn put_reading(&mut self, device: &'a str, metric: &'a str, value: JsonToken<'a>) {
        self.elements.clear();
        self.entries.clear();
        self.entries.push(MetricEntry { metric: Cow::Borrowed(metric), value });
        let (device, none) = (JsonToken::Text(Cow::Borrowed(device)), || JsonToken::Absent);
        self.set_single(ElementFields::of_metrics(device, none(), none(), none(), 0..1));
    }

    /// A message of a map, whose elements have these entries, without its elements.
    pub fn of_entries(entries: Vec<MetricEntry<'a>>) -> Self {
        Self { entries, ..Self::default() }
    }

    /// Adds the only element of a message of a map.
    pub fn set_single(&mut self, element: ElementFields<'a>) {
        (self.single, self.is_single, self.errors) = (element, true, 1);
    }

    /// The object, where the message is one.
    pub fn single(&self) -> Option<&ElementFields<'a>> {
        self.is_single.then_some(&self.single)
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        !self.is_single && self.elements.is_empty()
    }

    /// Number of indexes of readings, at most.
    pub fn max_readings(&self) -> u32 {
        u32::try_from(1 + self.elements.len() + self.entries.len() + self.errors).unwrap_or(u32::MAX)
    }

    /// Whether any element carries a `seq` field.
    pub fn has_sequence(&self) -> bool {
        !self.single.seq.is_none()
            || self
                .elements
                .iter()
                .any(|element| matches!(element, MessageElement::Object(fields) if !fields.seq.is_none()))
    }

    /// Whether all elements that can be readings have a sequence number, by the check of their `seq` field.
    pub fn all_have_sequence(&self, is_number: impl Fn(&JsonToken<'a>) -> bool) -> bool {
        let mut others = self.elements.iter().filter_map(|element| match element {
            MessageElement::Object(fields) => Some(fields),
            MessageElement::Other(_) => None,
        });
        self.single().is_none_or(|fields| is_number(&fields.seq)) && others.all(|fields| is_number(&fields.seq))
    }

    /// Reads one element of several. `depth` is the number of containers that are open around it.
    fn element(
        &mut self,
        scanner: &mut JsonScanner<'a>,
        depth: u32,
        rules: DecodeRules,
    ) -> Result<(), JsonSyntaxError> {
        let element = match scanner.peek() {
            Some(b'{') => {
                let mut fields = ElementFields::default();
                fields.read(scanner, depth, &mut self.entries, rules.max_readings)?;
                self.errors += usize::from(fields.error.is_some());
                MessageElement::Object(fields)
            }
            _ => MessageElement::Other(scanner.value(depth)?.kind()),
        };
        if self.elements.len() <= rules.max_readings {
            self.elements.push(element);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
