//! Wills.

use rustix::process::Signal;

use crate::WEIR;
use weir_test_kit::mqtt::{ConnectPacket, MqttVersion, TestClient, TestMessage};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

const BOTH: [MqttVersion; 2] = [MqttVersion::V4, MqttVersion::V5];

fn watcher(weir: &Weir) -> TestClient {
    let (mut watcher, _) = ConnectPacket::new(MqttVersion::V5, "watcher").accepted(weir.mqtt());
    watcher.subscribe_with("will/#", 2, &[]);
    watcher
}

fn connect(version: MqttVersion, text: &str) -> ConnectPacket {
    ConnectPacket::new(version, "mortal").will(&TestMessage::new("will/x", text, 1))
}

/// 5.0 [MQTT-3.1.2-7], 5.0 [MQTT-3.1.2-8], 3.1.1 [MQTT-3.1.2-8]: a will is published when the connection ends without
/// DISCONNECT, however it ends.
#[test]
fn every_abnormal_end_publishes_the_will() {
    let weir = WEIR.start(&[]);
    let mut watcher = watcher(&weir);
    for version in BOTH {
        let (client, _) = connect(version, "lost").accepted(weir.mqtt());
        drop(client);
        assert_eq!(watcher.take_message().text(), "lost");
        let (mut client, _) = connect(version, "malformed").accepted(weir.mqtt());
        client.send(&[0x36, 3, 0, 1, b't']).expect("it can be sent");
        assert_eq!(watcher.take_message().text(), "malformed");
        let (client, _) = connect(version, "silent").keep_alive(1).accepted(weir.mqtt());
        assert_eq!(watcher.take_message().text(), "silent");
        drop(client);
        let (client, _) = connect(version, "taken over").accepted(weir.mqtt());
        let (successor, _) = ConnectPacket::new(version, "mortal").accepted(weir.mqtt());
        assert_eq!(watcher.take_message().text(), "taken over");
        drop((client, successor));
    }
    watcher.expect_nothing();
}

/// 5.0 [MQTT-3.1.2-10], 5.0 [MQTT-3.14.4-3], 3.1.1 [MQTT-3.1.2-10], 3.1.1 [MQTT-3.14.4-3]: none after DISCONNECT; 5.0's reason
/// 0x04 asks for it.
#[test]
fn a_client_that_says_goodbye_has_no_will_published() {
    let weir = WEIR.start(&[]);
    let mut watcher = watcher(&weir);
    for version in BOTH {
        connect(version, "never").accepted(weir.mqtt()).0.disconnect();
    }
    let (mut client, _) = connect(MqttVersion::V5, "asked for").accepted(weir.mqtt());
    client.send(&[0xe0, 1, 4]).expect("it can be sent");
    assert_eq!(watcher.take_message().text(), "asked for");
    watcher.expect_nothing();
}

/// 5.0 [MQTT-3.1.2-9], 3.1.1 [MQTT-3.1.2-9], 3.1.1 [MQTT-3.1.2-11]: a will has its topic, payload and QoS.
/// 5.0 [MQTT-3.1.2-14], 5.0 [MQTT-3.1.2-15], 3.1.1 [MQTT-3.1.2-16], 3.1.1 [MQTT-3.1.2-17]: and is retained if it says so.
/// 5.0 [MQTT-3.1.3-10]: its user properties keep their order. 5.0 [MQTT-3.1.3-11], 3.1.1 [MQTT-3.1.3-10]: its topic is UTF-8.
#[test]
fn a_will_is_published_as_it_was_given() {
    let weir = WEIR.start(&[]);
    let mut watcher = watcher(&weir);
    let forwarded = [1, 1, 0x26, 0, 1, b'a', 0, 1, b'1', 3, 0, 1, b't', 0x26, 0, 1, b'a', 0, 1, b'0'];
    for (retain, qos) in [(false, 0), (true, 1), (true, 2)] {
        let properties = [&[0x18, 0, 0, 0, 0][..], &forwarded].concat();
        let will = TestMessage { retain, qos, properties, ..TestMessage::new("will/w", "bye", 0) };
        drop(ConnectPacket::new(MqttVersion::V5, "mortal").will(&will).accepted(weir.mqtt()));
        let message = watcher.take_message();
        assert_eq!((message.text(), message.qos, &message.properties[..]), ("bye", qos, &forwarded[..]));
        let (mut late, _) = ConnectPacket::new(MqttVersion::V4, "late").accepted(weir.mqtt());
        late.subscribe("will/w", 0);
        if retain {
            assert!(late.take_message().retain);
        }
        late.expect_nothing();
    }
    for topic in ["will/#", "a\u{1}"] {
        let mut client = TestClient::open(weir.mqtt(), MqttVersion::V4).expect("a socket");
        let refused = ConnectPacket::new(MqttVersion::V4, "mortal").will(&TestMessage::new(topic, "x", 0));
        client.send(&refused.packet()).expect("it can be sent");
        assert_eq!(client.until_closed(), []);
    }
}

