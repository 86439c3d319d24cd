//! Retained messages on disk: a sled directory of their own, written by a thread of its own a moment after the publish.
//!
//! sled keeps well only what is written under the same keys again and again, so keys are slot numbers, values at most
//! [`MAX_VALUE_BYTES`], batches small. A message takes as many slots as it needs; a changed one is written to free slots
//! before the old ones are emptied, so whatever a crash leaves has the old message or the new one, whole.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;

use super::handle::lock;
use super::message::Message;
use super::timeline::Timeline;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::state::StateError;
use crate::state::key_value::{KeyValue, MAX_BATCH_OPERATIONS, MAX_VALUE_BYTES, SledStore};
use crate::telemetry::names;

/// Checksum, version, part and number of parts before each slot's share of a message.
const HEADER_BYTES: usize = 4 + 8 + 4 + 4;
const PART_BYTES: usize = MAX_VALUE_BYTES - HEADER_BYTES;
/// How long [`RetainedStore::sync`] waits.
const SYNC_LIMIT: Duration = Duration::from_secs(5);
/// Name of the directory below the data directory.
const DIRECTORY: &str = "retained";

/// Where retained messages are kept over restarts. Clones share it.
#[derive(Debug, Clone)]
pub struct RetainedStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Condvar,
    loaded: Mutex<Vec<Stored>>,
}

/// What the thread has yet to write: the newest state of each changed topic, so no more than there are topics.
#[derive(Debug, Default)]
struct Pending {
    topics: BTreeMap<Box<str>, Option<Stored>>,
    writing: bool,
    failed: bool,
}

/// A message as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    topic: Box<str>,
    payload: Bytes,
    properties: Bytes,
    qos: u8,
    /// Milliseconds since 1970.
    expires_ms: Option<i64>,
}

impl RetainedStore {
    /// Opens the store below `data_dir` and starts its thread. One that cannot be used is moved aside, loudly and
    /// counted, and a new one begun; where that does not work either, there is none: weir goes on without.
    pub fn open(data_dir: &Path, disk: &Arc<dyn Disk>, clock: &dyn Clock, limit: Duration) -> Option<Self> {
        let directory = data_dir.join(DIRECTORY);
        let error = match open_within(&directory, disk, limit) {
            Ok(slots) => return Some(Self::start(slots)),
            Err(error) => error,
        };
        counter!(names::MQTT_RETAINED_MOVED_ASIDE).increment(1);
        let aside = data_dir.join(format!("{DIRECTORY}.damaged-{}", clock.now_ms()));
        let moved = disk.rename(&directory, &aside).and_then(|()| disk.sync_dir(data_dir));
        tracing::error!(reason = error, moved_to = %aside.display(), "retained messages cannot be read: weir goes on without those it had");
        match moved.map_err(|error| error.to_string()).and_then(|()| open_within(&directory, disk, limit)) {
            Ok(slots) => Some(Self::start(slots)),
            Err(error) => {
                tracing::error!(error, "retained messages cannot be stored; they will not survive a restart");
                None
            }
        }
    }

    fn start(slots: Opened) -> Self {
        let Opened { slots, loaded } = slots;
        let shared = Shared { pending: Mutex::default(), changed: Condvar::new(), loaded: Mutex::new(loaded) };
        let shared = Arc::new(shared);
        let of_thread = Arc::clone(&shared);
        let spawned = std::thread::Builder::new().name("retained".into()).spawn(move || of_thread.run(slots));
        if let Err(error) = spawned {
            shared.fail(&error.to_string());
        }
        Self(shared)
    }

    /// The messages that were stored, once; without those whose time is over, which are removed.
    pub(crate) fn load(&self, timeline: &Timeline) -> Vec<Message> {
        let stored = std::mem::take(&mut *lock(&self.0.loaded));
        let now_ms = timeline.wall_ms(timeline.now());
        let (expired, alive): (Vec<_>, Vec<_>) =
            stored.into_iter().partition(|stored| stored.expires_ms.is_some_and(|at| at <= now_ms));
        for stored in expired {
            self.remove(&stored.topic);
        }
        let message = |stored: Stored| Message {
            expires: stored.expires_ms.map(|at| timeline.at_wall_ms(at)),
            properties: stored.properties,
            ..Message::new(&stored.topic, stored.payload, stored.qos, true)
        };
        alive.into_iter().map(message).collect()
    }

    /// Stores a message a moment later; `expires_ms`: when its time is over, in milliseconds since 1970.
    pub(crate) fn put(&self, message: &Message, expires_ms: Option<i64>) {
        let stored = Stored {
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            properties: message.properties.clone(),
            qos: message.qos,
            expires_ms,
        };
        self.0.change(&message.topic, Some(stored));
    }

