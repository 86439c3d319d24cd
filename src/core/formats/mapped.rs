//! What a map makes of a message.

use std::borrow::Cow;
use std::sync::Arc;

use super::about::DeviceAbout;
use super::discovery::Announcement;

/// What a map makes of one message.
#[derive(Debug, Default, PartialEq)]
pub struct MappedMessage<'a> {
    /// Elements with readings, in the order of the message.
    pub elements: Vec<MappedElement<'a>>,
    /// What the message says about the liveness of a device.
    pub status: Option<MappedStatus<'a>>,
    /// Ids of other devices that are offline from now on: those of an edge node that is (Sparkplug B).
    pub offline: Vec<Box<str>>,
    /// What was left out on purpose, by reason.
    pub ignored: Vec<(Ignored, u32)>,
    /// Keys that were left out on purpose, at most 32 of a message, for the view of what happens.
    pub ignored_keys: Vec<Cow<'a, str>>,
    /// The edge node must be asked for its births: group and node (Sparkplug B).
    pub rebirth: Option<(Cow<'a, str>, Cow<'a, str>)>,
    /// What a discovery message says about the messages of other topics.
    pub announcements: Vec<Announcement>,
    /// What is said of devices of the message, each with its id.
    pub about: Vec<(Cow<'a, str>, Arc<DeviceAbout>)>,
}

/// Largest number of [`MappedMessage::ignored_keys`].
const MAX_IGNORED_KEYS: usize = 32;

impl<'a> MappedMessage<'a> {
    /// Counts something that is left out on purpose.
    pub(super) fn ignore(&mut self, reason: Ignored, count: u32) {
        match self.ignored.iter_mut().find(|(other, _)| *other == reason) {
            Some((_, total)) => *total = total.saturating_add(count),
            None => self.ignored.push((reason, count)),
        }
    }

    /// Counts a key that is left out on purpose.
    pub(super) fn ignore_key(&mut self, reason: Ignored, key: &str) {
        self.ignore(reason, 1);
        if self.ignored_keys.len() < MAX_IGNORED_KEYS && !key.is_empty() {
            self.ignored_keys.push(Cow::Owned(key.to_owned()));
        }
    }

    /// The message with copies of all that it borrows.
    pub(super) fn into_owned(self) -> MappedMessage<'static> {
        MappedMessage {
            elements: self.elements.into_iter().map(MappedElement::into_owned).collect(),
            status: self.status.map(|status| MappedStatus { device: owned(status.device), online: status.online }),
            offline: self.offline,
            ignored: self.ignored,
            ignored_keys: self.ignored_keys.into_iter().map(owned).collect(),
            rebirth: self.rebirth.map(|(group, node)| (owned(group), owned(node))),
            announcements: self.announcements,
            about: self.about.into_iter().map(|(device, about)| (owned(device), about)).collect(),
        }
    }
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

impl MappedElement<'_> {
    fn into_owned(self) -> MappedElement<'static> {
        MappedElement {
            device: owned(self.device),
            time: match self.time {
                MappedTime::Arrival => MappedTime::Arrival,
                MappedTime::NoClock => MappedTime::NoClock,
                MappedTime::At(time_ms) => MappedTime::At(time_ms),
                MappedTime::Invalid(text) => MappedTime::Invalid(owned(text)),
            },
            seq: self.seq,
            position: self.position,
            boot: self.boot.map(owned),
            is_historical: self.is_historical,
            readings: self.readings.into_iter().map(MappedReading::into_owned).collect(),
        }
    }
}

impl MappedReading<'_> {
    fn into_owned(self) -> MappedReading<'static> {
        let value = match self.value {
            MappedValue::Number(number) => MappedValue::Number(number),
            MappedValue::Text(text) => MappedValue::Text(owned(text)),
            MappedValue::NameTwice(first, second) => MappedValue::NameTwice(owned(first), owned(second)),
            MappedValue::UnknownAlias(alias) => MappedValue::UnknownAlias(alias),
            MappedValue::Malformed(sentence) => MappedValue::Malformed(owned(sentence)),
        };
        MappedReading { metric: owned(self.metric), value, unit: self.unit.map(owned) }
    }
}

