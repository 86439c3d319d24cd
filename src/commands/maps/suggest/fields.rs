//! What JSON payloads hold: where elements repeat, which key is the time, which are constant texts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Depth up to which objects are looked into.
const MAX_DEPTH: usize = 6;
/// Texts that are left out by name, at most; of more, all text is ignored anyway.
const MAX_EXCLUDED: usize = 24;
/// Names of keys that hold a time, without regard to case, the likelier first.
const TIMES: &[&str] = &[
    "timestamp",
    "time",
    "ts",
    "datetime",
    "date_time",
    "measured_at",
    "created_at",
    "received_at",
    "last_seen",
    "tst",
    "date",
    "t",
];
/// Names of keys that hold a sequence number, without regard to case.
const SEQUENCES: &[&str] =
    &["seq", "sequence", "seqno", "seq_no", "seqnum", "sequencenumber", "sequence_number", "msg_seq", "fcnt", "f_cnt"];
/// Names of keys that hold the name of a value.
const NAMES: &[&str] = &["metric", "name", "id", "n", "tag", "key", "sensor", "type", "label"];
/// Names of keys that hold a value beside its name.
const VALUES: &[&str] = &["value", "v", "val"];
/// Names of keys that hold the device.
const DEVICES: &[&str] = &[
    "device_id",
    "deviceid",
    "device",
    "deveui",
    "dev_eui",
    "devid",
    "dev_id",
    "mac",
    "serial",
    "serialnumber",
    "sn",
    "imei",
    "node",
    "id",
    "name",
];

/// Finds the key with a certain meaning in objects of one kind.
type KeyOf = for<'o> fn(&[&'o Map<String, Value>]) -> Option<&'o str>;

/// Keys of a map for JSON payloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JsonFields {
    /// Path at which elements repeat; empty: the document.
    pub each: String,
    /// Path of the metric of an element, if it has one.
    pub metric: Option<String>,
    /// Path of the value of such an element; empty: the element.
    pub value: String,
    /// Path of the time, if there is one.
    pub time: Option<String>,
    /// Whether the time is a text that names no zone.
    pub lacks_zone: bool,
    /// Path of the sequence number, if there is one.
    pub seq: Option<String>,
    /// Path of the device, if a key can be it.
    pub device: Option<String>,
    /// Flattened keys of times, of sequence numbers, and of texts that are no values.
    pub exclude: Vec<String>,
}

impl JsonFields {
    /// What documents hold. The first decides where elements repeat.
    pub fn new(documents: &[Value]) -> Self {
        let mut fields = Self { each: documents.first().map(repeated).unwrap_or_default(), ..Self::default() };
        let elements: Vec<&Map<String, Value>> = documents
            .iter()
            .flat_map(|document| elements(document, &fields.each))
            .filter_map(Value::as_object)
            .collect();
        let documents: Vec<&Map<String, Value>> = documents.iter().filter_map(Value::as_object).collect();
        let prefix = if fields.each.is_empty() { "" } else { "." };
        if !fields.each.is_empty() {
            fields.named_values(&elements);
        }
        // An element says more of itself than the document around it.
        let places = [(&elements, prefix), (&documents, "")];
        let find =
            |key_of: KeyOf| places.iter().find_map(|&(objects, prefix)| Some((objects, prefix, key_of(objects)?)));
        let path = |key_of: KeyOf| find(key_of).map(|(_, prefix, key)| format!("{prefix}/{}", escaped(key)));
        (fields.time, fields.seq, fields.device) = (path(key_of_time), path(key_of_sequence), path(key_of_device));
        fields.lacks_zone = find(key_of_time)
            .is_some_and(|(objects, _, key)| objects.iter().filter_map(|object| object.get(key)).any(lacks_zone));
        if fields.value.is_empty() {
            let no_values = [fields.time.as_deref(), fields.seq.as_deref()];
            fields.exclude = excluded(&elements, &no_values);
        }
        fields
    }

