//! Start, signals, locks, messages and exit codes of the daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::WEIR;
use crate::daemon::text;
use weir_test_kit::mqtt::{DISCONNECT, MqttVersion, TestClient};
use weir_test_kit::wait::{wait_for, window_before};

fn weir(arguments: &[&str]) -> Output {
    let elsewhere = TempDir::new().expect("a temporary directory");
    let mut command = WEIR.command(arguments);
    command.current_dir(elsewhere.path()).stdin(Stdio::null());
    command.output().expect("weir can be started")
}

#[test]
fn a_second_weir_on_the_same_directory_is_refused() {
    let first = WEIR.start(&[]);
    let pid = first.pid().as_raw_nonzero();
    let second = first.command(&["run"]).output().expect("weir can be started");
    assert_eq!(second.status.code(), Some(73), "{}", text(&second));
    let told = text(&second);
    assert!(told.contains("another weir is running") && told.contains(&format!("pid {pid}")), "{told}");
    assert_eq!(first.get("/healthz").status, 200);
}

#[test]
fn every_fault_of_a_config_is_told_at_once() {
    let prepared = WEIR.prepare(&[
        ("mqtt.listen", "'nowhere'"),
        ("window.size", "'5 parsecs'"),
        ("window.sise", "'5s'"),
        ("simulator.fault_share", "2.0"),
    ]);
    for command in ["check", "run"] {
        let output = prepared.command(&[command]).output().expect("weir can be started");
        assert_eq!(output.status.code(), Some(78), "{command}: {}", text(&output));
        for key in ["mqtt.listen", "window.size", "window.sise", "simulator.fault_share"] {
            let told = text(&output).lines().any(|line| line.contains(key) && line.contains("config.toml:"));
            assert!(told, "{command} does not tell {key} with its line:\n{}", text(&output));
        }
    }
    assert!(!prepared.data().exists(), "nothing is created under a wrong config");
}

#[test]
fn a_good_config_passes_the_check() {
    let prepared = WEIR.prepare(&[]);
    let output = prepared.command(&["check"]).output().expect("weir can be started");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    for shipped in ["config.toml", "systemd/config.toml"] {
        let path = format!("{}/{shipped}", env!("CARGO_MANIFEST_DIR"));
        let mut command = WEIR.command(&["check", "--config", &path]);
        // Where the packaged config has its data, the user of the test may not write; the default ports may be in use.
        let data = prepared.data();
        let settings = [
            ("NODE__DATA_DIR", data.to_str()),
            ("MQTT__LISTEN", Some("127.0.0.1:0")),
            ("HTTP__LISTEN", Some("127.0.0.1:0")),
        ];
        for (key, value) in settings {
            command.env(format!("WEIR_{key}"), value.expect("a UTF-8 path"));
        }
        let output = command.output().expect("weir can be started");
        assert_eq!(output.status.code(), Some(0), "{shipped}: {}", text(&output));
    }
}

/// Data and what commands write are for the user of weir alone, whatever the umask; directories that were open are closed.
#[test]
fn nobody_else_can_read_the_data() {
    let mut weir = WEIR.prepare(&[]);
    weir.restart();
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V5, "device");
    device.telemetry("d", r#"{"metric":"m","value":1}"#);
    weir.terminate();
    let output = weir.command(&["savepoint", "create"]).output().expect("weir can be started");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let open = |path: &Path| fs::metadata(path).expect("an entry").permissions().mode() & 0o077;
    let mut entries = vec![weir.data()];
    let mut seen = 0;
    while let Some(entry) = entries.pop() {
        assert_eq!(open(&entry), 0, "{}", entry.display());
        seen += 1;
        if entry.is_dir() {
            entries.extend(fs::read_dir(&entry).expect("a directory").map(|entry| entry.expect("an entry").path()));
        }
    }
    assert!(seen > 10, "only {seen} entries");
    let journal = weir.data().join("journal");
    fs::set_permissions(&journal, fs::Permissions::from_mode(0o755)).expect("it can be opened");
    weir.restart();
    assert_eq!(open(&journal), 0);
    assert!(weir.output().contains("their rights are removed"), "{}", weir.output());
}

#[test]
fn the_environment_wins_over_the_config() {
    let mut prepared = WEIR.prepare(&[("window.size", "'5s'")]);
    prepared.environment("WEIR_WINDOW__SIZE", "never");
    let output = prepared.command(&["check"]).output().expect("weir can be started");
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    assert!(text(&output).contains("WEIR_WINDOW__SIZE"), "{}", text(&output));
}

