//! A wall clock that jumps, under the real program.

use serde_json::Value;

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, PUBACK, TestClient, publish_packet};
use weir_test_kit::process::Weir;
use weir_test_kit::shim::Shim;
use weir_test_kit::wait::{wait_for, window_before};

const HOUR_MS: i64 = 3_600_000;
const TEN_YEARS_MS: i64 = 3_652 * 24 * HOUR_MS;

/// Offsets of the clock in the order in which the test sets them.
const OFFSETS_MS: [i64; 6] = [HOUR_MS, 0, -HOUR_MS, TEN_YEARS_MS, 0, -TEN_YEARS_MS];

const DEVICES: u64 = 4;

struct ClockFleet {
    start_ms: i64,
    next_seq: u64,
}

impl ClockFleet {
    fn publish(&self, weir: &Weir, seq: u64, dup: bool) {
        for device in 0..DEVICES {
            let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, &format!("d{device}"));
            let timestamp = self.start_ms + seq as i64 * 10;
            let payload = format!(r#"{{"metric":"m","value":{seq},"timestamp":{timestamp},"seq":{seq}}}"#);
            let topic = format!("devices/d{device}/telemetry");
            let packet = publish_packet(MqttVersion::V4, &topic, payload.as_bytes(), 1, dup, seq as u16 + 1);
            client.send(&packet).expect("it can be sent");
            client.expect(PUBACK);
        }
    }

    /// Sends new readings, and before them the last one once more, as if its acknowledgement had been lost.
    fn send(&mut self, weir: &Weir) {
        if let Some(last) = self.next_seq.checked_sub(1) {
            self.publish(weir, last, true);
        }
        for _ in 0..10 {
            self.publish(weir, self.next_seq, false);
            self.next_seq += 1;
        }
    }

    #[track_caller]
    fn assert_counted(&self, weir: &Weir) {
        wait_for("everything is processed", || (weir.metric("weir_pipeline_backlog_records") < 1.0).then_some(()));
        for device in 0..DEVICES {
            let shown = weir.json(&format!("/api/v1/devices/d{device}"));
            assert_eq!(shown["accepted"], self.next_seq, "{shown}");
            let rejected = shown["rejected"].as_object().expect("counts");
            assert!(rejected.keys().all(|reason| reason == "duplicate"), "{shown}");
        }
        weir.get("/healthz").ok();
        weir.assert_accounted();
    }
}

/// Arrival times of the journal's batches, in their order.
fn arrivals(weir: &Weir) -> Vec<i64> {
    let output = weir.command(&["journal", "dump"]).output().expect("weir can be started");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let record = |line: &str| serde_json::from_str::<Value>(line).expect("JSON lines");
    text.lines().map(|line| record(line)["arrival_time"].as_i64().expect("a time")).collect()
}

fn check(restart: bool) {
    let mut weir = WEIR.prepare(&[
        ("state.checkpoint_interval", "'200ms'"),
        ("journal.retention", "'1h'"),
        // Event times of readings follow the true time.
        ("validate.max_age", "'off'"),
        ("validate.max_future", "'off'"),
    ]);
    let shim = Shim::new(WEIR, &weir.path(""));
    for (name, value) in shim.environment() {
        weir.environment(name, value);
    }
    weir.restart();
    let mut fleet = ClockFleet { start_ms: window_before(60), next_seq: 0 };
    fleet.send(&weir);
    for (index, offset_ms) in OFFSETS_MS.into_iter().enumerate() {
        if restart && index % 2 == 0 {
            weir.kill();
        } else if restart {
            weir.terminate();
        }
        shim.set_clock_offset_ms(offset_ms);
        if restart {
            // Not ready: the journal is ahead of the clock at times, or the clock has just jumped.
            weir.spawn();
        }
        fleet.send(&weir);
        fleet.assert_counted(&weir);
    }
    weir.kill();
    weir.spawn();
    fleet.assert_counted(&weir);
    weir.terminate();
    let arrivals = arrivals(&weir);
    let set_back = arrivals.windows(2).filter(|pair| pair[1] < pair[0]);
    assert!(set_back.clone().all(|pair| pair[0] - pair[1] > 60_000), "arrival times stand still within the tolerance");
    assert!(set_back.count() >= 4, "{arrivals:?}");
    let (first, last) = (arrivals.iter().min(), arrivals.iter().max());
    assert!(last.zip(first).is_some_and(|(last, first)| last - first > TEN_YEARS_MS), "{first:?} to {last:?}");
}

