//! MQTT discovery of Home Assistant: messages that say which value of which topic has which unit, and what the device is called.
//! They carry no values.

use super::about::DeviceAbout;
use super::document::{MapDocument, ROOT};
use super::mapped::{Ignored, MappedMessage};
use super::template::text_of;
use crate::core::json::JsonToken;

/// Largest number of components that one message announces; further ones are left out.
const MAX_COMPONENTS: usize = 256;
/// Filters of templates that leave the unit of a value as it is.
const FILTERS: [&str; 7] = ["abs", "default", "float", "int", "is_defined", "round", "string"];

/// What a discovery message says about the messages of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The topic, in full.
    pub topic: String,
    /// Key of a value in its messages, flattened with `.`, and the unit of the value. The key is empty where the payload is the
    /// value.
    pub unit: Option<(String, String)>,
    /// The device of the topic.
    pub about: DeviceAbout,
}

/// Where a key is looked for: in a component, then in the message around it.
#[derive(Clone, Copy)]
struct Scopes<'d, 'a> {
    document: &'d MapDocument<'a>,
    component: u32,
}

impl Scopes<'_, '_> {
    /// The text of a key, which has a short name too.
    fn text(self, name: &str, short: &str) -> Option<String> {
        let of = |at| member(self.document, at, name, short).and_then(|at| text_of(self.document.token(at)));
        of(self.component).or_else(|| of(ROOT)).map(|text| text.into_owned())
    }

    /// A topic. `~` at its begin or end stands for the base topic.
    fn topic(self, name: &str, short: &str) -> Option<String> {
        let topic = self.text(name, short)?;
        let Some(base) = self.text("~", "~") else { return Some(topic) };
        Some(if let Some(rest) = topic.strip_prefix('~') {
            base + rest
        } else if let Some(start) = topic.strip_suffix('~') {
            format!("{start}{base}")
        } else {
            topic
        })
    }

    fn about(self) -> DeviceAbout {
        let document = self.document;
        let found = [self.component, ROOT].into_iter().find_map(|at| member(document, at, "device", "dev"));
        let Some(device) = found.filter(|at| *document.token(*at) == JsonToken::Object) else {
            return DeviceAbout::default();
        };
        let text = |name, short| member(document, device, name, short).and_then(|at| text_of(document.token(at)));
        let (name, model, maker) = (text("name", "name"), text("model", "mdl"), text("manufacturer", "mf"));
        DeviceAbout::new(name.as_deref(), model.as_deref(), maker.as_deref())
    }

    /// What the component says about its topic, if that says anything.
    fn announcement(self) -> Option<Announcement> {
        let topic = self.topic("state_topic", "stat_t")?;
        let key =
            self.text("value_template", "val_tpl").map_or_else(|| Some(String::new()), |text| template_key(&text));
        let unit = key.zip(self.text("unit_of_measurement", "unit_of_meas"));
        let about = self.about();
        (unit.is_some() || !about.is_empty()).then_some(Announcement { topic, unit, about })
    }
}

fn member(document: &MapDocument<'_>, at: u32, name: &str, short: &str) -> Option<u32> {
    if *document.token(at) != JsonToken::Object {
        return None;
    }
    document.member(at, name).or_else(|| document.member(at, short))
}

/// Reads a discovery message: of one component, or of a device with its components.
pub(super) fn read<'a>(document: &MapDocument<'_>) -> MappedMessage<'a> {
    let mut message = MappedMessage::default();
    let components = match member(document, ROOT, "components", "cmps") {
        Some(components) => document.children(components).take(MAX_COMPONENTS).collect(),
        None => vec![ROOT],
    };
    for component in components {
        match (Scopes { document, component }).announcement() {
            Some(announcement) => message.announcements.push(announcement),
            None => message.ignore(Ignored::Absent, 1),
        }
    }
    message
}

/// The key that a template takes from a payload, flattened with `.`: `ENERGY.Power` of `{{ value_json.ENERGY.Power }}` and of
/// `{{ value_json['ENERGY']['Power'] | round(1) }}`. Empty: the whole payload. `None`: the template does more.
fn template_key(template: &str) -> Option<String> {
    let template = template.trim();
    if template.is_empty() {
        return Some(String::new());
    }
    let inner = template.strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.trim_start_matches('-').trim_end_matches('-').trim();
    let mut parts = inner.split('|').map(str::trim);
    let value = parts.next()?;
    if !parts.all(|filter| FILTERS.contains(&filter.split_once('(').map_or(filter, |(name, _)| name.trim_end()))) {
        return None;
    }
    if value == "value" {
        return Some(String::new());
    }
    let mut rest = value.strip_prefix("value_json")?;
    let mut keys: Vec<&str> = Vec::new();
    while !rest.is_empty() {
        let key;
        (key, rest) = next_key(rest)?;
        keys.push(key);
    }
    Some(keys.join("."))
}

