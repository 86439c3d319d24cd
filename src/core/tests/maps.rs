//! Messages that maps take: their readings, the status of devices, and what is remembered across snapshots and replays.

use super::{Effect, Input, OperatorHarness, T0};
use crate::core::formats::{MapSettings, OtherText, PayloadFormat, StatusSettings};
use crate::core::map_activity::MapOutcome;
use crate::core::operator::Operator;
use crate::core::settings::{Settings, TenantSettings};
use crate::core::totals::Sizes;

/// A map of flat JSON with time and number, and the status of its devices.
fn flat() -> MapSettings {
    MapSettings {
        name: "flat".into(),
        topics: vec!["tele/{device}/SENSOR".into()],
        ignore: vec!["tele/{device}/INFO".into()],
        status: Some(StatusSettings {
            topics: vec!["tele/{device}/LWT".into()],
            online: vec!["Online".into()],
            offline: vec!["Offline".into()],
            ..StatusSettings::default()
        }),
        time: vec!["/ts".into()],
        seq: "/n".into(),
        seq_bits: Some(8),
        exclude: vec!["ts".into(), "n".into(), "rssi".into()],
        ..MapSettings::default()
    }
}

fn settings(map: MapSettings) -> Settings {
    Settings { maps: vec![map], ..Settings::default() }
}

fn sensor(device: &str, payload: impl Into<Vec<u8>>) -> Input {
    Input::on(&format!("tele/{device}/SENSOR"), payload)
}