#[test]
fn clock_jumps_while_running() {
    check(false);
}

#[test]
fn clock_jumps_between_runs() {
    check(true);
}

const YEAR_MS: i64 = 365 * 24 * HOUR_MS;
const WINDOWS: usize = 40_000;
const PER_MESSAGE: usize = 1_000;

/// Publishes arrays of readings, one reading for each window of 10 ms.
fn publish_windows(weir: &Weir, start_ms: i64) {
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "many");
    for first in (0..WINDOWS).step_by(PER_MESSAGE) {
        let reading =
            |number: usize| format!(r#"{{"metric":"m","value":1,"timestamp":{}}}"#, start_ms + number as i64 * 10);
        let readings: Vec<_> = (first..first + PER_MESSAGE).map(reading).collect();
        client.telemetry("many", &format!("[{}]", readings.join(",")));
    }
}

fn windows_log(weir: &Weir, name: &str) -> u64 {
    weir.json("/api/v1/status")["disk"]["logs"]["windows"][name].as_u64().expect("a number")
}

/// Waits for checkpoints that began from now on: with each of them retention looks at the age of segments.
fn wait_checkpoints(weir: &Weir) {
    let done = weir.metric_sum("weir_checkpoints_total");
    for number in 1..=3 {
        TestClient::connect(weir.mqtt(), MqttVersion::V4, "few").telemetry("few", r#"{"metric":"m","value":1}"#);
        wait_for("a checkpoint", || {
            (weir.metric_sum("weir_checkpoints_total") >= done + f64::from(number)).then_some(())
        });
    }
}

fn wait_unready(weir: &Weir, because: &str) {
    wait_for(because, || {
        let answer = weir.get("/readyz");
        (answer.status == 503 && answer.text().contains(because)).then_some(())
    });
}

#[test]
fn a_clock_a_year_ahead_deletes_no_results() {
    let mut weir = WEIR.prepare(&[
        ("window.size", "'10ms'"),
        ("window.idle_timeout", "'500ms'"),
        ("windows.retention_bytes", "'16MiB'"),
        ("state.checkpoint_interval", "'200ms'"),
    ]);
    let shim = Shim::new(WEIR, &weir.path(""));
    for (name, value) in shim.environment() {
        weir.environment(name, value);
    }
    weir.restart();
    publish_windows(&weir, window_before(3_600));
    wait_for("the windows fill several segments", || (windows_log(&weir, "segments") > 1).then_some(()));
    shim.set_clock_offset_ms(YEAR_MS);
    wait_checkpoints(&weir);
    wait_unready(&weir, "the clock jumped forward by 365 days; nothing is deleted by age");
    assert!(weir.output().contains("the clock jumped forward"));
    wait_for("the jump is counted", || (weir.metric("weir_clock_jumps_total") > 0.5).then_some(()));
    wait_for("the hold is shown", || (weir.metric_sum("weir_clock_hold_seconds") > 80_000.0).then_some(()));
    assert_eq!(windows_log(&weir, "first"), 0, "nothing is deleted");

    weir.kill();
    weir.spawn();
    wait_checkpoints(&weir);
    assert_eq!(windows_log(&weir, "first"), 0, "nothing is deleted after a restart");

    shim.set_clock_offset_ms(0);
    wait_for("the clock is back", || weir.output().contains("the clock is back from its jump").then_some(()));
    wait_checkpoints(&weir);
    assert_eq!(windows_log(&weir, "first"), 0, "nothing was lost");
    wait_for("journal time follows", || (weir.metric("weir_clock_journal_ahead_seconds") < 60.0).then_some(()));
    wait_for("weir is ready", || (weir.get("/readyz").status == 200).then_some(()));
}
