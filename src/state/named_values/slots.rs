//! Values of any size in the slots of a key-value store.
//!
//! sled's files stay small only where the same keys are written again and again. Keys are therefore slot numbers, and a
//! slot is emptied, never deleted. A slot holds at most [`MAX_VALUE_BYTES`]; a larger value takes as many slots as it
//! needs, one part in each. Each part carries a checksum, the version of its value and the number of parts:
//!
//! ```text
//! crc32c u32 of all after it  version u64  part u32  parts u32  bytes
//! ```
//! Integers are little-endian. Versions grow by one per write, so of two values of one name the newer is known.
//!
//! A changed value is written to free slots before the slots of the old one are emptied. So whatever a crash leaves, of
//! each name the old value or the new one is there, whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::NamedValue;
use crate::cursor::ByteCursor;
use crate::state::StateError;
use crate::state::key_value::{KeyValue, MAX_BATCH_OPERATIONS, MAX_VALUE_BYTES};

/// Bytes of checksum, version, part and number of parts in front of the value's bytes.
const HEADER_BYTES: usize = 4 + 8 + 4 + 4;
const PART_BYTES: usize = MAX_VALUE_BYTES - HEADER_BYTES;

/// The slots of an opened store.
#[derive(Debug)]
pub(super) struct Slots {
    store: Box<dyn KeyValue>,
    /// Slots of each value, by its name.
    used: HashMap<Box<str>, Vec<u32>>,
    /// Slots that hold nothing, or nothing whole.
    free: Vec<u32>,
    /// First slot that was never written.
    end: u32,
    /// Version of the value that was written last.
    version: u64,
}

/// The slots of a store, and what was kept of the values that they held when it was opened.
#[derive(Debug)]
pub(super) struct LoadedSlots<T> {
    pub slots: Slots,
    pub loaded: Vec<T>,
}

impl Slots {
    /// Reads all slots and keeps what `keep` makes of each value. Slots whose parts make no whole value become free: a crash
    /// came before the other parts were written, or after some were emptied. Of the bytes, one value is in memory at a time.
    ///
    /// # Errors
    /// The store cannot be read, or the slots of superseded values cannot be emptied.
    pub fn load<V: NamedValue, T>(store: Box<dyn KeyValue>, keep: fn(V) -> T) -> Result<LoadedSlots<T>, StateError> {
        let mut slots = Self { store, used: HashMap::new(), free: Vec::new(), end: 0, version: 0 };
        let found = slots.find_parts::<V>()?;
        let mut stale = Vec::new();
        let mut loaded: BTreeMap<Box<str>, T> = BTreeMap::new();
        // In the order of versions: of two values of one name the newer stays.
        for parts in found.into_values() {
            let numbers: Vec<u32> = parts.iter().flatten().copied().collect();
            let value = if numbers.len() == parts.len() { slots.read_value::<V>(&numbers)? } else { None };
            match value {
                Some(value) => {
                    let name: Box<str> = value.name().into();
                    stale.extend(slots.used.insert(name.clone(), numbers).unwrap_or_default());
                    loaded.insert(name, keep(value));
                }
                None => stale.extend(numbers),
            }
        }
        // Emptied at once, or an old value would come back when the newer one is removed.
        let mut batch = Vec::new();
        for slot in stale {
            slots.add(&mut batch, slot, Vec::new())?;
            slots.free.push(slot);
        }
        slots.put(&mut batch)?;
        Ok(LoadedSlots { slots, loaded: loaded.into_values().collect() })
    }

    /// The slots of the parts of each version, in the order of parts; `None` where a part is missing.
    fn find_parts<V: NamedValue>(&mut self) -> Result<BTreeMap<u64, Vec<Option<u32>>>, StateError> {
        let mut found: BTreeMap<u64, Vec<Option<u32>>> = BTreeMap::new();
        let mut damaged = 0;
        while let Some(value) = self.store.get(&self.end.to_be_bytes())? {
            let slot = self.end;
            self.end += 1;
            match read_part(&value) {
                Some(part) => {
                    self.version = self.version.max(part.version);
                    let parts = found.entry(part.version).or_default();
                    parts.resize(parts.len().max(part.count), None);
                    parts[part.index] = Some(slot);
                }
                None => {
                    damaged += usize::from(!value.is_empty());
                    self.free.push(slot);
                }
            }
        }
        if damaged > 0 {
            tracing::warn!(slots = damaged, "{} with a wrong checksum were left out", V::LABELS.what);
        }
        Ok(found)
    }

    /// The value whose parts are in these slots; `None` where they hold none.
    fn read_value<V: NamedValue>(&self, slots: &[u32]) -> Result<Option<V>, StateError> {
        let mut bytes = Vec::new();
        for slot in slots {
            let part = self.store.get(&slot.to_be_bytes())?.unwrap_or_default();
            bytes.extend_from_slice(part.get(HEADER_BYTES..).unwrap_or_default());
        }
        Ok(V::decode(&bytes))
    }

    /// Names of all values.
    pub fn names(&self) -> BTreeSet<Box<str>> {
        self.used.keys().cloned().collect()
    }

    /// The store under the slots.
    pub fn into_store(self) -> Box<dyn KeyValue> {
        self.store
    }

    /// Writes the values of these names, removes those whose value is `None`, and syncs.
    ///
    /// # Errors
    /// A write or the sync failed. What of the changes is on disk is then known only by loading the store again.
    pub fn write<V: NamedValue>(&mut self, changes: Vec<(Box<str>, Option<V>)>) -> Result<(), StateError> {
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

struct SlotPart {
    version: u64,
    index: usize,
    count: usize,
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

fn read_part(value: &[u8]) -> Option<SlotPart> {
    let mut fields = ByteCursor::new(value);
    let checksum = fields.u32()?;
    if crc32c::crc32c(fields.rest()) != checksum {
        return None;
    }
    let (version, index, count) = (fields.u64()?, fields.u32()? as usize, fields.u32()? as usize);
    // A count beyond it is damage: no value is larger than a gigabyte.
    const MOST_PARTS: usize = (1 << 30) / PART_BYTES + 2;
    (index < count && count <= MOST_PARTS).then_some(SlotPart { version, index, count })
}

#[cfg(test)]
mod tests;
