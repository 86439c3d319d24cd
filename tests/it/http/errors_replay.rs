//! Replay of stored errors: each error once, across crashes, one by one and in bulk.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::WEIR;
use weir_test_kit::http::{self, TestResponse};
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{wait_for, window_before};

const FAST: &[(&str, &str)] = &[("window.idle_timeout", "'500ms'"), ("state.checkpoint_interval", "'100ms'")];

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [FAST, more].concat()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `weir errors …` against the running weir.
#[track_caller]
fn errors(weir: &Weir, arguments: &[&str]) -> Output {
    errors_ending(weir, arguments, 0)
}

/// As [`errors`], with another exit code.
#[track_caller]
fn errors_ending(weir: &Weir, arguments: &[&str], code: i32) -> Output {
    let url = format!("http://{}", weir.http());
    let mut command = weir.command(&["errors"]);
    let output = command.args(arguments).args(["--url", &url]).output().expect("weir can be started");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{err}");
    output
}

fn replay(weir: &Weir, seq: u64) -> TestResponse {
    post(weir, &format!("/api/v1/errors/{seq}/replay"), "")
}

/// Repeats the request until the answer is not "try again".
fn post(weir: &Weir, path: &str, json: &str) -> TestResponse {
    wait_for("weir takes replays", || {
        let response = http::post(weir.http(), path, json);
        (response.status != 503).then_some(response)
    })
}

/// Checks that the answer is a problem document of this status.
#[track_caller]
fn refused(response: &TestResponse, status: u16, part: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert!(response.json()["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{}", response.text());
}

fn wait_errors(weir: &Weir, count: usize) -> Vec<Value> {
    wait_for("the errors are there", || {
        let errors = weir.list("errors", "");
        (errors.len() >= count).then_some(errors)
    })
}

/// Readings of a device in windows, and their sum.
fn counted(weir: &Weir, device: &str) -> (u64, f64) {
    let windows = weir.list("windows", &format!("&device={device}"));
    let count = windows.iter().filter_map(|window| window["count"].as_u64()).sum();
    (count, windows.iter().filter_map(|window| window["sum"].as_f64()).sum())
}

#[test]
fn a_device_that_is_allowed_later() {
    let mut weir = WEIR.start(&with(&[("validate.allowed_devices", "['known']"), ("journal.retention", "'1h'")]));
    let start = window_before(60);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "new");
    for seq in 0..10 {
        let timestamp = start + seq * 1_000;
        client.telemetry("new", &json!({"metric": "m", "value": 1, "timestamp": timestamp, "seq": seq}).to_string());
        client.telemetry("new", &json!({"metric": "n", "value": 1, "timestamp": timestamp}).to_string());
    }
    client.telemetry("known", "no reading");
    wait_errors(&weir, 21);
    // As long as it is not allowed it is rejected again, and the new errors are not taken for old ones.
    let output = errors_ending(&weir, &["replay", "--reason", "unknown_device", "--limit", "5"], 1);
    let said = text(&output.stdout);
    let expected = "5 errors: 5 replayed, 0 refused\n5 replayed: 0 counted, 5 rejected again: unknown_device (5)\n";
    assert!(said.starts_with(expected) && said.contains("\n  unknown_device: device \"new\" is not in "), "{said}");
    let again = wait_errors(&weir, 26).split_off(21);
    let origins: Vec<u64> = again.iter().filter_map(|error| error["replay_of"].as_u64()).collect();
    assert_eq!(origins, [0, 1, 2, 3, 4]);

    weir.kill();
    weir.configure(&with(&[("validate.allowed_devices", "['known', 'new']"), ("journal.retention", "'1h'")]));
    weir.restart();
    let output = errors(&weir, &["replay", "--reason", "unknown_device"]);
    let said = text(&output.stdout);
    assert!(said.starts_with("25 errors: 20 replayed, 5 refused\n  already_replayed 5: "), "{said}");
    assert!(said.ends_with("\n20 replayed: 20 counted, 0 rejected again\n"), "{said}");
    assert_eq!(text(&output.stderr), "replayed 20, refused 5, of 25 errors so far\n");
    weir.wait_closed();
    assert_eq!(counted(&weir, "new"), (20, 20.0));
    assert_eq!(weir.json("/api/v1/devices/new")["sequence_ranges"], json!([[0, 9]]));

    let said = text(&errors(&weir, &["replay", "--reason", "unknown_device"]).stdout);
    assert!(said.starts_with("25 errors: 0 replayed, 25 refused"), "{said}");
    refused(&replay(&weir, 0), 409, "replayed before");
    refused(&replay(&weir, 99), 404, "there is no error 99");
    // What the device sends again is a duplicate.
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "new");
    client.telemetry("new", &json!({"metric": "m", "value": 1, "timestamp": start, "seq": 0}).to_string());
    weir.wait_closed();
    assert_eq!(counted(&weir, "new"), (20, 20.0));
    assert_eq!(weir.metric("weir_error_replays_total"), 25.0);
    assert_eq!(weir.metric("weir_error_replays_ignored_total"), 0.0);
    weir.assert_accounted();

    // Under the new settings from the start nothing of it is rejected, and still nothing counts twice.
    weir.terminate();
    let out = weir.path("out");
    let output = weir.command(&["replay"]).arg(weir.data()).arg("--out").arg(&out).output().expect("it starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let windows = fs::read_to_string(out.join("windows.jsonl")).expect("windows");
    let windows = windows.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let mut newest = std::collections::BTreeMap::new();
    for window in windows {
        newest.insert((window["metric"].to_string(), window["window_start"].as_i64()), window["count"].as_u64());
    }
    assert_eq!(newest.values().flatten().sum::<u64>(), 20);
}

