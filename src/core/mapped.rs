//! Messages that a map takes: what the map makes of them goes the way of decoded messages.

use std::borrow::Cow;
use std::fmt;

use crate::core::batch::{BatchContext, ReadingOrigin};
use crate::core::decode::{DecodeRules, DecodedMessage, ElementFields, MalformedMessage, MessageElement, MetricEntry};
use crate::core::formats::{
    Ignored, KnownTopic, MapMatch, MapProblem, MapSettings, MappedElement, MappedMessage, MappedReading, MappedTime,
    MappedValue, Maps, RetainedRepeats, TopicNames,
};
use crate::core::json::{JsonToken, RefusedValue};
use crate::core::map_activity::MapOutcome;
use crate::core::operator::Operator;
use crate::core::output::Collector;
use crate::core::replayed::WantedReadings;
use crate::core::series_units::kept_unit;
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
    pub(super) fn publish_mapped<'a>(
        &mut self,
        batch: &mut BatchContext<'a>,
        origin: &mut ReadingOrigin<'_>,
        (found, topic): (MapMatch, &str),
        (message, payload): (&mut DecodedMessage<'a>, &'a [u8]),
        out: &mut dyn Collector,
    ) {
        let Some(maps) = self.settings.rules.maps.clone() else { return };
        let known = self.map_memory.known(origin.publish.topic, batch.topic_device);
        let outcome = match known.is_none().then(|| self.scalar(batch, found, &maps, (message, payload))).flatten() {
            Some(names) => self.publish_scalar(batch, origin, (found, names), message, out),
            None => self.publish_by_map(batch, origin, (found, topic, &maps, known), out),
        };
        if let Some(activity) = self.map_activities.get_mut(found.map) {
            activity.count(outcome, origin.arrival_ms, origin.publish.topic);
        }
    }

    /// Makes `message` of a payload that is one number, on a topic whose names are known. `None`: [`Operator::publish_by_map`] says
    /// what the payload gives.
    fn scalar<'a>(
        &mut self,
        batch: &BatchContext<'a>,
        found: MapMatch,
        maps: &Maps,
        (message, payload): (&mut DecodedMessage<'a>, &'a [u8]),
    ) -> Option<TopicNames<'a>> {
        let names = batch.names.filter(|_| self.settings.current.max_readings_per_message > 0)?;
        let (number, unit) = maps.scalar_number(found, names.key, payload)?;
        let mut units = MessageUnits::default();
        message.put_reading(names.device, names.metric, number_token(number, unit, &mut units));
        self.share_units(&units);
        Some(names)
    }

    /// Applies a publish that is one number, which is in `message`.
    fn publish_scalar<'a>(
        &mut self,
        batch: &mut BatchContext<'a>,
        origin: &mut ReadingOrigin<'_>,
        (found, names): (MapMatch, TopicNames<'_>),
        message: &DecodedMessage<'a>,
        out: &mut dyn Collector,
    ) -> MapOutcome {
        self.map_activities.note_readings(found.map, origin.publish.topic, names.device, origin.arrival_ms);
        self.note_clock(batch);
        let before = batch.last_device;
        let outcome = self.mapped_readings(batch, origin, found, message, out);
        self.work.units.clear();
        if batch.last_device != before {
            batch.last_scalar_device = std::mem::replace(&mut batch.last_device, before);
        }
        outcome
    }

    /// Applies one publish by all that its map says.
    fn publish_by_map(
        &mut self,
        batch: &mut BatchContext<'_>,
        origin: &mut ReadingOrigin<'_>,
        (found, topic, maps, known): (MapMatch, &str, &Maps, KnownTopic),
        out: &mut dyn Collector,
    ) -> MapOutcome {
        let (publish, rules) = (*origin.publish, DecodeRules::of(&self.settings.current));
        let prefix = self.tenant_prefix(origin);
        self.map_memory.enter(&prefix, self.settings.current.max_metrics_per_device);
        let memory = &mut self.map_memory;
        let mut mapped = maps.map_known(found, topic, publish.payload, origin.arrival_ms, known, memory);
        let (announcements, about) = match &mut mapped {
            Ok(mapped) => (std::mem::take(&mut mapped.announcements), std::mem::take(&mut mapped.about)),
            Err(_) => (Vec::new(), Vec::new()),
        };
        let status = mapped.as_mut().ok().and_then(|mapped| mapped.status.take());
        let offline = mapped.as_mut().map(|mapped| std::mem::take(&mut mapped.offline)).unwrap_or_default();
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
            Ok((message, _)) if message.is_empty() && (status.is_some() || !announcements.is_empty()) => {
                MapOutcome::Status
            }
            Ok((message, _)) if message.is_empty() => MapOutcome::Ignored,
            Ok((message, units)) => {
                self.share_units(&units);
                self.note_clock(batch);
                let mut batch = batch.of_message();
                let outcome = self.mapped_readings(&mut batch, origin, found, &message, out);
                self.note_clock(&mut batch);
                self.work.units.clear();
                outcome
            }
            Err(malformed) => {
                let map = self.map_name(found);
                let malformed = MalformedByMap { map: &map, malformed: &malformed };
                self.publish_malformed(batch, origin, &malformed, out);
                MapOutcome::Malformed
            }
        };
        for (device, about) in about.iter().filter(|_| outcome == MapOutcome::Readings) {
            self.note_about_of(batch, device, about);
        }
        self.note_announcements(batch, &announcements);
        if let Some(status) = status {
            self.note_status(batch, origin, &status, out);
            self.end_message(origin, out);
        }
        for device in offline {
            self.note_offline(batch, origin, &device);
        }
        outcome
    }

    /// Notes the units of the message at hand.
    fn share_units(&mut self, units: &MessageUnits<'_>) {
        self.work.units.extend(units.0.iter().map(|unit| self.series.units.share(unit)));
    }

    /// Applies the readings of a mapped message; returns what becomes of it.
    fn mapped_readings<'a>(
        &mut self,
        batch: &mut BatchContext<'a>,
        origin: &mut ReadingOrigin<'_>,
        found: MapMatch,
        message: &DecodedMessage<'a>,
        out: &mut dyn Collector,
    ) -> MapOutcome {
        let counts_repeats =
            self.map_settings(found).is_some_and(|settings| settings.retained == RetainedRepeats::Count);
        let retain = origin.publish.retain && !counts_repeats;
        if retain && self.repeats_retained(batch, origin, Some(message)) {
            self.check_redelivery(origin, message);
            if let Some(activity) = self.map_activities.get_mut(found.map) {
                activity.count_ignored(Ignored::Retained, message.entries.len() as u64);
            }
            return MapOutcome::Ignored;
        }
        origin.readings = message.max_readings();
        let redelivered = self.check_redelivery(origin, message);
        self.elements(batch, origin, message, redelivered, out);
        self.end_message(origin, out);
        if retain {
            self.remember_retained(batch, origin, Some(message));
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
        memory.enter(&self.tenant_prefix(origin), self.settings.current.max_metrics_per_device);
        let mut mapped = maps.map(found, topic, origin.publish.payload, origin.first_arrival_ms(), &mut memory);
        if let Ok(mapped) = &mut mapped {
            mapped.elements.iter_mut().for_each(forget_position);
        }
        let bits = self.map_settings(found).map_or(SequenceBits::Bits64, counter_width);
        let message = match mapped.map_err(MalformedMapped::Map).and_then(|mapped| to_decoded(mapped, bits, rules)) {
            Ok((message, _)) => message,
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

    /// Prefix of the topics of the tenant that a message is of; empty: it is of the box itself.
    fn tenant_prefix(&self, origin: &ReadingOrigin<'_>) -> Box<str> {
        let tenant = origin.tenant.and_then(|tenant| self.settings.rules.topics.tenant(tenant));
        tenant.map_or_else(Box::default, |tenant| tenant.prefix.as_str().into())
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

/// Units of the readings of a message, without those that are none.
#[derive(Debug, Default)]
struct MessageUnits<'a>(Vec<Cow<'a, str>>);

/// Units of a message with which the next one is compared. A message with more has some twice.
const COMPARED_UNITS: usize = 16;

impl<'a> MessageUnits<'a> {
    /// Index of a unit, which is new or not; `None`: it is none.
    fn index(&mut self, unit: Cow<'a, str>) -> Option<u16> {
        let unit = match unit {
            Cow::Borrowed(unit) => Cow::Borrowed(kept_unit(unit)?),
            Cow::Owned(unit) => Cow::Owned(kept_unit(&unit)?.to_owned()),
        };
        let known = self.0.iter().rev().take(COMPARED_UNITS).position(|known| *known == unit);
        let index = match known {
            Some(back) => self.0.len() - 1 - back,
            None => {
                self.0.push(unit);
                self.0.len() - 1
            }
        };
        u16::try_from(index).ok()
    }
}

/// The message in the form of decoded ones, and the units of its readings.
fn to_decoded(
    mapped: MappedMessage<'_>,
    bits: SequenceBits,
    rules: DecodeRules,
) -> Result<(DecodedMessage<'_>, MessageUnits<'_>), MalformedMapped> {
    let counts = || mapped.elements.iter().map(|element| element.readings.len());
    let count: usize = counts().sum();
    if count > rules.max_readings {
        return Err(MalformedMapped::Count(MalformedMessage::TooManyReadings(rules.max_readings)));
    }
    let is_single = counts().filter(|&readings| readings > 0).count() == 1;
    let mut units = MessageUnits::default();
    let mut message = DecodedMessage::of_entries(Vec::with_capacity(count));
    for MappedElement { device, time, seq, position, boot, is_historical: _, readings } in mapped.elements {
        if readings.is_empty() {
            continue;
        }
        let start = message.entries.len();
        message.entries.extend(readings.into_iter().map(|reading| entry(reading, &mut units)));
        let element = ElementFields::of_metrics(
            JsonToken::Text(device),
            time_token(time),
            position.map_or_else(
                || seq.map_or(JsonToken::Absent, |seq| seq_token(seq, bits)),
                |position| JsonToken::Counted(position, SequenceBits::Shared),
            ),
            boot.map_or(JsonToken::Absent, JsonToken::Text),
            start..message.entries.len(),
        );
        if is_single {
            message.set_single(element);
        } else {
            message.elements.push(MessageElement::Object(element));
        }
    }
    Ok((message, units))
}

fn entry<'a>(reading: MappedReading<'a>, units: &mut MessageUnits<'a>) -> MetricEntry<'a> {
    let refused = |value| JsonToken::Refused(Box::new(value));
    let value = match reading.value {
        MappedValue::Number(value) => number_token(value, reading.unit, units),
        MappedValue::Text(text) => JsonToken::Text(text),
        MappedValue::NameTwice(first, second) => refused(RefusedValue::NameTwice(first, second)),
        MappedValue::UnknownAlias(alias) => refused(RefusedValue::UnknownAlias(alias)),
        MappedValue::Malformed(what) => refused(RefusedValue::Malformed(what)),
    };
    MetricEntry { metric: reading.metric, value }
}

fn number_token<'t, 'a>(value: f64, unit: Option<Cow<'a, str>>, units: &mut MessageUnits<'a>) -> JsonToken<'t> {
    match unit.and_then(|unit| units.index(unit)) {
        Some(unit) => JsonToken::Measured(value, unit),
        None => JsonToken::Computed(value),
    }
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

/// The numbers of an edge node go on meanwhile, so that the place of a message of the past among them is not known: its readings are
/// replayed as such without a number.
fn forget_position(element: &mut MappedElement<'_>) {
    if element.position.take().is_some() {
        (element.seq, element.boot) = (None, None);
    }
}

/// A number beyond the width of its counter is none.
fn seq_token<'a>(seq: u64, bits: SequenceBits) -> JsonToken<'a> {
    if seq <= bits.largest() { JsonToken::Counted(seq, bits) } else { JsonToken::Computed(seq as f64) }
}