/// The payload of a value of `t` with a number, `offset_ms` after [`T0`].
fn numbered(seq: u64, offset_ms: i64, value: f64) -> String {
    format!(r#"{{"ts":{},"n":{seq},"t":{value},"rssi":-70}}"#, T0 + offset_ms)
}

fn outcomes(operator: &Operator) -> [u64; MapOutcome::ALL.len()] {
    operator.map_activities()[0].messages
}

pub(super) fn restored(operator: &mut Operator) -> Operator {
    let header = operator.begin_snapshot();
    let mut blobs = Vec::new();
    while !operator.snapshot_step(64, &mut blobs) {}
    Operator::restore(&header, blobs.iter().map(|blob| (blob.group, blob.bytes.as_slice()))).unwrap()
}

#[test]
fn mapped_readings_enter_windows() {
    let mut bench = OperatorHarness::new(settings(flat()));
    bench.check(T0, &[sensor("desk", numbered(1, 0, 1.5)), sensor("desk", numbered(2, 1_000, 2.0))], &[]);
    bench.check(T0 + 8_000, &[sensor("desk", numbered(3, 8_000, 1.0))], &["desk/t@0#0=3.5"]);
    assert_eq!(outcomes(&bench.operator), [3, 0, 0, 0]);
    assert_eq!(bench.operator.map_activities()[0].top_keys()[0].1, 3);
    assert_eq!(bench.operator.totals().received, 3);
}

#[test]
fn the_native_form_is_asked_first() {
    let mut map = flat();
    map.topics.push("devices/{device}/telemetry".into());
    let mut bench = OperatorHarness::new(settings(map));
    bench.check(T0, &[Input::telemetry("a", r#"{"t":1}"#)], &["missing_field a/- 0"]);
    assert_eq!(outcomes(&bench.operator), [0; 4]);
}

#[test]
fn a_wrap_of_the_counter_of_a_map_is_no_restart() {
    let mut bench = OperatorHarness::new(settings(flat()));
    let messages = [(254, 0), (255, 1), (0, 2), (1, 3), (255, 1), (0, 2)];
    let inputs: Vec<Input> = messages.iter().map(|&(seq, ms)| sensor("desk", numbered(seq, ms, 1.0))).collect();
    bench.check(T0, &inputs, &[]);
    let totals = bench.operator.totals();
    assert_eq!((totals.in_windows, totals.sequence_wraps, totals.sequence_restarts), (4, 1, 0));
}

#[test]
fn a_payload_that_cannot_be_read_is_malformed_until_the_map_is_right() {
    let mut bench = OperatorHarness::new(settings(flat()));
    let lines = Input::on("tele/desk/SENSOR", format!("weather t=2 {}000000", T0));
    bench.check(T0, &[lines], &["malformed -/- 0"]);
    assert_eq!(outcomes(&bench.operator), [0, 0, 0, 1]);
    let line = MapSettings { payload: PayloadFormat::Line, time: Vec::new(), seq: String::new(), ..flat() };
    let line = MapSettings { metric: "{field}".into(), ..line };
    let replay = bench.replay(0);
    bench.check(T0 + 1_000, &[Input::Settings(Box::new(settings(line))), replay], &[]);
    assert_eq!(bench.operator.totals().in_windows, 1);
}

#[test]
fn the_sentence_names_the_map() {
    let mut bench = OperatorHarness::new(settings(flat()));
    let effects = bench.apply(T0, &[sensor("desk", r#"{"t":1"#)]);
    let Some(Effect::Error { json, .. }) = effects.first() else { panic!("{effects:?}") };
    assert!(json["message"].as_str().unwrap().starts_with("map flat: "), "{json}");
}

#[test]
fn names_that_become_one_and_times_that_are_none_are_errors() {
    let mut bench = OperatorHarness::new(settings(flat()));
    bench.check(T0, &[sensor("desk", r#"{"a b":1,"a_b":2}"#)], &["invalid_metric desk/a_b 1"]);
    bench.check(T0, &[sensor("desk", r#"{"ts":"yesterday","t":1}"#)], &["timestamp_invalid desk/t 0"]);
    let long = format!("tele/{}/SENSOR", "x".repeat(129));
    bench.check(T0, &[Input::on(&long, r#"{"t":1}"#)], &["invalid_device_id -/t 0"]);
    assert_eq!(bench.operator.totals().arrival_times, 1);
}

#[test]
fn a_message_with_too_many_values_is_malformed() {
    let mut bench = OperatorHarness::new(Settings { max_readings_per_message: 2, ..settings(flat()) });
    bench.check(T0, &[sensor("desk", r#"{"a":1,"b":2}"#)], &[]);
    bench.check(T0, &[sensor("desk", r#"{"a":1,"b":2,"c":3}"#)], &["malformed -/- 0"]);
}

#[test]
fn status_is_kept_and_moves_no_watermark() {
    let mut bench = OperatorHarness::new(settings(flat()));
    let lwt = |device: &str, text: &str| Input::on(&format!("tele/{device}/LWT"), text);
    bench.check(T0, &[sensor("desk", numbered(1, 0, 1.0)), lwt("desk", "Online"), lwt("lamp", "Offline")], &[]);
    let before = bench.operator.device("desk").unwrap().summary;
    bench.check(T0 + 100, &[lwt("desk", "Online")], &[]);
    bench.check(T0 + 200, &[lwt("desk", "Offline")], &[]);
    let after = bench.operator.device("desk").unwrap().summary;
    assert_eq!((after.watermark_ms, after.last_seen_ms), (before.watermark_ms, before.last_seen_ms));
    let before = before.liveness.unwrap();
    assert_eq!((before.online, before.since_ms), (true, T0));
    let liveness = after.liveness.unwrap();
    assert_eq!((liveness.online, liveness.since_ms, &*liveness.topic), (false, T0 + 200, "tele/desk/LWT"));
    assert_eq!((bench.operator.sizes().offline, outcomes(&bench.operator)), (2, [1, 4, 0, 0]));
    let restored = restored(&mut bench.operator);
    // Which map takes a topic is looked up anew.
    assert_eq!(restored.sizes(), Sizes { known_topics: 0, ..bench.operator.sizes() });
    assert_eq!(restored.map_activities(), bench.operator.map_activities());
    assert_eq!(restored.device("desk"), bench.operator.device("desk"));
    bench.check(T0 + 300, &[lwt("lamp", "Online")], &[]);
    assert_eq!(bench.operator.sizes().offline, 1);
}

#[test]
fn status_creates_no_device_beyond_the_limit() {
    let mut bench = OperatorHarness::new(Settings { max_devices: 1, ..settings(flat()) });
    bench.check(T0, &[Input::on("tele/a/LWT", "Online"), Input::on("tele/b/LWT", "Online")], &[]);
    assert_eq!(bench.operator.sizes().devices, 1);
}

#[test]
fn maps_hold_below_the_prefix_of_a_tenant() {
    let tenants = vec![TenantSettings { prefix: "acme/".into(), max_devices: None }];
    let mut bench = OperatorHarness::new(Settings { tenants, ..settings(flat()) });
    bench.check(T0, &[Input::on("acme/tele/desk/SENSOR", numbered(1, 0, 1.0))], &[]);
    assert!(bench.operator.device("acme/desk").is_some());
}

#[test]
fn maps_that_do_not_compile_are_none() {
    let broken = MapSettings { topics: vec!["a/{/b".into()], ..flat() };
    let mut bench = OperatorHarness::new(settings(broken));
    bench.check(T0, &[sensor("desk", r#"{"t":1}"#)], &["missing_field -/- 0"]);
}

/// What an observer sees of an effect, without the topic.
fn without_topic(effect: Effect) -> serde_json::Value {
    let (Effect::Window { mut json, .. } | Effect::Error { mut json, .. }) = effect;
    json.as_object_mut().unwrap().remove("topic");
    json
}

/// Where the topic has device and metric in one piece, a message of one value takes a shorter way. `whole` has them, `halves` has
/// the device in two levels.
#[test]
fn messages_of_one_value_give_the_same_on_either_way() {
    const VALUES: [&str; 12] = ["21.5", "on", "", "nan", "x", "\"3\"", " 7 ", "1e400", "off", "999", "-0", "2;3"];
    let map = |topic: &str, device: &str| MapSettings {
        name: "scalar".into(),
        payload: PayloadFormat::Scalar,
        topics: vec![topic.into()],
        device: device.into(),
        metric: "{metric}".into(),
        exclude: vec!["uptime*".into()],
        rename: [("tC".to_owned(), "t".to_owned())].into(),
        units: [("t*".to_owned(), "°C".to_owned())].into(),
        scale: [("h".to_owned(), 0.1)].into(),
        text: OtherText::Error,
        ..MapSettings::default()
    };
    let run = |map: MapSettings, topic: &dyn Fn([&str; 2], &str) -> String| {
        let tenants = vec![TenantSettings { prefix: "acme/".into(), max_devices: None }];
        let mut bench = OperatorHarness::new(Settings { tenants, max_devices: 4, ..settings(map) });
        let mut seen = Vec::new();
        for round in 0..60_usize {
            let inputs: Vec<_> = (0..12)
                .map(|index| {
                    let number = round * 12 + index;
                    let device = [["de", "sk"], ["la", "mp"], ["p", "lug"]][number / 5 % 3];
                    let metric = ["t", "h", "tC", "a b", "uptime_s", "t"][number % 6];
                    let prefix = ["", "acme/"][number / 40 % 2];
                    let input = match number % 17 {
                        3 => Input::telemetry("desk", format!(r#"{{"metric":"n","value":{number}}}"#)),
                        _ => Input::on(&format!("{prefix}{}", topic(device, metric)), VALUES[number * 7 % 12]),
                    };
                    if number % 13 == 4 { input.again() } else { input }
                })
                .collect();
            let arrival_ms = T0 + round as i64 * 1_700;
            seen.extend(bench.apply(arrival_ms, &inputs).into_iter().map(without_topic));
        }
        let activity = &bench.operator.map_activities()[0];
        (seen, bench.operator.totals().clone(), activity.messages, activity.ignored)
    };
    let whole =
        run(map("s/{device}/{metric}", "{device}"), &|device, metric| format!("s/{}/{metric}", device.concat()));
    let halves = run(map("s/{first}/{second}/{metric}", "{first}{second}"), &|[first, second], metric| {
        format!("s/{first}/{second}/{metric}")
    });
    assert!(
        whole.0.iter().any(|json| json["unit"] == "°C") && whole.2[0] > 100 && whole.3.iter().any(|count| *count > 0)
    );
    assert_eq!(whole, halves);
}