#[test]
fn a_replay_that_was_answered_survives_kill_nine() {
    let settings = |max| with(&[("validate.metrics.m.max", max), ("state.checkpoint_interval", "'1h'")]);
    let mut weir = WEIR.start(&settings("1"));
    let start = window_before(60);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V5, "d");
    for seq in 0..5 {
        client.telemetry("d", &json!({"metric": "m", "value": 5, "timestamp": start, "seq": seq}).to_string());
    }
    wait_errors(&weir, 5);
    weir.terminate();
    weir.configure(&settings("10"));
    weir.restart();
    for seq in 0..5 {
        assert_eq!(replay(&weir, seq).ok().json()["seq"], seq);
        weir.kill();
        weir.restart();
        refused(&replay(&weir, seq), 409, "replayed before");
    }
    weir.wait_closed();
    assert_eq!(counted(&weir, "d"), (5, 25.0));
    assert_eq!(weir.metric("weir_error_replays_total"), 5.0);
    assert_eq!(weir.metric("weir_error_replays_ignored_total"), 0.0);
    weir.assert_accounted();
}

#[test]
fn of_a_backlog_only_what_was_rejected() {
    let settings = |max| with(&[("validate.metrics.m.max", max)]);
    let mut weir = WEIR.start(&settings("10"));
    let start = window_before(60);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "d");
    let reading = |seq: i64, value: i64| json!({"metric": "m", "value": value, "timestamp": start + seq, "seq": seq});
    let backlog = json!([reading(0, 1), reading(1, 20), reading(2, 2), 7, reading(3, 30)]).to_string();
    client.telemetry("d", &backlog);
    client.publish("devices/d/errors", &json!({"error": "E42"}).to_string(), 1);
    let rejected = wait_errors(&weir, 4);
    assert_eq!(
        rejected.iter().map(|error| error["index"].as_u64().expect("an index")).collect::<Vec<_>>(),
        [1, 3, 4, 0]
    );
    weir.terminate();
    weir.configure(&settings("25"));
    weir.restart();
    let answer = post(&weir, "/api/v1/errors/replay", r#"{"seqs":[3,2,1,0]}"#).ok().json();
    assert_eq!((&answer["replayed"], &answer["refused"]), (&json!(3), &json!(1)));
    let positions: Vec<&Value> =
        answer["results"].as_array().expect("results").iter().map(|one| &one["journal_position"]).collect();
    assert_eq!((positions[0], positions[0], positions[3]), (positions[1], positions[2], &Value::Null), "one record");
    assert_eq!(answer["results"][3]["outcome"], "device_error");
    let errors = wait_errors(&weir, 6);
    assert_eq!(
        (&errors[4]["replay_of"], &errors[4]["reason"], &errors[4]["index"]),
        (&json!(1), &json!("malformed"), &json!(3))
    );
    assert_eq!(
        (&errors[5]["replay_of"], &errors[5]["reason"], &errors[5]["index"]),
        (&json!(2), &json!("value_out_of_range"), &json!(4))
    );
    assert_eq!(errors[5]["first_arrival_time"], rejected[2]["arrival_time"]);
    assert_eq!(weir.json("/api/v1/errors/5"), errors[5]);
    weir.wait_closed();
    assert_eq!(counted(&weir, "d"), (3, 23.0));
    weir.assert_accounted();
}

