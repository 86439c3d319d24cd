//! A state store that is full, failing, damaged or gone, under the real program.

use std::fs;
use std::path::{Path, PathBuf};

use crate::WEIR;
use crate::faults::load::assert_windows;
use weir::random::Random;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::seed::announced_seed;
use weir_test_kit::shim::{Calls, EIO, ENOSPC, Shim};
use weir_test_kit::wait::{wait_for, window_before};

const DEVICES: u64 = 6;

/// Size of an unused field that makes the journal grow quickly.
const PADDING_BYTES: usize = 60_000;

/// Devices whose readings are all acknowledged, so that every one of them must be counted once, whatever happens later.
struct CountedSender {
    start_ms: i64,
    next_seq: u64,
    padding: String,
}

impl CountedSender {
    fn new() -> Self {
        Self { start_ms: window_before(3_600), next_seq: 0, padding: "x".repeat(PADDING_BYTES) }
    }

    /// `count` readings of each device.
    fn send(&mut self, weir: &Weir, count: u64) {
        for device in 0..DEVICES {
            let id = format!("d{device}");
            let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, &id);
            for seq in self.next_seq..self.next_seq + count {
                let (timestamp, padding) = (self.start_ms + seq as i64 * 100, &self.padding);
                let reading = format!(r#""metric":"m","value":{seq},"timestamp":{timestamp},"seq":{seq}"#);
                client.telemetry(&id, &format!(r#"{{{reading},"note":"{padding}"}}"#));
            }
        }
        self.next_seq += count;
    }

    /// Every reading is in one window, once.
    #[track_caller]
    fn assert_counted(&self, weir: &Weir) {
        weir.wait_closed();
        for device in 0..DEVICES {
            let shown = weir.json(&format!("/api/v1/devices/d{device}"));
            assert_eq!(shown["accepted"], self.next_seq, "{shown}");
            assert_windows(weir, &format!("d{device}"), self.next_seq);
        }
        weir.assert_accounted();
    }
}

const SETTINGS: &[(&str, &str)] = &[
    ("window.idle_timeout", "'500ms'"),
    ("state.checkpoint_interval", "'200ms'"),
    ("state.savepoint_interval", "'1s'"),
    ("state.savepoints_kept", "2"),
    ("journal.commit_max_bytes", "'512KiB'"),
    ("journal.segment_size", "'1MiB'"),
];

/// How far back the journal of a test reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JournalReach {
    /// To its first record: retention keeps it.
    Whole,
    /// Its beginning is freed: only a savepoint and what came after it are left.
    Freed,
}

fn checkpoints(weir: &Weir) -> f64 {
    weir.metric_sum("weir_checkpoints_total")
}

/// Waits until a checkpoint that began after the call is complete. The first one to complete may have begun earlier.
#[track_caller]
fn wait_checkpoint(weir: &Weir, sender: &mut CountedSender) {
    for _ in 0..2 {
        let before = checkpoints(weir);
        sender.send(weir, 1);
        wait_for("a checkpoint completes", || (checkpoints(weir) > before).then_some(()));
    }
}

/// A weir that has readings and checkpoints and was stopped, with the sender of its readings.
fn with_state(journal: JournalReach) -> (Weir, CountedSender) {
    let mut settings = SETTINGS.to_vec();
    if journal == JournalReach::Whole {
        settings.push(("journal.retention", "'1h'"));
    }
    let mut weir = WEIR.start(&settings);
    let mut sender = CountedSender::new();
    sender.send(&weir, 5);
    wait_checkpoint(&weir, &mut sender);
    if journal == JournalReach::Freed {
        let first = weir.data().join("journal/00000000000000000000.log");
        wait_for("the beginning of the journal is freed", || {
            sender.send(&weir, 2);
            (!first.exists()).then_some(())
        });
    }
    sender.send(&weir, 3);
    weir.terminate();
    (weir, sender)
}

/// Treatment of a damaged store by the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StoreFate {
    /// The store cannot be opened or holds wrong data: it is moved aside.
    MovedAside,
    /// The store looks new, so it is filled again. With a whole journal nothing is missing.
    Filled,
    /// Either of the two: sled reads as much of a damaged file as it can, possibly nothing.
    Either,
}

/// Starts a weir whose store was damaged: it says so, moves it aside or fills it, and counts everything once.
fn assert_recovers(weir: &mut Weir, sender: &mut CountedSender, fate: StoreFate, journal: JournalReach, what: &str) {
    weir.restart();
    let told = weir.output().contains("the state store cannot be used");
    let metric = weir.metric_sum("weir_state_moved_aside_total");
    let aside = fs::read_dir(weir.data()).expect("a data directory").flatten();
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().starts_with("state.damaged-")).count();
    println!("{what}, journal {journal:?}: told {told}, moved aside {aside}");
    assert_eq!(metric as usize, aside, "{what}: weir_state_moved_aside_total");
    // weir does not report an older checkpoint, or none, while the journal reaches back to it.
    assert!(told || aside == 0, "{what} is not told");
    match fate {
        StoreFate::MovedAside => assert_eq!(aside, 1, "{what}"),
        StoreFate::Filled => assert_eq!(aside, 0, "{what}"),
        StoreFate::Either => {}
    }
    sender.send(weir, 3);
    wait_checkpoint(weir, sender);
    sender.assert_counted(weir);
    // The replacement store can be started from.
    weir.kill();
    weir.restart();
    sender.assert_counted(weir);
    weir.terminate();
}

fn db(weir: &Weir) -> PathBuf {
    weir.data().join("state/db")
}

