//! Which topics are those of one device: what access rules ask.

use std::borrow::Cow;

use super::Maps;
use super::compiled::CompiledMap;
use super::mapped::MapRole;
use super::names::device_id;
use super::pattern::{Captures, Pattern, PatternLevel};
use super::reading::ValuePlace;

/// The topics below which each device has a level of its own, such as `tele/`.
#[derive(Debug, Default)]
pub(super) struct OwnLevels(Vec<OwnLevel>);

/// Literal levels of a pattern around the level that is the device.
#[derive(Debug)]
struct OwnLevel {
    /// The literal levels before the device, with a slash behind each.
    before: Box<str>,
    /// The literal levels behind the device but for the last level of the pattern, with a slash before each. Others may use other
    /// levels below the same device, as weir's own topics do beside those of Azure.
    behind: Box<str>,
    /// Levels that other patterns have in the place of the device. They are no devices.
    taken: Vec<Box<str>>,
}

impl OwnLevels {
    /// Those of all patterns of `maps`.
    pub fn new(maps: &[CompiledMap]) -> Self {
        let mut all: Vec<OwnLevel> = Vec::new();
        for map in maps {
            for (role, _, pattern) in map.patterns() {
                if let Some(before) = before_device(map, role, pattern) {
                    let behind = behind_device(pattern);
                    if !all.iter().any(|own| *own.before == *before && *own.behind == *behind) {
                        all.push(OwnLevel { before: before.into(), behind: behind.into(), taken: Vec::new() });
                    }
                }
            }
        }
        for (_, _, pattern) in maps.iter().flat_map(CompiledMap::patterns) {
            let literals: Vec<&str> = literals(pattern).collect();
            for own in &mut all {
                let count = own.before.matches('/').count();
                if let (Some(before), Some(level)) = (literals.get(..count), literals.get(count))
                    && joined(before) == *own.before
                {
                    own.taken.push((*level).into());
                }
            }
        }
        Self(all)
    }

    fn hold(&self, filter: &str, device: &str) -> bool {
        self.0.iter().any(|own| {
            let below = filter.strip_prefix(&*own.before).and_then(|rest| rest.strip_prefix(device));
            let below = below.and_then(|rest| rest.strip_prefix(&*own.behind));
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                && !own.taken.iter().any(|level| **level == *device)
        })
    }
}

/// The literal levels before the device of a pattern, if its device is the whole level that follows them.
fn before_device(map: &CompiledMap, role: MapRole, pattern: &Pattern) -> Option<String> {
    let literals: Vec<&str> = literals(pattern).collect();
    let (PatternLevel::One(name) | PatternLevel::Many(name)) = pattern.levels.get(literals.len())? else { return None };
    if literals.is_empty() {
        return None;
    }
    const SAMPLE: &str = "x";
    let mut captures = Captures::default();
    *captures.get_mut(usize::from(*name))? = Some(Cow::Borrowed(SAMPLE));
    (map.device_of(role, &captures)? == SAMPLE).then(|| joined(&literals))
}

/// The literal levels behind the device but for the last level of the pattern.
fn behind_device(pattern: &Pattern) -> String {
    let device = literals(pattern).count();
    let behind = pattern.levels.get(device + 1..).unwrap_or_default();
    let inner = behind.get(..behind.len().saturating_sub(1)).unwrap_or_default();
    let texts = inner.iter().map_while(|level| match level {
        PatternLevel::Literal(text) => Some(&**text),
        _ => None,
    });
    texts.flat_map(|text| ["/", text]).collect()
}

/// The literal levels at the beginning of a pattern.
fn literals(pattern: &Pattern) -> impl Iterator<Item = &str> {
    pattern.levels.iter().map_while(|level| match level {
        PatternLevel::Literal(text) => Some(&**text),
        _ => None,
    })
}

fn joined(levels: &[&str]) -> String {
    levels.iter().flat_map(|level| [*level, "/"]).collect()
}

impl CompiledMap {
    /// The device that the levels of a topic name; `None`: they name none.
    fn device_of<'a>(&'a self, role: MapRole, captures: &Captures<'a>) -> Option<Cow<'a, str>> {
        let of_status = self.status.as_ref().and_then(|status| status.device.as_ref());
        let template = of_status.filter(|_| role == MapRole::Status).unwrap_or(&self.device);
        let place = ValuePlace { captures, document: None, sample: None };
        let device = device_id(template.fill(place.input(&Cow::Borrowed(""))));
        (!device.is_empty()).then_some(device)
    }
}

impl Maps {
    /// The device that `topic` names, as the map that takes it reads the topic; `None`: no map takes it, or only payloads name
    /// devices.
    pub fn device_of_topic<'a>(&'a self, topic: &'a str) -> Option<Cow<'a, str>> {
        let found = self.find(topic)?;
        let map = self.maps.get(usize::from(found.map))?;
        map.device_of(found.role, &map.captures(found.role, found.pattern, topic))
    }

