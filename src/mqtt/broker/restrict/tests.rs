//! What becomes of sessions when the rules change.

use super::super::{AttachRequest, AttachedSession};
use super::*;
use crate::access::{Acl, Login, Proof, StoredPassword, Users};
use crate::config::MqttConfig;
use crate::mqtt::ProtocolVersion;
use crate::mqtt::session::message::Message;
use crate::mqtt::session::timeline::Timeline;
use crate::mqtt::session::will::Will;
use crate::mqtt::testing::{CountingWaker, SentPacket, attaching, packets};
use crate::mqtt::wire::close::CloseReason;
use crate::mqtt::wire::codec::{RetainHandling, SubscribeOutcome, TopicSubscription};
use crate::mqtt::wire::frame;
use crate::tls::CertificateId;

/// The hashes of "secret" and "other".
const SECRET: &str = "$generated-sha256$K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols";
const OTHER: &str = "$generated-sha256$2SmKENGwc1g33EvYXaxkGw887yekfl1TpU8vP1svz/o";
const READ_ALL: &str = "[roles.device]\npublish = ['devices/%u/#']\nsubscribe = ['#']";
const READ_OWN: &str = "[roles.device]\npublish = ['devices/%u/#']\nsubscribe = ['devices/%u/#']";

fn policy(users: &str, acl: &str) -> Policy {
    let users = Some(Users::parse("users", users).unwrap());
    Policy { users, acl: Acl::parse("acl", acl).unwrap(), allow_anonymous: true, ..Policy::default() }
}

fn pump(hash: &str) -> String {
    format!("pump::{hash}")
}

/// A broker with one client, the user "pump".
struct RestrictCase {
    broker: Broker,
    login: Login,
    policy: Policy,
}

impl RestrictCase {
    fn new(acl: &str) -> Self {
        let broker = Broker::new(&MqttConfig::default(), Arc::default(), Timeline::default());
        let policy = policy(&pump(SECRET), acl);
        let proof = Proof::Password(StoredPassword::parse(SECRET).unwrap());
        let identity = policy.identity_of(&"pump".into(), &proof).unwrap();
        let login = Login { identity, proof, ..Login::default() };
        Self { broker, login, policy }
    }

    fn attach(&self, client_id: &str, clean: bool) -> AttachedSession {
        let attach = AttachRequest { login: &self.login, policy: &self.policy, clean, ..attaching(client_id) };
        self.broker.attach(&attach).unwrap()
    }

    fn subscribe(&self, to: &AttachedSession, filter: &str) -> SubscribeOutcome {
        let filter = TopicSubscription {
            filter: filter.into(),
            qos: 2,
            no_local: false,
            retain_as_published: false,
            retain: RetainHandling::Always,
            identifier: None,
        };
        self.broker.subscribe(&to.session, to.connection, &filter)
    }

    fn publish(&self, topic: &str, qos: u8) {
        self.broker.publish(topic, "x".into(), qos, false);
    }

    /// Other rules from now on.
    fn restrict(&mut self, users: &str, acl: &str) {
        let version = self.broker.version();
        self.policy = policy(users, acl);
        self.broker.restrict(&self.policy);
        assert!(self.broker.version() > version, "topics that connections know are asked for again");
    }

    /// Ends the connection, and connects once more.
    fn again(&self, attached: &AttachedSession) -> AttachedSession {
        self.broker.detach(&attached.session, attached.connection, 60, None);
        self.attach(&attached.session.client_id, false)
    }
}

/// Topics of what is sent now.
fn received(attached: &AttachedSession) -> Vec<String> {
    let mut out = Vec::new();
    let now = std::time::Instant::now;
    attached.session.write(attached.connection, ProtocolVersion::V4, usize::MAX, usize::MAX, now, &mut out);
    let publishes = packets(&out, ProtocolVersion::V4).into_iter().map(|packet| match packet {
        SentPacket::Publish { topic, .. } => topic,
        other => panic!("{other:?}"),
    });
    publishes.collect()
}

#[test]
fn a_subscription_needs_a_rule() {
    let case = RestrictCase::new(READ_OWN);
    let one = case.attach("c", true);
    for filter in ["#", "devices/#", "devices/fan/x", "$share/g/devices/+/x", "$SYS/#"] {
        assert_eq!(case.subscribe(&one, filter), SubscribeOutcome::NotAuthorized, "{filter}");
    }
    for filter in ["devices/pump/#", "$share/g/devices/pump/x"] {
        assert_eq!(case.subscribe(&one, filter), SubscribeOutcome::Granted(2), "{filter}");
    }
    assert_eq!(case.broker.stats().subscriptions, 2);
}