    /// Removes a topic's message a moment later.
    pub(crate) fn remove(&self, topic: &str) {
        self.0.change(topic, None);
    }

    /// Returns when everything up to now is on disk, or after 5 s.
    pub fn sync(&self) {
        let pending = lock(&self.0.pending);
        let busy = |pending: &mut Pending| !pending.failed && (pending.writing || !pending.topics.is_empty());
        let waited = self.0.changed.wait_timeout_while(pending, SYNC_LIMIT, busy);
        if waited.is_ok_and(|(_, timed_out)| timed_out.timed_out()) {
            tracing::warn!("retained messages were not written in time; the newest may be lost");
        }
    }
}

impl Shared {
    fn change(&self, topic: &str, stored: Option<Stored>) {
        let mut pending = lock(&self.pending);
        if !pending.failed {
            pending.topics.insert(topic.into(), stored);
            self.changed.notify_all();
        }
    }

    fn fail(&self, error: &str) {
        tracing::error!(error, "retained messages can no longer be stored until weir is restarted");
        counter!(names::MQTT_RETAINED_FAILURES).increment(1);
        let mut pending = lock(&self.pending);
        *pending = Pending { failed: true, ..Pending::default() };
        self.changed.notify_all();
    }

    fn run(&self, mut slots: Slots) {
        loop {
            let batch = self.next_batch();
            let written = catch_unwind(AssertUnwindSafe(|| slots.write(batch)));
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return self.fail(&error.to_string()),
                Err(_) => return self.fail("sled panicked"),
            }
            let mut pending = lock(&self.pending);
            pending.writing = false;
            self.changed.notify_all();
        }
    }

    fn next_batch(&self) -> Vec<(Box<str>, Option<Stored>)> {
        let mut pending = lock(&self.pending);
        while pending.topics.is_empty() {
            pending = self.changed.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        pending.writing = true;
        std::mem::take(&mut pending.topics).into_iter().collect()
    }
}

/// What was found of one version of a message: slot and bytes of each part.
type Parts = Vec<Option<(u32, Vec<u8>)>>;

/// The slots of an opened store.
#[derive(Debug)]
struct Slots {
    store: Box<dyn KeyValue>,
    used: HashMap<Box<str>, Vec<u32>>,
    free: Vec<u32>,
    /// Slots from here on were never written.
    end: u32,
    version: u64,
}

#[derive(Debug)]
struct Opened {
    slots: Slots,
    loaded: Vec<Stored>,
}

/// Opens and loads in a thread of its own: a damaged file can make sled panic or spin.
fn open_within(directory: &Path, disk: &Arc<dyn Disk>, limit: Duration) -> Result<Opened, String> {
    let (sender, receiver) = channel();
    let (directory, disk): (PathBuf, _) = (directory.to_owned(), Arc::clone(disk));
    let opening = move || {
        let opened = SledStore::open(&directory, disk).and_then(|store| Slots::load(Box::new(store)));
        // Nobody waits any more when the time is over.
        let _ = sender.send(opened);
    };
    std::thread::Builder::new().name("retained-open".into()).spawn(opening).map_err(|error| error.to_string())?;
    match receiver.recv_timeout(limit) {
        Ok(opened) => opened.map_err(|error| error.to_string()),
        Err(RecvTimeoutError::Disconnected) => Err("sled panicked at the open".into()),
        Err(RecvTimeoutError::Timeout) => Err(format!("the open took longer than {limit:?}")),
    }
}

impl Slots {
    /// Reads all slots. Parts that belong to no whole message are free: a crash came before the rest, or after it.
    fn load(store: Box<dyn KeyValue>) -> Result<Opened, StateError> {
        let mut parts: BTreeMap<u64, Parts> = BTreeMap::new();
        let mut slots = Self { store, used: HashMap::new(), free: Vec::new(), end: 0, version: 0 };
        let mut damaged = 0;
        while let Some(value) = slots.store.get(&slots.end.to_be_bytes())? {
            let slot = slots.end;
            slots.end += 1;
            match read_part(&value) {
                Some(part) => {
                    slots.version = slots.version.max(part.version);
                    let found = parts.entry(part.version).or_default();
                    found.resize(found.len().max(part.count), None);
                    found[part.index] = Some((slot, part.data.to_vec()));
                }
                None => {
                    damaged += usize::from(!value.is_empty());
                    slots.free.push(slot);
                }
            }
        }
        if damaged > 0 {
            tracing::warn!(slots = damaged, "retained messages with a wrong checksum were left out");
        }
        let mut stale = Vec::new();
        let mut loaded: BTreeMap<Box<str>, Stored> = BTreeMap::new();
        // By version: a later message of a topic takes the earlier one's place.
        for parts in parts.into_values() {
            let numbers: Vec<u32> = parts.iter().flatten().map(|(slot, _)| *slot).collect();
            let whole = numbers.len() == parts.len();
            let bytes: Vec<u8> = parts.into_iter().flatten().flat_map(|(_, data)| data).collect();
            match Stored::decode(&bytes).filter(|_| whole) {
                Some(stored) => {
                    stale.extend(slots.used.insert(stored.topic.clone(), numbers).unwrap_or_default());
                    loaded.insert(stored.topic.clone(), stored);
                }
                None => stale.extend(numbers),
            }
        }
        // Emptied now, or an old message could come back once the newer one is removed.
        let mut batch = Vec::new();
        for slot in stale {
            slots.add(&mut batch, slot, Vec::new())?;
            slots.free.push(slot);
        }
        slots.put(&mut batch)?;
        Ok(Opened { slots, loaded: loaded.into_values().collect() })
    }