/// Readings with one device, time and sequence number.
#[derive(Debug, Clone, PartialEq)]
pub struct MappedElement<'a> {
    /// Device id, with the characters replaced that an id must not have. It may still be invalid: empty, or too long.
    pub device: Cow<'a, str>,
    /// Event time.
    pub time: MappedTime<'a>,
    /// Sequence number.
    pub seq: Option<u64>,
    /// The sequence number continued to 64 bits, where devices share their numbers: those of an edge node (Sparkplug B).
    pub position: Option<u64>,
    /// What tells the runs of the device apart, as text.
    pub boot: Option<Cow<'a, str>>,
    /// Whether the device says that the reading is of the past (Sparkplug B).
    pub is_historical: bool,
    /// Readings, in the order of the message.
    pub readings: Vec<MappedReading<'a>>,
}

/// Event time of an element.
#[derive(Debug, Clone, PartialEq)]
pub enum MappedTime<'a> {
    /// The map takes none from the payload.
    Arrival,
    /// The device has no clock: 0, the empty text, or a time before `no_clock_before`.
    NoClock,
    /// Unix milliseconds.
    At(i64),
    /// A text that is no time.
    Invalid(Cow<'a, str>),
}

/// One reading.
#[derive(Debug, Clone, PartialEq)]
pub struct MappedReading<'a> {
    /// Metric name, with the characters replaced that a name must not have. It may still be invalid.
    pub metric: Cow<'a, str>,
    /// The value.
    pub value: MappedValue<'a>,
    /// Unit, where it is known.
    pub unit: Option<Cow<'a, str>>,
}

/// Value of a reading.
#[derive(Debug, Clone, PartialEq)]
pub enum MappedValue<'a> {
    /// A number.
    Number(f64),
    /// Text that is no number and no word, with `text = "error"`: `wrong_type`.
    Text(Cow<'a, str>),
    /// Another key of the message became the same metric: `invalid_metric`. Holds both keys, the earlier first.
    NameTwice(Cow<'a, str>, Cow<'a, str>),
    /// An alias that no birth defines (Sparkplug B): `unknown_alias`.
    UnknownAlias(u64),
    /// A part of the message that cannot be read, such as one line of several: `malformed`. What is wrong and where, a sentence.
    Malformed(Cow<'a, str>),
}

/// What a message says about the liveness of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedStatus<'a> {
    /// Device id.
    pub device: Cow<'a, str>,
    /// Whether the device is online.
    pub online: bool,
}

/// Why something is meant to be no reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// The topic is one of `ignore`.
    Topic,
    /// The element does not have the values of `when`.
    When,
    /// The key is excluded, or not included.
    Excluded,
    /// There is no value.
    Absent,
    /// Text that is no number.
    Text,
    /// Sparkplug quality other than 192.
    Quality,
    /// A retained message that came again.
    Retained,
    /// An empty payload.
    Empty,
    /// The device has no clock; its readings count at their arrival.
    NoClock,
}

impl Ignored {
    /// All reasons, in order.
    pub const ALL: [Self; 9] = [
        Self::Topic,
        Self::When,
        Self::Excluded,
        Self::Absent,
        Self::Text,
        Self::Quality,
        Self::Retained,
        Self::Empty,
        Self::NoClock,
    ];

    /// The name in metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::When => "when",
            Self::Excluded => "excluded",
            Self::Absent => "absent",
            Self::Text => "text",
            Self::Quality => "quality",
            Self::Retained => "retained",
            Self::Empty => "empty",
            Self::NoClock => "no_clock",
        }
    }
}

/// A fault of the settings of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapFault {
    /// Index of the map among the settings.
    pub map: usize,
    /// Key at fault, as in `topics` or `status.topics`.
    pub key: String,
    /// What is wrong and what is expected, a sentence.
    pub message: String,
}

/// What the topic of a message says, in the order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MapRole {
    /// The message carries readings.
    Readings,
    /// The message tells whether a device is online.
    Status,
    /// The message carries nothing that counts.
    Ignore,
}

/// Largest number of maps.
pub const MAX_MAPS: usize = 256;
/// Largest number of patterns of one map, those of `topics`, `status` and `ignore` each.
pub const MAX_PATTERNS: usize = 64;
