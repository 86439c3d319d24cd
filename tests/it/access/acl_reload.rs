//! Other users and rules while weir runs (SIGHUP): open connections and kept sessions follow.

use crate::access::acl::{
    BOTH, OWN, SECRET, USERS, audited, client, configure, connect, reload, reload_taken, start, write_private,
    write_users,
};
use weir_test_kit::mqtt::{CONNACK, ConnectPacket, MqttVersion, TestClient, TestMessage};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

const WIDE: &str = "[roles.own]\npublish = ['a/#', 'b/#']\nsubscribe = ['a/#', 'b/#']";
const NARROW: &str = "[roles.own]\npublish = ['a/#']\nsubscribe = ['a/#']";

fn without(user: &str) -> Vec<(&'static str, &'static str)> {
    USERS.iter().filter(|(name, _)| *name != user).copied().collect()
}

fn sessions(weir: &Weir) -> u64 {
    weir.json("/api/v1/status")["mqtt"]["sessions"].as_u64().expect("a number")
}

fn wait_connections(weir: &Weir, count: f64) {
    wait_for("connections have ended", || (weir.metric("weir_mqtt_connections") <= count).then_some(()));
}

#[test]
fn other_rules_hold_at_once() {
    for version in BOTH {
        let weir = start(WIDE, &[]);
        let mut own = client(&weir, version, "own");
        own.subscribe("a/#", 1);
        own.subscribe("b/#", 1);
        let mut site = client(&weir, version, "site");
        assert_eq!(own.publish_message(&TestMessage::new("b/own", "1", 1)), 0);
        assert_eq!(own.take_message().topic, "b/own");
        write_private(&weir, "acl.toml", NARROW);
        reload_taken(&weir);
        for topic in ["b/1", "a/1"] {
            site.publish_message(&TestMessage::new(topic, "x", 1));
        }
        assert_eq!(own.take_message().topic, "a/1", "the subscription to b/# has ended");
        own.expect_nothing();
        assert!(audited(&weir, "subscribe_denied", &["b/#", "user=own", "the rules changed"]));
        assert_eq!(weir.metric("weir_mqtt_subscriptions_denied_total{when=\"reload\"}"), 1.0);
        // The rules are applied again to the topic that the client published on last.
        match version {
            MqttVersion::V4 => {
                own.send_publish(&TestMessage { id: 9, ..TestMessage::new("b/own", "2", 1) });
                own.expect_closed(0);
            }
            MqttVersion::V5 => {
                assert_eq!(own.publish_message(&TestMessage::new("b/own", "2", 1)), 0x87);
                write_private(&weir, "acl.toml", WIDE);
                reload_taken(&weir);
                assert_eq!(
                    own.publish_message(&TestMessage::new("b/own", "3", 1)),
                    0x10,
                    "allowed, and nobody listens"
                );
            }
        }
    }
}

#[test]
fn a_removed_user_is_disconnected_and_forgotten() {
    for version in BOTH {
        let weir = start(WIDE, &[]);
        let kept = |user| connect(version, user).kept(600);
        let (mut own, _) = kept("own").accepted(weir.mqtt());
        own.subscribe("a/#", 1);
        kept("both").accepted(weir.mqtt()).0.disconnect();
        let (mut pump, _) = kept("pump").accepted(weir.mqtt());
        wait_connections(&weir, 2.0);
        assert_eq!(sessions(&weir), 3);
        let left: Vec<_> = USERS.iter().filter(|(name, _)| !["own", "both"].contains(name)).copied().collect();
        write_users(&weir, &left);
        reload_taken(&weir);
        own.expect_closed(0x87);
        pump.ping();
        wait_for("the sessions have ended", || (sessions(&weir) == 1).then_some(()));
        assert_eq!(weir.json("/api/v1/status")["mqtt"]["subscriptions"], 0);
        assert!(audited(&weir, "mqtt_disconnected", &["user=own", "not_authorized"]));
        let (_, answer) = kept("own").open(weir.mqtt());
        assert_eq!((answer.kind, answer.body[1]), (CONNACK, if version == MqttVersion::V4 { 4 } else { 0x86 }));
    }
}

#[test]
fn another_password_ends_the_connection_and_keeps_the_session() {
    let weir = start(WIDE, &[]);
    let (mut own, _) = connect(MqttVersion::V5, "own").kept(600).accepted(weir.mqtt());
    own.subscribe("a/#", 1);
    let users: String = USERS.iter().map(|(name, roles)| format!("{name}:{roles}:{SECRET}\n")).collect();
    // The hash of "other".
    let other = "$generated-sha256$2SmKENGwc1g33EvYXaxkGw887yekfl1TpU8vP1svz/o";
    write_private(&weir, "users", &users.replace(&format!("own:own:{SECRET}"), &format!("own:own:{other}")));
    reload_taken(&weir);
    own.expect_closed(0x87);
    client(&weir, MqttVersion::V5, "site").publish_message(&TestMessage::new("a/1", "waited", 1));
    assert_eq!(connect(MqttVersion::V5, "own").open(weir.mqtt()).1.body[1], 0x86, "the old password");
    let mut again = connect(MqttVersion::V5, "own").kept(600);
    again.rest = [weir_test_kit::mqtt::string("own"), weir_test_kit::mqtt::string("other")].concat();
    let (mut again, present) = again.accepted(weir.mqtt());
    assert!(present);
    assert_eq!(again.take_message().text(), "waited");
}

