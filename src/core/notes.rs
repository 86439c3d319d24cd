//! What a person is told once about a device: it sends something that weir understands, though not in the form that it names.

use crate::core::device::{DeviceId, Slot};
use crate::core::operator::Operator;

/// Notes that wait to be told, at most. Those above it are only in the views of their devices.
const MAX_TOLD: usize = 64;

/// What is noted about a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceNote {
    /// A value was true or false.
    BooleanValue,
    /// The time stood in another field than `timestamp`.
    OtherTimeField,
}

impl DeviceNote {
    /// All notes.
    pub const ALL: [Self; 2] = [Self::BooleanValue, Self::OtherTimeField];

    /// A sentence for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BooleanValue => "it sends true or false as a value; weir counts 1 or 0",
            Self::OtherTimeField => {
                "it sends no timestamp but ts or time, in whatever case; weir takes that as the time of the readings"
            }
        }
    }

    fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

/// The notes about a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DeviceNotes(pub u8);

impl DeviceNotes {
    /// The notes, in order.
    pub fn all(self) -> impl Iterator<Item = DeviceNote> {
        DeviceNote::ALL.into_iter().filter(move |note| self.0 & note.bit() != 0)
    }
}

impl Operator {
    /// Notes something about a device.
    #[cold]
    pub(super) fn note_device(&mut self, slot: Slot, note: DeviceNote) {
        if self.devices[slot].rare.notes.0 & note.bit() != 0 {
            return;
        }
        self.about_to_change(self.devices[slot].group);
        let device = &mut self.devices[slot];
        device.rare.fields_mut().notes.0 |= note.bit();
        if self.work.notes.len() < MAX_TOLD {
            self.work.notes.push((device.id.clone(), note));
        }
    }

    /// Notes that are new since the last call, with their devices.
    #[inline]
    pub fn take_notes(&mut self) -> Vec<(DeviceId, DeviceNote)> {
        std::mem::take(&mut self.work.notes)
    }
}