#[test]
fn subscriptions_that_are_no_longer_allowed_end_with_what_waits_for_them() {
    let mut case = RestrictCase::new(READ_ALL);
    let (online, offline) = (case.attach("online", true), case.attach("offline", true));
    for attached in [&online, &offline] {
        case.subscribe(attached, "devices/+/x");
        case.subscribe(attached, "devices/pump/x");
    }
    case.broker.detach(&offline.session, offline.connection, 60, None);
    for topic in ["devices/fan/x", "devices/pump/x"] {
        case.publish(topic, 1);
    }
    case.restrict(&pump(SECRET), READ_OWN);
    case.publish("devices/fan/x", 1);
    assert_eq!((case.broker.stats().subscriptions, case.broker.stats().queued_messages), (2, 2));
    assert_eq!(online.session.owner(), online.connection, "it stays connected");
    assert_eq!(received(&online), ["devices/pump/x"]);
    let again = case.attach("offline", false);
    assert!(again.session_present);
    assert_eq!(received(&again), ["devices/pump/x"]);
    assert_eq!(case.subscribe(&again, "devices/+/x"), SubscribeOutcome::NotAuthorized);
}

#[test]
fn what_was_sent_is_not_sent_again() {
    let mut case = RestrictCase::new(READ_ALL);
    let one = case.attach("c", true);
    case.subscribe(&one, "devices/#");
    for topic in ["devices/fan/1", "devices/pump/2", "devices/fan/3"] {
        case.publish(topic, 2);
    }
    assert_eq!(received(&one).len(), 3);
    case.restrict(&pump(SECRET), READ_OWN);
    // The window counts what the client has: it acknowledges as if nothing had happened.
    assert_eq!(one.session.acknowledge(one.connection, frame::PUBREC, 3, 0), Ok(true));
    let again = case.again(&one);
    let mut out = Vec::new();
    let now = std::time::Instant::now;
    again.session.write(again.connection, ProtocolVersion::V4, usize::MAX, usize::MAX, now, &mut out);
    let resent = packets(&out, ProtocolVersion::V4);
    assert_eq!(resent.len(), 2, "{resent:?}");
    assert!(matches!(&resent[0], SentPacket::Publish { topic, .. } if topic == "devices/pump/2"));
    assert!(matches!(&resent[1], SentPacket::Ack { kind: frame::PUBREL, packet_id: 3, .. }));
}

#[test]
fn shared_messages_go_to_those_who_may_have_them() {
    let mut case = RestrictCase::new(READ_ALL);
    let one = case.attach("c", true);
    case.subscribe(&one, "$share/g/devices/#");
    for topic in ["devices/fan/1", "devices/pump/2"] {
        case.publish(topic, 1);
    }
    let other = case.broker.attach(&attaching("other")).unwrap();
    case.subscribe(&other, "$share/g/devices/#");
    case.restrict(&pump(SECRET), READ_OWN);
    assert_eq!(received(&one), ["devices/pump/2"]);
    assert_eq!(received(&other), ["devices/fan/1"]);
}

#[test]
fn a_removed_user_is_disconnected_and_its_sessions_end() {
    let mut case = RestrictCase::new(READ_OWN);
    let (online, offline) = (case.attach("online", true), case.attach("offline", true));
    case.subscribe(&online, "devices/pump/x");
    case.subscribe(&offline, "devices/pump/x");
    case.broker.detach(&offline.session, offline.connection, 60, None);
    let (waker, woken) = CountingWaker::pair();
    online.session.register(online.connection, &waker);
    case.restrict("", READ_OWN);
    assert_eq!((woken.get(), online.session.lost(online.connection)), (1, CloseReason::NotAuthorized));
    assert!(online.session.own(online.connection).is_none(), "nothing of it is taken any more");
    assert_eq!((case.broker.stats().connections, case.broker.stats().sessions), (1, 1));
    assert_eq!(case.broker.detach(&online.session, online.connection, 60, None), None);
    assert_eq!((case.broker.stats().connections, case.broker.stats().sessions), (0, 0));
    assert_eq!(case.broker.stats().subscriptions, 0);
    case.restrict("", READ_OWN);
}

#[test]
fn another_password_ends_connections_and_not_sessions() {
    let mut case = RestrictCase::new(READ_ALL);
    let (online, offline) = (case.attach("online", true), case.attach("offline", true));
    for attached in [&online, &offline] {
        case.subscribe(attached, "devices/#");
    }
    case.broker.detach(&offline.session, offline.connection, 60, None);
    case.restrict(&pump(OTHER), READ_ALL);
    assert_eq!(online.session.lost(online.connection), CloseReason::NotAuthorized);
    case.broker.detach(&online.session, online.connection, 60, None);
    case.publish("devices/fan/x", 1);
    case.restrict(&pump(OTHER), READ_OWN);
    case.login.proof = Proof::Password(StoredPassword::parse(OTHER).unwrap());
    for client_id in ["online", "offline"] {
        let again = case.attach(client_id, false);
        assert!(again.session_present, "{client_id}");
        assert_eq!(received(&again), [""; 0], "{client_id}: the rules changed meanwhile");
    }
}