/// 5.0 [MQTT-3.1.3-9]: a delayed will is not published if the client is back in time; else after its delay, or at the end
/// of the session.
#[test]
fn a_will_delay_gives_the_client_time_to_come_back() {
    let weir = WEIR.start(&[]);
    let mut watcher = watcher(&weir);
    let delayed = |text: &str, delay: u8, expiry_s: u32| {
        let will = TestMessage { properties: vec![0x18, 0, 0, 0, delay], ..TestMessage::new("will/x", text, 1) };
        ConnectPacket::new(MqttVersion::V5, "mortal").kept(expiry_s).will(&will)
    };
    drop(delayed("back in time", 60, 100).accepted(weir.mqtt()));
    wait_for("the connection has ended", || (weir.metric("weir_mqtt_connections") < 1.5).then_some(()));
    let (client, present) = delayed("taken over", 60, 100).accepted(weir.mqtt());
    assert!(present);
    let (successor, _) = delayed("after its delay", 1, 100).accepted(weir.mqtt());
    drop((client, successor));
    assert_eq!(watcher.take_message().text(), "after its delay");
    drop(delayed("with its session", 60, 1).accepted(weir.mqtt()));
    assert_eq!(watcher.take_message().text(), "with its session");
    drop(delayed("no session", 60, 0).accepted(weir.mqtt()));
    assert_eq!(watcher.take_message().text(), "no session");
    drop(delayed("clean start", 60, 100).accepted(weir.mqtt()));
    wait_for("the connection has ended", || (weir.metric("weir_mqtt_connections") < 1.5).then_some(()));
    ConnectPacket::new(MqttVersion::V5, "mortal").accepted(weir.mqtt()).0.disconnect();
    assert_eq!(watcher.take_message().text(), "clean start");
    watcher.expect_nothing();
}