    /// Writes these topics and syncs.
    fn write(&mut self, changes: Vec<(Box<str>, Option<Stored>)>) -> Result<(), StateError> {
        let mut batch = Vec::with_capacity(MAX_BATCH_OPERATIONS);
        for (topic, stored) in changes {
            let mut slots = Vec::new();
            if let Some(stored) = &stored {
                self.version += 1;
                let bytes = stored.encode();
                let count = bytes.len().div_ceil(PART_BYTES);
                for (index, data) in bytes.chunks(PART_BYTES).enumerate() {
                    let slot = self.take_slot();
                    slots.push(slot);
                    self.add(&mut batch, slot, part(self.version, index, count, data))?;
                }
            }
            let old = if slots.is_empty() { self.used.remove(&topic) } else { self.used.insert(topic, slots) };
            for slot in old.unwrap_or_default() {
                self.add(&mut batch, slot, Vec::new())?;
                self.free.push(slot);
            }
        }
        self.put(&mut batch)?;
        self.store.sync()
    }

    fn take_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.end += 1;
            self.end - 1
        })
    }

    fn add(&self, batch: &mut Vec<(u32, Vec<u8>)>, slot: u32, value: Vec<u8>) -> Result<(), StateError> {
        if batch.len() == MAX_BATCH_OPERATIONS {
            self.put(batch)?;
        }
        batch.push((slot, value));
        Ok(())
    }

    fn put(&self, batch: &mut Vec<(u32, Vec<u8>)>) -> Result<(), StateError> {
        let values: Vec<(Vec<u8>, &[u8])> =
            batch.iter().map(|(slot, value)| (slot.to_be_bytes().to_vec(), value.as_slice())).collect();
        self.store.put(&values)?;
        batch.clear();
        Ok(())
    }
}

struct Part<'a> {
    version: u64,
    index: usize,
    count: usize,
    data: &'a [u8],
}

fn part(version: u64, index: usize, count: usize, data: &[u8]) -> Vec<u8> {
    let mut value = vec![0; 4];
    value.extend_from_slice(&version.to_le_bytes());
    value.extend_from_slice(&(index as u32).to_le_bytes());
    value.extend_from_slice(&(count as u32).to_le_bytes());
    value.extend_from_slice(data);
    let checksum = crc32c::crc32c(&value[4..]);
    value[..4].copy_from_slice(&checksum.to_le_bytes());
    value
}

fn read_part(value: &[u8]) -> Option<Part<'_>> {
    let (checksum, rest) = value.split_first_chunk::<4>()?;
    if crc32c::crc32c(rest) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (version, rest) = rest.split_first_chunk::<8>()?;
    let (index, rest) = rest.split_first_chunk::<4>()?;
    let (count, data) = rest.split_first_chunk::<4>()?;
    let (index, count) = (u32::from_le_bytes(*index) as usize, u32::from_le_bytes(*count) as usize);
    // No packet of MQTT needs more parts.
    const MOST_PARTS: usize = (1 << 28) / PART_BYTES + 2;
    (index < count && count <= MOST_PARTS).then_some(Part { version: u64::from_le_bytes(*version), index, count, data })
}

impl Stored {
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
        fn take_field<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
            let (len, rest) = bytes.split_first_chunk::<4>()?;
            let (field, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
            *bytes = rest;
            Some(field)
        }
        let (qos, rest) = bytes.split_first()?;
        let (expires, mut rest) = rest.split_first_chunk::<8>()?;
        let topic = std::str::from_utf8(take_field(&mut rest)?).ok()?;
        let properties = take_field(&mut rest)?;
        let expires_ms = Some(i64::from_le_bytes(*expires)).filter(|at| *at < i64::MAX);
        Some(Self {
            topic: topic.into(),
            payload: Bytes::copy_from_slice(rest),
            properties: Bytes::copy_from_slice(properties),
            qos: *qos,
            expires_ms,
        })
    }
}

#[cfg(test)]
mod tests;
