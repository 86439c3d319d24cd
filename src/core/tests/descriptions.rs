//! Units of metrics, and names of devices: from payloads, from maps, and from discovery messages.

use serde_json::Value;

use super::maps::restored;
use super::{Effect, Input, OperatorHarness, T0};
use crate::core::formats::{MapSettings, PayloadFormat};
use crate::core::operator::Operator;
use crate::core::record::{self, PublishRecord};
use crate::core::settings::{Settings, TenantSettings};

/// SenML, flat JSON and discovery messages.
fn settings() -> Settings {
    let map = |name: &str, topic: &str, payload| MapSettings {
        name: name.into(),
        topics: vec![topic.into()],
        payload,
        ..MapSettings::default()
    };
    let flat = MapSettings {
        time: vec!["/ts".into()],
        exclude: vec!["ts".into()],
        units: [("h".to_owned(), "%".to_owned())].into(),
        device_name: "{/name}".into(),
        device_model: "{/maker} {/type}".into(),
        ..map("flat", "flat/{device}", PayloadFormat::Json)
    };
    let maps = vec![
        map("senml", "senml/{device}", PayloadFormat::Senml),
        flat,
        map("discovery", "ha/{device}/config", PayloadFormat::HomeassistantDiscovery),
    ];
    Settings { maps, ..Settings::default() }
}

