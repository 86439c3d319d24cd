//! Helpers: a weir with users and roles, and clients that log in.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::WEIR;
use weir_test_kit::mqtt::{ConnectPacket, MqttVersion, TestClient, string};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

pub const BOTH: [MqttVersion; 2] = [MqttVersion::V4, MqttVersion::V5];

/// The stored hash of the password "secret", which every user has. `access::passwd` tests how it is made.
pub const SECRET: &str = "$generated-sha256$K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols";

/// The users of these tests. The roles "own" and those beside "device" may come from the ACL file of a test.
pub const USERS: &[(&str, &str)] = &[
    ("pump", ""),
    ("fan", "device"),
    ("panel", "dashboard"),
    ("site", "bridge"),
    ("own", "own"),
    ("both", "device,own"),
];

/// An ACL file with an empty role "own".
pub const OWN: &str = "[roles.own]\n";

/// Writes the users file.
pub fn write_users(weir: &Weir, users: &[(&str, &str)]) {
    let lines: String = users.iter().map(|(name, roles)| format!("{name}:{roles}:{SECRET}\n")).collect();
    write_private(weir, "users", &lines);
}

/// Writes a file that the config names.
pub fn write_private(weir: &Weir, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(weir.path(name), text).expect("a file can be written");
    fs::set_permissions(weir.path(name), fs::Permissions::from_mode(0o600)).expect("it can be made private");
}

/// A weir with [`USERS`], this ACL file and these settings, not yet running.
pub fn prepare(acl: &str, settings: &[(&str, &str)]) -> Weir {
    let weir = WEIR.prepare(&[]);
    write_users(&weir, USERS);
    write_private(&weir, "acl.toml", acl);
    configure(&weir, settings);
    weir
}

/// Writes the config of such a weir.
pub fn configure(weir: &Weir, settings: &[(&str, &str)]) {
    let quoted = |name: &str| format!("'{}'", weir.path(name).display());
    let (users, acl) = (quoted("users"), quoted("acl.toml"));
    let files = [("mqtt.auth.users", users.as_str()), ("mqtt.auth.acl", acl.as_str())];
    weir.configure(&[&files, settings].concat());
}

/// Starts a weir with [`USERS`], this ACL file and these settings.
pub fn start(acl: &str, settings: &[(&str, &str)]) -> Weir {
    let mut weir = prepare(acl, settings);
    weir.restart();
    weir
}

/// A CONNECT of this user; its client identifier is `USER-client`.
pub fn connect(version: MqttVersion, user: &str) -> ConnectPacket {
    let mut connect = ConnectPacket::new(version, &format!("{user}-client")).flags(0xc0);
    connect.rest = [string(user), string("secret")].concat();
    connect
}

/// A client of this user.
#[track_caller]
pub fn client(weir: &Weir, version: MqttVersion, user: &str) -> TestClient {
    connect(version, user).accepted(weir.mqtt()).0
}

/// Sends SIGHUP, waits until the reload is over, and returns its outcome from the status.
pub fn reload(weir: &Weir) -> Value {
    let last = || weir.json("/api/v1/status")["reload"].clone();
    let before = last()["last"].clone();
    weir.signal(Signal::HUP);
    wait_for("the configuration was read again", || Some(last()).filter(|reload| reload["last"] != before))
}

/// Reloads; the new configuration must be accepted.
#[track_caller]
pub fn reload_taken(weir: &Weir) {
    let outcome = reload(weir);
    assert_eq!(outcome["errors"], serde_json::json!([]), "{outcome}");
}

/// Whether weir wrote this audit event, with all of these parts in its line.
pub fn audited(weir: &Weir, event: &str, parts: &[&str]) -> bool {
    let is_it =
        |line: &str| line.contains(&format!("event=\"{event}\"")) && parts.iter().all(|part| line.contains(part));
    weir.output().lines().any(is_it)
}