#[test]
fn a_session_without_a_connection_loses_what_it_may_no_longer_have() {
    for version in BOTH {
        let weir = start(WIDE, &[]);
        let kept = || connect(version, "own").kept(600);
        let (mut own, _) = kept().accepted(weir.mqtt());
        own.subscribe("a/#", 2);
        own.subscribe("b/#", 2);
        let mut site = client(&weir, version, "site");
        site.publish_message(&TestMessage::new("b/sent", "x", 2));
        assert_eq!(own.next_message().topic, "b/sent", "not acknowledged, so it would be sent again");
        drop(own);
        wait_connections(&weir, 1.0);
        for topic in ["b/waits", "a/waits"] {
            site.publish_message(&TestMessage::new(topic, "x", 1));
        }
        write_private(&weir, "acl.toml", NARROW);
        reload_taken(&weir);
        let (mut own, present) = kept().accepted(weir.mqtt());
        assert!(present);
        assert_eq!(own.take_message().topic, "a/waits");
        site.publish_message(&TestMessage::new("b/later", "x", 1));
        own.expect_nothing();
    }
}

#[test]
fn a_will_is_judged_by_the_rules_at_its_time() {
    let weir = start(WIDE, &[]);
    let mut watcher = client(&weir, MqttVersion::V5, "panel");
    watcher.subscribe("#", 1);
    let delayed = |user: &str, topic: &str| {
        let will = TestMessage { properties: vec![0x18, 0, 0, 0, 5], ..TestMessage::new(topic, user, 1) };
        connect(MqttVersion::V5, user).kept(600).will(&will)
    };
    for (user, topic) in [("own", "b/will"), ("both", "a/will"), ("pump", "devices/pump/will")] {
        drop(delayed(user, topic).accepted(weir.mqtt()));
    }
    wait_connections(&weir, 1.0);
    write_private(&weir, "acl.toml", NARROW);
    write_users(&weir, &without("pump"));
    reload_taken(&weir);
    assert_eq!(watcher.take_message().text(), "both");
    wait_for("the others were denied", || {
        let denied = weir.metric("weir_mqtt_messages_dropped_total{reason=\"will_denied\"}");
        (denied >= 2.0).then_some(())
    });
    watcher.expect_nothing();
    assert!(audited(&weir, "will_denied", &["b/will", "user=own", "the rules changed"]));
}

#[test]
fn files_that_cannot_be_used_change_nothing() {
    let weir = start(NARROW, &[]);
    let mut own = client(&weir, MqttVersion::V5, "own");
    let unchanged = |own: &mut TestClient| {
        assert_eq!(own.publish_message(&TestMessage::new("a/x", "x", 1)), 0x10);
        assert_eq!(own.publish_message(&TestMessage::new("b/x", "x", 1)), 0x87);
    };
    unchanged(&mut own);
    write_private(&weir, "acl.toml", "[roles.own]\npublish = ['b/#', '+x']");
    let errors = reload(&weir)["errors"].to_string();
    assert!(errors.contains("acl.toml:2: roles.own.publish"), "{errors}");
    unchanged(&mut own);
    // A reload is refused if it removes a role that a user has.
    write_private(&weir, "acl.toml", "[roles.other]\npublish = ['b/#']");
    let errors = reload(&weir)["errors"].to_string();
    assert!(errors.contains("user \\\"own\\\" has the role \\\"own\\\""), "{errors}");
    unchanged(&mut own);
    write_private(&weir, "acl.toml", OWN);
    reload_taken(&weir);
    assert_eq!(own.publish_message(&TestMessage::new("a/x", "x", 1)), 0x87);
}

#[test]
fn whether_anonymous_clients_are_welcome_changes_too() {
    let weir = start(NARROW, &[]);
    let nobody = || ConnectPacket::new(MqttVersion::V5, "nobody");
    assert_eq!(nobody().open(weir.mqtt()).1.body[1], 0x87);
    configure(&weir, &[("mqtt.allow_anonymous", "true")]);
    reload_taken(&weir);
    let (mut let_in, _) = nobody().accepted(weir.mqtt());
    configure(&weir, &[]);
    reload_taken(&weir);
    let_in.expect_closed(0x87);
    assert_eq!(nobody().open(weir.mqtt()).1.body[1], 0x87);
}
