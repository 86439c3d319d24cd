//! Rules for publishing, subscribing and wills.

use std::process::Command;

use crate::access::acl::{BOTH, OWN, USERS, audited, client, connect, start, write_private, write_users};
use weir_test_kit::mqtt::{MqttVersion, TestClient, TestConnect, TestMessage};
use weir_test_kit::process::Weir;
use weir_test_kit::programs::{program, python, succeeded};
use weir_test_kit::wait::wait_for;

/// A client that receives what the other clients of these tests publish.
fn watcher(weir: &Weir) -> TestClient {
    let mut watcher = client(weir, MqttVersion::V5, "panel");
    // Without the topics of weir itself: a window may end at any time.
    watcher.subscribe("devices/#", 2);
    watcher.subscribe("other", 2);
    watcher
}

fn denied(weir: &Weir) -> f64 {
    weir.metric("weir_mqtt_publishes_refused_total{reason=\"denied\"}")
}

#[test]
fn a_device_publishes_on_its_own_topics_alone() {
    let weir = start(OWN, &[]);
    let mut watcher = watcher(&weir);
    for version in BOTH {
        for qos in 0..=2 {
            let mut device = client(&weir, version, "pump");
            let own = TestMessage::new("devices/pump/telemetry", r#"{"metric":"m","value":1}"#, qos);
            assert_eq!(device.publish_message(&own), 0);
            assert_eq!(watcher.take_message().topic, "devices/pump/telemetry");
            for topic in ["devices/fan/telemetry", "devices/pump2/telemetry", "devices", "other"] {
                let mut device = client(&weir, version, "pump");
                let message = TestMessage::retained(topic, r#"{"metric":"m","value":1}"#, qos);
                match version {
                    MqttVersion::V4 => {
                        device.send_publish(&TestMessage { id: 1, ..message });
                        device.expect_closed(0);
                    }
                    MqttVersion::V5 => {
                        let expected = if qos == 0 { 0 } else { 0x87 };
                        assert_eq!(device.publish_message(&message), expected, "{topic} at QoS {qos}");
                        assert_eq!(device.publish_message(&own), 0, "the connection goes on");
                        assert_eq!(watcher.take_message().topic, "devices/pump/telemetry");
                    }
                }
            }
        }
    }
    watcher.expect_nothing();
    // The message is neither journaled nor retained.
    let taken = 3.0 + 3.0 + 3.0 * 4.0;
    wait_for("all readings are counted", || (weir.metric("weir_readings_received_total") >= taken).then_some(()));
    assert_eq!((weir.metric("weir_readings_received_total"), denied(&weir)), (taken, 24.0));
    assert_eq!(weir.metric("weir_mqtt_retained_messages"), 0.0);
    assert!(audited(
        &weir,
        "publish_denied",
        &["devices/fan/telemetry", "user=pump", "client_id=pump-client", "127.0.0.1"]
    ));
    weir.assert_accounted();
}

#[test]
fn denied_publishes_of_3_1_1_may_be_ignored() {
    let weir = start(OWN, &[("mqtt.auth.on_denied_publish", "'ignore'")]);
    let mut watcher = watcher(&weir);
    let mut device = client(&weir, MqttVersion::V4, "pump");
    for qos in 0..=2 {
        device.publish_message(&TestMessage::retained("devices/fan/telemetry", "x", qos));
        device.publish_message(&TestMessage::new("devices/pump/telemetry", r#"{"metric":"m","value":1}"#, qos));
        assert_eq!(watcher.take_message().topic, "devices/pump/telemetry");
    }
    watcher.expect_nothing();
    let mut device = client(&weir, MqttVersion::V5, "pump");
    assert_eq!(device.publish_message(&TestMessage::new("devices/fan/telemetry", "x", 1)), 0x87, "5.0 is told");
    wait_for("all are counted", || (denied(&weir) >= 4.0).then_some(()));
}

#[test]
fn a_topic_alias_does_not_lead_around_the_rules() {
    let weir = start(OWN, &[]);
    let mut watcher = watcher(&weir);
    let mut device = client(&weir, MqttVersion::V5, "pump");
    let alias = |topic: &str| TestMessage { properties: vec![0x23, 0, 1], ..TestMessage::new(topic, "x", 1) };
    assert_eq!(device.publish_message(&alias("devices/fan/x")), 0x87);
    assert_eq!(device.publish_message(&alias("")), 0x87);
    assert_eq!(device.publish_message(&TestMessage::new("devices/pump/x", "x", 1)), 0);
    assert_eq!(device.publish_message(&alias("")), 0x87);
    assert_eq!(watcher.take_message().topic, "devices/pump/x");
    watcher.expect_nothing();
}

#[test]
fn a_subscription_is_granted_whole_or_not_at_all() {
    let weir = start(OWN, &[]);
    for (version, refusal) in [(MqttVersion::V4, 0x80), (MqttVersion::V5, 0x87)] {
        let mut device = client(&weir, version, "pump");
        for filter in ["devices/pump/commands/#", "devices/pump/commands/+/now", "$share/g/devices/pump/commands/x"] {
            assert_eq!(device.subscribe_with(filter, 1, &[]), 1, "{filter}");
        }
        let others = [
            "#",
            "+/#",
            "devices/#",
            "devices/+/commands/#",
            "devices/pump/#",
            "devices/fan/commands/x",
            "weir/windows/pump/#",
            "$SYS/#",
            "$share/g/devices/+/commands/#",
            "$share/g/#",
        ];
        for filter in others {
            assert_eq!(device.subscribe_with(filter, 1, &[]), refusal, "{filter}");
        }
        let mut bridge = client(&weir, version, "site");
        bridge.publish_message(&TestMessage::new("devices/fan/commands/x", "not yours", 1));
        bridge.publish_message(&TestMessage::new("devices/pump/commands/y", "yours", 1));
        assert_eq!(device.take_message().text(), "yours");
        device.expect_nothing();
    }
    assert_eq!(weir.metric("weir_mqtt_subscriptions_denied_total{when=\"subscribe\"}"), 20.0);
    assert!(audited(&weir, "subscribe_denied", &["devices/+/commands/#", "user=pump"]));
}

#[test]
fn a_dashboard_reads_and_a_bridge_does_both() {
    let weir = start(OWN, &[]);
    for version in BOTH {
        let mut panel = client(&weir, version, "panel");
        for filter in ["weir/#", "devices/#", "$SYS/#", "#", "$share/g/weir/errors/#"] {
            assert_eq!(panel.subscribe_with(filter, 0, &[]), 0, "{filter}");
        }
        let mut bridge = client(&weir, version, "site");
        assert_eq!(bridge.subscribe_with("#", 0, &[]), 0);
        assert_eq!(bridge.publish_message(&TestMessage::new("any/topic", "x", 1)), 0);
        let mut panel = client(&weir, version, "panel");
        let message = TestMessage { id: 1, ..TestMessage::new("devices/panel/telemetry", "x", 1) };
        match version {
            MqttVersion::V4 => {
                panel.send_publish(&message);
                panel.expect_closed(0);
            }
            MqttVersion::V5 => assert_eq!(panel.publish_message(&message), 0x87),
        }
    }
}

#[test]
fn roles_of_the_file_add_up_and_its_denials_win() {
    let acl = "[roles.own]\npublish = ['up/%c/#', 'all/#']\nsubscribe = ['down/%u/%c', 'news/#']\n\
               deny_publish = ['all/secret/#']\ndeny_subscribe = ['news/secret/#']\n[roles.device]\npublish = ['x/%u']";
    let weir = start(acl, &[]);
    let mut both = client(&weir, MqttVersion::V5, "both");
    for (topic, expected) in [
        ("up/both-client/1", 0),
        ("up/other/1", 0x87),
        ("x/both", 0),
        ("x/pump", 0x87),
        ("all/1", 0),
        ("all/secret/1", 0x87),
        ("devices/both/telemetry", 0x87),
    ] {
        let reason = both.publish_message(&TestMessage::new(topic, "x", 1));
        assert_eq!(if reason == 0x10 { 0 } else { reason }, expected, "{topic}");
    }
    for (filter, expected) in [
        ("down/both/both-client", 0),
        ("down/#", 0x87),
        ("news/today/#", 0),
        ("news/secret/x", 0x87),
        ("news/+", 0x87),
        ("news/#", 0x87),
        ("devices/both/commands/#", 0x87),
    ] {
        assert_eq!(both.subscribe_with(filter, 0, &[]), expected, "{filter}");
    }
    // A client identifier with a slash or a wildcard is not put in place of %c.
    for client_id in ["both-client/1", "+", "#"] {
        let mut odd = connect(MqttVersion::V5, "both").client_id(client_id).accepted(weir.mqtt()).0;
        for topic in ["up/both-client/1", "up/x", "up"] {
            assert_eq!(odd.publish_message(&TestMessage::new(topic, "x", 1)), 0x87, "{client_id} on {topic}");
        }
    }
}

#[test]
fn anonymous_clients_have_a_role_too() {
    let acl = format!("{OWN}[roles.anonymous]\npublish = ['open/#']\nsubscribe = ['open/#']");
    let weir = start(&acl, &[("mqtt.allow_anonymous", "true")]);
    let (mut nobody, _) = TestConnect::new(MqttVersion::V5, "nobody").accepted(weir.mqtt());
    assert_eq!(nobody.subscribe_with("open/#", 0, &[]), 0);
    assert_eq!(nobody.publish_message(&TestMessage::new("open/x", "x", 1)), 0);
    assert_eq!(nobody.publish_message(&TestMessage::new("devices/nobody/telemetry", "x", 1)), 0x87);
    assert_eq!(nobody.subscribe_with("devices/#", 0, &[]), 0x87);
}

#[test]
fn a_will_needs_a_rule_too() {
    let weir = start(OWN, &[]);
    let mut watcher = watcher(&weir);
    for (version, code) in [(MqttVersion::V4, 5), (MqttVersion::V5, 0x87)] {
        let will = |topic: &str| connect(version, "pump").will(&TestMessage::new(topic, "gone", 1));
        let (mut refused, answer) = will("devices/fan/state").open(weir.mqtt());
        assert_eq!(answer.body[1], code);
        assert_eq!(refused.until_closed(), []);
        drop(will("devices/pump/state").accepted(weir.mqtt()));
        assert_eq!(watcher.take_message().topic, "devices/pump/state");
    }
    watcher.expect_nothing();
    assert!(audited(&weir, "will_denied", &["devices/fan/state", "user=pump"]));
}

/// A refused filter, the case "nosubscribe" of public broker test suites.
#[test]
fn mosquitto_and_paho_are_told() {
    let weir = start("[roles.own]\npublish = ['#']\nsubscribe = ['TopicA/#']\ndeny_subscribe = ['nosubscribe/#']", &[]);
    let port = weir.mqtt().port().to_string();
    for version in ["mqttv311", "mqttv5"] {
        let known = ["-h", "127.0.0.1", "-p", &port, "-V", version, "-u", "pump", "-P", "secret"];
        let mosquitto = |name: &str, arguments: &[&str]| {
            let mut command = program(name);
            command.args(known).args(arguments);
            command
        };
        succeeded(&mut mosquitto("mosquitto_pub", &["-t", "devices/pump/state", "-m", "x", "-q", "1"]));
        let refused = mosquitto("mosquitto_sub", &["-t", "weir/#", "-W", "60"]).output().expect("it can be started");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("All subscription requests were denied"), "{version}: {said}");
        let publish = ["-t", "devices/fan/state", "-m", "x", "-q", "1"];
        let denied = mosquitto("mosquitto_pub", &publish).output().expect("it can be started");
        let said = String::from_utf8_lossy(&denied.stderr).to_lowercase();
        let expected = if version == "mqttv5" { "not authorized" } else { "connection" };
        assert!(said.contains(expected), "{version}: {said}");
    }
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/peers/paho_nosubscribe.py");
    for version in ["3.1.1", "5"] {
        succeeded(Command::new(python()).arg(&script).args([&port, version]));
    }
}

#[test]
fn what_is_wrong_with_the_files_is_said_before_anything_starts() {
    let check = |acl: &str, users: &[(&str, &str)], expected: &[&str]| {
        let weir = crate::access::acl::prepare(acl, &[]);
        write_users(&weir, users);
        for command in ["check", "run"] {
            let output = weir.command(&[command]).output().expect("weir can be started");
            let said =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert_eq!(output.status.code(), Some(78), "{command}: {said}");
            for expected in expected {
                assert!(said.contains(expected), "{command} does not say {expected:?}: {said}");
            }
        }
    };
    let wrong = "[roles.own]\npublish = ['a/#/b', 'weir/x']\nsubscribe = 'a'\nmay = true\n";
    let told =
        ["acl.toml:2: roles.own.publish: \"a/#/b\"", "acl.toml:3: roles.own.subscribe", "acl.toml:4: roles.own.may"];
    check(wrong, USERS, &told);
    let users = [("pump", "device"), ("fan", "devise,own")];
    let told = ["users:2: user \"fan\" has the role \"devise\"", "anonymous, bridge, dashboard, device, own"];
    check(OWN, &users, &told);
    let weir = crate::access::acl::prepare(OWN, &[("mqtt.auth.on_denied_publish", "'explode'")]);
    let output = weir.command(&["check"]).output().expect("weir can be started");
    assert!(String::from_utf8_lossy(&output.stderr).contains("\"disconnect\""), "{output:?}");
    let weir = crate::access::acl::prepare(OWN, &[]);
    assert!(weir.command(&["check"]).status().expect("weir can be started").success());
}

/// weir accepts the examples of the documentation.
#[test]
fn the_documented_acl_file_is_one() {
    let text = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/access.md"));
    let text = text.expect("a readable page");
    let blocks = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let roles: Vec<&str> = blocks.filter(|block| block.contains("[roles.")).collect();
    assert!(!roles.is_empty(), "the example was not found");
    for example in roles {
        let weir = crate::access::acl::prepare(OWN, &[]);
        write_users(&weir, &[("pump", "device")]);
        write_private(&weir, "acl.toml", example);
        let output = weir.command(&["check"]).output().expect("weir can be started");
        assert!(output.status.success(), "{example}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}
