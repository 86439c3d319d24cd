//! One value with its key becomes a reading.

use std::borrow::Cow;
use std::sync::Arc;

use super::compiled::CompiledMap;
use super::discoveries::DiscoveredTopic;
use super::document::{MapDocument, shared};
use super::glob::any_matches;
use super::mapped::{Ignored, MappedMessage, MappedReading, MappedValue};
use super::names::{AlteredKey, is_metric_name, metric_name};
use super::pattern::Captures;
use super::sample::Sample;
use super::template::TemplateInput;
use super::values::FoundValue;

/// What discovery messages said of the topic of a message.
pub(in crate::core) type KnownTopic = Option<Arc<DiscoveredTopic>>;

/// What a message gives while it is read.
#[derive(Debug, Default)]
pub(super) struct MessageBuilder<'a> {
    pub message: MappedMessage<'a>,
    /// Keys that are not the metrics of their readings.
    pub altered: Vec<AlteredKey<'a>>,
    /// What is known of the topic.
    pub known: KnownTopic,
}

/// Where a value stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct ValuePlace<'d, 'a> {
    pub captures: &'d Captures<'a>,
    /// The document, and the index of the element.
    pub document: Option<(&'d MapDocument<'a>, u32)>,
    pub sample: Option<&'d Sample<'a>>,
}

/// Key of a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct ValueKey<'k> {
    /// The key by which the value goes in all rules: its name where it has none.
    pub key: &'k str,
    /// Key in the payload; it is empty where the value has none.
    pub path: &'k str,
}

/// Value of a reading and its unit.
pub(super) type ValueAndUnit<'a> = (MappedValue<'a>, Option<Cow<'a, str>>);

impl<'d, 'a> ValuePlace<'d, 'a> {
    /// What templates are filled from.
    pub fn input(self, key: &'d Cow<'a, str>) -> TemplateInput<'d, 'a> {
        TemplateInput { captures: self.captures, document: self.document, sample: self.sample, key }
    }
}

impl CompiledMap {
    /// The reading of a value. `at` are the indexes that element and reading are to have. `key` is a text that lives long
    /// enough; it is asked for only where there is a reading.
    pub(super) fn reading<'a>(
        &'a self,
        builder: &mut MessageBuilder<'a>,
        at: (u32, u32),
        place: ValuePlace<'_, 'a>,
        key: &str,
        owned_key: impl FnOnce() -> Cow<'a, str>,
        (found, unit): (FoundValue<'a>, Option<Cow<'a, str>>),
    ) -> Option<MappedReading<'a>> {
        // A value without a key goes by its name in all rules.
        let unnamed = key.is_empty().then(|| self.metric.fill(place.input(&Cow::Borrowed(""))));
        let path = key;
        let key = unnamed.as_deref().unwrap_or(key);
        let known = builder.known.as_deref();
        let (value, unit) = match self.value(ValueKey { key, path }, (found, unit), place.document, known) {
            Ok(read) => read,
            Err(reason) => {
                builder.message.ignore_key(reason, key);
                return None;
            }
        };
        let renamed = self.renamed(key);
        let name = match (&unnamed, renamed) {
            (Some(name), _) => self.name_of_unnamed(name),
            (None, Some(renamed)) => self.metric_of(place, Cow::Borrowed(renamed)),
            (None, None) => self.metric_of(place, owned_key()),
        };
        let is_name = is_metric_name(&name);
        if renamed.is_some() {
            builder.altered.push((at.0, at.1, Cow::Owned(key.to_owned())));
        } else if !is_name {
            builder.altered.push((at.0, at.1, shared(&name)));
        }
        Some(MappedReading { metric: if is_name { name } else { metric_name(name) }, value, unit })
    }

    /// The value under a key, and its unit, or why it is no reading. `known` is what discovery messages said of the topic.
    #[inline(always)]
    pub(super) fn value<'a>(
        &'a self,
        ValueKey { key, path }: ValueKey<'_>,
        (found, unit): (FoundValue<'a>, Option<Cow<'a, str>>),
        document: Option<(&MapDocument<'a>, u32)>,
        known: Option<&DiscoveredTopic>,
    ) -> Result<ValueAndUnit<'a>, Ignored> {
        let is_included = self.include.is_empty() || any_matches(&self.include, key);
        if !is_included || any_matches(&self.exclude, key) {
            return Err(Ignored::Excluded);
        }
        let discovered = || {
            let unit = known?.unit(&self.value_key, path, &self.separator)?;
            Some(Cow::Owned(unit.to_owned()))
        };
        self.values.read(key, found, document, unit.or_else(discovered))
    }

    /// The metric of a value without a key, whose name is `key`.
    pub(super) fn metric_of_unnamed<'a>(&'a self, key: &Cow<'a, str>) -> Cow<'a, str> {
        metric_name(self.name_of_unnamed(key))
    }

    /// As [`CompiledMap::metric_of_unnamed`], before its characters are replaced.
    fn name_of_unnamed<'a>(&'a self, key: &Cow<'a, str>) -> Cow<'a, str> {
        self.renamed(key).map_or_else(|| shared(key), Cow::Borrowed)
    }

    /// The metric of a key, before its characters are replaced.
    fn metric_of<'a>(&'a self, place: ValuePlace<'_, 'a>, key: Cow<'a, str>) -> Cow<'a, str> {
        if self.metric.is_key() {
            return key;
        }
        let name = self.metric.fill(place.input(&key));
        // A template that tells the keys of an element not apart is the name of the whole.
        if self.metric.has_key() { name } else { Cow::Owned(format!("{name}{}{key}", self.separator)) }
    }
}
