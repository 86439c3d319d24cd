//! A set of packet identifiers.

/// Packet ids in order. A client's ids are nearly consecutive, so inserting is nearly always a push; the type bounds it
/// at 65,535 entries of two bytes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct PacketIds {
    ids: Vec<u16>,
}

impl PacketIds {
    /// Whether it has `id`.
    pub fn contains(&self, id: u16) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    /// Adds `id`; `false` if it was there.
    pub fn insert(&mut self, id: u16) -> bool {
        match self.ids.binary_search(&id) {
            Ok(_) => false,
            Err(index) => {
                self.ids.insert(index, id);
                true
            }
        }
    }

    /// Removes `id`; `false` if it was not there.
    pub fn remove(&mut self, id: u16) -> bool {
        match self.ids.binary_search(&id) {
            Ok(index) => {
                self.ids.remove(index);
                true
            }
            Err(_) => false,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// All ids in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.ids.iter().copied()
    }

    /// Takes all ids out.
    pub fn drain(&mut self) -> impl Iterator<Item = u16> + '_ {
        self.ids.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((any::<bool>(), 0_u16..20), 0..200)) {
            let mut ids = PacketIds::default();
            let mut model = BTreeSet::new();
            for (insert, id) in steps {
                if insert {
                    prop_assert_eq!(ids.insert(id), model.insert(id));
                } else {
                    prop_assert_eq!(ids.remove(id), model.remove(&id));
                }
                prop_assert_eq!(ids.contains(id), model.contains(&id));
                prop_assert_eq!(ids.is_empty(), model.is_empty());
            }
            prop_assert_eq!(ids.drain().collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
            prop_assert!(ids.is_empty());
        }
    }
}