/// A message longer than what an error keeps, one of whose readings is out of range.
fn long(start: i64, seq: i64) -> String {
    json!({"metric": "m", "value": 20, "timestamp": start, "seq": seq, "comment": "x".repeat(20_000)}).to_string()
}

#[test]
fn a_cut_payload_needs_the_journal() {
    let small = [
        ("mqtt.max_packet_size", "'64KiB'"),
        ("journal.commit_max_bytes", "'512KiB'"),
        ("journal.segment_size", "'1MiB'"),
        // A savepoint would keep the journal.
        ("state.savepoint_interval", "'off'"),
    ];
    for (retention, kept) in [("'1h'", true), ("'off'", false)] {
        let settings = |max| {
            let more = [("validate.metrics.m.max", max), ("journal.retention", retention)];
            with(&[&small[..], &more[..]].concat())
        };
        let mut weir = WEIR.start(&settings("10"));
        let start = window_before(60);
        let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "d");
        client.telemetry("d", &long(start, 0));
        for seq in 1..80 {
            client.telemetry("d", &long(start, seq));
        }
        wait_errors(&weir, 80);
        if !kept {
            wait_for("the first segment is freed", || {
                let segments = fs::read_dir(weir.data().join("journal")).expect("a journal");
                let first = segments.map(|entry| entry.expect("an entry").file_name()).min()?;
                (!first.to_string_lossy().starts_with("00000000000000000000.")).then_some(())
            });
        }
        weir.terminate();
        weir.configure(&settings("30"));
        weir.restart();
        let answer = replay(&weir, 0);
        if kept {
            answer.ok();
            weir.wait_closed();
            assert_eq!(counted(&weir, "d"), (1, 20.0), "{:?}", weir.list("errors", "&order=desc")[0]);
        } else {
            refused(&answer, 409, "journal.retention would have kept it");
            // The part of the payload that is stored is enough.
            replay(&weir, 79).ok();
            weir.wait_closed();
            assert_eq!(counted(&weir, "d"), (1, 20.0));
        }
        weir.assert_accounted();
    }
}

#[test]
fn thousands_at_once() {
    let settings = |max| with(&[("validate.metrics.m.max", max)]);
    let mut weir = WEIR.start(&settings("10"));
    let start = window_before(300);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "d");
    for message in 0..70_i64 {
        let reading = |at: i64| {
            let seq = message * 50 + at;
            json!({"metric": "m", "value": 20, "timestamp": start + seq, "seq": seq})
        };
        client.telemetry("d", &Value::from((0..50).map(reading).collect::<Vec<_>>()).to_string());
    }
    client.telemetry("e", "no reading");
    wait_errors(&weir, 3_501);
    weir.terminate();
    weir.configure(&settings("30"));
    weir.restart();
    let listed = errors(&weir, &["list", "--device", "d", "--limit", "1500"]);
    let listed: Vec<Value> =
        text(&listed.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
    assert_eq!((listed.len(), &listed[1_499]["seq"]), (1_500, &json!(1_499)));
    let output = errors(&weir, &["replay", "--device", "d"]);
    let lines =
        [1_000, 2_000, 3_000, 3_500].map(|count| format!("replayed {count}, refused 0, of {count} errors so far\n"));
    assert_eq!(text(&output.stderr), lines.concat());
    assert_eq!(
        text(&output.stdout),
        "3500 errors: 3500 replayed, 0 refused\n3500 replayed: 3500 counted, 0 rejected again\n"
    );
    weir.wait_closed();
    assert_eq!(counted(&weir, "d"), (3_500, 70_000.0));
    weir.assert_accounted();
}

