//! Messages that a map takes: what the map makes of them goes the way of decoded messages.

use std::fmt;

use crate::core::batch::{BatchContext, ReadingOrigin};
use crate::core::decode::{DecodeRules, DecodedMessage, ElementFields, MalformedMessage, MetricEntry};
use crate::core::formats::{
    Ignored, MapMatch, MapProblem, MapSettings, MappedElement, MappedMessage, MappedReading, MappedTime, MappedValue,
    RetainedRepeats,
};
use crate::core::json::{JsonToken, RefusedValue};
use crate::core::map_activity::MapOutcome;
use crate::core::operator::Operator;
use crate::core::output::Collector;
use crate::core::replayed::WantedReadings;
use crate::core::settings::SequenceBits;
use crate::core::timestamp::{MAX_MS, MIN_MS};

/// Why a message that a map takes gives nothing.
enum MalformedMapped {
    /// The map cannot read it.
    Map(MapProblem),
    /// It has too many readings.
    Count(MalformedMessage),
}

/// [`MalformedMapped`] with the name of the map, as it is told.
struct MalformedByMap<'a> {
    map: &'a str,
    malformed: &'a MalformedMapped,
}

impl fmt::Display for MalformedByMap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "map {}: ", self.map)?;
        match self.malformed {
            MalformedMapped::Map(MapProblem::Malformed(sentence)) => f.write_str(sentence),
            MalformedMapped::Count(malformed) => malformed.fmt(f),
        }
    }
}

impl Operator {
    /// Applies one publish on a topic that a map takes. `topic` is without the prefix of its tenant.
    #[inline(never)]
    pub(super) fn publish_mapped(
        &mut self,
        batch: &mut BatchContext<'_>,
        origin: &mut ReadingOrigin<'_>,
        found: MapMatch,
        topic: &str,
        out: &mut dyn Collector,
    ) {
        let Some(maps) = self.settings.rules.maps.clone() else { return };
        let (publish, rules) = (*origin.publish, DecodeRules::of(&self.settings.current));
        let mut mapped = maps.map(found, topic, publish.payload, origin.arrival_ms, &mut self.map_memory);
        let status = mapped.as_mut().ok().and_then(|mapped| mapped.status.take());
        if let Some((group, node)) = mapped.as_ref().ok().and_then(|mapped| mapped.rebirth.as_ref()) {
            self.ask_rebirth(origin, group, node);
        }
        if let Ok(mapped) = &mapped
            && let Some(activity) = self.map_activities.get_mut(found.map)
        {
            activity.count_all_ignored(mapped);
        }
        if let Ok(mapped) = &mapped
            && let Some(element) = mapped.elements.iter().find(|element| !element.readings.is_empty())
        {
            self.map_activities.note_readings(found.map, publish.topic, &element.device, origin.arrival_ms);
        }
        let bits = self.map_settings(found).map_or(SequenceBits::Bits64, counter_width);
        let outcome = match mapped.map_err(MalformedMapped::Map).and_then(|mapped| to_decoded(mapped, bits, rules)) {
            Ok(message) if message.elements.is_empty() && status.is_some() => MapOutcome::Status,
            Ok(message) if message.elements.is_empty() => MapOutcome::Ignored,
            Ok(message) => self.mapped_readings(batch, origin, found, &message, out),
            Err(malformed) => {
                let map = self.map_name(found);
                let malformed = MalformedByMap { map: &map, malformed: &malformed };
                self.publish_malformed(batch, origin, &malformed, out);
                MapOutcome::Malformed
            }
        };
        if let Some(status) = status {
            self.note_status(batch, origin, &status, out);
            self.end_message(origin, out);
        }
        if let Some(activity) = self.map_activities.get_mut(found.map) {
            activity.count(outcome, origin.arrival_ms, publish.topic);
        }
    }

    /// Applies the readings of a mapped message; returns what becomes of it.
    fn mapped_readings(
        &mut self,
        batch: &mut BatchContext<'_>,
        origin: &mut ReadingOrigin<'_>,
        found: MapMatch,
        message: &DecodedMessage<'_>,
        out: &mut dyn Collector,
    ) -> MapOutcome {
        let counts_repeats =
            self.map_settings(found).is_some_and(|settings| settings.retained == RetainedRepeats::Count);
        let retain = origin.publish.retain && !counts_repeats;
        self.note_clock(batch);
        let mut batch = batch.of_message();
        if retain && self.repeats_retained(&batch, origin, Some(message)) {
            self.check_redelivery(origin, message);
            if let Some(activity) = self.map_activities.get_mut(found.map) {
                activity.count_ignored(Ignored::Retained, message.entries.len() as u64);
            }
            return MapOutcome::Ignored;
        }
        origin.readings = message.max_readings();
        let redelivered = self.check_redelivery(origin, message);
        self.elements(&mut batch, origin, message, redelivered, out);
        self.end_message(origin, out);
        self.note_clock(&mut batch);
        if retain {
            self.remember_retained(&batch, origin, Some(message));
        }
        MapOutcome::Readings
    }

