//! The language of maps, piece by piece.

use proptest::prelude::*;

use crate::core::formats::{
    Conversion, MapMemory, MapSettings, MappedElement, MappedTime, MappedValue, Maps, PayloadFormat,
};

const ARRIVAL_MS: i64 = 1_800_000_000_000;

fn map(change: impl FnOnce(&mut MapSettings)) -> MapSettings {
    let mut map = MapSettings { name: "m".into(), topics: vec!["t/{device}".into()], ..MapSettings::default() };
    change(&mut map);
    map
}

/// Metrics and values of a message on `t/d`, with errors by their names.
fn readings(map: MapSettings, payload: &str) -> Vec<(String, String)> {
    let maps = Maps::new(&[map]).unwrap();
    let mut memory = MapMemory::default();
    let found = maps.find("t/d").unwrap();
    let mapped = maps.map(found, "t/d", payload.as_bytes(), ARRIVAL_MS, &mut memory).unwrap();
    let of_element = |element: MappedElement<'_>| {
        let of_reading = |reading: crate::core::formats::MappedReading<'_>| {
            let value = match reading.value {
                MappedValue::Number(number) => number.to_string(),
                MappedValue::NameTwice(first, second) => format!("{first} = {second}"),
                other => format!("{other:?}"),
            };
            (reading.metric.into_owned(), value)
        };
        element.readings.into_iter().map(of_reading).collect::<Vec<_>>()
    };
    mapped.elements.into_iter().flat_map(of_element).collect()
}

fn check(map: MapSettings, payload: &str, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(metric, value)| ((*metric).to_owned(), (*value).to_owned())).collect();
    assert_eq!(readings(map, payload), expected, "{payload}");
}

