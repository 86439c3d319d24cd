//! What the decoders of payloads that are no JSON documents give: one value with its names.

use std::borrow::Cow;
use std::rc::Rc;

/// Largest number of values of one payload, those included that are no readings. It bounds the memory of a payload that
/// unpacks to very many.
pub(in crate::core) const MAX_SAMPLES: usize = 65_536;

/// One value of a payload.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::core) struct Sample<'a> {
    /// What templates may name besides the levels of the topic. Samples of one line share it.
    pub names: Rc<SampleNames<'a>>,
    /// The key: name of a field, of a SenML record without its base name, of a Sparkplug metric. Empty for
    /// [`SampleValue::Malformed`] and [`SampleValue::UnknownAlias`].
    pub key: Cow<'a, str>,
    /// The value.
    pub value: SampleValue<'a>,
    /// Event time.
    pub time: SampleTime,
    /// Sequence number, as the payload has it.
    pub seq: Option<u64>,
    /// Unit, where the payload says it.
    pub unit: Option<Cow<'a, str>>,
    /// Whether the value is of the past (Sparkplug B).
    pub is_historical: bool,
    /// Whether the quality is good (Sparkplug B).
    pub is_good: bool,
}

impl<'a> Sample<'a> {
    /// A sample without time, number and unit.
    pub fn new(names: Rc<SampleNames<'a>>, key: Cow<'a, str>, value: SampleValue<'a>) -> Self {
        Self { names, key, value, time: SampleTime::None, seq: None, unit: None, is_historical: false, is_good: true }
    }

    /// The text of what templates name: `measurement`, `field`, `tag:NAME`, `bn`; `None` where the payload does not have it.
    #[cfg(test)]
    pub fn name(&self, name: &str) -> Option<&str> {
        match name {
            "field" => Some(&self.key),
            "measurement" => self.names.measurement.as_deref(),
            "bn" => self.names.base_name.as_deref(),
            _ => {
                let tag = name.strip_prefix("tag:")?;
                self.names.tags.iter().find(|(key, _)| key == tag).map(|(_, value)| &**value)
            }
        }
    }
}

/// LevelNames that several samples have in common.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::core) struct SampleNames<'a> {
    /// Measurement of a line.
    pub measurement: Option<Cow<'a, str>>,
    /// Tags of a line, each with its value.
    pub tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Base name of a SenML record, without the separator at its end.
    pub base_name: Option<Cow<'a, str>>,
}

/// A value before words and scales.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::core) enum SampleValue<'a> {
    /// A number.
    Number(f64),
    /// `true` or `false`.
    Bool(bool),
    /// Text.
    Text(Cow<'a, str>),
    /// There is no value.
    Absent,
    /// Something that is no reading: bytes, an array, a data set.
    Other,
    /// An alias that no birth defines.
    UnknownAlias(u64),
    /// A part of the payload that cannot be read, such as one line of several; what is wrong and where, a sentence. The
    /// other parts count.
    Malformed(String),
}

/// Event time of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core) enum SampleTime {
    /// None is stated.
    None,
    /// Unix milliseconds.
    At(i64),
    /// Milliseconds after the arrival (SenML), mostly negative.
    FromArrival(i64),
}