    /// Replays a message that a map takes. Returns the number of indexes of readings in the message; `None`: it is malformed.
    /// What maps remember is of live messages: it serves the replay and does not change. The status of a device is of the past.
    #[cold]
    pub(super) fn replay_mapped(
        &mut self,
        batch: &BatchContext<'_>,
        origin: &mut ReadingOrigin<'_>,
        wanted: &WantedReadings,
        rules: DecodeRules,
        out: &mut dyn Collector,
    ) -> Option<u32> {
        let (maps, (found, topic)) = (self.settings.rules.maps.clone()?, batch.map?);
        let mut memory = self.map_memory.clone();
        let mapped = maps.map(found, topic, origin.publish.payload, origin.first_arrival_ms(), &mut memory);
        let bits = self.map_settings(found).map_or(SequenceBits::Bits64, counter_width);
        let message = match mapped.map_err(MalformedMapped::Map).and_then(|mapped| to_decoded(mapped, bits, rules)) {
            Ok(message) => message,
            Err(malformed) => {
                let map = self.map_name(found);
                let malformed = MalformedByMap { map: &map, malformed: &malformed };
                self.reject_wanted(batch, origin, wanted, &malformed, out);
                return None;
            }
        };
        origin.readings = message.max_readings();
        Some(self.elements(&mut batch.of_message(), origin, &message, false, out))
    }

    fn map_settings(&self, found: MapMatch) -> Option<&MapSettings> {
        self.settings.current.maps.get(usize::from(found.map))
    }

    fn map_name(&self, found: MapMatch) -> String {
        self.map_settings(found).map(|settings| settings.name.clone()).unwrap_or_default()
    }
}

/// Width of the counters of the devices of a map.
fn counter_width(settings: &MapSettings) -> SequenceBits {
    match settings.seq_bits {
        Some(8) => SequenceBits::Bits8,
        Some(16) => SequenceBits::Bits16,
        Some(32) => SequenceBits::Bits32,
        _ => SequenceBits::Bits64,
    }
}

/// The message in the form of decoded ones.
fn to_decoded(
    mapped: MappedMessage<'_>,
    bits: SequenceBits,
    rules: DecodeRules,
) -> Result<DecodedMessage<'_>, MalformedMapped> {
    let count: usize = mapped.elements.iter().map(|element| element.readings.len()).sum();
    if count > rules.max_readings {
        return Err(MalformedMapped::Count(MalformedMessage::TooManyReadings(rules.max_readings)));
    }
    let mut entries = Vec::with_capacity(count);
    let mut elements = Vec::with_capacity(mapped.elements.len());
    for MappedElement { device, time, seq, boot, is_historical: _, readings } in mapped.elements {
        if readings.is_empty() {
            continue;
        }
        let start = entries.len();
        entries.extend(readings.into_iter().map(entry));
        elements.push(ElementFields::of_metrics(
            JsonToken::Text(device),
            time_token(time),
            seq.map_or(JsonToken::Absent, |seq| seq_token(seq, bits)),
            boot.map_or(JsonToken::Absent, JsonToken::Text),
            start..entries.len(),
        ));
    }
    Ok(DecodedMessage::of_elements(elements, entries))
}

fn entry(reading: MappedReading<'_>) -> MetricEntry<'_> {
    let refused = |value| JsonToken::Refused(Box::new(value));
    let value = match reading.value {
        MappedValue::Number(value) => JsonToken::Computed(value),
        MappedValue::Text(text) => JsonToken::Text(text),
        MappedValue::NameTwice(first, second) => refused(RefusedValue::NameTwice(first, second)),
        MappedValue::UnknownAlias(alias) => refused(RefusedValue::UnknownAlias(alias)),
        MappedValue::Malformed(what) => refused(RefusedValue::Malformed(what)),
    };
    MetricEntry { metric: reading.metric, value }
}

fn time_token(time: MappedTime<'_>) -> JsonToken<'_> {
    let refused = |text| JsonToken::Refused(Box::new(RefusedValue::Time(text)));
    match time {
        MappedTime::Arrival | MappedTime::NoClock => JsonToken::Absent,
        MappedTime::At(time_ms) if (MIN_MS..=MAX_MS).contains(&time_ms) => JsonToken::UnixMs(time_ms),
        MappedTime::At(time_ms) => refused(time_ms.to_string().into()),
        MappedTime::Invalid(text) => refused(text),
    }
}

/// A number beyond the width of its counter is none.
fn seq_token<'a>(seq: u64, bits: SequenceBits) -> JsonToken<'a> {
    if seq <= bits.largest() { JsonToken::Counted(seq, bits) } else { JsonToken::Computed(seq as f64) }
}
