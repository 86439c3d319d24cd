//! Characters of metric names and device ids, and names that two keys of a message become.

use std::borrow::Cow;

use super::mapped::{MappedMessage, MappedValue};

/// Readings of an element up to which each is compared with each.
const FEW: usize = 16;

fn is_metric_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '/' | '-')
}

/// Whether a metric name may have all these characters.
pub(super) fn is_metric_name(name: &str) -> bool {
    name.bytes().all(|byte| is_metric_char(char::from(byte)))
}

/// `name` with `_` for each run of characters that a metric name must not have, none at its ends.
pub(super) fn metric_name(name: Cow<'_, str>) -> Cow<'_, str> {
    if is_metric_name(&name) {
        return name;
    }
    let mut metric = String::with_capacity(name.len());
    for part in name.split(|c| !is_metric_char(c)).filter(|part| !part.is_empty()) {
        if !metric.is_empty() {
            metric.push('_');
        }
        metric.push_str(part);
    }
    Cow::Owned(metric)
}

/// `id` with `.` for each character that a device id must not have.
pub(super) fn device_id(id: Cow<'_, str>) -> Cow<'_, str> {
    let is_unfit = |c: char| matches!(c, '/' | '+' | '#') || c.is_control();
    if id.contains(is_unfit) { Cow::Owned(id.replace(is_unfit, ".")) } else { id }
}

/// The key of a reading whose metric is not its key: indexes of element and reading, and the key.
pub(super) type AlteredKey<'a> = (u32, u32, Cow<'a, str>);

/// Finds readings whose keys differ and whose metrics do not; the later ones become [`MappedValue::NameTwice`]. In documents a
/// key that stands twice in an element is one too; samples repeat their keys at other times.
pub(super) fn mark_twice<'a>(message: &mut MappedMessage<'a>, mut altered: Vec<AlteredKey<'a>>, is_document: bool) {
    altered.sort_by_key(|(element, reading, _)| (*element, *reading));
    let found = match (is_document, altered.is_empty(), message.elements.len()) {
        (true, true, _) | (true, false, 1) => {
            (0..).zip(&message.elements).flat_map(|(at, _)| within(message, at)).collect()
        }
        (false, true, _) => Vec::new(),
        _ => across(message, &altered, is_document),
    };
    let keys: Vec<_> = found
        .iter()
        .map(|(first, second)| (*second, key_of(message, &altered, *first), key_of(message, &altered, *second)))
        .collect();
    for ((element, reading), first, second) in keys {
        let element = message.elements.get_mut(element as usize);
        if let Some(reading) = element.and_then(|element| element.readings.get_mut(reading as usize)) {
            reading.value = MappedValue::NameTwice(first, second);
        }
    }
}

/// Indexes of an element and a reading of it.
type ReadingIndex = (u32, u32);

/// Readings of the element `at` with the same metric: the first of them with each other one.
fn within(message: &MappedMessage<'_>, at: u32) -> Vec<(ReadingIndex, ReadingIndex)> {
    let Some(element) = message.elements.get(at as usize) else { return Vec::new() };
    let readings = &element.readings;
    let mut found = Vec::new();
    if readings.len() <= FEW {
        for (second, reading) in readings.iter().enumerate() {
            let earlier = readings.iter().take(second);
            if let Some(first) = earlier.into_iter().position(|earlier| earlier.metric == reading.metric) {
                found.push(((at, first as u32), (at, second as u32)));
            }
        }
        return found;
    }
    let mut order: Vec<_> = (0..).zip(readings).map(|(index, reading)| (&*reading.metric, index)).collect();
    order.sort_unstable();
    for same in order.chunk_by(|one, other| one.0 == other.0) {
        let Some(((_, first), others)) = same.split_first() else { continue };
        found.extend(others.iter().map(|(_, second): &(&str, u32)| ((at, *first), (at, *second))));
    }
    found
}

/// Readings of one device with the same metric and different keys: the first of them with each other one.
fn across(
    message: &MappedMessage<'_>,
    altered: &[AlteredKey<'_>],
    is_document: bool,
) -> Vec<(ReadingIndex, ReadingIndex)> {
    let mut order: Vec<((&str, &str), ReadingIndex)> = Vec::new();
    for (at, element) in (0..).zip(&message.elements) {
        let readings = (0..).zip(&element.readings);
        order.extend(readings.map(|(index, reading)| ((&*element.device, &*reading.metric), (at, index))));
    }
    order.sort_unstable();
    let mut found = Vec::new();
    for same in order.chunk_by(|one, other| one.0 == other.0) {
        let Some(((_, first), others)) = same.split_first() else { continue };
        for (_, second) in others {
            let is_repeated_key = is_document && first.0 == second.0;
            if is_repeated_key || raw_key(message, altered, *first) != raw_key(message, altered, *second) {
                found.push((*first, *second));
            }
        }
    }
    found
}

fn raw_key<'m>(message: &'m MappedMessage<'_>, altered: &'m [AlteredKey<'_>], at: ReadingIndex) -> &'m str {
    if let Ok(index) = altered.binary_search_by_key(&at, |(element, reading, _)| (*element, *reading)) {
        return altered.get(index).map_or("", |(_, _, key)| key);
    }
    let element = message.elements.get(at.0 as usize);
    element.and_then(|element| element.readings.get(at.1 as usize)).map_or("", |reading| &reading.metric)
}

fn key_of<'a>(message: &MappedMessage<'a>, altered: &[AlteredKey<'a>], at: ReadingIndex) -> Cow<'a, str> {
    Cow::Owned(raw_key(message, altered, at).to_owned())
}
