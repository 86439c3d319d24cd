//! Key groups: the units of checkpoints.
//!
//! Every device and client belongs to one of 1024 groups by a hash of its id. A checkpoint stores the groups that changed
//! since the last one.

use crate::core::device::Slot;
use crate::core::hash::xxh64;

/// Number of key groups. It is part of the checkpoint format.
pub const KEY_GROUPS: u16 = 1024;

/// The state of one key group, as a checkpoint stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupBlob {
    /// Number of the key group, below [`KEY_GROUPS`].
    pub group: u16,
    /// Encoded state of all devices and clients of the group.
    pub bytes: Vec<u8>,
}

/// The key group of a device or client: XXH64 of the id with seed 0, modulo [`KEY_GROUPS`].
pub(super) fn key_group(id: &str) -> u16 {
    (xxh64(id.as_bytes(), 0) % u64::from(KEY_GROUPS)) as u16
}

/// How the state of a group differs from its last stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum GroupChange {
    /// Not at all.
    #[default]
    Unchanged,
    /// The group changed since.
    Changed,
    /// The running snapshot must store the group as it is, and has not encoded it yet.
    Pending,
}

/// Members of one group, and whether it changed.
#[derive(Debug, Default)]
pub(super) struct KeyGroup {
    /// Devices in order of id.
    pub devices: Vec<Slot>,
    /// Clients in order of id and user.
    pub clients: Vec<Slot>,
    /// Change against the last stored form.
    pub change: GroupChange,
}

/// All groups, and the running snapshot.
#[derive(Debug)]
pub(super) struct Groups {
    groups: Vec<KeyGroup>,
    /// Groups that were encoded ahead of their turn, because they were about to change.
    pub early: Vec<GroupBlob>,
    /// Groups below this number are not pending.
    cursor: u16,
}

impl Groups {
    /// Groups without members.
    pub fn new() -> Self {
        Self { groups: (0..KEY_GROUPS).map(|_| KeyGroup::default()).collect(), early: Vec::new(), cursor: KEY_GROUPS }
    }

    /// One group. `group` comes from [`key_group`] or was checked by [`Groups::contains`].
    #[inline]
    pub fn get(&self, group: u16) -> &KeyGroup {
        &self.groups[usize::from(group)]
    }

    /// One group, as [`Groups::get`].
    #[inline]
    pub fn get_mut(&mut self, group: u16) -> &mut KeyGroup {
        &mut self.groups[usize::from(group)]
    }

    /// Whether there is such a group.
    pub fn contains(group: u16) -> bool {
        group < KEY_GROUPS
    }

    /// Begins a snapshot: changed groups become pending. Groups that an unfinished snapshot left are part of the new one.
    pub fn begin(&mut self) {
        if self.cursor < KEY_GROUPS || !self.early.is_empty() {
            self.change_all();
        }
        for group in &mut self.groups {
            if group.change == GroupChange::Changed {
                group.change = GroupChange::Pending;
            }
        }
        self.early.clear();
        self.cursor = 0;
    }

    /// The pending group with the lowest number.
    pub fn next_pending(&mut self) -> Option<u16> {
        while self.cursor < KEY_GROUPS {
            if self.get(self.cursor).change == GroupChange::Pending {
                return Some(self.cursor);
            }
            self.cursor += 1;
        }
        None
    }

    /// Ends a snapshot that could not be stored: all groups count as changed.
    pub fn change_all(&mut self) {
        for group in &mut self.groups {
            group.change = GroupChange::Changed;
        }
        self.early.clear();
        self.cursor = KEY_GROUPS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_group_is_part_of_the_format() {
        assert_eq!(key_group(""), (0xef46_db37_51d8_e999u64 % 1024) as u16);
        assert_eq!(key_group("abc"), 0x199);
    }

    #[test]
    fn changed_groups_become_pending_once() {
        let mut groups = Groups::new();
        groups.get_mut(3).change = GroupChange::Changed;
        groups.get_mut(1023).change = GroupChange::Changed;
        groups.begin();
        assert_eq!(groups.next_pending(), Some(3));
        groups.get_mut(3).change = GroupChange::Unchanged;
        assert_eq!(groups.next_pending(), Some(1023));
        groups.get_mut(1023).change = GroupChange::Unchanged;
        assert_eq!(groups.next_pending(), None);
        groups.begin();
        assert_eq!(groups.next_pending(), None);
    }

    #[test]
    fn a_failed_snapshot_changes_all() {
        let mut groups = Groups::new();
        groups.change_all();
        groups.begin();
        assert_eq!(groups.next_pending(), Some(0));
        groups.get_mut(0).change = GroupChange::Unchanged;
        groups.begin();
        assert_eq!(groups.next_pending(), Some(0));
    }
}