#[test]
fn a_will_on_an_ingest_topic_is_a_reading() {
    let weir = WEIR.start(&[]);
    let will = TestMessage::new("devices/d/telemetry", r#"{"metric":"alive","value":0}"#, 1);
    drop(ConnectPacket::new(MqttVersion::V4, "mortal").will(&will).accepted(weir.mqtt()));
    wait_for("the reading is counted", || (weir.metric("weir_readings_accepted_total") > 0.5).then_some(()));
}

/// A subscriber whose session outlives weir.
fn keeper(weir: &Weir) -> (TestClient, bool) {
    ConnectPacket::new(MqttVersion::V5, "keeper").kept(1_000).accepted(weir.mqtt())
}

fn delayed(client_id: &str, delay: u8) -> ConnectPacket {
    let will = TestMessage { properties: vec![0x18, 0, 0, 0, delay], ..TestMessage::new("will/delayed", client_id, 1) };
    ConnectPacket::new(MqttVersion::V5, client_id).kept(1_000).will(&will)
}

/// Waits until this many wills, and all changed sessions, are on disk.
#[track_caller]
fn wait_stored(weir: &Weir, wills: f64) {
    wait_for("the number of wills", || (weir.metric("weir_mqtt_wills") == wills).then_some(()));
    wait_for("all is on disk", || (weir.metric("weir_mqtt_sessions_unstored") == 0.0).then_some(()));
}

/// Checks the number of retained messages below `will/`; each must say that its client is away.
#[track_caller]
fn assert_retained(weir: &Weir, count: usize) {
    let (mut late, _) = ConnectPacket::new(MqttVersion::V5, "late").accepted(weir.mqtt());
    late.subscribe("will/#", 0);
    for _ in 0..count {
        let message = late.take_message();
        assert!(message.retain && message.text() == "offline", "{message:?}");
    }
    late.expect_nothing();
}

/// Wills of clients that were connected when weir was killed are published once, after the next start.
#[test]
fn a_crash_publishes_the_wills_of_those_who_were_connected() {
    let mut weir = WEIR.start(&[]);
    let (mut client, _) = keeper(&weir);
    client.subscribe("will/#", 1);
    client.disconnect();
    let status = |client_id: &str| TestMessage::retained(&format!("will/{client_id}"), "offline", 1);
    let mut mortals = Vec::new();
    for (client_id, version) in [("old", MqttVersion::V4), ("new", MqttVersion::V5)] {
        let connect = ConnectPacket::new(version, client_id).will(&status(client_id));
        let (mut mortal, _) = connect.accepted(weir.mqtt());
        mortal.publish_message(&TestMessage { payload: b"online".into(), ..status(client_id) });
        mortals.push(mortal);
    }
    mortals.push(ConnectPacket::new(MqttVersion::V5, "kept").kept(1_000).will(&status("kept")).accepted(weir.mqtt()).0);
    mortals.push(delayed("waits", 250).accepted(weir.mqtt()).0);
    let (goodbye, _) = ConnectPacket::new(MqttVersion::V5, "goodbye").will(&status("goodbye")).accepted(weir.mqtt());
    wait_stored(&weir, 5.0);
    goodbye.disconnect();
    wait_stored(&weir, 4.0);
    weir.kill();
    weir.restart();

    let (mut client, present) = keeper(&weir);
    assert!(present);
    let mut received: Vec<_> = (0..5).map(|_| client.take_message()).collect();
    received.sort_by(|a, b| a.topic.cmp(&b.topic));
    let received: Vec<_> = received.iter().map(|message| (&message.topic[..], message.text())).collect();
    let expected = [("will/kept", "offline"), ("will/new", "online"), ("will/new", "offline"), ("will/old", "online")];
    assert_eq!(received[..4], expected);
    assert_eq!(received[4], ("will/old", "offline"));
    client.expect_nothing();
    client.disconnect();
    assert_retained(&weir, 3);

    wait_stored(&weir, 1.0);
    weir.kill();
    weir.restart();
    let (waits, present) = ConnectPacket::new(MqttVersion::V5, "waits").kept(1_000).accepted(weir.mqtt());
    assert!(present);
    wait_stored(&weir, 0.0);
    waits.disconnect();
    let (mut client, _) = keeper(&weir);
    client.expect_nothing();
}

/// The will of a client that returns after a crash is published before its new messages.
#[test]
fn nobody_is_served_before_the_wills_of_a_crash_are_published() {
    const CLIENTS: usize = 300;
    let mut weir = WEIR.start(&[]);
    let connect = |index: usize| {
        let will = TestMessage::retained(&format!("will/{index}"), "offline", 1);
        ConnectPacket::new(MqttVersion::V4, &format!("mortal-{index}")).will(&will).accepted(weir.mqtt()).0
    };
    let mortals: Vec<TestClient> = (0..CLIENTS).map(connect).collect();
    wait_stored(&weir, CLIENTS as f64);
    weir.kill();
    drop(mortals);
    weir.spawn();
    assert_retained(&weir, CLIENTS);
}

/// A delayed will is published even if weir is stopped or killed during the delay.
#[test]
fn a_will_that_waits_outlives_the_process() {
    let mut weir = WEIR.start(&[]);
    let (mut client, _) = keeper(&weir);
    client.subscribe("will/#", 1);
    drop(client);
    for kill in [false, true] {
        drop(delayed("gone", 5).accepted(weir.mqtt()));
        let (back, _) = delayed("back", 250).accepted(weir.mqtt());
        drop(back);
        wait_for("both are away", || (weir.metric("weir_mqtt_connections") == 0.0).then_some(()));
        if kill {
            wait_stored(&weir, 2.0);
            weir.kill();
        } else {
            weir.terminate();
        }
        weir.restart();
        let (client, present) = ConnectPacket::new(MqttVersion::V5, "back").kept(1_000).accepted(weir.mqtt());
        assert!(present);
        client.disconnect();
        let (mut client, _) = keeper(&weir);
        assert_eq!(client.take_message().text(), "gone");
        client.expect_nothing();
        wait_stored(&weir, 0.0);
        drop(client);
        wait_for("it is away", || (weir.metric("weir_mqtt_connections") == 0.0).then_some(()));
    }
}

/// When weir stops, it closes connections without a DISCONNECT of theirs [section 3.1.2.5].
#[test]
fn a_stop_of_weir_publishes_the_wills() {
    let mut weir = WEIR.start(&[]);
    let (mut client, _) = keeper(&weir);
    client.subscribe("will/#", 1);
    let will = TestMessage::retained("will/x", "offline", 1);
    let (mut mortal, _) = ConnectPacket::new(MqttVersion::V5, "mortal").will(&will).accepted(weir.mqtt());
    let reading = TestMessage::new("devices/d/telemetry", r#"{"metric":"alive","value":0}"#, 1);
    let (device, _) = ConnectPacket::new(MqttVersion::V4, "device").will(&reading).accepted(weir.mqtt());
    let (waits, _) = delayed("waits", 250).accepted(weir.mqtt());
    weir.signal(Signal::TERM);
    mortal.expect_closed(0x8b);
    weir.wait_exit();
    drop((client, device, waits));
    weir.restart();
    assert_retained(&weir, 1);
    let (mut client, _) = keeper(&weir);
    assert_eq!(client.take_message().text(), "offline");
    client.expect_nothing();
    wait_for("the reading is counted", || (weir.metric("weir_readings_accepted_total") == 1.0).then_some(()));
    wait_stored(&weir, 1.0);
}

/// A will on an ingest topic is a reading after a crash as well; one that the rules deny by then is not published.
#[test]
fn wills_are_judged_after_a_crash() {
    let mut weir = crate::access::acl::start(crate::access::acl::OWN, &[]);
    let reading = TestMessage::new("devices/pump/telemetry", r#"{"metric":"alive","value":0}"#, 1);
    let connect = |user: &str, will: &TestMessage| {
        let with_will = ConnectPacket::new(MqttVersion::V5, &format!("{user}-client")).will(will);
        with_will.user(user).password("secret").accepted(weir.mqtt()).0
    };
    let pump = connect("pump", &reading);
    let fan = connect("fan", &TestMessage::new("devices/fan/telemetry", r#"{"metric":"alive","value":0}"#, 1));
    wait_stored(&weir, 2.0);
    weir.kill();
    drop((pump, fan));
    crate::access::acl::write_users(&weir, &[("pump", "")]);
    weir.restart();
    wait_for("one is a reading", || (weir.metric("weir_readings_accepted_total") == 1.0).then_some(()));
    let dropped = r#"weir_mqtt_messages_dropped_total{reason="will_denied"}"#;
    wait_for("the other is not", || (weir.metric(dropped) == 1.0).then_some(()));
}

/// A bridge from mosquitto says with a retained message and its will whether it is connected.
#[test]
fn the_state_of_a_bridge_is_published() {
    const STATE: &str = "$SYS/broker/connection/bridge/state";
    let weir = WEIR.start(&[]);
    for version in BOTH {
        let (mut bridge, _) =
            ConnectPacket::new(version, "bridge").will(&TestMessage::retained(STATE, "0", 1)).accepted(weir.mqtt());
        bridge.publish_message(&TestMessage::retained(STATE, "1", 1));
        let (mut watcher, _) = ConnectPacket::new(version, "watcher").accepted(weir.mqtt());
        watcher.subscribe("$SYS/broker/connection/+/state", 1);
        let state = watcher.take_message();
        assert_eq!((state.text(), state.retain), ("1", true));
        drop(bridge);
        assert_eq!(watcher.take_message().text(), "0");
    }
}
