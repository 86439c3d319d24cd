//! Many logins at once, right and wrong ones.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::access::login::with_users;
use weir_test_kit::mqtt::{MqttVersion, TestConnect};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::SetOnDrop;

fn login(n: usize, password: &str) -> TestConnect {
    TestConnect::new(MqttVersion::V5, &format!("c-{n}")).user(&format!("device-{n}")).password(password)
}

/// Answer to a client whose password waited too long for its check, as on a machine that is busy with other programs.
const BUSY: u8 = 0x89;

/// While other clients guess passwords, a connected device is served and a returning device is accepted.
#[test]
fn guesses_disturb_nobody() {
    let mut weir = with_users(&[("device-0", "right"), ("device-1", "right")], &[]);
    weir.restart();
    let weir: &Weir = &weir;
    let (done, refused, busy) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let mut device = login(0, "right").accepted(weir.mqtt()).0;
    std::thread::scope(|scope| {
        let end = SetOnDrop(&done);
        for guesser in 0..16 {
            let (done, refused, busy) = (&done, &refused, &busy);
            scope.spawn(move || {
                let mut n = 0;
                while !done.load(Ordering::Relaxed) {
                    let (user, password) = (n % 3, format!("guess-{guesser}-{n}"));
                    let count = match login(user, &password).code(weir.mqtt()) {
                        0x86 => refused,
                        BUSY => busy,
                        other => panic!("a guess was answered with {other:#x}"),
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                    n += 1;
                }
            });
        }
        let mut seq = 0;
        while refused.load(Ordering::Relaxed) < 64 {
            device.telemetry("device-0", &format!(r#"{{"metric":"m","value":1,"seq":{seq}}}"#));
            seq += 1;
            match login(1, "right").code(weir.mqtt()) {
                0 => {}
                BUSY => _ = busy.fetch_add(1, Ordering::Relaxed),
                other => panic!("the right password was answered with {other:#x}"),
            }
        }
        drop(end);
    });
    device.ping();
    while login(1, "right").code(weir.mqtt()) == BUSY {
        busy.fetch_add(1, Ordering::Relaxed);
    }
    let argon2 = weir.metric("weir_mqtt_passwords_checked_total{how=\"argon2\"}") as usize;
    let (wrong, busy) = (refused.into_inner(), busy.into_inner());
    assert!(
        (wrong..=wrong + busy + 2).contains(&argon2),
        "{argon2} hashes for {wrong} guesses and {busy} that were not answered in time: those who came back cost none"
    );
}