/// The first step of a path in a template, as in `.a`, `['a']`, `["a"]` or `[0]`, and what follows.
fn next_key(path: &str) -> Option<(&str, &str)> {
    if let Some(name) = path.strip_prefix('.') {
        let end = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
        return name.split_at_checked(end).filter(|(name, _)| !name.is_empty());
    }
    let inner = path.strip_prefix('[')?.trim_start();
    if let Some(quote) = inner.chars().next().filter(|c| matches!(c, '\'' | '"')) {
        let (key, behind) = inner.get(1..)?.split_once(quote)?;
        return Some((key, behind.trim_start().strip_prefix(']')?));
    }
    let (index, behind) = inner.split_once(']')?;
    let index = index.trim_end();
    (!index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit())).then_some((index, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_templates_name_a_key() {
        for (template, key) in [
            ("{{ value }}", ""),
            ("{{ value | float }}", ""),
            ("{{value_json}}", ""),
            ("{{ value_json.temperature }}", "temperature"),
            ("{{value_json['AM2301'].Temperature}}", "AM2301.Temperature"),
            ("{{ value_json[\"a b\"]['c.d'] | round(1) }}", "a b.c.d"),
            ("{{- value_json.POWER[0] | float(0) -}}", "POWER.0"),
        ] {
            assert_eq!(template_key(template).as_deref(), Some(key), "{template}");
        }
        for other in [
            "{{ value_json.a / 1000 }}",
            "{{ value_json.a | multiply(0.1) }}",
            "{{ value_json.a + value_json.b }}",
            "{% if value_json.a %}1{% endif %}",
            "{{ value_jsonx.a }}",
            "{{ value_json[a] }}",
            "{{ value_json.a. }}",
            "{{ value_json['a }}",
            "value",
        ] {
            assert_eq!(template_key(other), None, "{other}");
        }
    }

    /// Topic, key and unit, name, and model of an announcement.
    type Announced<'a> = (&'a str, Option<(&'a str, &'a str)>, Option<&'a str>, Option<&'a str>);

    fn check(payload: &str, expected: &[Announced<'_>]) {
        let message = read(&MapDocument::parse(payload).unwrap());
        let found: Vec<_> = message
            .announcements
            .iter()
            .map(|Announcement { topic, unit, about }| {
                let unit = unit.as_ref().map(|(key, unit)| (key.as_str(), unit.as_str()));
                (topic.as_str(), unit, about.name.as_deref(), about.model.as_deref())
            })
            .collect();
        assert_eq!(found, expected, "{payload}");
    }

    #[test]
    fn components() {
        // Zigbee2MQTT.
        check(
            r#"{"availability":[{"topic":"zigbee2mqtt/bridge/state","value_template":"{{ value_json.state }}"}],"availability_mode":"all","device":{"identifiers":["zigbee2mqtt_0x00158d0001"],"manufacturer":"Aqara","model":"Temperature and humidity sensor","model_id":"WSDCGQ11LM","name":"kitchen","via_device":"zigbee2mqtt_bridge_0x00124b"},"device_class":"temperature","enabled_by_default":true,"object_id":"kitchen_temperature","origin":{"name":"Zigbee2MQTT","sw":"1.40.2","url":"https://www.zigbee2mqtt.io"},"state_class":"measurement","state_topic":"zigbee2mqtt/kitchen","unique_id":"0x00158d0001_temperature_zigbee2mqtt","unit_of_measurement":"°C","value_template":"{{ value_json.temperature }}"}"#,
            &[(
                "zigbee2mqtt/kitchen",
                Some(("temperature", "°C")),
                Some("kitchen"),
                Some("Temperature and humidity sensor"),
            )],
        );
        // Tasmota.
        check(
            r#"{"name":"Tasmota AM2301 Temperature","stat_t":"tele/tasmota_D3E8A6/SENSOR","avty_t":"tele/tasmota_D3E8A6/LWT","pl_avail":"Online","pl_not_avail":"Offline","uniq_id":"D3E8A6_AM2301_Temperature","dev":{"ids":["D3E8A6"]},"unit_of_meas":"°C","dev_cla":"temperature","frc_upd":true,"val_tpl":"{{value_json['AM2301'].Temperature}}"}"#,
            &[("tele/tasmota_D3E8A6/SENSOR", Some(("AM2301.Temperature", "°C")), None, None)],
        );
        // A base topic; no template.
        check(
            r#"{"~":"plug/1","stat_t":"~/power","unit_of_meas":"W","dev":{"name":"Plug","mdl":"P1"}}"#,
            &[("plug/1/power", Some(("", "W")), Some("Plug"), Some("P1"))],
        );
        // What computes the value says nothing of the unit in the payload.
        check(r#"{"stat_t":"a","unit_of_meas":"kW","val_tpl":"{{ value_json.p / 1000 }}"}"#, &[]);
        check(r#"{"command_topic":"a"}"#, &[]);
        check("[1]", &[]);
    }

    #[test]
    fn devices_with_their_components() {
        check(
            r#"{"dev":{"ids":"ea334450945afc","name":"Kitchen","mf":"Bla electronics","mdl":"xya"},"o":{"name":"bla2mqtt"},"cmps":{"a":{"p":"sensor","device_class":"temperature","unit_of_measurement":"°C","value_template":"{{ value_json.temperature }}","unique_id":"temp01ae_t"},"b":{"p":"sensor","unit_of_meas":"%","val_tpl":"{{ value_json.humidity }}","stat_t":"other/state"},"c":{"p":"sensor"}},"state_topic":"sensorBedroom/state","qos":2}"#,
            &[
                ("sensorBedroom/state", Some(("temperature", "°C")), Some("Kitchen"), Some("xya")),
                ("other/state", Some(("humidity", "%")), Some("Kitchen"), Some("xya")),
                ("sensorBedroom/state", None, Some("Kitchen"), Some("xya")),
            ],
        );
    }
}