/// Flips bits all over a file, in each page that holds anything.
fn flip_bits(path: &Path, random: &mut Random) {
    let mut bytes = fs::read(path).expect("a readable file");
    for page in bytes.chunks_mut(4_096).filter(|page| page.iter().any(|byte| *byte != 0)) {
        let at = random.below(page.len() as u64) as usize;
        page[at] ^= 1 << random.below(8);
    }
    fs::write(path, bytes).expect("a writable file");
}

/// Applies `damage` to a store, once with a whole journal and once with savepoints and a shortened journal.
fn after_damage(fate: StoreFate, what: &str, damage: impl Fn(&Weir)) {
    for journal in [JournalReach::Whole, JournalReach::Freed] {
        let (mut weir, mut sender) = with_state(journal);
        damage(&weir);
        assert_recovers(&mut weir, &mut sender, fate, journal, what);
    }
}

#[test]
fn a_store_with_flipped_bits_is_replaced() {
    let mut random = Random::new(announced_seed("flipped bits"));
    let seed = random.next_u64();
    after_damage(StoreFate::Either, "flipped bits", |weir| flip_bits(&db(weir), &mut Random::new(seed)));
}

#[test]
fn a_shortened_store_is_replaced() {
    after_damage(StoreFate::Either, "a shortened store", |weir| {
        let file = fs::File::options().write(true).open(db(weir)).expect("the store's file");
        let len = file.metadata().expect("its length").len();
        file.set_len(len / 3).expect("it can be cut");
    });
}

#[test]
fn a_directory_in_the_place_of_the_file_is_replaced() {
    after_damage(StoreFate::MovedAside, "a directory", |weir| {
        fs::remove_file(db(weir)).expect("it can be removed");
        fs::create_dir(db(weir)).expect("a directory");
    });
}

#[test]
fn a_file_in_the_place_of_the_store_is_replaced() {
    after_damage(StoreFate::MovedAside, "a file", |weir| {
        fs::remove_dir_all(weir.data().join("state")).expect("it can be removed");
        fs::write(weir.data().join("state"), "a file").expect("a file");
    });
}

#[test]
fn a_store_that_is_gone_is_made_anew() {
    after_damage(StoreFate::Filled, "no store", |weir| {
        fs::remove_dir_all(weir.data().join("state")).expect("it can be removed");
    });
}

/// Without store, savepoint and whole journal weir refuses to start from zero and changes nothing.
#[test]
fn without_a_savepoint_a_lost_store_is_refused() {
    let (weir, _) = with_state(JournalReach::Freed);
    for directory in ["state", "savepoints"] {
        fs::remove_dir_all(weir.data().join(directory)).expect("it can be removed");
    }
    let output = weir.command(&["run"]).output().expect("weir can be started");
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("the journal begins at record"), "{told}");
}

/// A weir under the shim with a rule for the files of its store.
fn under_shim(calls: Calls) -> (Weir, Shim, weir_test_kit::shim::Rule) {
    let mut weir = WEIR.prepare(SETTINGS);
    let mut shim = Shim::new(WEIR, &weir.path(""));
    for (name, value) in shim.environment() {
        weir.environment(name, value);
    }
    let rule = shim.rule(calls, "/data/state/");
    weir.restart();
    (weir, shim, rule)
}

/// Checkpoints fail while the store cannot be written and go on by themselves once it can; readings are taken all the
/// time.
fn goes_on_after_failures(calls: Calls, errno: u64) {
    let (mut weir, shim, rule) = under_shim(calls);
    let mut sender = CountedSender::new();
    sender.send(&weir, 5);
    wait_checkpoint(&weir, &mut sender);
    shim.fail_from_now_on(rule, errno);
    for _ in 0..3 {
        let failures = weir.metric_sum("weir_checkpoint_failures_total");
        sender.send(&weir, 1);
        wait_for("a checkpoint fails", || (weir.metric_sum("weir_checkpoint_failures_total") > failures).then_some(()));
    }
    assert!(shim.failed(rule) > 0, "no call failed");
    weir.get("/healthz").ok();
    shim.heal(rule);
    wait_checkpoint(&weir, &mut sender);
    wait_for("weir is ready", || (weir.get("/readyz").status == 200).then_some(()));
    sender.assert_counted(&weir);
    weir.kill();
    weir.restart();
    sender.assert_counted(&weir);
    assert!(!weir.output().contains("cannot be used"), "the store was not damaged");
    weir.terminate();
}

/// The store reads back other data after a failure: weir ends, and the next start replaces the store.
#[test]
fn a_store_that_is_lost_while_weir_runs_is_replaced_by_the_next_start() {
    let (mut weir, shim, rule) = under_shim(Calls::Sync);
    let mut sender = CountedSender::new();
    sender.send(&weir, 5);
    wait_checkpoint(&weir, &mut sender);
    shim.fail_from_now_on(rule, EIO);
    sender.send(&weir, 1);
    wait_for("a checkpoint fails", || (weir.metric_sum("weir_checkpoint_failures_total") > 0.0).then_some(()));
    fs::File::options().write(true).open(db(&weir)).and_then(|file| file.set_len(0)).expect("it can be emptied");
    shim.heal(rule);
    assert_eq!(weir.wait_exit().code(), Some(74));
    assert!(weir.output().contains("the next start moves the store aside"), "it is not told");
    weir.restart();
    sender.assert_counted(&weir);
    weir.terminate();
}

#[test]
fn checkpoints_go_on_after_a_full_disk() {
    goes_on_after_failures(Calls::Write, ENOSPC);
}

#[test]
fn checkpoints_go_on_after_failed_writes() {
    goes_on_after_failures(Calls::Write, EIO);
}

#[test]
fn checkpoints_go_on_after_failed_syncs() {
    goes_on_after_failures(Calls::Sync, EIO);
}
