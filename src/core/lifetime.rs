//! Devices are created, and forgotten after long silence.

use std::collections::BTreeSet;

use crate::core::device::{Device, DeviceId, Slot};
use crate::core::group::key_group;
use crate::core::operator::Operator;
use crate::core::output::Collector;
use crate::core::owners::DeviceLimit;
use crate::core::topic::TenantIndex;
use crate::core::user::RecordedUser;
use crate::core::watermark::NONE_MS;

/// Shortest time between two searches for silent devices.
const MIN_SWEEP_MS: i64 = 1000;
/// Number of searches for silent devices within `state.device_ttl`.
const SWEEPS_PER_TTL: i64 = 64;

impl Operator {
    /// Creates the device that `tenant` knows by this id, which must not exist, for the message of `user`.
    ///
    /// # Errors
    /// The limit at which there is no room for it.
    pub(super) fn create(
        &mut self,
        tenant: Option<TenantIndex>,
        id: &str,
        user: Option<&str>,
    ) -> Result<Slot, DeviceLimit> {
        let (settings, now_ms) = (&self.settings.current, self.clocks.journal.now_ms);
        let user = RecordedUser::of(user, settings.records_name_users);
        if self.devices.len() >= settings.max_devices {
            return Err(DeviceLimit::All(settings.max_devices));
        }
        self.owners.check(user, settings, now_ms)?;
        if let Some(tenant) = tenant.and_then(|tenant| self.settings.rules.topics.tenant(tenant)) {
            self.owners.check_tenant(tenant)?;
        }
        let id: DeviceId = match tenant {
            None => id.into(),
            Some(tenant) => {
                self.write_full_id(tenant, id);
                self.work.device_id.as_str().into()
            }
        };
        let group = key_group(&id);
        self.about_to_change(group);
        let mut device = Device::new(id, group);
        device.introduced_by = user.to_kept();
        device.first_seen_ms = now_ms;
        Ok(self.add_device(device))
    }

    /// State of the device that `tenant` knows by this id.
    pub(super) fn find_device(&mut self, tenant: Option<TenantIndex>, id: &str) -> Option<Slot> {
        // Behind a slash, an id would be that of another tenant's device.
        if id.as_bytes().contains(&b'/') {
            return None;
        }
        let Some(tenant) = tenant else { return self.devices.find(id) };
        self.write_full_id(tenant, id);
        self.devices.find(&self.work.device_id)
    }

    /// Whether the settings let this device of `tenant` send.
    pub(super) fn may_send(&mut self, tenant: Option<TenantIndex>, id: &str) -> bool {
        let Some(tenant) = tenant else { return self.settings.rules.allows(id) };
        self.write_full_id(tenant, id);
        self.settings.rules.allows(&self.work.device_id)
    }

    /// Writes the id of a tenant's device to `work.device_id`: the prefix of the tenant, and the id that the tenant knows.
    pub(super) fn write_full_id(&mut self, tenant: TenantIndex, id: &str) {
        self.work.device_id.clear();
        self.work
            .device_id
            .push_str(self.settings.rules.topics.tenant(tenant).map_or("", |tenant| tenant.prefix.as_str()));
        self.work.device_id.push_str(id);
    }

    /// Adds a device to the table of all and to its key group.
    pub(super) fn add_device(&mut self, mut device: Device) -> Slot {
        let group = device.group;
        self.owners.add(&mut device, self.clocks.journal.now_ms);
        let slot = self.devices.insert(device);
        let members = &mut self.groups.get_mut(group).devices;
        let devices = &self.devices;
        let at = members.partition_point(|&other| devices[other].id < devices[slot].id);
        members.insert(at, slot);
        slot
    }

    /// Forgets devices that were silent for `state.device_ttl`, counted in time in which weir listened. Their open
    /// windows fire first.
    pub(super) fn forget_silent(&mut self, out: &mut dyn Collector) {
        let Some(ttl_ms) = self.settings.current.device_ttl_ms else { return };
        let interval_ms = (ttl_ms / SWEEPS_PER_TTL).max(MIN_SWEEP_MS);
        if self.clocks.journal.swept_ms == NONE_MS {
            self.clocks.journal.swept_ms = self.clocks.journal.now_ms;
        }
        if self.clocks.journal.now_ms.saturating_sub(self.clocks.journal.swept_ms) < interval_ms {
            return;
        }
        self.clocks.journal.swept_ms = self.clocks.journal.now_ms;
        let awake_ms = self.clocks.journal.awake_ms();
        let is_silent = |slot: &Slot| awake_ms.saturating_sub(self.devices[*slot].last_awake_ms) >= ttl_ms;
        let silent: Vec<Slot> = self.devices.slots_after(None).filter(is_silent).collect();
        self.totals.devices_expired += silent.len() as u64;
        self.forget(&silent, out);
    }

    /// Forgets the devices with these ids because an operator asked for it. Ids without a device are passed over.
    pub(super) fn forget_named<'a>(&mut self, ids: impl Iterator<Item = &'a str>, out: &mut dyn Collector) {
        let slots: BTreeSet<Slot> = ids.filter_map(|id| self.devices.find(id)).collect();
        self.totals.devices_forgotten += slots.len() as u64;
        self.forget(&slots.into_iter().collect::<Vec<_>>(), out);
    }

    /// Forgets devices. Their open windows fire first.
    fn forget(&mut self, slots: &[Slot], out: &mut dyn Collector) {
        self.fire_open(slots, out);
        for &slot in slots {
            self.remove_device(slot);
        }
        self.series.metric_names.drop_unused();
        self.series.units.drop_unused();
    }

    fn remove_device(&mut self, slot: Slot) {
        let group = self.devices[slot].group;
        self.about_to_change(group);
        self.groups.get_mut(group).devices.retain(|&other| other != slot);
        let device = self.devices.remove(slot);
        self.extra_digests -= device.sequences.extra_digests();
        self.owners.remove(&device);
        self.offline -= Self::offline_count(device.rare.liveness.as_deref());
        self.uncount_backlog(&device);
        self.series.count -= device.series.len();
        self.series.windows -= device.windows().count();
    }
}
