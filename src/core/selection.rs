//! Which devices a question of an operator is about, and in which order they are listed.

use std::cmp::Reverse;

use crate::core::device::{Device, Slot};
use crate::core::operator::Operator;
use crate::core::query::DeviceSummary;

/// Which devices are meant: those for which all of these hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceFilter {
    /// The user whose message created the device; `Some(None)`: an anonymous client, or it is not known.
    pub user: Option<Option<String>>,
    /// The last message came before this time, Unix milliseconds.
    pub last_seen_before_ms: Option<i64>,
}

impl DeviceFilter {
    fn selects(&self, device: &Device) -> bool {
        let by_user = self.user.as_ref().is_none_or(|user| device.introduced_by.as_deref().name() == user.as_deref());
        by_user && self.last_seen_before_ms.is_none_or(|before_ms| device.last_arrival_ms < before_ms)
    }
}

/// Order of a list of devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceOrder {
    /// By id.
    #[default]
    Id,
    /// The device that was created last comes first.
    Newest,
    /// The device that was silent longest comes first.
    Silent,
}

impl Operator {
    /// Up to `limit` devices that `filter` selects. `after` is the id behind which a list by id goes on; other orders begin
    /// at their first device.
    pub fn select_devices(
        &self,
        filter: &DeviceFilter,
        order: DeviceOrder,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<DeviceSummary> {
        if order == DeviceOrder::Id {
            let slots = self.selected(filter, after).take(limit);
            return slots.map(|slot| self.summary(&self.devices[slot])).collect();
        }
        let mut slots: Vec<Slot> = self.selected(filter, None).collect();
        match order {
            DeviceOrder::Silent => slots.sort_by_key(|&slot| self.devices[slot].last_arrival_ms),
            DeviceOrder::Id | DeviceOrder::Newest => {
                slots.sort_by_key(|&slot| Reverse(self.devices[slot].first_seen_ms));
            }
        }
        slots.truncate(limit);
        slots.into_iter().map(|slot| self.summary(&self.devices[slot])).collect()
    }

    /// Ids of up to `limit` devices that `filter` selects, in order of id.
    pub fn select_ids(&self, filter: &DeviceFilter, limit: usize) -> Vec<String> {
        self.selected(filter, None).take(limit).map(|slot| self.devices[slot].id.to_string()).collect()
    }

    /// Whether each of these devices is known.
    pub fn are_known(&self, ids: &[String]) -> Vec<bool> {
        ids.iter().map(|id| self.devices.find(id).is_some()).collect()
    }

    fn selected<'s>(&'s self, filter: &'s DeviceFilter, after: Option<&str>) -> impl Iterator<Item = Slot> + 's {
        self.devices.slots_after(after).filter(|&slot| filter.selects(&self.devices[slot]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::output::{Collector, ErrorEntry, WindowResult};
    use crate::core::record::{self, PublishRecord};
    use crate::core::settings::Settings;

    struct DiscardedResults;

    impl Collector for DiscardedResults {
        fn window(&mut self, _: u64, _: &WindowResult<'_>) {}
        fn error(&mut self, _: u64, _: &ErrorEntry<'_>) {}
    }

    fn operator() -> Operator {
        let mut operator = Operator::new(Settings { idle_timeout_ms: None, ..Settings::default() });
        let messages = [(10, "b", Some("u")), (20, "c", None), (30, "a", Some("u")), (40, "b", Some("v"))];
        for (lsn, (arrival_ms, device, user)) in (0..).zip(messages) {
            let publish = PublishRecord {
                client_id: "x",
                topic: &format!("devices/{device}/telemetry"),
                own_device: None,
                user,
                packet_id: 0,
                qos: 0,
                dup: false,
                retain: false,
                repeats_retained: false,
                payload: br#"{"metric":"m","value":1}"#,
            };
            let mut bytes = Vec::new();
            record::encode_publish(&publish, false, &mut bytes);
            operator.apply(lsn, arrival_ms, [&bytes[..]].into_iter(), &mut DiscardedResults).unwrap();
        }
        operator
    }

    fn check(filter: DeviceFilter, order: DeviceOrder, after: Option<&str>, expected: &[&str]) {
        let listed = operator().select_devices(&filter, order, after, 2);
        let ids: Vec<_> = listed.iter().map(|device| device.device_id.as_str()).collect();
        assert_eq!(ids, expected, "{filter:?} {order:?} {after:?}");
    }

    #[test]
    fn devices_are_selected_and_ordered() {
        let all = DeviceFilter::default;
        let of = |user: Option<&str>| DeviceFilter { user: Some(user.map(str::to_owned)), ..all() };
        let silent = DeviceFilter { last_seen_before_ms: Some(30), ..all() };
        check(all(), DeviceOrder::Id, None, &["a", "b"]);
        check(all(), DeviceOrder::Id, Some("b"), &["c"]);
        check(all(), DeviceOrder::Newest, None, &["a", "c"]);
        check(all(), DeviceOrder::Silent, None, &["c", "a"]);
        check(of(Some("u")), DeviceOrder::Newest, None, &["a", "b"]);
        check(of(None), DeviceOrder::Id, None, &["c"]);
        check(of(Some("v")), DeviceOrder::Id, None, &[]);
        check(silent.clone(), DeviceOrder::Id, None, &["c"]);
        assert_eq!(operator().select_ids(&silent, 9), ["c"]);
        assert_eq!(operator().are_known(&["a".into(), "d".into()]), [true, false]);
    }
}
