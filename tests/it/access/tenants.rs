//! One tenant against another: topics, client identifiers, shared groups and quotas.

use crate::WEIR;
use crate::access::acl::{SECRET, configure, connect, write_private};
use weir_test_kit::mqtt::{MqttVersion, TestClient, TestConnect, TestMessage};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{wait_for, window_before};

const USERS: &[(&str, &str)] = &[
    ("acme.pump", "device"),
    ("acme.fan", "device"),
    ("acme.site", "bridge"),
    ("other.site", "bridge"),
    ("other.panel", "dashboard"),
    ("own", "bridge"),
];

/// A weir with the tenants "acme" and "other", the first with these quotas.
fn start(quotas: &str, settings: &[(&str, &str)]) -> Weir {
    let mut weir = WEIR.prepare(&[]);
    let users: String = USERS.iter().map(|(name, roles)| format!("{name}:{roles}:{SECRET}\n")).collect();
    write_private(&weir, "users", &users);
    write_private(&weir, "acl.toml", "");
    let tenants = format!(
        "[{{ name = 'acme', users = ['acme.*'], quotas = {{ {quotas} }} }}, {{ name = 'other', users = ['other.*'] }}]"
    );
    configure(&weir, &[&[("tenants", tenants.as_str())], settings].concat());
    weir.restart();
    weir
}

fn client(weir: &Weir, user: &str) -> TestClient {
    connect(MqttVersion::V5, user).accepted(weir.mqtt()).0
}

/// A CONNECT of a user with a client identifier of its own, whose session lasts.
fn kept(user: &str, client_id: &str) -> TestConnect {
    connect(MqttVersion::V5, user).client_id(client_id).kept(600)
}

#[track_caller]
fn leave(weir: &Weir, user: &str, client_id: &str, filter: &str) {
    let (mut client, _) = kept(user, client_id).accepted(weir.mqtt());
    client.subscribe(filter, 1);
    client.disconnect();
}

#[test]
fn a_tenant_reaches_its_own_topics_alone() {
    let weir = start("", &[]);
    let mut acme = client(&weir, "acme.site");
    let mut other = client(&weir, "other.site");
    for filter in ["#", "+/#", "+/x", "$SYS/#", "weir/#", "acme/#", "$share/g/acme/#", "$share/g/#", "acme"] {
        assert_eq!(other.subscribe_with(filter, 1, &[]), 0x87, "{filter}");
    }
    other.subscribe("other/#", 1);
    acme.subscribe("acme/#", 1);
    for topic in ["acme/x", "x", "weir/windows/x", "$SYS/broker/connection/b/state", "other/weir/windows/x"] {
        assert_eq!(other.publish_message(&TestMessage::retained(topic, "x", 1)), 0x87, "{topic}");
    }
    acme.publish_message(&TestMessage::retained("acme/x", "mine", 1));
    assert_eq!(acme.take_message().topic, "acme/x");
    // Nobody else can clear a retained message.
    assert_eq!(other.publish_message(&TestMessage::retained("acme/x", "", 1)), 0x87);
    other.expect_nothing();
    let mut late = client(&weir, "acme.pump");
    assert_eq!(late.subscribe_with("acme/x", 1, &[]), 0x87, "its role sees its own commands only");
    late.subscribe("acme/devices/acme.pump/commands/#", 1);
    assert_eq!(acme.publish("acme/devices/acme.pump/commands/go", "1", 1), 0);
    assert_eq!(late.take_message().topic, "acme/devices/acme.pump/commands/go");
    assert_eq!(late.publish("acme/devices/acme.fan/telemetry", "x", 1), 0x87);
    // The box's own users see all tenants.
    let mut own = client(&weir, "own");
    own.subscribe("+/x", 1);
    assert_eq!(own.take_message().text(), "mine");
    assert_eq!(own.publish("acme/weir/windows/x", "forged", 1), 0x87);
}