/// SenML of device `a` with a value of `t` at each offset from [`T0`], with or without unit.
fn senml(offsets_ms: &[i64], unit: Option<&str>) -> Input {
    let unit = unit.map(|unit| format!(r#""u":"{unit}","#)).unwrap_or_default();
    let entry = |ms: &i64| format!(r#"{{"n":"t",{unit}"v":1,"t":{}}}"#, (T0 + ms) as f64 / 1_000.0);
    let entries: Vec<String> = offsets_ms.iter().map(entry).collect();
    Input::on("senml/a", format!("[{}]", entries.join(",")))
}

fn flat(device: &str, offset_ms: i64, values: &str) -> Input {
    Input::on(&format!("flat/{device}"), format!(r#"{{"ts":{},{values}}}"#, T0 + offset_ms))
}

/// Start, metric and unit of windows, in order.
fn units(effects: &[Effect]) -> Vec<(i64, String, Option<String>)> {
    let unit = |effect: &Effect| match effect {
        Effect::Window { json, .. } => {
            let start = json["window_start"].as_i64().unwrap() - T0;
            (start, json["metric"].as_str().unwrap().to_owned(), json["unit"].as_str().map(str::to_owned))
        }
        Effect::Error { json, .. } => panic!("{json}"),
    };
    effects.iter().map(unit).collect()
}

#[track_caller]
fn check(bench: &mut OperatorHarness, offset_ms: i64, input: Input, expected: &[(i64, &str, Option<&str>)]) {
    let found = units(&bench.apply(T0 + offset_ms, &[input]));
    let found: Vec<_> = found.iter().map(|(start, metric, unit)| (*start, metric.as_str(), unit.as_deref())).collect();
    assert_eq!(found, expected);
}

/// Unit of a metric, and of its last window.
fn known(operator: &Operator, device: &str, metric: &str) -> (Option<String>, Option<String>) {
    let device = operator.device(device).unwrap();
    let series = device.series.into_iter().find(|series| series.metric == metric).unwrap();
    let last = series.last_window.map(|window| serde_json::from_slice::<Value>(&window.json).unwrap());
    (series.unit, last.and_then(|last| last["unit"].as_str().map(str::to_owned)))
}

fn some(unit: &str) -> Option<String> {
    Some(unit.to_owned())
}

#[test]
fn a_window_has_the_unit_that_is_known_when_it_fires() {
    let mut bench = OperatorHarness::new(settings());
    check(&mut bench, 0, senml(&[0], None), &[]);
    check(&mut bench, 8_000, senml(&[8_000], Some("Cel")), &[(0, "t", Some("Cel"))]);
    check(&mut bench, 9_000, senml(&[9_000], None), &[]);
    check(&mut bench, 13_000, senml(&[13_000], Some("K")), &[(5_000, "t", Some("K"))]);
    bench.apply(T0 + 13_100, &[senml(&[13_100], Some("F"))]);
    assert_eq!(known(&bench.operator, "a", "t"), (some("F"), some("K")));
    bench.operator = restored(&mut bench.operator);
    assert_eq!(known(&bench.operator, "a", "t"), (some("F"), some("K")));
    check(&mut bench, 20_000, senml(&[20_000], None), &[(10_000, "t", Some("F"))]);
    // A late reading corrects the window under the unit of the present.
    check(&mut bench, 20_100, senml(&[9_900], None), &[(5_000, "t", Some("F"))]);
}

#[test]
fn windows_that_the_first_message_closes_have_its_unit() {
    let mut bench = OperatorHarness::new(settings());
    check(&mut bench, 20_000, senml(&[0, 8_000], Some("V")), &[(0, "t", Some("V"))]);
}

#[test]
fn a_map_gives_units() {
    let mut bench = OperatorHarness::new(settings());
    check(&mut bench, 0, flat("b", 0, r#""h":50,"x":1"#), &[]);
    check(&mut bench, 8_000, flat("b", 8_000, r#""h":50"#), &[(0, "h", Some("%")), (0, "x", None)]);
    // Another metric moves the others.
    check(&mut bench, 8_100, flat("b", 8_100, r#""a":1"#), &[]);
    assert_eq!(known(&bench.operator, "b", "h"), (some("%"), some("%")));
    assert_eq!(known(&bench.operator, "b", "a"), (None, None));
}

#[test]
fn a_rejected_reading_has_no_say() {
    let mut bench = OperatorHarness::new(settings());
    bench.apply(T0 + 20_000, &[senml(&[0], Some("V")), senml(&[20_000], Some("V"))]);
    // Older than any reading may be.
    let late = bench.apply(T0 + 20_000, &[senml(&[-86_400_000 * 40], Some("A"))]);
    assert!(matches!(&late[..], [Effect::Error { .. }]), "{late:?}");
    assert_eq!(known(&bench.operator, "a", "t").0, some("V"));
}

fn discovery(topic: &str, key: &str, unit: &str) -> Input {
    let payload = format!(
        r#"{{"stat_t":"{topic}","val_tpl":"{{{{ value_json.{key} }}}}","unit_of_meas":"{unit}","dev":{{"name":"Pump","mdl":"P7"}}}}"#
    );
    Input::on("ha/x/config", payload)
}

#[test]
fn discovery_may_come_before_or_after_the_readings() {
    let mut bench = OperatorHarness::new(settings());
    check(&mut bench, 0, flat("b", 0, r#""p":{"w":1},"h":2"#), &[]);
    bench.apply(T0, &[discovery("flat/b", "p.w", "W"), discovery("flat/c", "p.w", "W"), discovery("flat/b", "h", "x")]);
    bench.operator = restored(&mut bench.operator);
    assert_eq!(bench.operator.sizes().discovered_topics, 2);
    assert_eq!(bench.operator.map_activities()[2].messages, [0, 3, 0, 0]);
    assert_eq!((bench.operator.devices(None, 9).len(), bench.operator.totals().received), (1, 2));
    check(&mut bench, 8_000, flat("b", 8_000, r#""p":{"w":1}"#), &[(0, "h", Some("%")), (0, "p.w", Some("W"))]);
    check(&mut bench, 8_000, flat("c", 8_000, r#""p":{"w":1}"#), &[]);
    assert_eq!(known(&bench.operator, "c", "p.w").0, some("W"));
    let about = bench.operator.device("c").unwrap().summary.about;
    assert_eq!((about.name.as_deref(), about.model.as_deref(), about.manufacturer), (Some("Pump"), Some("P7"), None));
    assert_eq!(restored(&mut bench.operator).device("c"), bench.operator.device("c"));
}

#[test]
fn a_payload_says_what_its_device_is() {
    let mut bench = OperatorHarness::new(settings());
    let about = |bench: &OperatorHarness| {
        let about = bench.operator.device("b").unwrap().summary.about;
        (about.name.map(String::from), about.model.map(String::from))
    };
    bench.apply(T0, &[flat("b", 0, r#""p":1"#)]);
    assert_eq!(about(&bench), (None, None));
    bench.apply(T0, &[flat("b", 1, r#""p":1,"name":"Pump","type":"P7""#)]);
    assert_eq!(about(&bench), (some("Pump"), some("P7")));
    bench.apply(T0, &[flat("b", 2, r#""p":1,"name":"Pump 2""#)]);
    assert_eq!(about(&bench), (some("Pump 2"), some("P7")));
}

/// A publish of a client that speaks for one device alone.
fn of_own_device(own: &str, topic: &str, payload: &str) -> Input {
    let mut bytes = Vec::new();
    let publish = PublishRecord {
        client_id: own,
        topic,
        own_device: Some(own),
        user: None,
        packet_id: 1,
        qos: 0,
        dup: false,
        retain: false,
        repeats_retained: false,
        payload: payload.as_bytes(),
    };
    record::encode_publish(&publish, false, &mut bytes);
    Input::Encoded(bytes)
}

#[test]
fn a_device_says_nothing_of_others() {
    let mut bench = OperatorHarness::new(settings());
    let Input::Publish { payload, .. } = discovery("flat/b", "p", "W") else { panic!() };
    bench.apply(T0, &[of_own_device("mallory", "ha/x/config", std::str::from_utf8(&payload).unwrap())]);
    bench.apply(T0, &[flat("b", 0, r#""p":1"#)]);
    assert_eq!(known(&bench.operator, "b", "p").0, None);
    assert!(bench.operator.device("b").unwrap().summary.about.is_empty());
    bench.apply(T0, &[of_own_device("b", "ha/x/config", std::str::from_utf8(&payload).unwrap())]);
    let own = format!(r#"{{"ts":{T0},"p":1}}"#);
    bench.apply(T0, &[of_own_device("b", "flat/b", &own)]);
    assert_eq!(known(&bench.operator, "b", "p").0, some("W"));
}

#[test]
fn a_tenant_says_nothing_of_others() {
    let tenant = |prefix: &str| TenantSettings { prefix: prefix.into(), max_devices: None };
    let mut bench = OperatorHarness::new(Settings { tenants: vec![tenant("acme/"), tenant("zeta/")], ..settings() });
    let announce = |from: &str, of: &str| {
        let Input::Publish { payload, .. } = discovery(&format!("{of}flat/b"), "p", "W") else { panic!() };
        Input::on(&format!("{from}ha/x/config"), payload)
    };
    bench.apply(
        T0,
        &[announce("acme/", "zeta/"), announce("acme/", ""), announce("", "zeta/"), announce("acme/", "acme/")],
    );
    let reading = format!(r#"{{"ts":{T0},"p":1}}"#);
    for (prefix, expected) in [("zeta/", None), ("", None), ("acme/", some("W"))] {
        bench.apply(T0, &[Input::on(&format!("{prefix}flat/b"), reading.clone())]);
        assert_eq!(known(&bench.operator, &format!("{prefix}b"), "p").0, expected, "{prefix}");
    }
}

#[test]
fn silent_devices_are_the_last_to_leave_the_facts() {
    let mut bench = OperatorHarness::new(settings());
    for (offset_ms, device) in [(0, "c"), (10, "a"), (20, "d"), (30, "b"), (40, "c")] {
        bench.apply(T0 + offset_ms, &[flat(device, offset_ms, r#""p":1"#)]);
    }
    let facts = |limit| {
        let (facts, more) = bench.operator.device_facts(limit);
        (facts.into_iter().map(|facts| (facts.device_id, facts.last_seen_ms - T0)).collect::<Vec<_>>(), more)
    };
    let all = [("a", 10), ("b", 30), ("c", 40), ("d", 20)].map(|(id, ms)| (id.to_owned(), ms));
    assert_eq!(facts(4), (all.to_vec(), 0));
    assert_eq!(facts(2), (vec![all[0].clone(), all[3].clone()], 2));
}
