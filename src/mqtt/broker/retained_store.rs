//! Retained messages on disk: their encoding, and loading at a start. Writing is `state::named_values`'s.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Clock;
use crate::cursor::ByteCursor;
use crate::disk::Disk;
use crate::mqtt::session::message::Message;
use crate::mqtt::session::timeline::Timeline;
use crate::state::StateError;
use crate::state::named_values::{Mark, NamedValue, NamedValues, NamedValuesOptions, StoreLabels};
use crate::state::open::StoreOptions;
use crate::telemetry::names;

/// Store of retained messages, which survives restarts. Clones share it.
#[derive(Debug, Clone)]
pub struct RetainedStore(NamedValues<StoredRetained>);

/// A retained message in its stored form.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StoredRetained {
    topic: Box<str>,
    payload: Bytes,
    properties: Bytes,
    qos: u8,
    /// User that published the message; `None`: a client without credentials, or a message that was stored without its user.
    owner: Option<Arc<str>>,
    /// Unix time in milliseconds at which the message expires; `None`: it does not.
    expires_ms: Option<i64>,
}

/// A retained message that was loaded, with the user that published it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadedRetained {
    pub message: Message,
    /// `None`: a client without credentials, or a message that was stored without its user.
    pub owner: Option<Arc<str>>,
}

/// Bit in the first byte, which is otherwise the QoS: the name of the owner follows the properties.
const HAS_OWNER: u8 = 0x80;

impl RetainedStore {
    /// Opens the store below `data_dir`, which must open and load within `limit`. A store that is proven to be damaged is moved
    /// aside, logged and counted, and a new one is begun.
    ///
    /// # Errors
    /// The store cannot be opened, although it may be sound. It is left as it is.
    pub fn open(
        data_dir: &Path,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        limit: Duration,
    ) -> Result<Self, StateError> {
        NamedValues::open(data_dir, NamedValuesOptions::sled(disk, clock, limit)).map(Self)
    }

    /// Opens the store without a thread: it works in [`RetainedStore::step`]. For the simulation.
    ///
    /// # Errors
    /// As of [`RetainedStore::open`].
    pub fn open_inline(
        data_dir: &Path,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        store: StoreOptions,
    ) -> Result<Self, StateError> {
        NamedValues::open(data_dir, NamedValuesOptions { disk, clock, store, threads: false }).map(Self)
    }

    /// Does the work that is due in a store without a thread; returns whether there was some.
    pub fn step(&self) -> bool {
        self.0.step()
    }

    /// Loads the stored messages; to be called once. Expired messages are removed from the store.
    pub(crate) fn load(&self, timeline: &Timeline) -> Vec<LoadedRetained> {
        let now_ms = timeline.wall_ms(timeline.now());
        let (expired, alive): (Vec<_>, Vec<_>) =
            self.0.load().into_iter().partition(|stored| stored.expires_ms.is_some_and(|at| at <= now_ms));
        for stored in expired {
            self.remove(&stored.topic);
        }
        let loaded = |stored: StoredRetained| LoadedRetained {
            message: Message {
                expires: stored.expires_ms.map(|at| timeline.at_wall_ms(at)),
                properties: stored.properties,
                ..Message::new(&stored.topic, stored.payload, stored.qos, true)
            },
            owner: stored.owner,
        };
        alive.into_iter().map(loaded).collect()
    }

    /// Queues a message of the user `owner` for storing. `expires_ms` is the Unix time of its expiry in milliseconds.
    pub(crate) fn put(&self, message: &Message, owner: Option<&Arc<str>>, expires_ms: Option<i64>) {
        self.0.put(StoredRetained {
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            properties: message.properties.clone(),
            qos: message.qos,
            owner: owner.cloned(),
            expires_ms,
        });
    }

    /// Queues the removal of a topic's message.
    pub(crate) fn remove(&self, topic: &str) {
        self.0.remove(topic);
    }

    /// Position of the newest queued change.
    pub(crate) fn mark(&self) -> Mark {
        self.0.mark()
    }

    /// Whether all changes up to `mark` are on disk.
    pub(crate) fn is_written(&self, mark: Mark) -> bool {
        self.0.is_written(mark)
    }

    /// The stored values themselves, for their outage and their progress.
    pub(crate) fn values(&self) -> &NamedValues<impl NamedValue + use<>> {
        &self.0
    }
}

impl NamedValue for StoredRetained {
    const LABELS: StoreLabels = StoreLabels {
        directory: "retained",
        what: "retained messages",
        moved_aside: names::MQTT_RETAINED_MOVED_ASIDE,
        failures: names::MQTT_RETAINED_FAILURES,
        reopened: names::MQTT_RETAINED_REOPENED,
    };

    fn name(&self) -> &str {
        &self.topic
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.qos | if self.owner.is_some() { HAS_OWNER } else { 0 }];
        bytes.extend_from_slice(&self.expires_ms.unwrap_or(i64::MAX).to_le_bytes());
        let fields =
            [Some(self.topic.as_bytes()), Some(&self.properties[..]), self.owner.as_deref().map(str::as_bytes)];
        for field in fields.into_iter().flatten() {
            bytes.extend_from_slice(&(field.len() as u32).to_le_bytes());
            bytes.extend_from_slice(field);
        }
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        fn take_field<'a>(fields: &mut ByteCursor<'a>) -> Option<&'a [u8]> {
            let len = fields.u32()?;
            fields.slice(len as usize)
        }
        let mut fields = ByteCursor::new(bytes);
        let (first, expires) = (fields.u8()?, fields.i64()?);
        let topic = std::str::from_utf8(take_field(&mut fields)?).ok()?;
        let properties = take_field(&mut fields)?;
        let owner = match first & HAS_OWNER {
            0 => None,
            _ => Some(std::str::from_utf8(take_field(&mut fields)?).ok()?.into()),
        };
        let expires_ms = Some(expires).filter(|at| *at < i64::MAX);
        Some(Self {
            topic: topic.into(),
            payload: Bytes::copy_from_slice(fields.rest()),
            properties: Bytes::copy_from_slice(properties),
            qos: first & !HAS_OWNER,
            owner,
            expires_ms,
        })
    }
}

#[cfg(test)]
mod tests;
