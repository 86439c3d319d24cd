//! Wills over a restart: which wills are due, when, and how long the store keeps them.

use super::*;
use crate::mqtt::broker::retained_store::RetainedStore;
use crate::mqtt::testing;
use crate::tls::CertificateId;

const DAY_S: u32 = 86_400;

impl Life {
    /// Connects with a will.
    fn mortal(&self, client_id: &str, clean: bool, expiry_s: u32, delay_s: u32) -> (AttachedSession, Arc<Will>) {
        let attached = self.attach(client_id, clean, expiry_s);
        let will = self.broker.take_will(testing::will(client_id, delay_s), &attached.session);
        (attached, will)
    }

    fn lose(&self, (attached, will): (AttachedSession, Arc<Will>), expiry_s: u32) -> Option<Arc<Will>> {
        self.broker.detach(&attached.session, attached.connection, expiry_s, Some(will))
    }

    /// The clients whose wills are due now.
    fn due(&self) -> Vec<String> {
        self.broker.due().0.iter().map(|will| will.client_id.to_string()).collect()
    }

    /// Kills weir and starts it again after this time.
    fn crash(&self, directory: &Path, down_ms: u64) -> (Self, tempfile::TempDir) {
        self.round(Lsn(0));
        let after = copied(directory);
        self.clock.advance(down_ms);
        (Life::begin(after.path(), self.clock.clone(), Lsn(0)), after)
    }
}

fn begin() -> (Life, tempfile::TempDir) {
    let directory = tempfile::TempDir::new().unwrap();
    (Life::begin(directory.path(), Arc::default(), Lsn(0)), directory)
}

#[test]
fn clients_that_were_connected_at_a_crash_lost_their_connections_then() {
    let (life, directory) = begin();
    life.mortal("no session", true, 0, 5);
    life.mortal("no delay", true, DAY_S, 0);
    life.mortal("3 s delay", true, DAY_S, 3);
    life.mortal("2 s session", true, 2, 3);
    assert_eq!((life.broker.stats().wills, life.broker.stats().unstored_sessions), (4, 7));
    let (life, _after) = life.crash(directory.path(), 60_000);
    assert_eq!((life.broker.stats().wills, life.broker.stats().sessions), (4, 3));
    assert_eq!(life.due(), ["no session", "no delay"]);
    life.clock.advance(1_999);
    assert_eq!(life.due(), [""; 0]);
    life.clock.advance(1);
    assert_eq!(life.due(), ["2 s session"]);
    life.clock.advance(999);
    assert_eq!(life.due(), [""; 0]);
    life.clock.advance(1);
    assert_eq!(life.due(), ["3 s delay"]);
}

#[test]
fn a_will_that_waited_is_due_when_it_was() {
    let (life, directory) = begin();
    for (client_id, delay_s) in [("long", 60), ("short", 10)] {
        let mortal = life.mortal(client_id, true, DAY_S, delay_s);
        assert_eq!(life.lose(mortal, DAY_S), None);
    }
    life.clock.advance(4_000);
    let (life, _after) = life.crash(directory.path(), 20_000);
    assert_eq!(life.due(), ["short"], "its time came meanwhile");
    life.clock.advance(35_999);
    assert_eq!(life.due(), [""; 0]);
    life.clock.advance(1);
    assert_eq!(life.due(), ["long"]);
}

#[test]
fn a_second_crash_does_not_begin_the_delay_anew() {
    let (life, directory) = begin();
    life.mortal("one", true, DAY_S, 10);
    let (life, after) = life.crash(directory.path(), 60_000);
    life.clock.advance(6_000);
    let (life, _after) = life.crash(after.path(), 3_000);
    assert_eq!(life.due(), [""; 0]);
    life.clock.advance(1_000);
    assert_eq!(life.due(), ["one"]);
}

#[test]
fn a_client_that_is_back_in_time_has_no_will_published() {
    let (life, directory) = begin();
    for client_id in ["back", "clean"] {
        life.mortal(client_id, true, DAY_S, 10);
    }
    let (life, after) = life.crash(directory.path(), 0);
    assert!(life.attach("back", false, DAY_S).session_present);
    assert!(!life.attach("clean", true, DAY_S).session_present);
    assert_eq!(life.due(), ["clean"], "its session has ended");
    let (life, _after) = life.crash(after.path(), 60_000);
    assert_eq!(life.due(), ["clean"], "nobody said that it was published");
}

/// A will that is due does not wait again after a crash, and a client that comes back then does not cancel it.
#[test]
fn a_will_that_was_due_is_not_put_off() {
    let (life, directory) = begin();
    let late = life.mortal("late", true, DAY_S, 10);
    let replaced = life.mortal("replaced", true, DAY_S, 10);
    life.lose(late, DAY_S);
    life.round(Lsn(0));
    life.clock.advance(10_000);
    assert_eq!(life.due(), ["late"]);
    life.attach("late", false, DAY_S);
    life.attach("replaced", true, DAY_S);
    assert!(life.lose(replaced, DAY_S).is_some());
    let (life, _after) = life.crash(directory.path(), 0);
    assert_eq!(life.due(), ["late", "replaced"]);
}

#[test]
fn a_will_that_was_taken_back_is_gone() {
    let (life, directory) = begin();
    let (said_goodbye, will) = life.mortal("goodbye", true, DAY_S, 0);
    let taken_over = life.mortal("taken over", true, DAY_S, 10);
    let away = life.mortal("back", true, DAY_S, 10);
    life.mortal("never", true, DAY_S, 0);
    life.round(Lsn(0));
    life.broker.discard_will(&will);
    life.broker.detach(&said_goodbye.session, said_goodbye.connection, DAY_S, None);
    life.attach("taken over", false, DAY_S);
    assert_eq!(life.lose(taken_over, DAY_S), None);
    assert_eq!(life.lose(away, DAY_S), None);
    life.attach("back", false, DAY_S);
    let (life, _after) = life.crash(directory.path(), 60_000);
    assert_eq!(life.due(), ["never"]);
}

