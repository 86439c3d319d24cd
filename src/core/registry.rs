//! The table of all devices: a slab, an index by id and an index in order of id.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::ops::{Bound, Index, IndexMut};
use std::sync::Arc;

use hashbrown::{HashSet, HashTable};

use crate::core::device::{Device, DeviceId, Slot};

/// All devices. The hash index is only asked for single ids; everything that goes through all devices follows the order
/// of ids, so that no order of a hash map reaches a result.
#[derive(Debug, Default)]
pub(super) struct Registry {
    devices: Vec<Device>,
    vacant: Vec<Slot>,
    index: HashTable<Slot>,
    hasher: foldhash::quality::RandomState,
    order: BTreeMap<DeviceId, Slot>,
}

impl Registry {
    /// Number of devices.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Slot of the device with this id.
    #[inline]
    pub fn find(&self, id: &str) -> Option<Slot> {
        let hash = self.hasher.hash_one(id);
        self.index.find(hash, |&slot| *self[slot].id == *id).copied()
    }

    /// Adds a device. Its id must not be there yet.
    pub fn insert(&mut self, device: Device) -> Slot {
        let id = device.id.clone();
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self[slot] = device;
                slot
            }
            None => {
                self.devices.push(device);
                (self.devices.len() - 1) as Slot
            }
        };
        let Self { devices, index, hasher, .. } = self;
        index.insert_unique(hasher.hash_one(id.as_str()), slot, |&slot| {
            hasher.hash_one(devices.get(slot as usize).map_or("", |device| device.id.as_str()))
        });
        self.order.insert(id, slot);
        slot
    }

    /// Removes a device. Its slot is used again.
    pub fn remove(&mut self, slot: Slot) -> Device {
        let vacancy = Device::new("".into(), 0);
        let device = std::mem::replace(&mut self[slot], vacancy);
        self.order.remove(device.id.as_str());
        if let Ok(entry) = self.index.find_entry(self.hasher.hash_one(device.id.as_str()), |&other| other == slot) {
            entry.remove();
        }
        self.vacant.push(slot);
        device
    }

    /// Slots of devices in order of id, after the id `after`.
    pub fn slots_after(&self, after: Option<&str>) -> impl Iterator<Item = Slot> + '_ {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.order.range::<str, _>((from, Bound::Unbounded)).map(|(_, &slot)| slot)
    }
}

impl Index<Slot> for Registry {
    type Output = Device;

    /// The device at a slot that [`Registry::find`] or [`Registry::insert`] returned; an empty device if it was removed
    /// since.
    #[inline]
    fn index(&self, slot: Slot) -> &Device {
        &self.devices[slot as usize]
    }
}

impl IndexMut<Slot> for Registry {
    #[inline]
    fn index_mut(&mut self, slot: Slot) -> &mut Device {
        &mut self.devices[slot as usize]
    }
}

/// Names that many share. Each is kept once.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<Arc<str>, foldhash::quality::RandomState>);

impl Names {
    /// The shared form of `name`.
    pub fn share(&mut self, name: &str) -> Arc<str> {
        match self.0.get(name) {
            Some(shared) => Arc::clone(shared),
            None => {
                let shared: Arc<str> = name.into();
                self.0.insert(Arc::clone(&shared));
                shared
            }
        }
    }

    /// Removes names that are not used any more.
    pub fn drop_unused(&mut self) {
        self.0.retain(|name| Arc::strong_count(name) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shared_while_held() {
        let mut names = Names::default();
        let first = names.share("temperature");
        assert!(Arc::ptr_eq(&first, &names.share("temperature")));
        names.share("humidity");
        names.drop_unused();
        assert_eq!(names.0.len(), 1);
    }

    #[test]
    fn devices_come_and_go() {
        let mut registry = Registry::default();
        for id in ["b", "a", "c"] {
            registry.insert(Device::new(id.into(), 0));
        }
        let ids = |registry: &Registry, after: Option<&str>| -> Vec<String> {
            registry.slots_after(after).map(|slot| registry[slot].id.to_string()).collect()
        };
        assert_eq!(ids(&registry, None), ["a", "b", "c"]);
        assert_eq!(ids(&registry, Some("aa")), ["b", "c"]);
        let slot = registry.find("b").unwrap();
        assert_eq!(&*registry.remove(slot).id, "b");
        assert_eq!(registry.find("b"), None);
        assert_eq!(registry.insert(Device::new("d".into(), 0)), slot);
        assert_eq!(ids(&registry, Some("a")), ["c", "d"]);
        assert_eq!(registry.len(), 3);
        assert!(registry.find("a").is_some() && registry.find("d") == Some(slot));
    }
}
