//! Payloads that are one value: device and metric are in the topic.

use std::borrow::Cow;

use super::compiled::CompiledMap;
use super::discoveries::DiscoveredTopic;
use super::mapped::{Ignored, MapRole, MappedElement, MappedReading, MappedTime, MappedValue};
use super::names::device_id;
use super::pattern::Captures;
use super::payload::text_of;
use super::reading::{MessageBuilder, ValueAndUnit, ValueKey, ValuePlace};
use super::settings::PayloadFormat;
use super::values::FoundValue;
use super::{MapMatch, Maps};
use crate::core::json::is_filler;

/// What a topic says of the one value in its messages. It depends on the map and the topic alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScalarNames<'a> {
    /// The name by which the value goes in all rules.
    key: Cow<'a, str>,
    /// Metric name. It may be invalid.
    metric: Cow<'a, str>,
    /// Device id. It may be invalid.
    device: Cow<'a, str>,
}

/// [`ScalarNames`] whose texts are parts of the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core) struct TopicNames<'a> {
    /// The name by which the value goes in all rules.
    pub key: &'a str,
    /// Metric name. It may be invalid.
    pub metric: &'a str,
    /// Device id. It may be invalid.
    pub device: &'a str,
}

/// Where the texts of [`TopicNames`] are in their topic: where each begins and ends, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core) struct TopicNamePlaces([(u16, u16); 3]);

impl TopicNamePlaces {
    fn find(topic: &str, names: &ScalarNames<'_>) -> Option<Self> {
        let place = |text: &str| {
            let start = topic.find(text)?;
            Some((u16::try_from(start).ok()?, u16::try_from(start + text.len()).ok()?))
        };
        Some(Self([place(&names.key)?, place(&names.metric)?, place(&names.device)?]))
    }

    /// The names in `topic`, which is the topic in which they were found.
    pub fn names(self, topic: &str) -> Option<TopicNames<'_>> {
        let text = |(start, end)| topic.get(usize::from(start)..usize::from(end));
        let [key, metric, device] = self.0;
        Some(TopicNames { key: text(key)?, metric: text(metric)?, device: text(device)? })
    }
}

impl Maps {
    /// Where in `topic`, which `found` takes, its messages have their names; `None` where they are no single values, or have a name
    /// that is no part of the topic.
    pub(in crate::core) fn name_places(&self, found: MapMatch, topic: &str) -> Option<TopicNamePlaces> {
        let map = self.maps.get(usize::from(found.map))?;
        if map.payload != PayloadFormat::Scalar || found.role != MapRole::Readings {
            return None;
        }
        TopicNamePlaces::find(topic, &map.scalar_names(&map.captures(found.role, found.pattern, topic)))
    }

    /// The number in a payload that is one value, and its unit. `key` is that of [`TopicNames`], and no discovery message spoke of
    /// the topic. `None` where the payload gives something else than a reading of a number; [`Maps::map`] says what.
    pub(in crate::core) fn scalar_number<'a>(
        &'a self,
        found: MapMatch,
        key: &str,
        payload: &'a [u8],
    ) -> Option<(f64, Option<Cow<'a, str>>)> {
        let map = self.maps.get(usize::from(found.map))?;
        match text_of(payload) {
            Ok(Cow::Borrowed(text)) if !payload.is_empty() => match map.scalar_value(text, key, None) {
                Ok((MappedValue::Number(number), unit)) => Some((number, unit)),
                _ => None,
            },
            _ => None,
        }
    }
}

impl CompiledMap {
    /// Adds what a payload gives that is one value.
    pub(super) fn read_scalar<'a>(&'a self, text: &'a str, captures: &Captures<'a>, builder: &mut MessageBuilder<'a>) {
        let ScalarNames { key, metric, device } = self.scalar_names(captures);
        match self.scalar_value(text, &key, builder.known.as_deref()) {
            Ok((value, unit)) => builder.push(MappedElement {
                device,
                time: MappedTime::Arrival,
                seq: None,
                position: None,
                boot: None,
                is_historical: false,
                readings: vec![MappedReading { metric, value, unit }],
            }),
            Err(reason) => builder.message.ignore_key(reason, &key),
        }
    }

    /// The names that a topic gives to the one value in its messages.
    fn scalar_names<'a>(&'a self, captures: &Captures<'a>) -> ScalarNames<'a> {
        let no_key = Cow::Borrowed("");
        let input = ValuePlace { captures, document: None, sample: None }.input(&no_key);
        let key = self.metric.fill(input);
        let metric = self.metric_of_unnamed(&key);
        ScalarNames { metric, device: device_id(self.device.fill(input)), key }
    }

    /// The value of a payload that is one value, or why it is no reading.
    fn scalar_value<'a>(
        &'a self,
        text: &'a str,
        key: &str,
        known: Option<&DiscoveredTopic>,
    ) -> Result<ValueAndUnit<'a>, Ignored> {
        let text = text.trim_matches(|c| is_filler(c) || c == '\u{feff}');
        let unquoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        let found = FoundValue::Text(Cow::Borrowed(unquoted));
        self.value(ValueKey { key, path: "" }, (found, None), None, known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::formats::{MapMemory, MapSettings};

    /// What stands in the topic is taken from there, and all else is found anew.
    #[test]
    fn names_in_the_topic_are_those_of_the_message() {
        let names = |device: &str, metric: &str, topic: &str| {
            let settings = MapSettings {
                name: "m".into(),
                topics: vec!["s/{a}/{b}/{c}".into()],
                payload: PayloadFormat::Scalar,
                device: device.into(),
                metric: metric.into(),
                rename: [("old".to_owned(), "new".to_owned())].into(),
                ..MapSettings::default()
            };
            let maps = Maps::new(&[settings]).unwrap();
            let found = maps.find(topic).unwrap();
            let mapped = maps.map(found, topic, b"7", 0, &mut MapMemory::default()).unwrap();
            let names = maps.name_places(found, topic).and_then(|places| places.names(topic));
            if let Some(names) = names {
                let [element] = &*mapped.elements else { panic!("{mapped:?}") };
                let [reading] = &*element.readings else { panic!("{element:?}") };
                assert_eq!((names.device, names.metric), (&*element.device, &*reading.metric), "{topic}");
                assert_eq!(maps.scalar_number(found, names.key, b"7"), Some((7.0, None)));
                assert!(reading.value == MappedValue::Number(7.0) && reading.unit.is_none());
            }
            names.is_some()
        };
        assert!(
            names("{a}", "{b}", "s/desk/t/x")
                && names("{c}", "{a}/{b}", "s/desk/t/s")
                && names("{a}", "{c}", "s/x/x/x")
        );
        assert!(!names("{a}.{b}", "{c}", "s/desk/t/x"), "the device is in no piece");
        assert!(!names("{a}", "{b}", "s/desk/a b/x"), "the metric has another character");
        assert!(!names("{a}", "{b}", "s/desk/old/x"), "the metric has another name");
    }
}