#[test]
fn of_one_client_only_the_last_will_waits() {
    let (life, directory) = begin();
    let first = life.mortal("one", true, DAY_S, 0);
    life.round(Lsn(0));
    life.mortal("one", false, DAY_S, 10);
    // The crash comes before the will of the first connection is published.
    drop(first);
    let (life, _after) = life.crash(directory.path(), 0);
    assert_eq!(life.due(), ["one"]);
    life.clock.advance(10_000);
    assert_eq!(life.due(), ["one"]);
    let (_, third) = life.mortal("one", true, DAY_S, 0);
    assert_eq!(third.number, 3, "later ones are known from those before");
}

#[test]
fn a_published_will_is_gone_when_what_came_of_it_is_on_disk() {
    let (life, directory) = begin();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let retained =
        RetainedStore::open(directory.path(), Arc::clone(&disk), Arc::new(SystemClock), Duration::from_secs(60))
            .unwrap();
    life.broker.keep_retained(retained);
    let attached = life.attach("one", true, 0);
    let mut will = testing::will("one", 0);
    will.message.retain = true;
    let will = life.broker.take_will(will, &attached.session);
    life.round(Lsn(0));
    let due = life.lose((attached, will), 0).unwrap();
    life.broker.deliver_will(&Arc::new(due.message.clone()), None);
    life.broker.will_published(&due, Lsn(7));
    life.broker.sync_retained();
    life.round(Lsn(6));
    assert_eq!(life.broker.stats().wills, 1, "the journal does not have it");
    life.round(Lsn(7));
    assert_eq!(life.broker.stats().wills, 0);
    let (life, _after) = life.crash(directory.path(), 0);
    assert_eq!(life.due(), [""; 0]);
}

#[test]
fn an_orderly_stop_keeps_what_was_not_published() {
    let (life, directory) = begin();
    let [published, waiting, deferred] =
        [("published", 0), ("waiting", 10), ("deferred", 0)].map(|(id, delay_s)| life.mortal(id, true, DAY_S, delay_s));
    life.round(Lsn(0));
    let due = life.lose(published, DAY_S).unwrap();
    life.broker.will_published(&due, Lsn(3));
    life.lose(waiting, DAY_S);
    life.broker.detach(&deferred.0.session, deferred.0.connection, DAY_S, None);
    let young = life.mortal("young", true, DAY_S, 10);
    life.lose(young, DAY_S);
    life.broker.sync_sessions(Lsn(3));
    let after = copied(directory.path());
    life.clock.advance(10_000);
    let life = Life::begin(after.path(), life.clock, Lsn(3));
    let mut due = life.due();
    due.sort();
    assert_eq!(due, ["deferred", "waiting", "young"]);
}

#[test]
fn published_wills_do_not_pile_up() {
    const BOUND: usize = 3;
    let directory = tempfile::TempDir::new().unwrap();
    let config = MqttConfig { max_connections: BOUND, ..MqttConfig::default() };
    let life = Life::begin_with(&config, directory.path(), Arc::default(), Lsn(0));
    for index in 1..=5 {
        let mortal = life.mortal(&index.to_string(), true, 0, 0);
        life.round(Lsn(0));
        let due = life.lose(mortal, 0).unwrap();
        // The journal does not become durable.
        life.broker.will_published(&due, Lsn(1));
        life.round(Lsn(0));
        assert_eq!(life.broker.stats().wills, index.min(BOUND));
    }
}

/// A will is read back as it was stored, and so is its client, except for a password.
#[test]
fn a_will_reads_back() {
    let check = |will: &Will| {
        let read = stored_will::decode(&stored_will::encode(will)).unwrap();
        let (before, after) = (&will.login, &read.login);
        assert_eq!((&before.identity.user, &before.proof), (&after.identity.user, &after.proof));
        assert_eq!(Will { login: before.clone(), ..read }, *will);
    };
    let plain = Will { number: 1, ..testing::will("one", 0) };
    check(&plain);
    let identity = Identity { user: Some("ada".into()), ..Identity::default() };
    let message =
        Message { properties: vec![1, 1].into(), ..Message::new("\u{e9}tat/x", vec![0, 255, 3].into(), 2, true) };
    let certificate = CertificateId::new(b"issuer", b"1");
    for proof in [Proof::None, Proof::Certificate(None), Proof::Certificate(Some(certificate))] {
        let login = Login { identity: identity.clone(), proof, ..Login::default() };
        let message = message.clone();
        check(&Will { number: u64::MAX, login, message, expiry_s: Some(0), delay_s: u32::MAX, ..plain.clone() });
    }
}

/// The stored form, written by hand.
#[test]
fn the_bytes_of_a_will() {
    let will = Will { number: 300, expiry_s: Some(5), ..testing::will("c", 9) };
    let bytes = [0x81, 8, 0, 0xac, 2, 9, 5, 0, 1, b'c', 4, b'g', b'o', b'n', b'e', 0, 1, b'x', 0];
    assert_eq!(stored_will::encode(&will), bytes);
    let read = stored_will::decode(&bytes).unwrap();
    assert_eq!((read.number, read.delay_s, read.expiry_s, &read.message), (300, 9, Some(5), &will.message));
    for len in 0..bytes.len() {
        assert!(stored_will::decode(&bytes[..len]).is_err(), "{len} bytes");
    }
    assert!(stored_will::decode(&[0x81, 0, 3, 1, 0, 0, 0, 0, 0, 0, 0]).is_err(), "QoS 3");
}