/// Two commands at once: each tells of its own replays.
#[test]
fn what_became_of_replays_at_the_same_time() {
    let settings = |max| with(&[("validate.metrics.m.max", max)]);
    let mut weir = WEIR.start(&settings("10"));
    let start = window_before(300);
    for (device, value) in [("good", 20), ("bad", 200)] {
        let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, device);
        for message in 0..30_i64 {
            let reading = |at: i64| {
                let seq = message * 50 + at;
                json!({"metric": "m", "value": value, "timestamp": start + seq, "seq": seq})
            };
            client.telemetry(device, &Value::from((0..50).map(reading).collect::<Vec<_>>()).to_string());
        }
    }
    wait_errors(&weir, 3_000);
    weir.terminate();
    weir.configure(&settings("100"));
    weir.restart();
    let (good, bad) = std::thread::scope(|scope| {
        let good = scope.spawn(|| errors(&weir, &["replay", "--device", "good"]));
        let bad = errors_ending(&weir, &["replay", "--device", "bad"], 1);
        (good.join().expect("no panic"), bad)
    });
    let (good, bad) = (text(&good.stdout), text(&bad.stdout));
    assert!(good.ends_with("\n1500 replayed: 1500 counted, 0 rejected again\n"), "{good}");
    assert!(bad.contains("\n1500 replayed: 0 counted, 1500 rejected again: value_out_of_range (1500)\n"), "{bad}");
    weir.wait_closed();
    assert_eq!(counted(&weir, "good"), (1_500, 30_000.0));
    weir.assert_accounted();
}

#[test]
fn nothing_to_replay_and_nobody_to_ask() {
    let mut weir = WEIR.start(FAST);
    assert_eq!(text(&errors(&weir, &["replay"]).stdout), "0 errors: 0 replayed, 0 refused\n");
    assert_eq!(text(&errors(&weir, &["list"]).stdout), "");
    let url = format!("http://{}", weir.http());
    let run = |arguments: &[&str]| weir.command(&["errors"]).args(arguments).output().expect("weir can be started");
    let wrong = run(&["replay", "--url", &url, "--reason", "lat"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("give one of malformed"), "{}", text(&wrong.stderr));
    assert_eq!(run(&["replay", "--url", "nowhere"]).status.code(), Some(1));
    weir.terminate();
    let nobody = weir.command(&["errors", "replay", "--url", &url]).output().expect("weir can be started");
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("start weir"), "{}", text(&nobody.stderr));
}

#[test]
fn a_journal_with_replays_gives_the_same_again() {
    let settings = [("journal.retention", "'1h'"), ("validate.max_future", "'1s'"), ("window.backlog", "'off'")];
    let mut weir = WEIR.start(&with(&settings));
    let start = window_before(90);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V5, "d");
    let mut send = |offset: i64| {
        client.telemetry("d", &json!({"metric": "m", "value": 1, "timestamp": start + offset}).to_string());
    };
    send(0);
    send(80_000);
    send(1);
    let ahead = weir_test_kit::wait::now_ms() + 1_600;
    client.telemetry("d", &json!([{"metric": "m", "value": 2, "timestamp": ahead}, 5]).to_string());
    wait_errors(&weir, 3);
    for (seq, reason) in (0..).zip(["late", "timestamp_in_future", "malformed"]) {
        assert_eq!(weir.json(&format!("/api/v1/errors/{seq}"))["reason"], reason);
    }
    wait_for("the time has come", || (weir_test_kit::wait::now_ms() > ahead).then_some(()));
    replay(&weir, 0).ok();
    replay(&weir, 1).ok();
    weir.kill();
    weir.restart();
    replay(&weir, 2).ok();
    let errors = wait_errors(&weir, 5);
    replay(&weir, 4).ok();
    wait_errors(&weir, 6);
    assert_eq!(errors[3..].iter().map(|error| &error["replay_of"]).collect::<Vec<_>>(), [&json!(0), &json!(2)]);
    weir.wait_closed();
    assert_eq!(counted(&weir, "d"), (3, 4.0));
    weir.assert_accounted();
    let (windows, errors) = (weir.list("windows", "&revisions=all"), weir.list("errors", ""));
    weir.terminate();
    let dump = weir.command(&["journal", "dump"]).output().expect("weir can be started");
    let replays: Vec<Value> = text(&dump.stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .filter(|record| record["kind"] == "replay")
        .collect();
    assert_eq!(replays.len(), 4);
    assert_eq!(replays[3]["errors"], json!([{"replay_of": 4, "index": 1}]));
    let out = weir.path("out");
    let output = weir.command(&["replay"]).arg(weir.data()).arg("--out").arg(&out).output().expect("it starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    for (name, live) in [("windows.jsonl", windows), ("errors.jsonl", errors)] {
        let again = fs::read_to_string(out.join(name)).expect("results");
        let again: Vec<Value> = again.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(again, live, "{name}");
    }
}
