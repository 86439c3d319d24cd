//! From a publish to checked readings: decoding, MQTT redelivery, device, deduplication.
//!
//! Checks of values are in `validate`; what happens to a checked reading is in `assign` and `side_output`.

use std::borrow::Cow;
use std::fmt;

use crate::core::batch::{BatchContext, ReadingOrigin, StatedTimes};
use crate::core::client::{self, ClientKey, RememberedClient};
use crate::core::decode::{
    DecodeRules, DecodedMessage, ElementFields, MalformedMessage, MessageElement, MetricEntry, MetricsField,
    RecoveredText,
};
use crate::core::device::Slot;
use crate::core::device_clock;
use crate::core::digest::element_digest;
use crate::core::event_time;
use crate::core::group::key_group;
use crate::core::json::JsonToken;
use crate::core::notes::DeviceNote;
use crate::core::operator::Operator;
use crate::core::output::Collector;
use crate::core::owners::DeviceLimit;
use crate::core::problem::ReadingProblem;
use crate::core::reason::Reason;
use crate::core::record::PublishRecord;
use crate::core::replayed::SeqOwner;
use crate::core::sequences::NumberedElement;
use crate::core::topic::TopicKind;
use crate::core::user::RecordedUser;
use crate::core::validate;
use crate::defects::{self, Defect};

/// Results of the checks of an element, which all its readings share.
pub(super) struct Checked<'m> {
    /// Device of the element, where it is known, by the id that its tenant knows.
    pub device_id: Option<&'m str>,
    /// State of the device; `None` if there is none and no room for one.
    pub slot: Option<Slot>,
    /// The limit at which there is no room, where there is no other reason for having no state.
    pub no_room: DeviceLimit,
    /// First check that failed.
    pub problem: Option<ReadingProblem<'m>>,
    /// Why the readings of the element were counted before, if they were.
    pub duplicate: Option<ReadingProblem<'m>>,
    /// Event time of the element, Unix milliseconds.
    pub time_ms: i64,
    /// Whether the payload states the time; else it is the arrival time.
    pub states_time: bool,
}

/// Event time of an element, for deduplication.
#[derive(Clone, Copy)]
pub(super) struct ElementTime {
    /// Event time, Unix milliseconds.
    pub ms: i64,
    /// Whether the payload states the time; else it is the arrival time.
    pub stated: bool,
}

/// What tells whether an element was counted before, besides its content.
struct ElementIdentity {
    /// Its sequence number.
    seq: Option<u64>,
    /// Hash of its `boot` field.
    boot: Option<u64>,
    /// Its event time; `None` where the element has a problem.
    time: Option<ElementTime>,
    /// Whether MQTT says that the message was sent before, or the message is replayed.
    dup: bool,
    /// Whether it is a fault.
    is_fault: bool,
}