#[test]
fn the_client_of_a_revoked_certificate_is_disconnected_and_may_come_back_with_another() {
    let mut case = RestrictCase::new(READ_OWN);
    let [shown, other] = [b"1", b"2"].map(|serial| CertificateId::new(b"issuer", serial));
    case.login.proof = Proof::Certificate(Some(shown));
    case.login.identity.user = Some("fan".into());
    let (online, offline) = (case.attach("online", true), case.attach("offline", true));
    for attached in [&online, &offline] {
        case.subscribe(attached, "devices/fan/#");
    }
    case.broker.detach(&offline.session, offline.connection, 60, None);
    let revoked = [shown].into_iter().collect();
    let policy = Policy { revoked, ..policy(&pump(SECRET), READ_OWN) };
    case.broker.restrict(&policy);
    assert_eq!(online.session.lost(online.connection), CloseReason::NotAuthorized);
    assert!(online.session.own(online.connection).is_none(), "nothing of it is taken any more");
    case.broker.detach(&online.session, online.connection, 60, None);
    case.publish("devices/fan/commands", 1);
    case.broker.restrict(&policy);
    case.login.proof = Proof::Certificate(Some(other));
    case.policy = policy;
    for client_id in ["online", "offline"] {
        let again = case.attach(client_id, false);
        assert!(again.session_present, "{client_id}");
        assert_eq!(received(&again), ["devices/fan/commands"], "{client_id}");
        assert_eq!(again.session.owner(), again.connection);
    }
}

#[test]
fn anonymous_clients_that_are_no_longer_welcome_end() {
    let broker = Broker::new(&MqttConfig::default(), Arc::default(), Timeline::default());
    let one = broker.attach(&attaching("c")).unwrap();
    broker.restrict(&Policy::without_users(true));
    assert_eq!(one.session.owner(), one.connection);
    broker.restrict(&Policy::without_users(false));
    assert_eq!(one.session.lost(one.connection), CloseReason::NotAuthorized);
}

#[test]
fn a_take_over_between_is_a_take_over() {
    let mut case = RestrictCase::new(READ_OWN);
    let old = case.attach("c", true);
    case.restrict(&pump(OTHER), READ_OWN);
    let new = case.attach("c", false);
    assert!(new.session_present);
    assert_eq!(old.session.lost(old.connection), CloseReason::TakenOver);
    case.broker.detach(&old.session, old.connection, 60, None);
    assert_eq!((case.broker.stats().connections, new.session.owner()), (1, new.connection));
}

#[test]
fn a_client_that_got_in_by_the_rules_before_is_judged_by_the_new_ones() {
    let case = RestrictCase::new(READ_ALL);
    let one = case.attach("c", true);
    case.subscribe(&one, "#");
    case.broker.judge(&one.session, &policy(&pump(SECRET), READ_OWN));
    assert_eq!(case.broker.stats().subscriptions, 0);
    case.broker.judge(&one.session, &policy("", READ_OWN));
    assert!(one.session.is_revoked(one.connection));
}

#[test]
fn a_session_that_is_resumed_under_other_roles_loses_what_it_had() {
    let mut case = RestrictCase::new(READ_ALL);
    let one = case.attach("c", true);
    case.subscribe(&one, "#");
    case.broker.detach(&one.session, one.connection, 60, None);
    case.publish("a", 1);
    case.policy = policy(&pump(SECRET), READ_OWN);
    let again = case.attach("c", false);
    assert!(again.session_present && received(&again).is_empty());
    assert_eq!(case.broker.stats().subscriptions, 0);
}

#[test]
fn the_will_of_a_removed_user_comes_out_with_its_session() {
    let mut case = RestrictCase::new(READ_OWN);
    let one = case.attach("c", true);
    let message = Message::new("devices/pump/gone", "x".into(), 0, false);
    let login = case.login.clone();
    let will = Will { number: 0, client_id: "c".into(), login, message, expiry_s: None, delay_s: 5 };
    let will = case.broker.take_will(will, &one.session);
    case.broker.detach(&one.session, one.connection, 60, Some(will));
    case.restrict("", READ_OWN);
    // Whether it may be published is asked then.
    assert_eq!(case.broker.due().0.len(), 1);
}
