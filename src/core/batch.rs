//! What the operator knows while it goes through the records of a batch.

use crate::core::device::Slot;
use crate::core::record::PublishRecord;
use crate::core::replayed::WantedReadings;
use crate::core::topic::{TopicKind, Topics};

/// What the records of one batch share.
#[derive(Debug)]
pub(super) struct BatchContext<'a> {
    /// Position of the current record.
    pub lsn: u64,
    pub arrival_ms: i64,
    /// What the current topic carries, and the device that it names.
    pub kind: TopicKind,
    pub topic_device: Option<&'a str>,
    /// Whether `topic_device` is not the topic's, which names none, but the only one that the client may speak for.
    pub is_own: bool,
    /// The device of the last reading: publishes come in runs of one device.
    pub last_device: Option<(&'a str, Slot)>,
    /// Devices with readings accepted from the current message.
    pub moved: Vec<Slot>,
}

impl BatchContext<'_> {
    /// A batch before its first record. `arrival_ms`: when its messages first arrived.
    pub fn new(first_lsn: u64, arrival_ms: i64) -> Self {
        Self {
            lsn: first_lsn,
            arrival_ms,
            kind: TopicKind::Telemetry,
            topic_device: None,
            is_own: false,
            last_device: None,
            moved: Vec::new(),
        }
    }

    /// Settings changed: what was found out about topics and devices may no longer hold.
    pub fn forget_origin(&mut self) {
        let Self { lsn, arrival_ms, .. } = *self;
        *self = Self::new(lsn, arrival_ms);
    }
}

impl<'a> BatchContext<'a> {
    /// Looks up what the topic of `publish` carries.
    #[inline]
    pub fn resolve(&mut self, topics: &Topics, publish: &PublishRecord<'a>) {
        (self.kind, self.topic_device) = topics.resolve(publish.topic);
        self.is_own = self.topic_device.is_none() && publish.own_device.is_some();
        self.topic_device = self.topic_device.or(publish.own_device);
    }
}

/// Where a reading comes from.
#[derive(Clone, Copy)]
pub(super) struct ReadingOrigin<'a> {
    /// Position of its record.
    pub lsn: u64,
    /// Arrival time of the record's batch.
    pub arrival_ms: i64,
    /// Its message.
    pub publish: &'a PublishRecord<'a>,
    /// What is wanted of the message, if it is replayed.
    pub replay: Option<&'a WantedReadings>,
}

impl ReadingOrigin<'_> {
    /// When the message first arrived.
    #[inline]
    pub fn first_arrival_ms(&self) -> i64 {
        self.replay.map_or(self.arrival_ms, |wanted| wanted.arrival_ms)
    }

    /// Whether the reading with this index is none of those that are replayed.
    #[inline]
    pub fn passes_over(&self, index: u32) -> bool {
        self.replay.is_some_and(|wanted| !wanted.has(index))
    }
}