#[test]
fn texts_are_numbers_words_or_no_value() {
    let texts =
        r#"{"a":"00317.39","b":".5","c":"1e3","d":"0x1f","e":"1,5","f":"3 %","g":"Off","h":"N/A","i":NaN,"j":null}"#;
    check(map(|_| {}), texts, &[("a", "317.39"), ("b", "0.5"), ("c", "1000"), ("g", "0")]);
    let words = |map: &mut MapSettings| map.words = [("offen".to_owned(), 2.0)].into();
    check(map(words), r#"{"a":"OFFEN"}"#, &[("a", "2")]);
}

#[test]
fn scales_and_conversions() {
    let scale = |map: &mut MapSettings| {
        map.scale.insert("v*".into(), 0.1);
        map.scale.insert("vx".into(), 100.0);
        map.no_value.insert("*".into(), vec![-127.0]);
    };
    check(map(scale), r#"{"v":2301,"vx":2,"t":-127,"on":true}"#, &[("v", "230.1"), ("vx", "200"), ("on", "1")]);
    let convert = |map: &mut MapSettings| {
        let conversion = |key: &str, from: &str, to: &str| Conversion {
            keys: vec![key.into()],
            from: from.into(),
            to: to.into(),
            ..Conversion::default()
        };
        map.convert = vec![conversion("f", "F", "celsius"), conversion("e", "Wh", "kWh"), conversion("p", "hPa", "Pa")];
    };
    check(map(convert), r#"{"f":212,"e":1500,"p":1013.25}"#, &[("f", "100"), ("e", "1.5"), ("p", "101325")]);
}

#[test]
fn names_that_two_keys_become() {
    check(map(|_| {}), r#"{"a b":1,"a_b":2}"#, &[("a_b", "1"), ("a_b", "a b = a_b")]);
    check(map(|_| {}), r#"{"a":1,"a":2}"#, &[("a", "1"), ("a", "a = a")]);
    let rename = |map: &mut MapSettings| drop(map.rename.insert("x".into(), "y".into()));
    check(map(rename), r#"{"x":1,"y":2}"#, &[("y", "1"), ("y", "x = y")]);
    let lines = |map: &mut MapSettings| map.payload = PayloadFormat::Line;
    check(map(lines), "m,a=1 v=1\nm,a=2 v=2", &[("v", "1"), ("v", "2")]);
    let many: String = (0..40).map(|n| format!("\"k {n}\":1,\"k_{n}\":1,")).collect();
    let many = readings(map(|_| {}), &format!("{{{}}}", many.trim_end_matches(',')));
    assert_eq!(many.iter().filter(|(_, value)| value.contains('=')).count(), 40);
}

#[test]
fn separators_with_nothing_beside_them_are_cut() {
    let with = |template: &'static str| map(move |map| map.metric = template.into());
    check(with("{/a}.{/b}.{key}"), r#"{"b":"x","k":1}"#, &[("x.k", "1")]);
    check(with("{key}.{/a}"), r#"{"k":1}"#, &[("k", "1")]);
    check(with("{/a|/b|=none}/{key}"), r#"{"k":1}"#, &[("none/k", "1")]);
    check(with("_{key}_"), r#"{"k":1}"#, &[("_k_", "1")]);
}

#[test]
fn local_times_of_a_clock_change() {
    let check = |time: &str, expected: &str| {
        let with_time = map(|map| {
            map.time = vec!["/t".into()];
            map.timezone = "Europe/Berlin".into();
        });
        let maps = Maps::new(&[with_time]).unwrap();
        let payload = format!("{{\"t\":\"{time}\",\"v\":1}}");
        let mut memory = MapMemory::default();
        let mapped = maps.map(maps.find("t/d").unwrap(), "t/d", payload.as_bytes(), ARRIVAL_MS, &mut memory).unwrap();
        let expected: jiff::Timestamp = expected.parse().unwrap();
        assert_eq!(mapped.elements[0].time, MappedTime::At(expected.as_millisecond()), "{time}");
    };
    check("2025-10-26T02:30:00", "2025-10-26T00:30:00Z");
    check("2025-03-30 02:30", "2025-03-30T01:30:00Z");
    check("2025-03-30T02:30:00+0100", "2025-03-30T01:30:00Z");
}

#[test]
fn faults_name_their_keys() {
    let check = |change: fn(&mut MapSettings), keys: &[&str]| {
        let faults = Maps::new(&[map(change)]).map(drop).unwrap_err();
        assert_eq!(faults.iter().map(|fault| &*fault.key).collect::<Vec<_>>(), keys, "{faults:?}");
    };
    check(|map| map.device = "{gateway}".into(), &["device"]);
    check(|map| map.metric = "x".repeat(257), &["metric"]);
    check(|map| map.topics.push("a/b{c}".into()), &["topics"]);
    check(|map| map.topics.push("a/#/b".into()), &["topics"]);
    check(|map| map.topics.push("{a+}/{b+}".into()), &["topics"]);
    check(|map| map.topics = vec!["t/{device}".into(); 65], &["topics"]);
    check(|map| map.time = vec!["ts".into()], &["time"]);
    check(|map| map.timezone = "Berlin".into(), &["timezone"]);
    check(|map| map.seq_bits = Some(12), &["seq_bits"]);
    check(|map| map.no_clock_before = "x".into(), &["no_clock_before"]);
    check(
        |map| {
            map.payload = PayloadFormat::Scalar;
            map.value = "/v".into();
        },
        &["value"],
    );
    let same = Maps::new(&[map(|_| {}), map(|map| map.topics = vec!["t/{d}".into()])]).map(drop).unwrap_err();
    assert!(same.iter().any(|fault| fault.map == 1 && fault.key == "topics" && fault.message.contains("\"m\"")));
}

const FORMATS: [PayloadFormat; 8] = [
    PayloadFormat::Json,
    PayloadFormat::Scalar,
    PayloadFormat::Line,
    PayloadFormat::Senml,
    PayloadFormat::SenmlCbor,
    PayloadFormat::SparkplugB,
    PayloadFormat::Ruuvi,
    PayloadFormat::HomeassistantDiscovery,
];

fn does_not_panic(payload: &[u8]) {
    for format in FORMATS {
        let any = map(|map| {
            map.payload = format;
            map.topics = vec!["spBv1.0/g/{type}/{device}".into()];
        });
        let maps = Maps::new(&[any]).unwrap();
        for topic in ["spBv1.0/g/NBIRTH/n", "spBv1.0/g/NDATA/n"] {
            let found = maps.find(topic).unwrap();
            let _ = maps.map(found, topic, payload, ARRIVAL_MS, &mut MapMemory::default());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_payload_panics(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        does_not_panic(&payload);
    }

    #[test]
    fn no_text_panics(payload in "[\\[\\]{}\":,0-9a-z .\\\\é-]{0,60}") {
        does_not_panic(payload.as_bytes());
    }
}
