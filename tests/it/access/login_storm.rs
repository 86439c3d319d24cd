//! Many logins at once, right and wrong ones.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::access::login::with_users;
use weir_test_kit::mqtt::{ConnectPacket, MqttVersion};
use weir_test_kit::process::Weir;

fn login(n: usize, password: &str) -> ConnectPacket {
    ConnectPacket::new(MqttVersion::V5, &format!("c-{n}")).user(&format!("device-{n}")).password(password)
}

/// While other clients guess passwords, a connected device is served and a returning device is accepted.
#[test]
fn guesses_disturb_nobody() {
    let mut weir = with_users(&[("device-0", "right"), ("device-1", "right")], &[]);
    weir.restart();
    let weir: &Weir = &weir;
    let (done, refused) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut device = login(0, "right").accepted(weir.mqtt()).0;
    std::thread::scope(|scope| {
        for guesser in 0..16 {
            let (done, refused) = (&done, &refused);
            scope.spawn(move || {
                let mut n = 0;
                while !done.load(Ordering::Relaxed) {
                    let (user, password) = (n % 3, format!("guess-{guesser}-{n}"));
                    assert_eq!(login(user, &password).code(weir.mqtt()), 0x86);
                    refused.fetch_add(1, Ordering::Relaxed);
                    n += 1;
                }
            });
        }
        let mut seq = 0;
        while refused.load(Ordering::Relaxed) < 64 {
            device.telemetry("device-0", &format!(r#"{{"metric":"m","value":1,"seq":{seq}}}"#));
            seq += 1;
            assert_eq!(login(1, "right").code(weir.mqtt()), 0);
        }
        done.store(true, Ordering::Relaxed);
    });
    device.ping();
    let argon2 = weir.metric("weir_mqtt_passwords_checked_total{how=\"argon2\"}") as usize;
    let wrong = refused.load(Ordering::Relaxed);
    assert!(
        (wrong..=wrong + 2).contains(&argon2),
        "{argon2} hashes for {wrong} guesses: those who came back cost none"
    );
}
