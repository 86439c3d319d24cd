//! Passwords with the clients of other projects.

use std::process::Command;

use crate::access::login::with_users;
use weir_test_kit::programs::{program, python, succeeded};
use weir_test_kit::wait::{wait_for, window_before};

#[test]
fn mosquitto_with_a_password() {
    let mut weir = with_users(&[("pump", "secret")], &[]);
    weir.restart();
    let port = weir.mqtt().port().to_string();
    let publish = |version: &str, seq: usize, credentials: &[&str]| {
        let mut command = program("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &port, "-V", version, "-q", "1", "-t", "devices/pump/telemetry"]);
        command.args(["-m", &format!(r#"{{"metric":"m","value":1,"seq":{seq}}}"#)]).args(credentials);
        command
    };
    // All at once: the delay of refusals grows per address.
    std::thread::scope(|scope| {
        for (seq, version) in ["mqttv31", "mqttv311", "mqttv5"].into_iter().enumerate() {
            succeeded(&mut publish(version, seq, &["-u", "pump", "-P", "secret"]));
            for wrong in [&["-u", "pump", "-P", "wrong"][..], &["-u", "nobody", "-P", "secret"], &[]] {
                let mut command = publish(version, seq, wrong);
                scope.spawn(move || {
                    let output = command.output().expect("it runs");
                    let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
                    let told = text.contains("bad user name or password") || text.contains("not authori");
                    assert!(!output.status.success() && told, "{version} {wrong:?}: {text}");
                });
            }
        }
    });
    wait_for("three readings are counted", || {
        (weir.json("/api/v1/devices/pump")["accepted"].as_u64() == Some(3)).then_some(())
    });
}

#[test]
fn paho_with_a_password() {
    let mut weir = with_users(&[("gateway", "sëcret")], &[]);
    weir.restart();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/peers/paho_peer.py");
    let start = window_before(60).to_string();
    for (transport, port) in [("tcp", weir.mqtt().port()), ("websockets", weir.http().port())] {
        for version in ["3.1.1", "5"] {
            let device = format!("paho-{transport}-{version}");
            let peer = |password: &str| {
                let mut command = Command::new(python());
                command.arg(script).args([&port.to_string(), version, "1", &device, &start, transport, "-"]);
                command.args(["gateway", password]);
                command
            };
            succeeded(&mut peer("sëcret"));
            let refused = peer("secret").output().expect("it runs");
            let text = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success() && text.contains("Bad user name or password"), "{text}");
        }
    }
    weir.assert_accounted();
}
