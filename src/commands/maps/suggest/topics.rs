//! Patterns for topics that were seen: which level is the device.

use std::collections::BTreeSet;

/// Levels that say what a message is, and not which device sent it.
const KINDS: &[&str] = &[
    "attributes",
    "data",
    "event",
    "events",
    "info",
    "json",
    "measurement",
    "measurements",
    "metrics",
    "payload",
    "reading",
    "readings",
    "report",
    "sensor",
    "sensors",
    "state",
    "stat",
    "status",
    "tele",
    "telemetry",
    "up",
    "update",
    "uplink",
    "value",
    "values",
];

/// A pattern with what its levels are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenPattern {
    /// The pattern.
    pub pattern: String,
    /// Template of the device; `None`: no level can be the device.
    pub device: Option<String>,
    /// Template of the metric, where a level is it.
    pub metric: Option<String>,
}

impl SeenPattern {
    /// A pattern for `topics`, which have all the same number of levels, and match `filter`. `has_metric` says whether each topic has
    /// one value, so that its last level is the metric.
    pub fn new(filter: &str, topics: &BTreeSet<&str>, has_metric: bool) -> Self {
        let all: Vec<Vec<&str>> = topics.iter().map(|topic| topic.split('/').collect()).collect();
        let first = all.first().cloned().unwrap_or_default();
        let wanted: Vec<&str> = filter.split('/').collect();
        let count = first.len();
        let at = |levels: &[&str], index: usize| levels.get(index).map_or(String::new(), |level| (*level).to_owned());
        let is_open = |index: usize| {
            let level = wanted.get(index).copied().unwrap_or("#");
            level == "+"
                || all.iter().any(|levels| levels.get(index) != first.get(index))
                || !may_be_literal(&at(&first, index))
        };
        let open: Vec<usize> = (0..count).filter(|index| is_open(*index)).collect();
        // Where the filter has wildcards before a name at its end, only messages of that name are asked for.
        let named = wanted.last().copied().filter(|last| *last != "+" && *last != "#" && filter.contains(['+', '#']));
        let metric = (has_metric && count > 1 && named.is_none()).then(|| count - 1);
        let device = device_level(&first, &open, metric);
        let name = |index: usize| match index {
            _ if Some(index) == device => "device".to_owned(),
            _ if Some(index) == metric => "metric".to_owned(),
            _ => format!("level{}", index + 1),
        };
        let is_named = |index: usize| open.contains(&index) || Some(index) == device || Some(index) == metric;
        let levels =
            (0..count).map(|index| if is_named(index) { format!("{{{}}}", name(index)) } else { at(&first, index) });
        // Devices of one name below different levels are different devices.
        let others = open.iter().filter(|index| Some(**index) != device && Some(**index) != metric);
        let others: Vec<usize> =
            others.copied().filter(|other| device.is_some_and(|at| is_shared(&all, at, *other))).collect();
        let template = |at: usize| {
            others.iter().copied().chain([at]).map(|index| format!("{{{}}}", name(index))).collect::<Vec<_>>().join(".")
        };
        Self {
            pattern: levels.collect::<Vec<_>>().join("/"),
            device: device.map(template),
            metric: metric.map(|_| "{metric}".to_owned()).or_else(|| named.filter(|_| has_metric).map(str::to_owned)),
        }
    }
}

/// Whether one device level stands below different levels at `other`.
fn is_shared(all: &[Vec<&str>], device: usize, other: usize) -> bool {
    all.iter().any(|one| all.iter().any(|two| one.get(device) == two.get(device) && one.get(other) != two.get(other)))
}

/// The level that is the device: the last one that is open, else the last that looks like a serial number or an address, else the last that
/// is no kind of message and not the first.
fn device_level(levels: &[&str], open: &[usize], metric: Option<usize>) -> Option<usize> {
    let end = metric.unwrap_or(levels.len());
    if let Some(last) = open.iter().rev().find(|index| **index < end) {
        return Some(*last);
    }
    let is_kind =
        |index: &usize| levels.get(*index).is_none_or(|level| KINDS.contains(&level.to_ascii_lowercase().as_str()));
    let is_serial = |index: &usize| levels.get(*index).is_some_and(|level| is_serial(level));
    if let Some(serial) = (0..end).rev().find(is_serial) {
        return Some(serial);
    }
    let named = (1..end).rev().find(|index| !is_kind(index));
    // Of `kitchen/temperature`, the first level is the device.
    named.or_else(|| (metric == Some(1)).then_some(0))
}

/// Whether a level looks like a serial number or an address: at least four digits, or six pairs of hexadecimal digits.
fn is_serial(level: &str) -> bool {
    let digits = level.bytes().filter(u8::is_ascii_digit).count();
    let hex = level.bytes().filter(u8::is_ascii_hexdigit).count();
    let is_address = hex >= 12 && level.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'-'));
    digits >= 4 || is_address
}

fn may_be_literal(level: &str) -> bool {
    !level.contains(['{', '}'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(filter: &str, topics: &[&str], has_metric: bool, expected: (&str, Option<&str>)) {
        let found = SeenPattern::new(filter, &topics.iter().copied().collect(), has_metric);
        assert_eq!((found.pattern.as_str(), found.device.as_deref()), expected, "{topics:?}");
    }

    #[test]
    fn the_level_that_differs_is_the_device() {
        check("plant/+/state", &["plant/a/state", "plant/b/state"], false, ("plant/{device}/state", Some("{device}")));
        check("plant/+/state", &["plant/a/state"], false, ("plant/{device}/state", Some("{device}")));
        check(
            "plant/#",
            &["plant/hall/a/up", "plant/yard/b/up"],
            false,
            ("plant/{level2}/{device}/up", Some("{device}")),
        );
        let same = ["plant/hall/a/up", "plant/yard/a/up", "plant/yard/b/up"];
        check("plant/#", &same, false, ("plant/{level2}/{device}/up", Some("{level2}.{device}")));
        check("#", &["rooms/kitchen/temp", "rooms/kitchen/hum"], true, ("rooms/{device}/{metric}", Some("{device}")));
        check("rooms/+/temp", &["rooms/kitchen/temp"], true, ("rooms/{device}/temp", Some("{device}")));
        check("#", &["rooms/kitchen/temp", "rooms/hall/temp"], true, ("rooms/{device}/{metric}", Some("{device}")));
    }

    #[test]
    fn of_one_topic_the_last_level_that_is_no_kind_is_the_device() {
        check("a/pump-7/state", &["a/pump-7/state"], false, ("a/{device}/state", Some("{device}")));
        check("a/pump-7", &["a/pump-7"], false, ("a/{device}", Some("{device}")));
        check("sensors/data", &["sensors/data"], false, ("sensors/data", None));
        check(
            "go-eCharger/012345/nrg",
            &["go-eCharger/012345/nrg"],
            false,
            ("go-eCharger/{device}/nrg", Some("{device}")),
        );
        check(
            "ble/A4C138FFEEDD/climate",
            &["ble/A4C138FFEEDD/climate"],
            false,
            ("ble/{device}/climate", Some("{device}")),
        );
        check("gateway", &["gateway"], false, ("gateway", None));
        check("kitchen/temperature", &["kitchen/temperature"], true, ("{device}/{metric}", Some("{device}")));
        check("temperature", &["temperature"], true, ("temperature", None));
    }
}