#[test]
fn wrong_usage_is_told_apart() {
    for arguments in [&["run", "--nonsense"][..], &["nonsense"], &["simulate", "--qos", "3"], &["replay"]] {
        assert_eq!(weir(arguments).status.code(), Some(64), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["--version"], &["run", "--help"], &["journal", "verify", "--help"]] {
        let output = weir(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn sigterm_takes_a_checkpoint_and_says_goodbye() {
    let settings = [("state.checkpoint_interval", "'1h'"), ("journal.retention", "'1h'")];
    let mut weir = WEIR.start(&settings);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V5, "d");
    for seq in 0..50 {
        let timestamp = window_before(60) + seq;
        device.telemetry("d", &format!(r#"{{"metric":"m","value":1,"timestamp":{timestamp},"seq":{seq}}}"#));
    }
    weir.signal(Signal::TERM);
    let packets = device.until_closed();
    assert_eq!(packets.iter().map(|one| (one.kind, one.reason())).collect::<Vec<_>>(), [(DISCONNECT, 0x8b)]);
    assert_eq!(weir.wait_exit().code(), Some(0));
    weir.restart();
    // The checkpoint covers the 50 messages, so none of them is processed again.
    let replayed = weir.metric("weir_recovery_replayed_records");
    assert!(replayed < 50.0, "{replayed} records were processed again");
    assert_eq!(weir.json("/api/v1/devices/d")["accepted"], 50);
    weir.terminate();
}

#[test]
fn journals_can_be_looked_into() {
    let mut weir = WEIR.start(&[("journal.retention", "'1h'")]);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "d");
    device.telemetry("d", r#"{"metric":"m","value":1,"seq":0}"#);
    weir.terminate();
    let output = weir.command(&["journal", "verify"]).output().expect("weir can be started");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let output = weir.command(&["journal", "dump"]).output().expect("weir can be started");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let records: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    assert!(records.iter().any(|record| record.to_string().contains("devices/d/telemetry")), "{records:?}");
}

#[test]
fn damage_is_told_and_not_passed_over() {
    let mut weir = WEIR.start(&[("journal.retention", "'1h'")]);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "d");
    for seq in 0..100 {
        device.telemetry("d", &format!(r#"{{"metric":"m","value":1,"seq":{seq}}}"#));
    }
    weir.terminate();
    let journal = weir.data().join("journal");
    let segment = fs::read_dir(&journal)
        .unwrap_or_else(|error| panic!("{}: {error}", journal.display()))
        .map(|entry| entry.expect("a readable directory").path())
        .max_by_key(|path| fs::metadata(path).map_or(0, |metadata| metadata.len()))
        .expect("a segment");
    let mut bytes = fs::read(&segment).expect("a readable segment");
    let needle = br#""seq":5}"#;
    let at = bytes.windows(needle.len()).position(|window| window == needle).expect("the sixth reading");
    bytes[at] ^= 1;
    fs::write(&segment, bytes).expect("a writable segment");
    let output = weir.command(&["journal", "verify"]).output().expect("weir can be started");
    assert_eq!(output.status.code(), Some(65), "{}", text(&output));
    let file = segment.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(text(&output).contains(&file), "{}", text(&output));
}

#[test]
fn systemd_is_kept_informed() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let mut heard = Vec::new();
    let mut wait_heard = |message: &str| {
        wait_for(message, || {
            let mut buffer = [0; 4096];
            if let Ok(len) = socket.recv(&mut buffer) {
                heard.extend(String::from_utf8_lossy(&buffer[..len]).lines().map(str::to_owned));
            }
            heard.iter().any(|line| line.starts_with(message)).then_some(())
        });
    };
    let mut weir = WEIR.prepare(&[]);
    weir.environment("NOTIFY_SOCKET", path.to_str().expect("a UTF-8 path"));
    weir.environment("WATCHDOG_USEC", "400000");
    weir.restart();
    for message in ["READY=1", "STATUS=", "WATCHDOG=1"] {
        wait_heard(message);
    }
    weir.signal(Signal::TERM);
    wait_heard("STOPPING=1");
    assert_eq!(weir.wait_exit().code(), Some(0));
}

#[test]
fn log_lines_in_every_format() {
    let mut text = WEIR.start(&[("log.format", "'text'")]);
    text.terminate();
    assert!(text.output().contains("listening"), "{}", text.output());

    let mut json = WEIR.start(&[("log.format", "'json'")]);
    json.terminate();
    let output = json.output();
    assert!(output.lines().count() >= 2, "{output}");
    for line in output.lines() {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(entry["level"].is_string(), "{line}");
    }

    // Without a systemd journal weir says so instead of dropping its log.
    if !fs::exists("/run/systemd/journal/socket").unwrap_or(false) {
        let output = WEIR.prepare(&[("log.format", "'journald'")]).command(&["run"]).output().expect("it starts");
        assert!(!output.status.success());
        assert!(self::text(&output).contains("journal"), "{}", self::text(&output));
    }
}

#[test]
fn health_for_containers() {
    let mut weir = WEIR.start(&[]);
    let url = format!("http://{}", weir.http());
    for arguments in [&["health", "--url", &url][..], &["health", "--ready", "--url", &url]] {
        let output = weir.command(arguments).output().expect("weir can be started");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output));
    }
    weir.terminate();
    let output = weir.command(&["health", "--url", &url]).output().expect("weir can be started");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
}
