//! Reload of the users file: which logins are accepted afterwards.

use std::fs;

use rustix::process::Signal;

use crate::access::login::{add_user, with_users};
use weir_test_kit::mqtt::{ConnectPacket, MqttVersion};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

fn login(user: &str, password: &str) -> ConnectPacket {
    ConnectPacket::new(MqttVersion::V5, user).user(user).password(password)
}

/// Reloads and waits for the outcome; returns whether the reload took effect.
fn reload(weir: &Weir) -> bool {
    let last = || weir.json("/api/v1/status")["reload"]["last"].clone();
    let before = last();
    weir.signal(Signal::HUP);
    wait_for("the reload ended", || (last() != before).then_some(()));
    weir.json("/api/v1/status")["reload"]["errors"].as_array().is_some_and(Vec::is_empty)
}

#[test]
fn users_come_and_go() {
    let mut weir = with_users(&[("ada", "a"), ("bob", "b")], &[]);
    weir.restart();
    assert_eq!(login("ada", "a").code(weir.mqtt()), 0);
    add_user(&weir, "ada", "new", &[]);
    add_user(&weir, "eve", "e", &[]);
    let removed = weir.command(&["passwd", "remove", "bob"]).status().expect("it runs");
    assert!(removed.success());
    assert_eq!(login("ada", "a").code(weir.mqtt()), 0, "nothing was read yet");
    assert!(reload(&weir));
    assert_eq!(login("ada", "a").code(weir.mqtt()), 0x86, "what was remembered does not count any more");
    assert_eq!(login("ada", "new").code(weir.mqtt()), 0);
    assert_eq!(login("eve", "e").code(weir.mqtt()), 0);
    assert_eq!(login("bob", "b").code(weir.mqtt()), 0x86);
}

#[test]
fn a_file_with_faults_changes_nothing() {
    let mut weir = with_users(&[("ada", "a")], &[]);
    weir.restart();
    let good = fs::read_to_string(weir.path("users")).expect("a users file");
    fs::write(weir.path("users"), "eve:device\n").expect("it can be written");
    assert!(!reload(&weir));
    assert!(weir.output().contains("users:1: user \"eve\" has no password"), "the log says why");
    assert_eq!(login("ada", "a").code(weir.mqtt()), 0);
    fs::remove_file(weir.path("users")).expect("it can be removed");
    assert!(!reload(&weir));
    assert_eq!(login("ada", "a").code(weir.mqtt()), 0);
    fs::write(weir.path("users"), good).expect("it can be written");
    assert!(reload(&weir));
}

/// A reload cannot move listeners. A configuration that is safe only with other listeners is therefore refused.
#[test]
fn no_reload_opens_a_listener_by_accident() {
    let mut weir = with_users(&[("ada", "a")], &[("mqtt.listen", "'0.0.0.0:0'")]);
    weir.restart();
    let address = ([127, 0, 0, 1], weir.mqtt().port()).into();
    let nobody = ConnectPacket::new(MqttVersion::V5, "c");
    weir.configure(&[]);
    assert!(!reload(&weir), "no users, and a listener on loopback that would need a restart");
    assert!(weir.output().contains("clients would need no credentials on listeners that other machines reach"));
    assert_eq!(nobody.code(address), 0x87);
    weir.configure(&[("mqtt.listen", "'0.0.0.0:0'"), ("mqtt.allow_anonymous", "true")]);
    assert!(reload(&weir));
    assert_eq!(nobody.code(address), 0);
    assert!(weir.output().contains("whoever reaches mqtt.listen"), "and is warned about");
}
