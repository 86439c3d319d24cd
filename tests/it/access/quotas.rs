//! One user against another: quotas of roles, and who gives way at the bounds of all users.

use crate::access::acl::{OWN, client, connect, reload_taken, start, write_private};
use weir_test_kit::mqtt::{MqttVersion, TestClient, TestConnect, TestMessage};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

/// The role "own" and devices may have this of each.
fn quotas(text: &str) -> String {
    let device = "[roles.device]\npublish = ['devices/%u/#']\nsubscribe = ['devices/%u/#']\n";
    format!("{device}[roles.own]\npublish = ['#']\nsubscribe = ['#']\n[roles.own.quotas]\n{text}\n")
}

/// A CONNECT of a user with a client identifier of its own, whose session lasts.
fn kept(user: &str, client_id: &str) -> TestConnect {
    connect(MqttVersion::V5, user).client_id(client_id).kept(600)
}

/// Begins a session and leaves it without a connection, with this subscription.
#[track_caller]
fn leave(weir: &Weir, user: &str, client_id: &str, filter: &str) {
    let (mut client, _) = kept(user, client_id).accepted(weir.mqtt());
    client.subscribe(filter, 1);
    client.disconnect();
}

/// Connects again; returns whether the session was still there.
#[track_caller]
fn back(weir: &Weir, user: &str, client_id: &str) -> (TestClient, bool) {
    kept(user, client_id).accepted(weir.mqtt())
}

fn usage(weir: &Weir, user: &str, what: &str) -> u64 {
    let list = weir.json("/api/v1/mqtt/users");
    let found = list["users"].as_array().expect("a list").iter().find(|usage| usage["name"] == user).cloned();
    found.map_or(0, |usage| usage[what]["used"].as_u64().expect("a number"))
}

#[test]
fn sessions_of_one_user_never_evict_those_of_another() {
    let acl = format!("{OWN}[roles.device.quotas]\nsessions = 'off'\n");
    let weir = start(&acl, &[("mqtt.max_connections", "8")]);
    leave(&weir, "site", "victim", "commands/#");
    for index in 0..30 {
        kept("pump", &format!("p{index}")).accepted(weir.mqtt()).0.disconnect();
    }
    let (mut panel, _) = connect(MqttVersion::V5, "both").client_id("b").accepted(weir.mqtt());
    panel.ping();
    assert!(weir.json("/api/v1/status")["mqtt"]["sessions"].as_u64().expect("a number") <= 8);
    assert!(back(&weir, "site", "victim").1, "the session is still there");
    assert!(usage(&weir, "pump", "sessions") <= 7);
}

#[test]
fn a_user_at_its_quota_of_sessions_loses_its_own_oldest() {
    let weir = start(&quotas("sessions = 2\nconnections = 2"), &[]);
    for id in ["one", "two", "three"] {
        leave(&weir, "own", id, "a");
    }
    assert_eq!(usage(&weir, "own", "sessions"), 2);
    let (two, present) = back(&weir, "own", "two");
    assert!(present, "the oldest of its sessions went, not this one");
    let (three, present) = back(&weir, "own", "three");
    assert!(present);
    assert_eq!(kept("own", "four").code(weir.mqtt()), 0x97, "both connections are taken");
    assert!(back(&weir, "site", "s").0.subscribe_with("x", 1, &[]) == 1, "another user is not concerned");
    drop((two, three));
    assert!(weir.metric_sum("weir_mqtt_over_quota_total") >= 2.0);
}

#[test]
fn a_light_user_gets_a_connection_where_a_heavy_one_has_all() {
    let weir = start(OWN, &[("mqtt.max_connections", "4")]);
    let mut heavy: Vec<TestClient> = (0..4)
        .map(|index| connect(MqttVersion::V5, "site").client_id(&format!("s{index}")).accepted(weir.mqtt()).0)
        .collect();
    assert_eq!(connect(MqttVersion::V5, "site").client_id("s5").code(weir.mqtt()), 0x97, "it has most itself");
    let mut pump = client(&weir, MqttVersion::V5, "pump");
    pump.ping();
    heavy.pop().expect("four").expect_closed(0x97);
    heavy.iter_mut().for_each(TestClient::ping);
    wait_for("the connection has ended", || (weir.metric("weir_mqtt_connections") <= 4.0).then_some(()));
    assert!(weir.metric("weir_mqtt_pushed_out_total{what=\"connection\"}") >= 1.0);
}