/// What is retained on the topic of one tenant says nothing of another's.
#[test]
fn each_tenants_devices_have_a_state_that_comes_again() {
    let weir = start("", &[]);
    for round in 0..2 {
        for tenant in ["acme", "other"] {
            let topic = format!("{tenant}/devices/x/telemetry");
            let message = TestMessage::retained(&topic, r#"{"metric":"t","value":1}"#, 1);
            client(&weir, &format!("{tenant}.site")).publish_message(&message);
        }
        wait_for("the messages are processed", || {
            (weir.metric_sum("weir_messages_total") as u64 == 2 * (round + 1)).then_some(())
        });
        for device in ["acme%2Fx", "other%2Fx"] {
            let found = weir.json(&format!("/api/v1/devices/{device}"));
            assert_eq!((&found["accepted"], &found["retained_repeats"]), (&1.into(), &round.into()), "{found}");
        }
    }
}

#[test]
fn wills_and_response_topics_stay_within_the_tenant() {
    let weir = start("", &[]);
    let will = |topic| kept("other.site", "w").will(&TestMessage::new(topic, "gone", 1));
    assert_eq!(will("acme/x").code(weir.mqtt()), 0x87);
    assert_eq!(will("x").code(weir.mqtt()), 0x87);
    assert_eq!(will("other/x").code(weir.mqtt()), 0);
    let mut other = client(&weir, "other.site");
    let response = |topic: &str| {
        let name = [&(topic.len() as u16).to_be_bytes()[..], topic.as_bytes()].concat();
        TestMessage { properties: [&[8], &name[..]].concat(), ..TestMessage::new("other/ask", "?", 1) }
    };
    assert_eq!(other.publish_message(&response("acme/x")), 0x87);
    assert_eq!(other.publish_message(&response("other/answers")), 0x10);
}

#[test]
fn a_client_identifier_belongs_to_its_user() {
    let weir = start("", &[]);
    leave(&weir, "acme.site", "same", "acme/#");
    let (mut acme, present) = kept("acme.site", "same").accepted(weir.mqtt());
    assert!(present);
    for user in ["other.site", "acme.fan", "own"] {
        let (mut thief, present) = kept(user, "same").accepted(weir.mqtt());
        assert!(!present, "{user} has a session of its own");
        thief.ping();
    }
    acme.ping();
    acme.publish("acme/x", "1", 1);
    assert_eq!(acme.take_message().topic, "acme/x");
}

#[test]
fn groups_of_two_tenants_do_not_mix() {
    let weir = start("", &[]);
    let (mut acme, mut other) = (client(&weir, "acme.site"), client(&weir, "other.site"));
    acme.subscribe("$share/g/acme/jobs", 1);
    other.subscribe("$share/g/other/jobs", 1);
    assert_eq!(other.subscribe_with("$share/g/acme/jobs", 1, &[]), 0x87);
    let mut own = client(&weir, "own");
    for index in 0..4 {
        own.publish("acme/jobs", &index.to_string(), 1);
        assert_eq!(acme.take_message().text(), index.to_string());
    }
    other.expect_nothing();
}

#[test]
fn a_tenants_quotas_bound_all_its_users_together() {
    let weir = start("sessions = 3, subscriptions = 3, retained_messages = 1, connections = 2", &[]);
    for id in ["a", "b"] {
        leave(&weir, "acme.pump", id, &format!("acme/devices/acme.pump/commands/{id}"));
    }
    leave(&weir, "acme.fan", "c", "acme/devices/acme.fan/commands/#");
    // The user with most sessions of the tenant gives way.
    let (mut fan, _) = kept("acme.fan", "d").accepted(weir.mqtt());
    let (pump, present) = kept("acme.pump", "b").accepted(weir.mqtt());
    assert!(present, "the older session went");
    assert_eq!(kept("acme.fan", "c").code(weir.mqtt()), 0x97, "two connections of the tenant");
    fan.subscribe("acme/devices/acme.fan/commands/1", 1);
    assert_eq!(fan.subscribe_with("acme/devices/acme.fan/commands/2", 1, &[]), 0x97);
    drop(pump);
    wait_for("the connection has ended", || (weir.metric("weir_mqtt_connections") < 2.0).then_some(()));
    let mut site = connect(MqttVersion::V5, "acme.site").client_id("s").accepted(weir.mqtt()).0;
    assert_eq!(site.publish_message(&TestMessage::retained("acme/1", "x", 1)), 0x10);
    assert_eq!(site.publish_message(&TestMessage::retained("acme/2", "x", 1)), 0x97);
    let mut other = client(&weir, "other.site");
    assert_eq!(other.publish_message(&TestMessage::retained("other/1", "x", 1)), 0x10);
    let tenants = weir.json("/api/v1/mqtt/users")["tenants"].clone();
    let acme = tenants.as_array().expect("a list").iter().find(|tenant| tenant["name"] == "acme").expect("the tenant");
    assert_eq!(acme["retained_messages"], serde_json::json!({ "used": 1, "quota": 1 }));
}

/// Many users of one tenant are one tenant: they do not outnumber the user of another.
#[test]
fn users_of_one_tenant_never_evict_sessions_of_another() {
    let weir = start("", &[("mqtt.max_connections", "6")]);
    leave(&weir, "other.panel", "victim", "other/alarms");
    for index in 0..12 {
        let user = ["acme.pump", "acme.fan", "acme.site"][index % 3];
        kept(user, &format!("s{index}")).accepted(weir.mqtt()).0.disconnect();
    }
    let mut own = client(&weir, "own");
    assert_eq!(own.publish("other/alarms", "1", 1), 0);
    let (mut victim, present) = kept("other.panel", "victim").accepted(weir.mqtt());
    assert!(present, "the session is still there");
    assert_eq!(victim.take_message().text(), "1");
}

/// Two tenants with the same device ids, and a device of the box.
#[test]
fn devices_of_two_tenants_never_meet() {
    let mut weir = start("", &[("window.idle_timeout", "'off'")]);
    let start_ms = window_before(60);
    let reading =
        |value: i32, at_ms: i64| format!(r#"{{"metric":"m","value":{value},"timestamp":{at_ms},"seq":{value}}}"#);
    let mut acme = client(&weir, "acme.site");
    let mut other = client(&weir, "other.site");
    let mut own = client(&weir, "own");
    acme.subscribe("acme/weir/#", 1);
    own.subscribe("weir/#", 1);
    for (client, prefix) in [(&mut acme, "acme/"), (&mut other, "other/"), (&mut own, "")] {
        let topic = format!("{prefix}devices/pump-7/telemetry");
        for (value, at_ms) in [(1, start_ms), (1, start_ms), (2, start_ms + 60_000)] {
            assert_eq!(client.publish_message(&TestMessage::new(&topic, &reading(value, at_ms), 1)), 0, "{topic}");
        }
    }
    let window = acme.take_message();
    assert_eq!(window.topic, "acme/weir/windows/pump-7/m");
    assert!(window.text().contains(r#""device_id":"acme/pump-7""#), "{}", window.text());
    assert_eq!(own.take_message().topic, "weir/windows/pump-7/m");
    // A payload cannot name a device of another tenant.
    let foreign = r#"{"device_id":"acme/pump-7","metric":"m","value":9}"#;
    own.publish("devices/pump-7/telemetry", foreign, 1);
    assert_eq!(own.take_message().topic, "weir/errors/invalid_device_id");
    acme.publish("acme/devices/pump-7/telemetry", "junk", 1);
    assert_eq!(acme.take_message().topic, "acme/weir/errors/malformed");
    own.expect_nothing();
    acme.expect_nothing();
    for restarted in [false, true] {
        for (id, user) in [("acme%2Fpump-7", "acme.site"), ("other%2Fpump-7", "other.site"), ("pump-7", "own")] {
            let device = weir.json(&format!("/api/v1/devices/{id}"));
            assert_eq!((&device["accepted"], &device["rejected"]["duplicate"]), (&2.into(), &1.into()), "{device}");
            assert_eq!(device["user"], user);
        }
        assert_eq!(weir.list("windows", "&device=other%2Fpump-7").len(), 1);
        if !restarted {
            weir.kill();
            weir.restart();
        }
    }
    assert!(weir.get("/metrics/devices").text().contains(r#"device="acme/pump-7""#));
    weir.assert_accounted();
}
