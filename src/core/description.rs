//! What devices say of themselves: units of their metrics, and names. It changes no reading and no window of the past.

use std::sync::Arc;

use crate::core::batch::BatchContext;
use crate::core::codec::{DecodeError, FieldReader};
use crate::core::device::{Device, Slot};
use crate::core::formats::{Announcement, DeviceAbout};
use crate::core::operator::Operator;
use crate::core::series_units::SeriesUnits;

/// What a device says of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct DeviceDescription {
    /// Units of its series.
    pub units: SeriesUnits,
    /// Its name and model.
    pub about: DeviceAbout,
}

impl DeviceDescription {
    /// Appends the stored form.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        self.about.encode(out);
        self.units.encode(out);
    }

    /// Reads the stored form of the description of a device with this number of series.
    pub(super) fn decode(reader: &mut FieldReader<'_>, series: usize) -> Result<Self, DecodeError> {
        let about = DeviceAbout::decode(reader)?;
        let units =
            if reader.rest().is_empty() { SeriesUnits::default() } else { SeriesUnits::decode(reader, series)? };
        Ok(Self { units, about })
    }
}

impl Device {
    /// The unit of a series, if it is known.
    #[inline]
    pub(super) fn unit(&self, series: usize) -> Option<&Arc<str>> {
        self.rare.description.as_ref()?.units.newest(series)
    }

    /// What the device says of itself.
    pub(super) fn about(&self) -> DeviceAbout {
        self.rare.description.as_ref().map(|description| description.about.clone()).unwrap_or_default()
    }

    /// The unit that the last result of a series has, whose number is `seq`.
    pub(super) fn unit_of_result(&self, series: usize, seq: u64) -> Option<&Arc<str>> {
        self.rare.description.as_ref()?.units.of_result(series, seq)
    }
}

impl Operator {
    /// Notes the unit, one of the current message, with which a reading of a metric came that counts.
    #[inline]
    pub(super) fn note_unit(&mut self, slot: Slot, metric: &str, unit: u16) {
        let Some(unit) = self.work.units.get(usize::from(unit)) else { return };
        let device = &self.devices[slot];
        let Ok(series) = device.find_series(metric) else { return };
        if device.unit(series).is_none_or(|known| known != unit) {
            let unit = Arc::clone(unit);
            self.change_unit(slot, series, unit);
        }
    }

    #[cold]
    fn change_unit(&mut self, slot: Slot, series: usize, unit: Arc<str>) {
        let next_seq = self.next_seq.window;
        let device = &mut self.devices[slot];
        let last_seq = device.last_fired(series).map(|window| window.fired_seq);
        let description = device.rare.fields_mut().description.get_or_insert_default();
        description.units.set(series, unit, last_seq, next_seq);
    }

    /// Notes what a message says of a device, if the device is known and the sender may speak for it.
    pub(super) fn note_about_of(&mut self, batch: &BatchContext<'_>, id: &str, about: &DeviceAbout) {
        if batch.topic_device.is_some_and(|own| own != id) || !self.may_send(batch.tenant, id) {
            return;
        }
        if let Some(slot) = self.find_device(batch.tenant, id) {
            self.note_about(slot, about);
        }
    }

    /// Remembers what a discovery message says of other topics: those of the tenant of the message. What a client says that speaks
    /// for one device alone counts for this device.
    pub(super) fn note_announcements(&mut self, batch: &BatchContext<'_>, announcements: &[Announcement]) {
        for announcement in announcements {
            if self.settings.rules.topics.resolve(&announcement.topic).tenant == batch.tenant {
                self.map_memory.announce(announcement, batch.topic_device);
            }
        }
    }

    fn note_about(&mut self, slot: Slot, about: &DeviceAbout) {
        let known = self.devices[slot].rare.description.as_ref().map(|description| &description.about);
        let mut merged = known.cloned().unwrap_or_default();
        if merged.take(about) {
            self.about_to_change(self.devices[slot].group);
            self.devices[slot].rare.fields_mut().description.get_or_insert_default().about = merged;
        }
    }
}