#[test]
fn subscriptions_have_a_quota() {
    let weir = start(&quotas("subscriptions = 2"), &[]);
    let mut own = client(&weir, MqttVersion::V5, "own");
    own.subscribe("a", 1);
    own.subscribe("b", 1);
    assert_eq!(own.subscribe_with("c", 1, &[]), 0x97);
    own.subscribe("b", 0);
    let mut again = connect(MqttVersion::V4, "own").client_id("second").accepted(weir.mqtt()).0;
    assert_eq!(again.subscribe_with("c", 1, &[]), 0x80, "all sessions of the user count");
    own.unsubscribe(&["a"]);
    own.subscribe("c", 1);
    client(&weir, MqttVersion::V5, "site").subscribe("c", 1);
}

#[test]
fn retained_messages_have_a_quota_and_the_heaviest_gives_way() {
    let weir = start(&quotas("retained_messages = 3"), &[("mqtt.max_retained_messages", "6")]);
    let mut own = client(&weir, MqttVersion::V5, "own");
    for (index, expected) in [0x10, 0x10, 0x10, 0x97, 0x97].into_iter().enumerate() {
        let message = TestMessage::retained(&format!("own/{index}"), "x", 1);
        assert_eq!(own.publish_message(&message), expected, "message {index}");
    }
    assert_eq!(own.publish_message(&TestMessage::retained("own/4", "x", 2)), 0x97);
    assert_eq!(own.publish_message(&TestMessage::retained("own/1", "y", 2)), 0, "its own topic still changes");
    // The bridge has no quota and takes the rest; then the user with less gets room from the one with more.
    let mut site = client(&weir, MqttVersion::V5, "site");
    own.publish_message(&TestMessage::retained("own/0", "", 1));
    own.publish_message(&TestMessage::retained("own/1", "", 1));
    for index in 0..5 {
        assert_ne!(site.publish_message(&TestMessage::retained(&format!("site/{index}"), "x", 1)), 0x97);
    }
    assert_eq!(site.publish_message(&TestMessage::retained("site/5", "x", 1)), 0x97, "it has most itself");
    assert_eq!(own.publish_message(&TestMessage::retained("own/new", "x", 1)), 0x10);
    let mut reader = client(&weir, MqttVersion::V5, "panel");
    reader.subscribe("+/+", 0);
    let mut topics: Vec<String> = (0..6).map(|_| reader.take_message().topic).collect();
    topics.sort();
    assert_eq!(topics, ["own/2", "own/new", "site/1", "site/2", "site/3", "site/4"], "the oldest of the bridge went");
    reader.expect_nothing();
    assert!(weir.metric("weir_mqtt_pushed_out_total{what=\"retained_message\"}") == 1.0);
}

#[test]
fn retained_messages_belong_to_their_user_over_a_restart() {
    let mut weir = start(&quotas("retained_messages = 2"), &[]);
    let mut own = client(&weir, MqttVersion::V5, "own");
    own.publish_message(&TestMessage::retained("own/1", "x", 1));
    own.publish_message(&TestMessage::retained("own/2", "x", 1));
    drop(own);
    weir.terminate();
    weir.restart();
    // Clients are served once retained messages are restored.
    let mut own = client(&weir, MqttVersion::V5, "own");
    assert_eq!(usage(&weir, "own", "retained_messages"), 2);
    assert_eq!(own.publish_message(&TestMessage::retained("own/3", "x", 1)), 0x97);
}

