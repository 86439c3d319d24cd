//! A set of packet identifiers.

/// Packet identifiers in ascending order. The identifiers of a client are nearly consecutive, so an insertion is nearly
/// always a push. The set has at most 65,535 entries of two bytes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct PacketIds {
    ids: Vec<u16>,
}

impl PacketIds {
    /// Whether the set has `id`.
    pub fn contains(&self, id: u16) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    /// Adds `id`; `false` if the set had it.
    pub fn insert(&mut self, id: u16) -> bool {
        match self.ids.binary_search(&id) {
            Ok(_) => false,
            Err(index) => {
                self.ids.insert(index, id);
                true
            }
        }
    }

    /// Removes `id`; `false` if the set did not have it.
    pub fn remove(&mut self, id: u16) -> bool {
        match self.ids.binary_search(&id) {
            Ok(index) => {
                self.ids.remove(index);
                true
            }
            Err(_) => false,
        }
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// All identifiers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.ids.iter().copied()
    }

    /// Removes and returns all identifiers.
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
