//! Disks that are full, slow or failing, under the real program.

use std::fs;
use std::time::Duration;

use crate::WEIR;
use crate::faults::load::{Load, LoadOptions, assert_counted};
use crate::faults::small_disk::SmallDisk;
use weir_test_kit::mqtt::{MqttVersion, PUBACK, TestClient, TestConnect, TestMessage, publish_packet};
use weir_test_kit::process::Weir;
use weir_test_kit::shim::{Calls, EIO, ENOSPC, Rule, Shim};
use weir_test_kit::wait::{wait_for, window_before};

const MIB: u64 = 1024 * 1024;

/// The exit code of a weir whose disk failed.
const DISK_FAILED: i32 = 74;

/// Memory limit: far more than weir needs here, far less than it would use if it buffered what it cannot write.
const MEMORY_BOUND: u64 = 160 * MIB;

const SETTINGS: &[(&str, &str)] = &[
    ("window.idle_timeout", "'500ms'"),
    ("window.size", "'100ms'"),
    ("state.checkpoint_interval", "'300ms'"),
    ("journal.commit_max_bytes", "'512KiB'"),
];

/// Capacity of the journal queue: four batches of the largest size.
const QUEUE_BYTES: f64 = 4.0 * 512.0 * 1024.0;

/// Lets the program run under the shim.
fn under_shim(weir: &mut Weir) -> Shim {
    let shim = Shim::new(WEIR, &weir.path(""));
    for (name, value) in shim.environment() {
        weir.environment(name, value);
    }
    shim
}

fn resident_bytes(weir: &Weir) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", weir.pid().as_raw_nonzero())).expect("its status");
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("its resident memory") * 1024
}

#[track_caller]
fn wait_metric(weir: &Weir, name: &str, holds: impl Fn(f64) -> bool) {
    wait_for(name, || holds(weir.metric_sum(name)).then_some(()));
}

/// A disk that a test can fill: a small file system where the machine allows mounting, or else a shim under which
/// writes to the journal find no space.
enum FillableDisk {
    Small(SmallDisk),
    Shim(Shim, Rule),
}

impl FillableDisk {
    fn under(weir: &mut Weir, mib: u64) -> Self {
        if let Some(disk) = SmallDisk::mount(&weir.path("disk.img"), &weir.data(), mib) {
            println!("full disk: a file system of {mib} MiB");
            return Self::Small(disk);
        }
        println!("full disk: no file system can be mounted here; writes to the journal fail instead");
        let mut shim = under_shim(weir);
        let rule = shim.rule(Calls::Write, "/data/journal/");
        Self::Shim(shim, rule)
    }

    /// Uses up space that the test can free again.
    fn fill(&self, bytes: u64) {
        if let Self::Small(disk) = self {
            disk.fill(bytes);
        }
    }

    fn fill_whole(&self) {
        match self {
            Self::Small(disk) => disk.fill(disk.available_bytes()),
            Self::Shim(shim, rule) => shim.fail_from_now_on(*rule, ENOSPC),
        }
    }

    fn free(&self) {
        match self {
            Self::Small(disk) => disk.free(),
            Self::Shim(shim, rule) => shim.heal(*rule),
        }
    }
}

/// Checks weir while the disk is full.
fn assert_full_and_alive(weir: &Weir) {
    weir.get("/healthz").ok();
    let ready = weir.get("/readyz");
    let reason = ready.text();
    assert!(ready.status == 503 && reason.contains("the disk is nearly full"), "{} {reason}", ready.status);
    let resident = resident_bytes(weir);
    assert!(resident < MEMORY_BOUND, "{resident} bytes of memory");
}