/// Five commands to an absent device arrive, whatever another user has queued for itself.
#[test]
fn the_queue_budget_is_no_users_alone() {
    let weir = start(OWN, &[("mqtt.max_queued_bytes_total", "'1MiB'"), ("mqtt.max_queued_bytes", "'256KiB'")]);
    leave(&weir, "pump", "pump", "devices/pump/commands/#");
    for index in 0..16 {
        leave(&weir, "site", &format!("s{index}"), &format!("fill/{index}"));
    }
    let mut site = client(&weir, MqttVersion::V5, "site");
    let large = "x".repeat(60_000);
    for round in 0..5 {
        for index in 0..16 {
            let reason = site.publish(&format!("fill/{index}"), &large, 1);
            assert!(matches!(reason, 0 | 0x97), "round {round}: {reason:#x}");
        }
    }
    assert!(weir.metric("weir_mqtt_messages_dropped_total{reason=\"no_room\"}") > 0.0);
    let mut both = client(&weir, MqttVersion::V5, "site");
    for index in 0..5 {
        assert_eq!(both.publish("devices/pump/commands/go", &index.to_string(), 1), 0, "command {index}");
    }
    let (mut pump, present) = back(&weir, "pump", "pump");
    assert!(present);
    let commands: Vec<Vec<u8>> = (0..5).map(|_| pump.message().1).collect();
    assert_eq!(commands, [b"0", b"1", b"2", b"3", b"4"]);
    assert!(weir.output().contains("messages for absent subscribers were not queued"));
}

#[test]
fn a_publisher_learns_that_an_absent_subscriber_missed_its_message() {
    let weir = start(&quotas("queued_bytes = '1KiB'"), &[]);
    leave(&weir, "own", "absent", "to/own");
    let mut site = client(&weir, MqttVersion::V5, "site");
    let payload = "x".repeat(400);
    assert_eq!([1, 2, 1].map(|qos| site.publish("to/own", &payload, qos)), [0, 0, 0x97]);
    assert_eq!(site.publish("to/own", &payload, 2), 0x97, "the exchange ends with the PUBREC");
    let mut old = connect(MqttVersion::V4, "site").client_id("old").accepted(weir.mqtt()).0;
    old.publish("to/own", &payload, 1);
    assert_eq!(weir.metric("weir_mqtt_messages_dropped_total{reason=\"over_quota\"}"), 3.0);
    let (mut own, _) = back(&weir, "own", "absent");
    own.take_message();
    own.take_message();
    own.expect_nothing();
    assert_eq!(site.publish("to/own", &payload, 1), 0, "there is room again");
}

#[test]
fn a_reload_sets_other_quotas() {
    let weir = start(&quotas("subscriptions = 3"), &[]);
    let mut own = client(&weir, MqttVersion::V5, "own");
    for filter in ["a", "b", "c"] {
        own.subscribe(filter, 1);
    }
    write_private(&weir, "acl.toml", &quotas("subscriptions = 1"));
    reload_taken(&weir);
    assert_eq!(usage(&weir, "own", "subscriptions"), 3, "what is there stays");
    own.unsubscribe(&["a"]);
    assert_eq!(own.subscribe_with("a", 1, &[]), 0x97);
    write_private(&weir, "acl.toml", &quotas("subscriptions = 4"));
    reload_taken(&weir);
    own.subscribe("a", 1);
}

/// The rate slows the reading of all connections of the user; nothing is lost.
#[test]
fn the_publish_rate_is_shared_by_all_connections_of_a_user() {
    let weir = start(&quotas("publish_rate = 50"), &[]);
    let mut watcher = client(&weir, MqttVersion::V5, "panel");
    watcher.subscribe("flood", 1);
    let mut connections = ["a", "b"].map(|id| connect(MqttVersion::V5, "own").client_id(id).accepted(weir.mqtt()).0);
    for id in 1..=60 {
        for client in &mut connections {
            client.send_publish(&TestMessage { id, ..TestMessage::new("flood", "x", 1) });
        }
    }
    for _ in 0..120 {
        watcher.take_message();
    }
    assert!(weir.metric("weir_mqtt_throttled_total{limit=\"user\"}") >= 1.0);
    client(&weir, MqttVersion::V5, "site").ping();
}
