//! Readings of samples.

use std::borrow::Cow;
use std::rc::Rc;

use super::compiled::CompiledMap;
use super::document::{MapDocument, ROOT, shared};
use super::mapped::{Ignored, MappedElement, MappedReading, MappedTime, MappedValue};
use super::names::device_id;
use super::pattern::Captures;
use super::reading::{MessageBuilder, ValuePlace};
use super::sample::{Sample, SampleNames, SampleTime, SampleValue};
use super::values::FoundValue;

/// Elements, counted from the last, that a sample may join.
const LOOK_BACK: usize = 8;

impl CompiledMap {
    /// Adds what samples give. `document` is the JSON that they stand in, if they do.
    pub(super) fn read_samples<'a>(
        &'a self,
        samples: Vec<Sample<'a>>,
        document: Option<&MapDocument<'a>>,
        captures: &Captures<'a>,
        arrival_ms: i64,
        builder: &mut MessageBuilder<'a>,
    ) {
        let stated = document.map_or(MappedTime::Arrival, |document| self.time.read(document, ROOT));
        let mut device: Option<(Rc<SampleNames<'a>>, Cow<'a, str>)> = None;
        for mut sample in samples {
            let place =
                ValuePlace { captures, document: document.map(|document| (document, ROOT)), sample: Some(&sample) };
            let id = match &device {
                Some((names, id)) if Rc::ptr_eq(names, &sample.names) && !self.device.has_key() => shared(id),
                _ => device_id(self.device.fill(place.input(&sample.key))),
            };
            device = Some((Rc::clone(&sample.names), shared(&id)));
            let time = match sample.time {
                SampleTime::None => stated.clone(),
                SampleTime::At(time_ms) => self.time.of_ms(time_ms),
                SampleTime::FromArrival(after_ms) => self.time.of_ms(arrival_ms.saturating_add(after_ms)),
            };
            let element = builder.element_of(id, time, sample.seq, sample.is_historical);
            let unit = sample.unit.take();
            if let Some(reading) = self.sample(&sample, element, place_of(&sample, document, captures), unit, builder) {
                builder.add(element, reading);
            }
        }
        builder.finish_samples();
    }

    fn sample<'a>(
        &'a self,
        sample: &Sample<'a>,
        element: u32,
        place: ValuePlace<'_, 'a>,
        unit: Option<Cow<'a, str>>,
        builder: &mut MessageBuilder<'a>,
    ) -> Option<MappedReading<'a>> {
        let unnamed = |value| Some(MappedReading { metric: Cow::Borrowed(""), value, unit: None });
        let found = match &sample.value {
            SampleValue::UnknownAlias(alias) => return unnamed(MappedValue::UnknownAlias(*alias)),
            SampleValue::Malformed(sentence) => return unnamed(MappedValue::Malformed(Cow::Owned(sentence.clone()))),
            SampleValue::Number(number) => FoundValue::Number(*number),
            SampleValue::Bool(value) => FoundValue::Bool(*value),
            SampleValue::Text(text) => FoundValue::Text(shared(text)),
            SampleValue::Absent => FoundValue::Absent,
            SampleValue::Other => FoundValue::Other,
        };
        if !sample.is_good {
            builder.message.ignore_key(Ignored::Quality, &sample.key);
            return None;
        }
        let at = (element, builder.readings_of(element));
        self.reading(builder, at, place, &sample.key, || shared(&sample.key), (found, unit))
    }
}

fn place_of<'d, 'a>(
    sample: &'d Sample<'a>,
    document: Option<&'d MapDocument<'a>>,
    captures: &'d Captures<'a>,
) -> ValuePlace<'d, 'a> {
    ValuePlace { captures, document: document.map(|document| (document, ROOT)), sample: Some(sample) }
}

impl<'a> MessageBuilder<'a> {
    /// Index of an element with this device, time and number, one of the last or a new one.
    fn element_of(&mut self, device: Cow<'a, str>, time: MappedTime<'a>, seq: Option<u64>, is_historical: bool) -> u32 {
        let elements = &mut self.message.elements;
        let is_same = |element: &MappedElement<'a>| {
            element.device == device
                && element.time == time
                && element.seq == seq
                && element.is_historical == is_historical
        };
        if let Some(back) = elements.iter().rev().take(LOOK_BACK).position(is_same) {
            return (elements.len() - 1 - back) as u32;
        }
        elements.push(MappedElement {
            device,
            time,
            seq,
            position: None,
            boot: None,
            is_historical,
            readings: Vec::new(),
        });
        (elements.len() - 1) as u32
    }

    fn readings_of(&self, element: u32) -> u32 {
        self.message.elements.get(element as usize).map_or(0, |element| element.readings.len() as u32)
    }

    fn add(&mut self, element: u32, reading: MappedReading<'a>) {
        if let Some(element) = self.message.elements.get_mut(element as usize) {
            element.readings.push(reading);
        }
    }

    /// Drops elements without readings, and counts those without a clock.
    fn finish_samples(&mut self) {
        let without_clock = self.message.elements.iter().filter(|element| element.time == MappedTime::NoClock);
        let count: usize = without_clock.map(|element| element.readings.len()).sum();
        if count > 0 {
            self.message.ignore(Ignored::NoClock, count as u32);
        }
        // Keys that are not metrics know their elements by index.
        let mut kept = 0;
        let mut new_index = Vec::with_capacity(self.message.elements.len());
        for element in &self.message.elements {
            new_index.push(kept);
            kept += u32::from(!element.readings.is_empty());
        }
        for (element, ..) in &mut self.altered {
            *element = new_index.get(*element as usize).copied().unwrap_or_default();
        }
        self.message.elements.retain(|element| !element.readings.is_empty());
    }
}