#[test]
fn a_nearly_full_disk_stops_the_intake_and_nothing_else() {
    let mut settings = SETTINGS.to_vec();
    // Released segments are kept, so the journal fills the disk.
    settings.extend([("journal.min_free_disk", "'32MiB'"), ("journal.retention", "'1h'")]);
    let mut weir = WEIR.prepare(&settings);
    let disk = FillableDisk::under(&mut weir, 128);
    disk.fill(48 * MIB);
    weir.restart();
    let load = Load::start(&weir, LoadOptions { devices: 16, in_flight: 50, padding_bytes: 2_000 });
    if let FillableDisk::Shim(..) = disk {
        wait_for("the devices get on", || (load.acknowledged() > 2_000).then_some(()));
        disk.fill_whole();
    }
    wait_metric(&weir, r#"weir_log_disk_full{log="journal"}"#, |full| full > 0.0);
    load.stop();
    assert_full_and_alive(&weir);
    if let FillableDisk::Small(disk) = &disk {
        let left = disk.available_bytes();
        assert!(left > 16 * MIB, "only {left} bytes are left of a reserve of 32 MiB");
    }
    // Acknowledged readings are processed and checkpointed while the disk is full.
    wait_for("a checkpoint of all that was taken", || {
        let checkpoints = weir.json("/api/v1/checkpoints");
        let newest = checkpoints["checkpoints"].as_array()?.first()?["replay_from"].as_f64()?;
        (newest >= weir.metric("weir_pipeline_position") && weir.metric("weir_pipeline_backlog_records") < 1.0)
            .then_some(())
    });
    assert_full_and_alive(&weir);
    assert!(weir.metric_sum("weir_checkpoint_failures_total") < 1.0);
    disk.free();
    wait_for("weir is ready again", || (weir.get("/readyz").status == 200).then_some(()));
    let readings = load.finish();
    assert_counted(&weir, &readings);
    weir.kill();
    weir.restart();
    assert_counted(&weir, &readings);
    weir.terminate();
}

/// Others fill the disk while no device sends anything, so the journal is not written and does not notice. weir starts on what
/// is left, and fails with a reason where nothing is.
#[test]
fn a_disk_that_others_fill_is_noticed_without_traffic() {
    let mut weir = WEIR.prepare(&[("journal.min_free_disk", "'16MiB'")]);
    let Some(disk) = SmallDisk::mount(&weir.path("disk.img"), &weir.data(), 64) else {
        return println!("skipped: no file system can be mounted here");
    };
    weir.restart();
    assert_eq!(weir.get("/readyz").status, 200);
    disk.fill(disk.available_bytes());
    wait_for("weir is not ready", || {
        let answer = weir.get("/readyz");
        (answer.status == 503 && answer.text().contains("the disk is nearly full")).then_some(())
    });
    assert_eq!(weir.get("/healthz").status, 200);
    disk.free();
    wait_for("weir is ready again", || (weir.get("/readyz").status == 200).then_some(()));
    weir.terminate();
    for directory in ["journal", "windows", "errors", "state"] {
        std::fs::remove_dir_all(weir.data().join(directory)).expect("it can be removed");
    }
    disk.fill(disk.available_bytes());
    let output = weir.command(&["run"]).output().expect("weir can be started");
    assert_eq!(output.status.code(), Some(DISK_FAILED), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("No space left on device"), "{output:?}");
}

/// The reserve is gone as well, for all who write. Space returns to the running weir, or, where it is killed meanwhile,
/// to the next.
fn without_any_space(kill: bool) {
    let mut settings = SETTINGS.to_vec();
    settings.push(("journal.retention", "'1h'"));
    let mut weir = WEIR.prepare(&settings);
    let disk = FillableDisk::under(&mut weir, 96);
    weir.restart();
    let load = Load::start(&weir, LoadOptions { devices: 8, in_flight: 50, padding_bytes: 500 });
    wait_for("the devices get on", || (load.acknowledged() > 2_000).then_some(()));
    disk.fill_whole();
    wait_metric(&weir, r#"weir_log_disk_full{log="journal"}"#, |full| full > 0.0);
    load.stop();
    assert_full_and_alive(&weir);
    if kill {
        weir.kill();
        if let FillableDisk::Small(_) = disk {
            // This start cannot write addresses.json.
            let output = weir.command(&["run"]).output().expect("weir can be started");
            assert_eq!(output.status.code(), Some(DISK_FAILED), "{output:?}");
        }
        disk.free();
        weir.restart();
        load.moved(&weir);
    } else {
        disk.free();
    }
    wait_for("weir is ready again", || (weir.get("/readyz").status == 200).then_some(()));
    let readings = load.finish();
    assert_counted(&weir, &readings);
    weir.kill();
    weir.restart();
    assert_counted(&weir, &readings);
    weir.terminate();
}

#[test]
fn a_disk_without_any_space_loses_nothing() {
    without_any_space(false);
}

#[test]
fn a_kill_on_a_disk_without_any_space_loses_nothing() {
    without_any_space(true);
}

#[test]
fn a_slow_disk_makes_acknowledgements_late_and_nothing_grow() {
    let mut weir = WEIR.prepare(SETTINGS);
    let mut shim = under_shim(&mut weir);
    let syncs = shim.rule(Calls::Sync, "/data/journal/");
    weir.restart();
    shim.delay(syncs, Duration::from_secs(2));
    // One message after the other: each acknowledgement comes after a sync that began after the message was sent.
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "slow");
    for seq in 0..3 {
        let begun = shim.begun(syncs);
        client.telemetry("slow", &format!(r#"{{"metric":"m","value":1,"seq":{seq}}}"#));
        let done = shim.done(syncs);
        assert!(done > begun, "acknowledged after {done} syncs, where {begun} had begun before it was sent");
    }
    let load = Load::start(&weir, LoadOptions { devices: 20, in_flight: 100, padding_bytes: 4_000 });
    wait_metric(&weir, "weir_mqtt_backpressure_seconds_total", |seconds| seconds > 0.0);
    wait_for("two syncs under load", || (load.acknowledged() > 200).then_some(()));
    let (begun, resident) = (shim.done(syncs), resident_bytes(&weir));
    let mut largest = resident;
    // Counts finished syncs instead of measuring time.
    while shim.done(syncs) < begun + 12 {
        largest = largest.max(resident_bytes(&weir));
        let queued = weir.metric(r#"weir_log_queue_bytes{log="journal"}"#);
        assert!(queued <= QUEUE_BYTES, "{queued} bytes wait for the journal");
        let now = shim.done(syncs);
        wait_for("another sync", || (shim.done(syncs) > now).then_some(()));
    }
    println!("resident: {resident} bytes, at most {largest} over 12 syncs of 2 s");
    assert!(largest < resident + 24 * MIB, "{resident} bytes of memory grew to {largest}");
    weir.get("/healthz").ok();
    shim.delay(syncs, Duration::ZERO);
    assert_counted(&weir, &load.finish());
    weir.terminate();
}

/// Fails the write or sync of one message: weir ends without acknowledging it, and the next start has every
/// acknowledged one.
fn ends_when_the_journal_fails(calls: Calls) {
    let mut weir = WEIR.prepare(SETTINGS);
    let mut shim = under_shim(&mut weir);
    let rule = shim.rule(calls, "/data/journal/");
    weir.restart();
    let load = Load::start(&weir, LoadOptions { devices: 8, in_flight: 20, padding_bytes: 10 });
    wait_for("the devices get on", || (load.acknowledged() > 1_000).then_some(()));
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "last");
    shim.fail_from_now_on(rule, EIO);
    let start = window_before(60);
    let payload = format!(r#"{{"metric":"m","value":1,"timestamp":{start},"seq":0}}"#);
    // The write may find the connection closed already.
    let _ = client.send(&publish_packet(MqttVersion::V4, "devices/last/telemetry", payload.as_bytes(), 1, false, 1));
    let answers = client.until_closed();
    assert!(answers.iter().all(|packet| packet.kind != PUBACK), "acknowledged after a failed call: {answers:?}");
    assert_eq!(weir.wait_exit().code(), Some(DISK_FAILED));
    assert_eq!(shim.failed(rule), 1, "a failed log is written or synced again");
    assert!(weir.output().contains("the log failed and takes nothing more"));
    shim.heal(rule);
    weir.restart();
    load.moved(&weir);
    assert_counted(&weir, &load.finish());
    weir.terminate();
}

#[test]
fn a_failed_sync_of_the_journal_ends_weir() {
    ends_when_the_journal_fails(Calls::Sync);
}

#[test]
fn a_failed_write_of_the_journal_ends_weir() {
    ends_when_the_journal_fails(Calls::Write);
}

/// A will that the failed journal does not take is not dropped: the next start publishes it.
#[test]
fn a_will_outlives_the_failure_of_the_journal() {
    let mut weir = WEIR.prepare(&[]);
    let mut shim = under_shim(&mut weir);
    let rule = shim.rule(Calls::Write, "/data/journal/");
    weir.restart();
    let will = TestMessage::new("devices/mortal/telemetry", r#"{"metric":"alive","value":0}"#, 1);
    let (mortal, _) = TestConnect::new(MqttVersion::V5, "mortal").will(&will).accepted(weir.mqtt());
    wait_metric(&weir, "weir_mqtt_wills", |wills| wills == 1.0);
    wait_metric(&weir, "weir_mqtt_sessions_unstored", |unstored| unstored == 0.0);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "last");
    shim.fail_from_now_on(rule, EIO);
    // The write may find the connection closed already.
    let _ = client.send(&publish_packet(MqttVersion::V4, "devices/last/telemetry", b"{}", 1, false, 1));
    assert_eq!(weir.wait_exit().code(), Some(DISK_FAILED));
    drop((mortal, client));
    shim.heal(rule);
    weir.restart();
    wait_metric(&weir, "weir_readings_accepted_total", |accepted| accepted == 1.0);
    wait_metric(&weir, "weir_mqtt_wills", |wills| wills == 0.0);
    weir.terminate();
}

/// A failed write to an output log ends weir; the next start computes the missing results from the journal.
fn ends_when_results_fail(calls: Calls) {
    let mut weir = WEIR.prepare(SETTINGS);
    let mut shim = under_shim(&mut weir);
    let rule = shim.rule(calls, "/data/windows/");
    weir.restart();
    let load = Load::start(&weir, LoadOptions { devices: 8, in_flight: 20, padding_bytes: 10 });
    wait_for("the devices get on", || (load.acknowledged() > 1_000).then_some(()));
    shim.fail_from_now_on(rule, EIO);
    assert_eq!(weir.wait_exit().code(), Some(DISK_FAILED));
    assert_eq!(shim.failed(rule), 1, "a failed log is written or synced again");
    shim.heal(rule);
    weir.restart();
    load.moved(&weir);
    assert_counted(&weir, &load.finish());
    weir.terminate();
}

#[test]
fn a_failed_sync_of_results_ends_weir() {
    ends_when_results_fail(Calls::Sync);
}

#[test]
fn a_failed_write_of_results_ends_weir() {
    ends_when_results_fail(Calls::Write);
}

/// A savepoint that cannot be written is reported, and everything else continues.
#[test]
fn a_savepoint_that_cannot_be_written_holds_nothing_up() {
    let mut settings = SETTINGS.to_vec();
    settings.push(("state.savepoint_interval", "'1s'"));
    let mut weir = WEIR.prepare(&settings);
    let mut shim = under_shim(&mut weir);
    let rule = shim.rule(Calls::Write, "/data/savepoints/");
    shim.fail_from_now_on(rule, ENOSPC);
    weir.restart();
    let load = Load::start(&weir, LoadOptions { devices: 4, in_flight: 20, padding_bytes: 10 });
    wait_for("a savepoint fails", || (shim.failed(rule) > 0).then_some(()));
    let before = weir.metric_sum("weir_checkpoints_total");
    wait_metric(&weir, "weir_checkpoints_total", |count| count > before + 1.0);
    shim.heal(rule);
    wait_for("a savepoint is written", || {
        let written = fs::read_dir(weir.data().join("savepoints")).ok()?.flatten();
        written.into_iter().any(|entry| entry.path().extension().is_some_and(|end| end == "weir")).then_some(())
    });
    weir.get("/healthz").ok();
    assert_counted(&weir, &load.finish());
    weir.terminate();
}

/// What is restored as exact holds for the end that the journal had: no client is served before this start is in the
/// journal, durable.
#[test]
fn connections_wait_until_the_start_is_on_disk() {
    let mut weir = WEIR.start(&[]);
    weir.terminate();
    let mut shim = under_shim(&mut weir);
    let syncs = shim.rule(Calls::Sync, "/data/journal/");
    shim.delay(syncs, Duration::from_secs(2));
    weir.spawn();
    let client = TestClient::connect(weir.mqtt(), MqttVersion::V5, "early");
    // Only the record of the start has been appended, so any sync under way is for it.
    let (begun, done) = (shim.begun(syncs), shim.done(syncs));
    assert_eq!((begun > 0, begun), (true, done), "served before the journal was synced");
    shim.delay(syncs, Duration::ZERO);
    drop(client);
}