impl Operator {
    /// Applies one publish.
    pub(super) fn publish<'a>(
        &mut self,
        batch: &mut BatchContext<'a>,
        message: &mut DecodedMessage<'a>,
        publish: PublishRecord<'a>,
        same_origin: bool,
        out: &mut dyn Collector,
    ) {
        self.totals.messages += 1;
        self.note_processed(batch.lsn);
        if !same_origin {
            batch.resolve(&mut self.settings.rules, &publish);
        }
        let (lsn, arrival_ms) = (batch.lsn, batch.arrival_ms);
        let tenant = batch.tenant;
        let mut origin = ReadingOrigin { lsn, arrival_ms, publish: &publish, tenant, readings: 1, replay: None };
        if let Some(taken) = batch.map {
            return self.publish_mapped(batch, &mut origin, taken, (message, publish.payload), out);
        }
        match message.decode(publish.payload, DecodeRules::of(&self.settings.current)) {
            Ok(()) => self.publish_decoded(batch, &mut origin, message, out),
            Err(malformed) => self.publish_unusual(batch, &mut origin, malformed, out),
        }
    }

    /// Applies one publish whose payload is decoded.
    #[inline]
    fn publish_decoded<'a>(
        &mut self,
        batch: &mut BatchContext<'a>,
        origin: &mut ReadingOrigin<'_>,
        message: &DecodedMessage<'a>,
        out: &mut dyn Collector,
    ) {
        let retain = origin.publish.retain;
        if retain && self.repeats_retained(batch, origin, Some(message)) {
            // Should the acknowledgement be lost, the message may come again when its client is connected for longer.
            self.check_redelivery(origin, message);
            return;
        }
        origin.readings = message.max_readings();
        let redelivered = self.check_redelivery(origin, message);
        self.elements(batch, origin, message, redelivered, out);
        self.end_message(origin, out);
        if retain {
            self.remember_retained(batch, origin, Some(message));
        }
    }

    /// Applies one publish whose payload cannot be decoded as it came.
    #[cold]
    fn publish_unusual(
        &mut self,
        batch: &mut BatchContext<'_>,
        origin: &mut ReadingOrigin<'_>,
        malformed: MalformedMessage,
        out: &mut dyn Collector,
    ) {
        let PublishRecord { payload, retain, .. } = *origin.publish;
        let rules = DecodeRules::of(&self.settings.current);
        if payload.is_empty() && retain && rules.lenient {
            self.totals.topics_cleared += 1;
            self.remember_retained(batch, origin, None);
            return;
        }
        match RecoveredText::of(payload, rules, malformed) {
            Err(malformed) => self.publish_malformed(batch, origin, &malformed, out),
            Ok(recovered) => {
                let mut message = DecodedMessage::default();
                match recovered.decode(&mut message, rules) {
                    Err(malformed) => self.publish_malformed(batch, origin, &malformed, out),
                    Ok(()) => {
                        self.note_clock(batch);
                        let mut batch = batch.of_message();
                        self.publish_decoded(&mut batch, origin, &message, out);
                        self.note_clock(&mut batch);
                    }
                }
            }
        }
    }

    /// Rejects one publish as a whole.
    pub(super) fn publish_malformed(
        &mut self,
        batch: &BatchContext<'_>,
        origin: &ReadingOrigin<'_>,
        malformed: &dyn fmt::Display,
        out: &mut dyn Collector,
    ) {
        let retain = origin.publish.retain;
        if retain && self.repeats_retained(batch, origin, None) {
            return;
        }
        self.reject_message(batch, origin, None, malformed, out);
        self.end_message(origin, out);
        if retain {
            self.remember_retained(batch, origin, None);
        }
    }

    /// Processes the elements of a decoded message; of a replayed message, those that the replay concerns. Returns the
    /// number of indexes of readings in the message.
    #[inline]
    pub(super) fn elements<'a>(
        &mut self,
        batch: &mut BatchContext<'a>,
        origin: &ReadingOrigin<'_>,
        message: &DecodedMessage<'a>,
        redelivered: bool,
        out: &mut dyn Collector,
    ) -> u32 {
        let mut index = 0;
        if let Some(fields) = message.single() {
            self.element(batch, origin, message, fields, redelivered, &mut index, out);
        }
        for element in &message.elements {
            match element {
                MessageElement::Object(fields) => {
                    self.element(batch, origin, message, fields, redelivered, &mut index, out);
                }
                MessageElement::Other(kind) => {
                    if !origin.passes_over(index) {
                        self.totals.received += 1;
                        self.reject(origin, index, None, (None, None), ReadingProblem::NotAnObject(kind), out);
                    }
                    index += 1;
                }
            }
        }
        self.note_clock_of_message(batch);
        if !batch.moved.is_empty() {
            self.advance(&batch.moved, out);
            batch.moved.clear();
        }
        if !self.work.crowded.is_empty() {
            self.make_room(out);
        }
        index
    }

    /// Whether MQTT delivers the message again, for messages without sequence numbers. A message is known by user, client,
    /// packet id, topic and payload, and only counts as redelivered with the DUP flag [MQTT-3.3.1-1]: a client may
    /// publish the same payload twice under the same packet id once the first is acknowledged.
    #[inline]
    pub(super) fn check_redelivery(&mut self, origin: &ReadingOrigin<'_>, message: &DecodedMessage<'_>) -> bool {
        let ignores = defects::is(Defect::IgnoreRedelivery);
        if origin.publish.qos == 0 || !self.settings.current.dedup || ignores || self.is_numbered(message) {
            return false;
        }
        self.note_delivery(origin)
    }

    /// As [`Operator::check_redelivery`], of a message without sequence numbers.
    #[inline(never)]
    fn note_delivery(&mut self, origin: &ReadingOrigin<'_>) -> bool {
        let PublishRecord { client_id, user, topic, packet_id, payload, dup, .. } = *origin.publish;
        let identity = client::identity(packet_id, topic, payload);
        let user = RecordedUser::of(user, self.settings.current.records_name_users);
        let key = ClientKey { id: client_id, user };
        let known = self.clients.find(key);
        if dup {
            // The first delivery may be in the journal without its user.
            let published = [known, self.clients.find(key.without_user())].into_iter().flatten();
            if let Some(slot) = published.into_iter().find(|&slot| self.clients.has_published(slot, identity)) {
                self.about_to_change(self.clients.get(slot).map_or(0, |client| client.group));
                self.clients.note_redelivery(slot, self.clocks.journal.now_ms);
                return true;
            }
        }
        let slot = known.unwrap_or_else(|| self.add_client(key));
        self.about_to_change(self.clients.get(slot).map_or(0, |client| client.group));
        self.clients.remember(slot, identity, origin.lsn, self.clocks.journal.now_ms);
        false
    }

    /// Whether sequence numbers tell whether the readings of a message were counted before.
    #[inline]
    fn is_numbered(&self, message: &DecodedMessage<'_>) -> bool {
        match self.settings.current.has_field_rules() {
            true => message.all_have_sequence(|token| self.sequence(token).is_ok_and(|seq| seq.is_some())),
            false => message.has_sequence(),
        }
    }

    /// Adds a client. Where there are too many, the half with the oldest messages is forgotten first.
    fn add_client(&mut self, key: ClientKey<'_>) -> Slot {
        if self.clients.len() >= self.settings.current.max_devices.max(1) {
            for slot in self.clients.oldest_half() {
                let group = self.clients.get(slot).map_or(0, |client| client.group);
                self.about_to_change(group);
                self.groups.get_mut(group).clients.retain(|&other| other != slot);
                self.clients.remove(slot);
            }
        }
        let group = key_group(key.id);
        self.about_to_change(group);
        self.insert_client(RememberedClient::new(key, group))
    }

    /// Adds a client to the table of all and to its key group.
    pub(super) fn insert_client(&mut self, client: RememberedClient) -> Slot {
        let group = client.group;
        let slot = self.clients.insert(client);
        let key = |slot: Slot| self.clients.get(slot).map_or(ClientKey::default(), RememberedClient::key);
        let members = &mut self.groups.get_mut(group).clients;
        let at = members.partition_point(|&other| key(other) < key(slot));
        members.insert(at, slot);
        slot
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one message, borrowed apart from each other")]
    #[inline]
    fn element<'a>(
        &mut self,
        batch: &mut BatchContext<'a>,
        origin: &ReadingOrigin<'_>,
        message: &DecodedMessage<'a>,
        fields: &ElementFields<'a>,
        redelivered: bool,
        index: &mut u32,
        out: &mut dyn Collector,
    ) {
        let is_fault = batch.kind == TopicKind::Errors || fields.error.is_some() && !self.is_beside_reading(fields);
        let error = fields.error.as_deref().filter(|error| !is_fault && validate::tells_fault(error));
        let mut seq_owner = SeqOwner::Any;
        if let Some(wanted) = origin.replay {
            let readings = *index..index.saturating_add(fields.indexes(is_fault));
            if !wanted.has_any(&readings) {
                *index = readings.end.saturating_add(u32::from(error.is_some()));
                return;
            }
            seq_owner = self.seq_owner(wanted, readings);
        }
        let checked = self.check(batch, origin, fields, &message.entries, is_fault, redelivered, seq_owner);
        if is_fault {
            self.fault(origin, *index, &checked, fields, out);
            *index += 1;
            return;
        }
        self.readings(batch, origin, message, fields, &checked, index, out);
        if let Some(error) = error {
            self.fault_beside(origin, *index, &checked, fields, error, out);
            *index += 1;
        }
    }

    /// Counts or rejects the readings of an element that is no fault.
    #[expect(clippy::too_many_arguments, reason = "the parts of one message, borrowed apart from each other")]
    #[inline]
    fn readings<'a>(
        &mut self,
        batch: &mut BatchContext<'a>,
        origin: &ReadingOrigin<'_>,
        message: &DecodedMessage<'a>,
        fields: &ElementFields<'a>,
        checked: &Checked<'_>,
        index: &mut u32,
        out: &mut dyn Collector,
    ) {
        let range = match &fields.metrics {
            MetricsField::Absent => {
                self.reading(
                    batch,
                    origin,
                    *index,
                    checked,
                    validate::metric_field(&fields.metric),
                    &fields.value,
                    out,
                );
                *index += 1;
                return;
            }
            MetricsField::Entries(range) if range.is_empty() => Err(ReadingProblem::EmptyMetrics),
            MetricsField::Entries(_) if !(fields.metric.is_none() && fields.value.is_none()) => {
                Err(ReadingProblem::TwoForms)
            }
            MetricsField::Entries(range) => Ok(range.clone()),
            MetricsField::NotAnObject(found) => Err(ReadingProblem::WrongType {
                field: "metrics",
                found,
                wanted: "an object of metric names and values",
            }),
        };
        match range {
            Ok(range) => {
                for entry in message.entries.get(range).unwrap_or_default() {
                    if !origin.passes_over(*index) {
                        self.reading(batch, origin, *index, checked, Ok(entry.metric.as_ref()), &entry.value, out);
                    }
                    *index += 1;
                }
            }
            Err(problem) => {
                self.reading(batch, origin, *index, checked, Err(problem), &JsonToken::Absent, out);
                *index += 1;
            }
        }
    }

    /// Makes the checks of an element as a whole, and notes the element in the state of its device.
    #[expect(clippy::too_many_arguments, reason = "the parts of one message, borrowed apart from each other")]
    #[inline]
    fn check<'a: 'm, 'm>(
        &mut self,
        batch: &mut BatchContext<'a>,
        origin: &ReadingOrigin<'_>,
        fields: &'m ElementFields<'a>,
        entries: &[MetricEntry<'a>],
        is_fault: bool,
        redelivered: bool,
        seq_owner: SeqOwner<'_>,
    ) -> Checked<'m> {
        let mut problem = None;
        let mut no_room = DeviceLimit::All(self.settings.current.max_devices);
        let named = validate::device_id_field(&fields.device_id);
        let (device_id, slot) = match named {
            Err(wrong) => {
                problem = Some(wrong);
                (None, None)
            }
            Ok(payload) => match batch.last_device {
                Some((id, slot)) if names_only(id, batch.topic_device, payload) => (Some(id), Some(slot)),
                _ => self.identify(batch, fields, payload, &mut problem, &mut no_room),
            },
        };
        let unknown = problem.take_if(|problem| problem.reason() == Reason::UnknownDevice);
        let seq = match self.sequence(&fields.seq) {
            Ok(seq) => seq,
            Err(_) if self.settings.current.has_field_rules() => {
                self.note_invalid_sequence(slot.filter(|_| origin.replay.is_none()))
            }
            Err(wrong) => note(&mut problem, wrong),
        };
        let boot = validate::boot(&fields.boot).unwrap_or_else(|wrong| note(&mut problem, wrong));
        let (now_ms, first_ms) = (origin.arrival_ms, origin.first_arrival_ms());
        let time = event_time::event_time(fields, &self.settings.current, &self.settings.rules, now_ms, first_ms);
        let stated = match time {
            Ok(stated) => stated,
            Err(_) if is_fault => None,
            Err(wrong) => note(&mut problem, wrong),
        };
        let problem = if problem.is_some() || unknown.is_some() { first_failure(problem, unknown) } else { None };
        let time = ElementTime { ms: stated.unwrap_or(origin.first_arrival_ms()), stated: stated.is_some() };
        let identity = ElementIdentity {
            seq,
            boot,
            time: problem.is_none().then_some(time),
            // A replay is of the past, as a message with DUP is.
            dup: origin.publish.dup || origin.replay.is_some(),
            is_fault,
        };
        let seq_owner = origin.replay.map(|_| seq_owner);
        let duplicate = slot.and_then(|slot| self.counted_before(slot, &identity, fields, entries, seq_owner));
        let redelivered =
            (redelivered && seq.is_none()).then_some(ReadingProblem::DuplicateMessage(origin.publish.packet_id));
        let duplicate = duplicate.or(redelivered);
        if let Some(slot) = slot
            && stated.is_some()
            && fields.stated_other_time().is_some()
            && fields.timestamp.is_none()
        {
            self.note_device(slot, DeviceNote::OtherTimeField);
        }
        if origin.replay.is_none()
            && !is_fault
            && duplicate.is_none()
            && let Some(slot) = slot
            && let Some(ms) = stated.or_else(|| problem.as_ref().and_then(ReadingProblem::stated_time_ms))
        {
            self.note_stated(batch, slot, ms);
        }
        let (time_ms, states_time) = (time.ms, time.stated);
        Checked { device_id, slot, no_room, problem, duplicate, time_ms, states_time }
    }

    /// Why the readings of an element were counted before, by its sequence number, if they were. `replayed` is for an element that
    /// is replayed.
    #[inline]
    fn counted_before<'m>(
        &mut self,
        slot: Slot,
        identity: &ElementIdentity,
        fields: &ElementFields<'_>,
        entries: &[MetricEntry<'_>],
        replayed: Option<SeqOwner<'_>>,
    ) -> Option<ReadingProblem<'m>> {
        if !self.settings.current.dedup || defects::is(Defect::IgnoreSequences) {
            return None;
        }
        let ElementIdentity { seq, boot, time, dup, is_fault } = *identity;
        if !self.settings.current.has_field_rules() {
            return match replayed {
                None => self.deduplicate_by_numbers(slot, seq, boot, time, dup, is_fault),
                Some(owner) => self.deduplicate_replayed_by_numbers(owner, slot, seq, boot, time),
            };
        }
        let digest = seq.map_or(0, |_| element_digest(fields, entries));
        let bits = match fields.seq {
            JsonToken::Counted(_, bits) => bits,
            _ => self.settings.current.sequence_bits,
        };
        let element = NumberedElement { seq: seq.unwrap_or(0), bits, digest, time, dup, is_fault };
        let numbered = seq.map(|_| &element);
        match replayed {
            None => self.deduplicate(slot, numbered, boot),
            Some(owner) => self.deduplicate_replayed(owner, slot, numbered, boot),
        }
    }

    /// Notes the event time that an element states.
    #[inline]
    fn note_stated(&mut self, batch: &mut BatchContext<'_>, slot: Slot, ms: i64) {
        match &mut batch.stated {
            Some(stated) if stated.slot == slot => stated.newest_ms = stated.newest_ms.max(Some(ms)),
            _ => {
                self.note_clock(batch);
                batch.stated = Some(StatedTimes { slot, newest_ms: Some(ms), noted: 0 });
            }
        }
    }

    /// Notes the newest time that a message states in the clock of its device. Of messages in a row in one batch the first ones are
    /// noted each, and the others together, with [`Operator::note_clock`].
    #[inline]
    fn note_clock_of_message(&mut self, batch: &mut BatchContext<'_>) {
        if batch.stated.is_some_and(|stated| stated.noted < device_clock::RECENT) {
            self.note_clock(batch);
        }
    }

    /// Notes the newest time of messages in a row that their device's clock does not know yet.
    pub(super) fn note_clock(&mut self, batch: &mut BatchContext<'_>) {
        if let Some(stated) = &mut batch.stated
            && let Some(newest_ms) = stated.newest_ms.take()
        {
            stated.noted += 1;
            self.devices[stated.slot].clock.note(newest_ms, batch.arrival_ms);
        }
    }

    /// Finds the device of an element that is not from the device of the element before, and its state; creates the state
    /// if there is room.
    fn identify<'a: 'm, 'm>(
        &mut self,
        batch: &mut BatchContext<'a>,
        fields: &'m ElementFields<'a>,
        payload: Option<&'m str>,
        problem: &mut Option<ReadingProblem<'m>>,
        no_room: &mut DeviceLimit,
    ) -> (Option<&'m str>, Option<Slot>) {
        // The id of a known device was checked when the device was created.
        let named = payload.or(batch.topic_device).filter(|id| names_only(id, batch.topic_device, payload));
        let known = match (named, batch.last_scalar_device) {
            (Some(id), Some((last, slot))) if id == last => Some((id, slot)),
            (named, _) => named.and_then(|id| self.find_device(batch.tenant, id).map(|slot| (id, slot))),
        };
        let id = match known.map_or_else(|| validate::device_id(batch.topic_device, payload), |(id, _)| Ok(id)) {
            Ok(id) => id,
            Err(wrong) => {
                *problem = Some(match wrong {
                    ReadingProblem::DeviceMismatch { topic, payload } if batch.is_own => {
                        ReadingProblem::NotOwnDevice { own: topic, payload }
                    }
                    wrong => wrong,
                });
                return (batch.topic_device.filter(|id| validate::is_device_id(id)), None);
            }
        };
        if !self.may_send(batch.tenant, id) {
            *problem = Some(ReadingProblem::UnknownDevice(id));
            return (Some(id), None);
        }
        let created = || self.create(batch.tenant, id, batch.user).map_err(|limit| *no_room = limit).ok();
        let slot = known.map(|(_, slot)| slot).or_else(created);
        if let Some(slot) = slot {
            self.hear_from(slot);
            // An id with escapes is unescaped into the message's own memory and does not outlive the message.
            let lasting = match &fields.device_id {
                JsonToken::Text(Cow::Borrowed(id)) => Some(*id),
                _ => batch.topic_device,
            };
            batch.last_device = lasting.map(|id| (id, slot));
        }
        (Some(id), slot)
    }

    /// Notes that something arrived from a device.
    fn hear_from(&mut self, slot: Slot) {
        self.about_to_change(self.devices[slot].group);
        if self.per_device() {
            self.settle(slot);
        }
        if self.settings.current.backlog {
            self.note_return(slot);
        }
        let (now_ms, awake_ms) = (self.clocks.journal.now_ms, self.clocks.journal.awake_ms());
        let device = &mut self.devices[slot];
        if device.note_arrival(now_ms, awake_ms) {
            self.clocks.global.last_arrival_ms = now_ms;
        }
    }

    /// Whether an `error` field stands beside a reading, and does not make it a fault.
    #[cold]
    fn is_beside_reading(&self, fields: &ElementFields<'_>) -> bool {
        self.settings.current.has_field_rules() && fields.has_reading()
    }

    /// Tells the fault in an `error` field that stands beside readings. Its index is behind theirs. A replay of a reading does
    /// not tell it again.
    #[cold]
    fn fault_beside(
        &mut self,
        origin: &ReadingOrigin<'_>,
        index: u32,
        checked: &Checked<'_>,
        fields: &ElementFields<'_>,
        error: &str,
        out: &mut dyn Collector,
    ) {
        if checked.slot.is_none() || checked.duplicate.is_some() || origin.passes_over(index) {
            return;
        }
        self.totals.received += 1;
        let metric = validate::metric_field(&fields.metric).ok().filter(|metric| validate::is_metric(metric));
        let problem = ReadingProblem::Fault(Some(error));
        self.reject(origin, index, checked.slot, (checked.device_id, metric), problem, out);
    }

    fn fault(
        &mut self,
        origin: &ReadingOrigin<'_>,
        index: u32,
        checked: &Checked<'_>,
        fields: &ElementFields<'_>,
        out: &mut dyn Collector,
    ) {
        self.totals.received += 1;
        let full = checked.slot.is_none().then_some(ReadingProblem::TooManyDevices(checked.no_room));
        let fault = ReadingProblem::Fault(fields.error.as_deref());
        let problem = checked.problem.or(checked.duplicate).or(full).unwrap_or(fault);
        let metric = validate::metric_field(&fields.metric).ok().filter(|metric| validate::is_metric(metric));
        self.reject(origin, index, checked.slot, (checked.device_id, metric), problem, out);
    }
}

/// Whether topic and payload name the device `id`: at least one of them, and neither another one.
#[inline]
fn names_only(id: &str, topic: Option<&str>, payload: Option<&str>) -> bool {
    match (topic, payload) {
        (Some(topic), Some(payload)) => payload == id && topic == id,
        (Some(named), None) | (None, Some(named)) => named == id,
        (None, None) => false,
    }
}

/// The failure whose check comes first. Reasons are in the order of checks.
#[inline]
pub(super) fn first_failure<'m>(
    a: Option<ReadingProblem<'m>>,
    b: Option<ReadingProblem<'m>>,
) -> Option<ReadingProblem<'m>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.reason() < a.reason() { b } else { a }),
        (a, b) => a.or(b),
    }
}

/// Keeps `problem` unless the one found so far is checked earlier.
#[cold]
fn note<'m, T>(found: &mut Option<ReadingProblem<'m>>, problem: ReadingProblem<'m>) -> Option<T> {
    *found = first_failure(found.take(), Some(problem));
    None
}
