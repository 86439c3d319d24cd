//! `weir simulate --verify` against a running weir, with every option set.

use std::process::Output;

use crate::WEIR;
use crate::access::login::with_users;
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

fn simulate(weir: &Weir, arguments: &[&str]) -> Output {
    let (mqtt, http) = (weir.mqtt().to_string(), format!("http://{}", weir.http()));
    let mut command = weir.command(&["simulate", "--address", &mqtt, "--http", &http]);
    command.args(arguments).output().expect("weir can be started")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_troubled_fleet_is_verified() {
    for_each_qos(|qos| {
        let weir = WEIR.start(&[("window.idle_timeout", "'1s'")]);
        let arguments = "--verify --devices 20 --messages 200 --interval 20ms --disorder 800ms --clock-skew 30s \
                         --offline-share 0.3 --redelivery-share 0.1 --malformed-share 0.05 --fault-share 0.05 \
                         --churn-share 0.01 --seed 7 --qos";
        let arguments: Vec<&str> = arguments.split_whitespace().chain([qos]).collect();
        let output = simulate(&weir, &arguments);
        assert_eq!(output.status.code(), Some(0), "qos {qos}: {}", text(&output));
        assert!(text(&output).contains("every window is right"), "{}", text(&output));
        weir.assert_accounted();
    });
}

/// Runs `work` for each QoS, all at once: most of a run is waiting for the end of windows.
fn for_each_qos<R: Send>(work: impl Fn(&str) -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let work = &work;
        let running = ["0", "1", "2"].map(|qos| scope.spawn(move || work(qos)));
        running.into_iter().map(|running| running.join().expect("the run passes")).collect()
    })
}

/// Devices of families, in their own forms, against a weir with the maps that it has by default, and that of Shelly Plus.
fn check_format(format: &str) {
    let weirs = for_each_qos(|qos| {
        let weir = WEIR.start(&[("window.idle_timeout", "'1s'"), ("ingest.presets", "['auto', 'shelly_gen2']")]);
        let arguments = "--verify --devices 10 --messages 150 --interval 20ms --disorder 800ms --clock-skew 30s \
                         --offline-share 0.3 --redelivery-share 0.1 --malformed-share 0.05 --churn-share 0.01 --seed 7 --qos";
        let arguments: Vec<&str> = arguments.split_whitespace().chain([qos, "--format", format]).collect();
        let output = simulate(&weir, &arguments);
        assert_eq!(output.status.code(), Some(0), "{format}, qos {qos}: {}", text(&output));
        assert!(text(&output).contains("every window is right"), "{}", text(&output));
        weir
    });
    let sum = |metric: &str| weirs.iter().map(|weir| weir.metric_sum(metric)).sum::<f64>();
    let reasons = |name: &str| sum(&format!("weir_readings_rejected_total{{reason=\"{name}\"}}"));
    assert!(sum("weir_readings_accepted_total") > 8_000.0, "{format}");
    assert!(reasons("malformed") > 20.0, "{format}");
    assert_eq!(reasons("unknown_alias"), 0.0);
    assert_eq!(reasons("duplicate") > 0.0, format == "ttn_v3", "only a frame counter tells repeats");
    weirs.iter().for_each(Weir::assert_accounted);
}

macro_rules! formats {
    ($($test:ident),* $(,)?) => {
        $(#[test]
        fn $test() {
            check_format(stringify!($test));
        })*
    };
}

formats!(tasmota, zigbee2mqtt, shelly_gen2, sparkplug_b, senml, influx, ttn_v3);

#[test]
fn a_weir_without_the_map_is_told_before_the_run() {
    let weir = WEIR.start(&[("ingest.presets", "['esphome']")]);
    let output = simulate(&weir, &["--verify", "--messages", "1", "--format", "tasmota"]);
    assert!(!output.status.success());
    assert!(text(&output).contains("ingest.presets"), "{}", text(&output));
}

#[test]
fn a_weir_with_other_rules_does_not_pass() {
    let weir = WEIR.start(&[("window.idle_timeout", "'1s'"), ("validate.metrics.m.max", "0.5")]);
    // All values are above the limit: every reading is rejected, which the sender did not expect.
    let arguments = ["--verify", "--devices", "1", "--messages", "20", "--interval", "1ms", "--metrics", "m"];
    let output = weir
        .command(&["simulate", "--address", &weir.mqtt().to_string(), "--http", &format!("http://{}", weir.http())])
        .args(arguments)
        .env("WEIR_WINDOW__IDLE_TIMEOUT", "1s")
        .output()
        .expect("weir can be started");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("value_out_of_range"), "{}", text(&output));
}

#[test]
fn nobody_listening() {
    let mut weir = WEIR.start(&[]);
    let address = weir.mqtt().to_string();
    weir.terminate();
    let output = weir.command(&["simulate", "--address", &address]).output().expect("weir can be started");
    assert!(!output.status.success());
    assert!(text(&output).contains("no MQTT listener"), "{}", text(&output));
}

#[test]
fn the_demo_runs_by_itself() {
    let mut weir = WEIR.start(&[
        ("simulator.enabled", "true"),
        ("simulator.interval", "'50ms'"),
        ("window.size", "'1s'"),
        ("window.out_of_orderness", "'500ms'"),
    ]);
    wait_for("windows of all simulated devices", || {
        let windows = weir.list("windows", "");
        let mut devices: Vec<&str> = windows.iter().filter_map(|window| window["device_id"].as_str()).collect();
        devices.sort_unstable();
        devices.dedup();
        (devices.len() == 20).then_some(())
    });
    weir.assert_accounted();
    weir.terminate();
}

/// A fleet that logs in as one user, against a weir that accepts no other client.
#[test]
fn a_fleet_with_a_password() {
    let mut weir = with_users(&[("fleet", "of pumps")], &[("window.idle_timeout", "'1s'")]);
    weir.restart();
    let file = weir.path("password");
    std::fs::write(&file, "of pumps\n").expect("it can be written");
    let file = file.display().to_string();
    let run = ["--verify", "--devices", "3", "--messages", "20", "--interval", "1ms"];
    let output = simulate(&weir, &[&run[..], &["--user", "fleet", "--password-file", &file]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("every window is right"), "{}", text(&output));
    let output = simulate(&weir, &[&run[..], &["--user", "fleet"]].concat());
    assert!(!output.status.success() && text(&output).contains("--password-file"), "{}", text(&output));
    std::fs::write(weir.path("password"), "a secret nobody knows\n").expect("it can be written");
    let output = simulate(&weir, &["--messages", "1", "--user", "fleet", "--password-file", &file]);
    assert!(!output.status.success() && !text(&output).contains("nobody knows"), "{}", text(&output));
}

#[test]
fn where_to_look_is_said_after_the_fleet_has_connected() {
    let weir = WEIR.start(&[("simulator.enabled", "true"), ("simulator.devices", "3")]);
    let output = wait_for("it is said", || Some(weir.output()).filter(|output| output.contains("/api/v1/status")));
    let (before, after) = output.split_once("\n  publish   mosquitto_pub").expect("how to publish comes first");
    assert_eq!(before.matches("event=\"mqtt_connected\"").count(), 3, "{output}");
    assert_eq!(after.matches("mqtt_connected").count(), 0, "{output}");
}
