//! Retained messages on disk. What a retained message means, and when it is sent, is decided in `broker::retained`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Clock;
use crate::cursor::ByteCursor;
use crate::disk::Disk;
use crate::mqtt::session::message::Message;
use crate::mqtt::session::timeline::Timeline;
use crate::state::named_values::{Mark, NamedValue, NamedValues, StoreLabels};
use crate::telemetry::names;

/// The store that keeps retained messages over restarts. Clones share it.
#[derive(Debug, Clone)]
pub struct RetainedStore(NamedValues<StoredRetained>);

/// A retained message as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StoredRetained {
    topic: Box<str>,
    payload: Bytes,
    properties: Bytes,
    qos: u8,
    /// Time at which the message expires, Unix milliseconds.
    expires_ms: Option<i64>,
}

impl RetainedStore {
    /// Opens the store below `data_dir`, which must open and load within `limit`. A store that cannot be used is moved
    /// aside, logged and counted, and a new one is begun. Where that fails too the result is `None`: weir goes on without.
    pub fn open(data_dir: &Path, disk: &Arc<dyn Disk>, clock: &dyn Clock, limit: Duration) -> Option<Self> {
        NamedValues::open(data_dir, disk, clock, limit).map(Self)
    }

    /// Takes the messages that the open found. Messages that have expired meanwhile are removed. A second call returns none.
    pub(crate) fn load(&self, timeline: &Timeline) -> Vec<Message> {
        let now_ms = timeline.wall_ms(timeline.now());
        let (expired, alive): (Vec<_>, Vec<_>) =
            self.0.load().into_iter().partition(|stored| stored.expires_ms.is_some_and(|at| at <= now_ms));
        for stored in expired {
            self.remove(&stored.topic);
        }
        let message = |stored: StoredRetained| Message {
            expires: stored.expires_ms.map(|at| timeline.at_wall_ms(at)),
            properties: stored.properties,
            ..Message::new(&stored.topic, stored.payload, stored.qos, true)
        };
        alive.into_iter().map(message).collect()
    }

    /// Stores a message a moment later. It expires at `expires_ms`, Unix milliseconds.
    pub(crate) fn put(&self, message: &Message, expires_ms: Option<i64>) {
        self.0.put(StoredRetained {
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            properties: message.properties.clone(),
            qos: message.qos,
            expires_ms,
        });
    }

    /// Removes a topic's message a moment later.
    pub(crate) fn remove(&self, topic: &str) {
        self.0.remove(topic);
    }

    /// All changes made so far, to ask [`RetainedStore::is_written`] about later.
    pub(crate) fn mark(&self) -> Mark {
        self.0.mark()
    }

    /// Whether all changes up to `mark` are on disk, or will never get there since the store failed.
    pub(crate) fn is_written(&self, mark: Mark) -> bool {
        self.0.is_written(mark)
    }

    /// Waits until all changes made so far are on disk, at most 5 s.
    pub fn sync(&self) {
        self.0.sync();
    }
}

impl NamedValue for StoredRetained {
    const LABELS: StoreLabels = StoreLabels {
        directory: "retained",
        what: "retained messages",
        moved_aside: names::MQTT_RETAINED_MOVED_ASIDE,
        failures: names::MQTT_RETAINED_FAILURES,
    };

    fn name(&self) -> &str {
        &self.topic
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.qos];
        bytes.extend_from_slice(&self.expires_ms.unwrap_or(i64::MAX).to_le_bytes());
        for field in [self.topic.as_bytes(), &self.properties] {
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
        let (qos, expires) = (fields.u8()?, fields.i64()?);
        let topic = std::str::from_utf8(take_field(&mut fields)?).ok()?;
        let properties = take_field(&mut fields)?;
        let expires_ms = Some(expires).filter(|at| *at < i64::MAX);
        Some(Self {
            topic: topic.into(),
            payload: Bytes::copy_from_slice(fields.rest()),
            properties: Bytes::copy_from_slice(properties),
            qos,
            expires_ms,
        })
    }
}

#[cfg(test)]
mod tests;