    /// Elements that have their name beside their value.
    fn named_values(&mut self, elements: &[&Map<String, Value>]) {
        let in_all = |names: &[&str], is_fit: fn(&Value) -> bool| {
            let is_there = |key: &str| elements.iter().all(|element| element.get(key).is_some_and(is_fit));
            let keys: BTreeSet<&str> = elements.iter().flat_map(|element| element.keys().map(String::as_str)).collect();
            let named = |name: &str| keys.iter().find(|key| key.eq_ignore_ascii_case(name) && is_there(key)).copied();
            names.iter().find_map(|name| named(name))
        };
        if let (Some(name), Some(value)) = (in_all(NAMES, Value::is_string), in_all(VALUES, |value| !value.is_object()))
        {
            self.metric = Some(format!("./{}", escaped(name)));
            self.value = format!("./{}", escaped(value));
        }
    }
}

/// The path of the array of objects with most values in a document; empty: there is none.
fn repeated(document: &Value) -> String {
    let mut best = (0, String::new());
    look(document, "", 0, &mut best);
    best.1
}

fn look(value: &Value, path: &str, depth: usize, best: &mut (usize, String)) {
    match value {
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_object) => {
            let count = items.iter().map(|item| leaves(item, 0)).sum();
            if count > best.0 {
                *best = (count, format!("{path}/*"));
            }
        }
        Value::Object(entries) if depth < MAX_DEPTH => {
            for (key, value) in entries {
                look(value, &format!("{path}/{}", escaped(key)), depth + 1, best);
            }
        }
        _ => {}
    }
}

/// Number of numbers in a value.
fn leaves(value: &Value, depth: usize) -> usize {
    match value {
        Value::Object(entries) if depth < MAX_DEPTH => entries.values().map(|value| leaves(value, depth + 1)).sum(),
        Value::Number(_) | Value::Bool(_) => 1,
        _ => 0,
    }
}

fn elements<'a>(document: &'a Value, each: &str) -> Vec<&'a Value> {
    match each.strip_suffix("/*") {
        None => vec![document],
        Some(path) => {
            document.pointer(path).and_then(Value::as_array).map(|all| all.iter().collect()).unwrap_or_default()
        }
    }
}

/// A key as a part of a JSON pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn key_of_time<'a>(objects: &[&'a Map<String, Value>]) -> Option<&'a str> {
    let first = objects.first()?;
    let is_named = |key: &&String, name: &str| key.eq_ignore_ascii_case(name);
    let holds = |key: &&String| objects.iter().all(|object| object.get(*key).is_none_or(is_time));
    let found = TIMES.iter().find_map(|name| first.keys().find(|key| is_named(key, name) && holds(key)));
    found.map(String::as_str)
}

/// Whether a value is a time of our days: a number by its magnitude, or a text that begins with a date.
fn is_time(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(|number| {
            // Seconds, milliseconds, microseconds and nanoseconds from 2001 to 2286.
            [1e9, 1e12, 1e15, 1e18].iter().any(|least| (*least..least * 10.0).contains(&number))
        }),
        Value::String(text) => {
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            let date = text.get(..10).is_some_and(|date| date.parse::<jiff::civil::Date>().is_ok());
            date || digits == text.len() && matches!(digits, 10 | 13 | 16 | 19)
        }
        _ => false,
    }
}

/// Whether a time is a text that names no zone: nothing behind the date says `Z` or a difference from UTC.
fn lacks_zone(value: &Value) -> bool {
    let behind = value.as_str().and_then(|text| text.get(10..)).filter(|behind| behind.contains(':'));
    behind.is_some_and(|behind| !behind.contains(['Z', 'z', '+', '-']))
}

/// A key with a number that changes from one object to the next.
fn key_of_sequence<'a>(objects: &[&'a Map<String, Value>]) -> Option<&'a str> {
    let first = objects.first()?;
    let number = |object: &Map<String, Value>, key: &str| object.get(key).and_then(Value::as_u64);
    let counts = |key: &str| {
        objects.iter().all(|object| number(object, key).is_some())
            && objects.windows(2).all(|pair| number(pair[0], key) != number(pair[1], key))
    };
    let find = |name: &&str| first.keys().find(|key| key.eq_ignore_ascii_case(name) && counts(key));
    SEQUENCES.iter().find_map(find).map(String::as_str)
}

