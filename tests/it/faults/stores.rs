//! Stores of sessions and of retained messages whose disk fails while weir runs, and is well again.

use crate::WEIR;
use crate::faults::small_disk::SmallDisk;
use weir_test_kit::mqtt::{MqttVersion, TestClient, TestConnect, TestMessage};
use weir_test_kit::process::Weir;
use weir_test_kit::shim::{Calls, EIO, ENOSPC, Rule, Shim};
use weir_test_kit::wait::wait_for;

const V5: MqttVersion = MqttVersion::V5;

/// The stores, by their directories.
const STORES: [&str; 2] = ["sessions", "retained"];

/// What the stores must hold: one session per number below `sessions`, with a waiting message, and one retained message per
/// number below `retained`, without those of `removed`.
#[derive(Debug, Default)]
struct KeptThings {
    sessions: usize,
    retained: usize,
    removed: Vec<usize>,
}

impl KeptThings {
    /// `count` more sessions and retained messages.
    fn grow(&mut self, weir: &Weir, count: usize) {
        let mut publisher = TestClient::connect(weir.mqtt(), V5, "publisher");
        for number in self.sessions..self.sessions + count {
            let (mut client, _) = session(number).accepted(weir.mqtt());
            client.subscribe(&format!("commands/{number}"), 1);
            client.disconnect();
            publisher.publish_message(&TestMessage::new(&format!("commands/{number}"), &number.to_string(), 1));
            publisher.publish_message(&TestMessage::retained(&topic(number), &number.to_string(), 1));
        }
        self.sessions += count;
        self.retained += count;
        publisher.disconnect();
    }

    /// Removes a retained message.
    fn remove(&mut self, weir: &Weir, number: usize) {
        let mut publisher = TestClient::connect(weir.mqtt(), V5, "publisher");
        publisher.publish_message(&TestMessage::retained(&topic(number), "", 1));
        publisher.disconnect();
        self.removed.push(number);
    }

    #[track_caller]
    fn assert_there(&self, weir: &Weir) {
        let kept = self.retained - self.removed.len();
        assert_eq!(weir.metric("weir_mqtt_retained_messages") as usize, kept, "retained messages");
        let missing: Vec<usize> = (0..self.sessions).filter(|number| !is_there(weir, *number)).collect();
        assert!(missing.is_empty(), "of {} sessions these are gone: {missing:?}", self.sessions);
        let mut reader = TestClient::connect(weir.mqtt(), V5, "reader");
        for number in (0..self.retained).filter(|number| !self.removed.contains(number)) {
            reader.subscribe(&topic(number), 0);
            assert_eq!(reader.take_message().text(), number.to_string());
        }
    }
}

fn session(number: usize) -> TestConnect {
    TestConnect::new(V5, &format!("kept-{number}")).kept(100_000)
}

fn topic(number: usize) -> String {
    format!("state/{number}")
}

/// Whether a session has its waiting message.
fn is_there(weir: &Weir, number: usize) -> bool {
    let (mut client, present) = session(number).accepted(weir.mqtt());
    present && client.take_message().text() == number.to_string()
}

#[track_caller]
fn wait_stored(weir: &Weir) {
    for store in STORES {
        let name = format!("weir_mqtt_{store}_unstored");
        wait_for(&name, || (weir.metric(&name) == 0.0).then_some(()));
        assert_eq!(weir.metric(&format!("{name}_age_seconds")), 0.0);
    }
}

fn failures(weir: &Weir, store: &str) -> f64 {
    weir.metric_sum(&format!("weir_mqtt_{store}_failures_total"))
}

/// Checks weir while both stores are out of order.
#[track_caller]
fn assert_outage_is_told(weir: &Weir) {
    for store in STORES {
        let unstored = weir.metric(&format!("weir_mqtt_{store}_unstored"));
        assert!(unstored > 0.0, "weir_mqtt_{store}_unstored is 0 during the outage");
    }
    weir.get("/healthz").ok();
    let ready = weir.get("/readyz");
    let text = ready.text();
    let is_told = text.contains("MQTT sessions and wills cannot be stored for")
        && text.contains("retained messages cannot be stored for");
    assert!(ready.status == 503 && is_told, "{} {text}", ready.status);
}

#[track_caller]
fn wait_whole(weir: &mut Weir) {
    weir.wait_until("weir is ready again", Weir::is_ready);
    wait_stored(weir);
    let output = weir.output();
    for what in ["MQTT sessions and wills", "retained messages"] {
        let count = |line: String| output.matches(&line).count();
        let told = (count(format!("{what} cannot be stored: weir goes on")), count(format!("{what} are stored again")));
        assert_eq!(told, (1, 1), "lines at the begin and at the end of the outage of {what}");
    }
    for store in STORES {
        assert!(weir.metric_sum(&format!("weir_mqtt_{store}_reopened_total")) > 0.0, "{store} was not opened again");
        assert_eq!(weir.metric_sum(&format!("weir_mqtt_{store}_moved_aside_total")), 0.0);
    }
}

