//! Values of any size in the slots of a key-value store.
//!
//! sled keeps well only what is written under the same keys again and again, so keys are slot numbers, values at most
//! [`MAX_VALUE_BYTES`], batches small. A value takes as many slots as it needs; a changed one is written to free slots
//! before the old ones are emptied, so whatever a crash leaves has the old value or the new one, whole.

use std::collections::{BTreeMap, HashMap};

use super::Value;
use crate::cursor::ByteCursor;
use crate::state::StateError;
use crate::state::key_value::{KeyValue, MAX_BATCH_OPERATIONS, MAX_VALUE_BYTES};

/// Checksum, version, part and number of parts before each slot's share of a value.
const HEADER_BYTES: usize = 4 + 8 + 4 + 4;
const PART_BYTES: usize = MAX_VALUE_BYTES - HEADER_BYTES;

/// What was found of one version of a value: slot and bytes of each part.
type Parts = Vec<Option<(u32, Vec<u8>)>>;

/// The slots of an opened store.
#[derive(Debug)]
pub(super) struct Slots {
    store: Box<dyn KeyValue>,
    used: HashMap<Box<str>, Vec<u32>>,
    free: Vec<u32>,
    /// Slots from here on were never written.
    end: u32,
    version: u64,
}

/// A store that was read.
#[derive(Debug)]
pub(super) struct Opened<V> {
    pub slots: Slots,
    pub loaded: Vec<V>,
}

impl Slots {
    /// Reads all slots. Parts that belong to no whole value are free: a crash came before the rest, or after it.
    pub fn load<V: Value>(store: Box<dyn KeyValue>) -> Result<Opened<V>, StateError> {
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
            tracing::warn!(slots = damaged, "{} with a wrong checksum were left out", V::KIND.what);
        }
        let mut stale = Vec::new();
        let mut loaded: BTreeMap<Box<str>, V> = BTreeMap::new();
        // By version: a later value of a name takes the earlier one's place.
        for parts in parts.into_values() {
            let numbers: Vec<u32> = parts.iter().flatten().map(|(slot, _)| *slot).collect();
            let whole = numbers.len() == parts.len();
            let bytes: Vec<u8> = parts.into_iter().flatten().flat_map(|(_, data)| data).collect();
            match V::decode(&bytes).filter(|_| whole) {
                Some(value) => {
                    let name: Box<str> = value.name().into();
                    stale.extend(slots.used.insert(name.clone(), numbers).unwrap_or_default());
                    loaded.insert(name, value);
                }
                None => stale.extend(numbers),
            }
        }
        // Emptied now, or an old value could come back once the newer one is removed.
        let mut batch = Vec::new();
        for slot in stale {
            slots.add(&mut batch, slot, Vec::new())?;
            slots.free.push(slot);
        }
        slots.put(&mut batch)?;
        Ok(Opened { slots, loaded: loaded.into_values().collect() })
    }

    /// Writes or (`None`) removes the values of these names and syncs.
    pub fn write<V: Value>(&mut self, changes: Vec<(Box<str>, Option<V>)>) -> Result<(), StateError> {
        let mut batch = Vec::with_capacity(MAX_BATCH_OPERATIONS);
        for (name, value) in changes {
            let mut slots = Vec::new();
            if let Some(value) = &value {
                self.version += 1;
                let bytes = value.encode();
                let count = bytes.len().div_ceil(PART_BYTES);
                for (index, data) in bytes.chunks(PART_BYTES).enumerate() {
                    let slot = self.take_slot();
                    slots.push(slot);
                    self.add(&mut batch, slot, part(self.version, index, count, data))?;
                }
            }
            let old = if slots.is_empty() { self.used.remove(&name) } else { self.used.insert(name, slots) };
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
    let mut fields = ByteCursor::new(value);
    let checksum = fields.u32()?;
    if crc32c::crc32c(fields.rest()) != checksum {
        return None;
    }
    let (version, index, count) = (fields.u64()?, fields.u32()? as usize, fields.u32()? as usize);
    // No value is as large.
    const MOST_PARTS: usize = (1 << 30) / PART_BYTES + 2;
    (index < count && count <= MOST_PARTS).then_some(Part { version, index, count, data: fields.rest() })
}

#[cfg(test)]
mod tests;
