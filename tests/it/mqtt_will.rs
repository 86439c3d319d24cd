//! Wills.

use rustix::process::Signal;

use crate::mqtt::{Client, Connect, Message, Version};
use crate::wait::wait_for;
use crate::weir::Weir;

const BOTH: [Version; 2] = [Version::V4, Version::V5];

fn watcher(weir: &Weir) -> Client {
    let (mut watcher, _) = Connect::new(Version::V5, "watcher").accepted(weir.mqtt());
    watcher.subscribe_with("will/#", 2, &[]);
    watcher
}

fn connect(version: Version, text: &str) -> Connect {
    Connect::new(version, "mortal").will(&Message::new("will/x", text, 1))
}

/// 5.0 [MQTT-3.1.2-7], 5.0 [MQTT-3.1.2-8], 3.1.1 [MQTT-3.1.2-8]: a will is published when the connection ends without
/// DISCONNECT, however it ends.
#[test]
fn every_abnormal_end_publishes_the_will() {
    let weir = Weir::start(&[]);
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
        let (successor, _) = Connect::new(version, "mortal").accepted(weir.mqtt());
        assert_eq!(watcher.take_message().text(), "taken over");
        drop((client, successor));
    }
    watcher.expect_nothing();
}

/// 5.0 [MQTT-3.1.2-10], 5.0 [MQTT-3.14.4-3], 3.1.1 [MQTT-3.1.2-10], 3.1.1 [MQTT-3.14.4-3]: none after DISCONNECT; 5.0's reason
/// 0x04 asks for it.
#[test]
fn a_client_that_says_goodbye_has_no_will_published() {
    let weir = Weir::start(&[]);
    let mut watcher = watcher(&weir);
    for version in BOTH {
        connect(version, "never").accepted(weir.mqtt()).0.disconnect();
    }
    let (mut client, _) = connect(Version::V5, "asked for").accepted(weir.mqtt());
    client.send(&[0xe0, 1, 4]).expect("it can be sent");
    assert_eq!(watcher.take_message().text(), "asked for");
    watcher.expect_nothing();
}

/// 5.0 [MQTT-3.1.2-9], 3.1.1 [MQTT-3.1.2-9], 3.1.1 [MQTT-3.1.2-11]: a will has its topic, payload and QoS.
/// 5.0 [MQTT-3.1.2-14], 5.0 [MQTT-3.1.2-15], 3.1.1 [MQTT-3.1.2-16], 3.1.1 [MQTT-3.1.2-17]: and is retained if it says so.
/// 5.0 [MQTT-3.1.3-10]: its user properties keep their order. 5.0 [MQTT-3.1.3-11], 3.1.1 [MQTT-3.1.3-10]: its topic is UTF-8.
#[test]
fn a_will_is_published_as_it_was_given() {
    let weir = Weir::start(&[]);
    let mut watcher = watcher(&weir);
    let forwarded = [1, 1, 0x26, 0, 1, b'a', 0, 1, b'1', 3, 0, 1, b't', 0x26, 0, 1, b'a', 0, 1, b'0'];
    for (retain, qos) in [(false, 0), (true, 1), (true, 2)] {
        let properties = [&[0x18, 0, 0, 0, 0][..], &forwarded].concat();
        let will = Message { retain, qos, properties, ..Message::new("will/w", "bye", 0) };
        drop(Connect::new(Version::V5, "mortal").will(&will).accepted(weir.mqtt()));
        let message = watcher.take_message();
        assert_eq!((message.text(), message.qos, &message.properties[..]), ("bye", qos, &forwarded[..]));
        let (mut late, _) = Connect::new(Version::V4, "late").accepted(weir.mqtt());
        late.subscribe("will/w", 0);
        if retain {
            assert!(late.take_message().retain);
        }
        late.expect_nothing();
    }
    for topic in ["will/#", "a\u{1}"] {
        let mut client = Client::open(weir.mqtt(), Version::V4).expect("a socket");
        let refused = Connect::new(Version::V4, "mortal").will(&Message::new(topic, "x", 0));
        client.send(&refused.packet()).expect("it can be sent");
        assert_eq!(client.until_closed(), []);
    }
}

/// 5.0 [MQTT-3.1.3-9]: a delayed will is not published if the client is back in time; else after its delay, or at the end
/// of the session.
#[test]
fn a_will_delay_gives_the_client_time_to_come_back() {
    let weir = Weir::start(&[]);
    let mut watcher = watcher(&weir);
    let delayed = |text: &str, delay: u8, expiry_s: u32| {
        let will = Message { properties: vec![0x18, 0, 0, 0, delay], ..Message::new("will/x", text, 1) };
        Connect::new(Version::V5, "mortal").kept(expiry_s).will(&will)
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
    Connect::new(Version::V5, "mortal").accepted(weir.mqtt()).0.disconnect();
    assert_eq!(watcher.take_message().text(), "clean start");
    watcher.expect_nothing();
}

#[test]
fn a_will_on_an_ingest_topic_is_a_reading() {
    let weir = Weir::start(&[]);
    let will = Message::new("devices/d/telemetry", r#"{"metric":"alive","value":0}"#, 1);
    drop(Connect::new(Version::V4, "mortal").will(&will).accepted(weir.mqtt()));
    wait_for("the reading is counted", || (weir.metric("weir_readings_accepted_total") > 0.5).then_some(()));
}

#[test]
fn a_stop_of_weir_publishes_no_will() {
    let mut weir = Weir::start(&[]);
    let will = Message::retained("will/x", "x", 1);
    let (mut client, _) = Connect::new(Version::V5, "mortal").will(&will).accepted(weir.mqtt());
    weir.signal(Signal::TERM);
    client.expect_closed(0x8b);
    weir.wait_exit();
    weir.restart();
    let (mut late, _) = Connect::new(Version::V5, "late").accepted(weir.mqtt());
    late.subscribe("will/#", 0);
    late.expect_nothing();
}

/// A bridge from mosquitto says with a retained message and its will whether it is connected.
#[test]
fn the_state_of_a_bridge_is_published() {
    const STATE: &str = "$SYS/broker/connection/bridge/state";
    let weir = Weir::start(&[]);
    for version in BOTH {
        let (mut bridge, _) =
            Connect::new(version, "bridge").will(&Message::retained(STATE, "0", 1)).accepted(weir.mqtt());
        bridge.publish_message(&Message::retained(STATE, "1", 1));
        let (mut watcher, _) = Connect::new(version, "watcher").accepted(weir.mqtt());
        watcher.subscribe("$SYS/broker/connection/+/state", 1);
        let state = watcher.take_message();
        assert_eq!((state.text(), state.retain), ("1", true));
        drop(bridge);
        assert_eq!(watcher.take_message().text(), "0");
    }
}