/// A weir under the shim, with a rule for each store.
fn under_shim(calls: Calls) -> (Weir, Shim, [Rule; 2]) {
    let mut weir = WEIR.prepare(&[]);
    let mut shim = Shim::new(WEIR, &weir.path(""));
    for (name, value) in shim.environment() {
        weir.environment(name, value);
    }
    let rules = STORES.map(|store| shim.rule(calls, &format!("/data/{store}/")));
    weir.restart();
    (weir, shim, rules)
}

/// Both stores fail for a while. Changes go on meanwhile, and everything is on disk afterwards without a restart.
fn recovers(calls: Calls, errno: u64) {
    let (mut weir, shim, rules) = under_shim(calls);
    let mut things = KeptThings::default();
    things.grow(&weir, 5);
    wait_stored(&weir);
    rules.iter().for_each(|rule| shim.fail_from_now_on(*rule, errno));
    things.grow(&weir, 5);
    wait_for("both stores fail", || STORES.iter().all(|store| failures(&weir, store) > 1.0).then_some(()));
    assert_outage_is_told(&weir);
    things.grow(&weir, 5);
    things.remove(&weir, 2);
    assert_outage_is_told(&weir);
    rules.iter().for_each(|rule| shim.heal(*rule));
    wait_whole(&mut weir);
    weir.kill();
    weir.restart();
    things.assert_there(&weir);
    weir.terminate();
}

#[test]
fn stores_recover_from_failed_writes() {
    recovers(Calls::Write, EIO);
}

#[test]
fn stores_recover_from_a_disk_without_space() {
    recovers(Calls::Write, ENOSPC);
}

#[test]
fn stores_recover_from_failed_syncs() {
    recovers(Calls::Sync, EIO);
}

#[test]
fn stores_recover_from_one_failed_sync() {
    let (mut weir, shim, rules) = under_shim(Calls::Sync);
    let mut things = KeptThings::default();
    things.grow(&weir, 5);
    wait_stored(&weir);
    rules.iter().for_each(|rule| shim.fail(*rule, EIO, 1));
    things.grow(&weir, 5);
    wait_for("both stores fail", || STORES.iter().all(|store| failures(&weir, store) > 0.0).then_some(()));
    wait_whole(&mut weir);
    weir.kill();
    weir.restart();
    things.assert_there(&weir);
    weir.terminate();
}

/// A real file system without a free byte.
#[test]
fn stores_recover_from_a_full_file_system() {
    // Only files on ingest topics stop at the reserve of the journal.
    let mut weir = WEIR.prepare(&[("journal.min_free_disk", "'1MiB'")]);
    let Some(disk) = SmallDisk::mount(&weir.path("disk.img"), &weir.data(), 96) else {
        println!("no file system can be mounted here");
        return;
    };
    weir.restart();
    let mut things = KeptThings::default();
    things.grow(&weir, 5);
    wait_stored(&weir);
    disk.fill(disk.available_bytes());
    let payload = "x".repeat(50_000);
    wait_for("both stores fail", || {
        // The stores have some room left in their files.
        let mut client = TestClient::connect(weir.mqtt(), V5, "filler");
        client.publish_message(&TestMessage::retained("filler", &payload, 1));
        things.grow(&weir, 1);
        STORES.iter().all(|store| failures(&weir, store) > 1.0).then_some(())
    });
    assert_outage_is_told(&weir);
    things.grow(&weir, 5);
    let mut client = TestClient::connect(weir.mqtt(), V5, "filler");
    client.publish_message(&TestMessage::retained("filler", "", 1));
    disk.free();
    wait_whole(&mut weir);
    weir.kill();
    weir.restart();
    things.assert_there(&weir);
    weir.terminate();
}

/// An orderly stop during an outage says what is lost; where the disk is well again, it stores everything.
#[test]
fn a_stop_during_an_outage_tries_once_more() {
    for heals in [false, true] {
        let (mut weir, shim, rules) = under_shim(Calls::Sync);
        let mut things = KeptThings::default();
        things.grow(&weir, 5);
        wait_stored(&weir);
        rules.iter().for_each(|rule| shim.fail_from_now_on(*rule, EIO));
        let before = things.sessions;
        things.grow(&weir, 3);
        wait_for("both stores fail", || STORES.iter().all(|store| failures(&weir, store) > 1.0).then_some(()));
        if heals {
            rules.iter().for_each(|rule| shim.heal(*rule));
        }
        weir.terminate();
        let told = weir.output().matches("could not be stored before the end").count();
        assert_eq!(told, if heals { 0 } else { STORES.len() });
        rules.iter().for_each(|rule| shim.heal(*rule));
        weir.restart();
        if heals {
            things.assert_there(&weir);
        } else {
            assert!((0..before).all(|number| is_there(&weir, number)), "what was stored before is there");
        }
        weir.terminate();
    }
}
