//! What the records of a batch have in common, and where a reading comes from.

use crate::core::device::Slot;
use crate::core::formats::{MapMatch, TopicNames};
use crate::core::known_topics::TakenTopic;
use crate::core::record::PublishRecord;
use crate::core::replayed::WantedReadings;
use crate::core::topic::{TenantIndex, TopicKind};
use crate::core::validate::ValidationRules;

/// What is known from record to record of a batch.
#[derive(Debug)]
pub(super) struct BatchContext<'a> {
    /// Position of the current record.
    pub lsn: u64,
    /// Arrival time of the batch, or of the replayed message when it first came, Unix milliseconds.
    pub arrival_ms: i64,
    /// What the topic of the current message carries.
    pub kind: TopicKind,
    /// Device that the current message is from, unless its payload names one.
    pub topic_device: Option<&'a str>,
    /// Tenant that the current message is of. The ids of devices in the message are those that the tenant knows.
    pub tenant: Option<TenantIndex>,
    /// Whether `topic_device` comes from the client, which may speak for this device alone, and not from the topic.
    pub is_own: bool,
    /// The map that takes the current message, and the topic without the tenant's prefix.
    pub map: Option<(MapMatch, &'a str)>,
    /// The names that the topic says, where a map takes it whose messages are one value.
    pub names: Option<TopicNames<'a>>,
    /// User who published the current message, as its record says.
    pub user: Option<&'a str>,
    /// Device of the last reading, by the id that its tenant knows. Publishes come in runs of one device, so that most look-ups are saved.
    pub last_device: Option<(&'a str, Slot)>,
    /// As `last_device`, of messages that are one value. Such a device is heard from with each message.
    pub last_scalar_device: Option<(&'a str, Slot)>,
    /// Times that the last device states that states any.
    pub stated: Option<StatedTimes>,
    /// Devices with readings accepted from the current message: their watermarks move after it.
    pub moved: Vec<Slot>,
}

/// Event times that a device states in messages in a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct StatedTimes {
    /// The device.
    pub slot: Slot,
    /// The newest of the times that its clock does not know yet, Unix milliseconds.
    pub newest_ms: Option<i64>,
    /// Number of messages that its clock knows.
    pub noted: usize,
}

impl BatchContext<'_> {
    /// The context before the first record of a batch. `arrival_ms` is when the messages first arrived.
    pub fn new(first_lsn: u64, arrival_ms: i64) -> Self {
        Self {
            lsn: first_lsn,
            arrival_ms,
            kind: TopicKind::Telemetry,
            topic_device: None,
            tenant: None,
            is_own: false,
            map: None,
            names: None,
            user: None,
            last_device: None,
            last_scalar_device: None,
            stated: None,
            moved: Vec::new(),
        }
    }

    /// Forgets topic and device of the last message. They depend on settings, which have changed.
    pub fn forget_origin(&mut self) {
        let Self { lsn, arrival_ms, .. } = *self;
        *self = Self::new(lsn, arrival_ms);
    }
}

impl<'a> BatchContext<'a> {
    /// A context for one message whose text lives shorter than the records of the batch.
    pub fn of_message<'m>(&self) -> BatchContext<'m>
    where
        'a: 'm,
    {
        let Self { lsn, arrival_ms, kind, topic_device, tenant, is_own, map, user, last_device, .. } = *self;
        BatchContext {
            lsn,
            arrival_ms,
            kind,
            topic_device,
            tenant,
            is_own,
            map,
            names: None,
            user,
            last_device,
            last_scalar_device: None,
            stated: None,
            moved: Vec::new(),
        }
    }

    /// Forgets the devices of the last readings.
    pub fn forget_devices(&mut self) {
        (self.last_device, self.last_scalar_device) = (None, None);
    }

    /// Finds out what the topic of `publish` carries and which device it is from.
    #[inline]
    pub fn resolve(&mut self, rules: &mut ValidationRules, publish: &PublishRecord<'a>) {
        let resolved = rules.topics.resolve(publish.topic);
        if resolved.tenant != self.tenant {
            self.tenant = resolved.tenant;
            self.forget_devices();
        }
        (self.kind, self.topic_device) = (resolved.kind, resolved.device);
        self.is_own = self.topic_device.is_none() && publish.own_device.is_some();
        self.topic_device = self.topic_device.or(publish.own_device);
        (self.map, self.names) = match resolved.unmatched {
            Some(topic) => taken(rules, topic),
            None => (None, None),
        };
        self.user = publish.user;
    }
}

/// The map that takes `topic`, with the topic, and the names that it says.
#[inline(never)]
fn taken<'a>(rules: &mut ValidationRules, topic: &'a str) -> (Option<(MapMatch, &'a str)>, Option<TopicNames<'a>>) {
    match rules.maps.as_deref().and_then(|maps| rules.known_topics.find(maps, topic)) {
        Some(TakenTopic { found, names }) => (Some((found, topic)), names.and_then(|places| places.names(topic))),
        None => (None, None),
    }
}

/// Where a reading comes from.
#[derive(Clone, Copy)]
pub(super) struct ReadingOrigin<'a> {
    /// Journal position of the record.
    pub lsn: u64,
    /// Arrival time of the record's batch, Unix milliseconds.
    pub arrival_ms: i64,
    /// The message.
    pub publish: &'a PublishRecord<'a>,
    /// Tenant that the message is of.
    pub tenant: Option<TenantIndex>,
    /// Number of readings in the message, at most.
    pub readings: u32,
    /// Readings that a replay concerns; `None` unless the message is replayed.
    pub replay: Option<&'a WantedReadings>,
}

impl ReadingOrigin<'_> {
    /// When the message first arrived. A first arrival after the present one is of a wrong clock of the machine.
    #[inline]
    pub fn first_arrival_ms(&self) -> i64 {
        self.replay.map_or(self.arrival_ms, |wanted| wanted.arrival_ms.min(self.arrival_ms))
    }

    /// Whether the message is replayed and the reading with this index is not among the replayed ones.
    #[inline]
    pub fn passes_over(&self, index: u32) -> bool {
        self.replay.is_some_and(|wanted| !wanted.has(index))
    }
}