    /// Whether `topic` is one of `device`: a map reads that device from it, or it is below the level at which a map reads the
    /// device, as `tele/desk/X` is for the device `desk`.
    pub fn is_own_topic(&self, topic: &str, device: &str) -> bool {
        if device.is_empty() || device.contains(['/', '+', '#']) {
            return false;
        }
        match self.device_of_topic(topic) {
            Some(found) => found == device,
            None => self.own_levels.hold(topic, device),
        }
    }

    /// Whether every topic that `filter` matches is one of `device`.
    pub fn is_own_filter(&self, filter: &str, device: &str) -> bool {
        if !filter.contains(['+', '#']) {
            return self.is_own_topic(filter, device);
        }
        !device.is_empty() && !device.contains(['/', '+', '#']) && self.own_levels.hold(filter, device)
    }
}

#[cfg(test)]
mod tests {
    use crate::core::formats::{MapSettings, Maps, StatusSettings};

    fn map(name: &str, topics: &[&str], ignore: &[&str], device: &str) -> MapSettings {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        MapSettings {
            name: name.into(),
            topics: texts(topics),
            ignore: texts(ignore),
            device: device.into(),
            ..MapSettings::default()
        }
    }

    fn maps() -> Maps {
        let status = StatusSettings {
            topics: vec!["gw/{gateway}/LWT".into()],
            online: vec!["on".into()],
            device: "{gateway}".into(),
            ..StatusSettings::default()
        };
        let all = [
            map("tasmota", &["tele/{device}/SENSOR"], &["stat/{device}/#", "tasmota/discovery/#"], "{device}"),
            map("homie4", &["homie/{device}/{node}/{property}"], &[], "{device}"),
            map("homie5", &["homie/5/{device}/{node}/{property}"], &[], "{device}"),
            map("zigbee", &["z/{device+}"], &["z/bridge/#"], "{device}"),
            map("azure", &["devices/{device}/messages/events/#"], &[], "{device}"),
            map("shelly", &["{device+}/events/rpc"], &["{device+}/rpc"], "{device}"),
            MapSettings { status: Some(status), ..map("omg", &["gw/{gateway}/BT/{mac}"], &[], "{/id}") },
        ];
        Maps::new(&all).expect("maps without faults")
    }

    #[test]
    fn topics_of_a_device_are_its_own() {
        let maps = maps();
        for (topic, device) in [
            ("tele/desk/SENSOR", "desk"),
            ("tele/desk/UPTIME", "desk"),
            ("tele/desk", "desk"),
            ("stat/desk/RESULT", "desk"),
            ("homie/desk/n/p", "desk"),
            ("homie/5/desk/n/p", "desk"),
            ("z/office/sensor", "office.sensor"),
            ("desk/events/rpc", "desk"),
            ("gw/attic/LWT", "attic"),
            ("devices/desk/messages/events/a", "desk"),
            // Readings there are of other devices, and are rejected.
            ("gw/attic/BT/aa", "attic"),
        ] {
            assert!(maps.is_own_topic(topic, device), "{topic} of {device}");
            assert!(!maps.is_own_topic(topic, "other"), "{topic}");
        }
        for (topic, device) in [
            ("homie/5/other/n/p", "5"),
            ("homie/5/x", "5"),
            ("z/bridge/state", "bridge"),
            ("tele/desk2/SENSOR", "desk"),
            ("tele/desk2/X", "desk"),
            ("tele", ""),
            ("tele//x", ""),
            ("desk/other", "desk"),
            ("desk", "desk"),
            ("tasmota/discovery/aa/config", "desk"),
            ("tele/a/b/SENSOR", "a/b"),
            ("devices/desk/commands/x", "desk"),
        ] {
            assert!(!maps.is_own_topic(topic, device), "{topic} of {device}");
        }
    }

    #[test]
    fn filters_must_be_below_the_device() {
        let maps = maps();
        for filter in ["stat/desk/#", "tele/desk/+", "tele/desk/SENSOR", "desk/rpc", "stat/desk/+/x/#"] {
            assert!(maps.is_own_filter(filter, "desk"), "{filter}");
        }
        for filter in [
            "stat/#",
            "tele/+/SENSOR",
            "+/desk/#",
            "#",
            "desk/#",
            "tele/desk#",
            "stat/other/#",
            "homie/5/#",
            "devices/desk/#",
        ] {
            assert!(!maps.is_own_filter(filter, "desk"), "{filter}");
        }
        assert!(!maps.is_own_filter("homie/5/#", "5") && !maps.is_own_filter("z/bridge/#", "bridge"));
    }
}