fn key_of_device<'a>(objects: &[&'a Map<String, Value>]) -> Option<&'a str> {
    let first = objects.first()?;
    let is_id = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty() && text.len() <= 64);
    let holds = |key: &&String| objects.iter().all(|object| object.get(*key).is_some_and(is_id));
    let find = |name: &&str| first.keys().find(|key| key.eq_ignore_ascii_case(name) && holds(key));
    DEVICES.iter().find_map(find).map(String::as_str)
}

/// Keys whose values are texts in all elements and no numbers, and the keys at these paths.
fn excluded(elements: &[&Map<String, Value>], paths: &[Option<&str>]) -> Vec<String> {
    let mut is_text: BTreeMap<String, bool> = BTreeMap::new();
    for element in elements {
        for (key, value) in *element {
            note_texts(key.clone(), value, 0, &mut is_text);
        }
    }
    let keys = paths.iter().filter_map(|path| path.and_then(|path| path.rsplit_once('/')));
    for key in keys.map(|(_, key)| key.replace("~1", "/").replace("~0", "~")) {
        is_text.entry(key).and_modify(|is_text| *is_text = true);
    }
    is_text.into_iter().filter(|(_, is_text)| *is_text).map(|(key, _)| key).take(MAX_EXCLUDED).collect()
}

fn note_texts(key: String, value: &Value, depth: usize, is_text: &mut BTreeMap<String, bool>) {
    match value {
        Value::Object(entries) if depth < MAX_DEPTH => {
            for (inner, value) in entries {
                note_texts(format!("{key}.{inner}"), value, depth + 1, is_text);
            }
        }
        Value::Array(_) | Value::Object(_) | Value::Null => {}
        leaf => {
            let words = ["on", "off", "true", "false"];
            let text = leaf.as_str().is_some_and(|text| {
                text.trim().parse::<f64>().is_err() && !words.contains(&text.to_ascii_lowercase().as_str())
            });
            let all = is_text.entry(key).or_insert(true);
            *all &= text;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn flat_objects_have_a_time_and_texts() {
        let fields = JsonFields::new(&[
            json!({"ts": 1732098765, "temp": 21.5, "fw": "1.2.3", "hum": "40.1", "mac": "aa:bb", "pump": "ON"}),
            json!({"ts": 1732098766, "temp": 21.6, "fw": "1.2.3", "hum": "40.2", "mac": "aa:bb", "pump": "OFF"}),
        ]);
        assert_eq!((fields.each.as_str(), fields.time.as_deref()), ("", Some("/ts")));
        assert_eq!(fields.device.as_deref(), Some("/mac"));
        assert_eq!(fields.exclude, ["fw", "mac", "ts"]);
    }

    #[test]
    fn arrays_of_objects_are_elements() {
        let fields = JsonFields::new(&[json!({"gw": "g", "time": "2024-01-02T03:04:05Z", "tags": [
            {"id": "a", "v": 1, "t": 1732098765000_i64}, {"id": "b", "v": 2, "t": 1732098765000_i64},
        ]})]);
        let expected = JsonFields {
            each: "/tags/*".into(),
            metric: Some("./id".into()),
            value: "./v".into(),
            time: Some("./t".into()),
            device: Some("./id".into()),
            ..JsonFields::default()
        };
        assert_eq!(fields, expected);
        let fields = JsonFields::new(&[json!([{"temp": 1, "ts": 1732098765}])]);
        assert_eq!((fields.each.as_str(), fields.time.as_deref()), ("/*", Some("./ts")));
        assert_eq!(fields.exclude, ["ts"]);
    }

    #[test]
    fn what_looks_like_no_time_is_none() {
        for value in [json!(21.5), json!("12:30"), json!("now"), json!(null), json!(0)] {
            assert_eq!(JsonFields::new(&[json!({"time": value, "a": 1})]).time, None, "{value}");
        }
        for value in [json!(1732098765), json!("1732098765123"), json!("2024-01-02 03:04:05")] {
            assert_eq!(JsonFields::new(&[json!({"Time": value, "a": 1})]).time.as_deref(), Some("/Time"), "{value}");
        }
    }
}
