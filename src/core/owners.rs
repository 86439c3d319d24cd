//! Who introduced how many devices: bounds that keep one user from taking the room for devices of all others.
//!
//! Everything here follows from the devices in the state, and is rebuilt from them when a snapshot is restored.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use crate::core::device::Device;
use crate::core::settings::{Settings, TenantSettings};
use crate::core::user::RecordedUser;
use crate::core::watermark::NONE_MS;

/// Time within which the new devices of a user are counted against `limits.new_devices_per_hour`.
const HOUR_MS: i64 = 3_600_000;

/// A limit at which there is no room for a new device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceLimit {
    /// `limits.devices`: of all users together.
    All(usize),
    /// `limits.devices_share`: of the user.
    User(usize),
    /// `limits.new_devices_per_hour`: of the user.
    NewOfUser(usize),
    /// `devices` in `[[tenants]]`: of the tenant.
    Tenant(usize),
}

impl DeviceLimit {
    /// Number of limits.
    pub const COUNT: usize = 4;

    /// The names of the limits, in the order of [`DeviceLimit::index`].
    pub const NAMES: [&'static str; Self::COUNT] =
        ["limits.devices", "limits.devices_share", "limits.new_devices_per_hour", "tenants.devices"];

    /// Place of the limit among all.
    pub fn index(self) -> usize {
        match self {
            Self::All(_) => 0,
            Self::User(_) => 1,
            Self::NewOfUser(_) => 2,
            Self::Tenant(_) => 3,
        }
    }
}

impl fmt::Display for DeviceLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(limit) => write!(
                f,
                "the device is one more than limits.devices = {limit} allows; raise it, or look for ids made up by a defect"
            ),
            Self::User(limit) => write!(
                f,
                "the user has introduced {limit} devices already (limits.devices_share of limits.devices); forget devices that are gone with `weir device forget`, or raise the share"
            ),
            Self::NewOfUser(limit) => write!(
                f,
                "the user has introduced {limit} devices within an hour (limits.new_devices_per_hour); wait, raise the \
                 limit, or look for ids made up by a defect"
            ),
            Self::Tenant(limit) => write!(
                f,
                "the tenant has {limit} devices already (devices in [[tenants]]); forget devices that are \
                 gone, or raise the limit"
            ),
        }
    }
}

/// Devices by the user whose message created them. There are at most as many entries as devices.
#[derive(Debug, Default)]
pub(super) struct Owners {
    by_user: BTreeMap<RecordedUser<Arc<str>>, OwnedDevices>,
    /// Numbers of devices by the prefix of their tenant.
    by_tenant: BTreeMap<Box<str>, usize>,
}

#[derive(Debug, Default)]
struct OwnedDevices {
    count: usize,
    /// When the devices of the last hour were created.
    recent: VecDeque<i64>,
    /// Whether `recent` may be out of order, as after a snapshot was restored.
    unordered: bool,
}

impl OwnedDevices {
    /// When the devices of the last hour were created, oldest first.
    fn recent(&mut self) -> &mut VecDeque<i64> {
        if std::mem::take(&mut self.unordered) {
            self.recent.make_contiguous().sort_unstable();
        }
        &mut self.recent
    }
}

impl Owners {
    /// Checks that the user may introduce one more device.
    ///
    /// # Errors
    /// The limit that the device would exceed. Devices of unknown users have no limit: the journals of earlier versions do
    /// not tell the users apart.
    pub fn check(&mut self, user: RecordedUser<&str>, settings: &Settings, now_ms: i64) -> Result<(), DeviceLimit> {
        if user == RecordedUser::Unknown {
            return Ok(());
        }
        let Some(owned) = self.by_user.get_mut(&user.to_kept::<Arc<str>>()) else { return Ok(()) };
        if let Some(limit) = settings.max_devices_per_user.filter(|&limit| owned.count >= limit) {
            return Err(DeviceLimit::User(limit));
        }
        let recent = owned.recent();
        recent.drain(..recent.partition_point(|&at_ms| at_ms <= now_ms.saturating_sub(HOUR_MS)));
        let limit = settings.max_new_devices_per_hour.filter(|&limit| recent.len() >= limit);
        limit.map_or(Ok(()), |limit| Err(DeviceLimit::NewOfUser(limit)))
    }

    /// Checks that there may be one more device of the tenant.
    ///
    /// # Errors
    /// The limit that the device would exceed.
    pub fn check_tenant(&self, tenant: &TenantSettings) -> Result<(), DeviceLimit> {
        let count = self.by_tenant.get(&*tenant.prefix).copied().unwrap_or(0);
        let limit = tenant.max_devices.filter(|&limit| count >= limit);
        limit.map_or(Ok(()), |limit| Err(DeviceLimit::Tenant(limit)))
    }

    /// Counts a device that was created or restored. Devices of one user share the memory of its name.
    pub fn add(&mut self, device: &mut Device, now_ms: i64) {
        if let Some(prefix) = tenant_prefix(&device.id) {
            *self.by_tenant.entry(prefix.into()).or_default() += 1;
        }
        let name = device.introduced_by.clone();
        if let Some((kept, _)) = self.by_user.get_key_value(&name) {
            device.introduced_by = kept.clone();
        }
        let owned = self.by_user.entry(name).or_default();
        owned.count += 1;
        let at_ms = device.first_seen_ms;
        if at_ms != NONE_MS && at_ms > now_ms.saturating_sub(HOUR_MS) {
            owned.unordered |= owned.recent.back().is_some_and(|&last_ms| last_ms > at_ms);
            owned.recent.push_back(at_ms);
        }
    }

    /// Counts devices that were created in a time that was wrong as created at `now_ms`.
    pub fn set_back(&mut self, now_ms: i64) {
        let recent = self.by_user.values_mut().flat_map(|owned| owned.recent.iter_mut());
        recent.for_each(|at_ms| *at_ms = (*at_ms).min(now_ms));
    }

    /// Counts a device no more.
    pub fn remove(&mut self, device: &Device) {
        if let Some(prefix) = tenant_prefix(&device.id)
            && let Some(count) = self.by_tenant.get_mut(prefix)
        {
            *count -= 1;
            if *count == 0 {
                self.by_tenant.remove(prefix);
            }
        }
        let Some(owned) = self.by_user.get_mut(&device.introduced_by) else { return };
        owned.count -= 1;
        let recent = owned.recent();
        if let Ok(place) = recent.binary_search(&device.first_seen_ms) {
            recent.remove(place);
        }
        if owned.count == 0 {
            self.by_user.remove(&device.introduced_by);
        }
    }
}

/// The prefix of the tenant that a device belongs to. The ids that a tenant knows have no `/`.
fn tenant_prefix(device_id: &str) -> Option<&str> {
    device_id.rfind('/').and_then(|at| device_id.get(..=at))
}
