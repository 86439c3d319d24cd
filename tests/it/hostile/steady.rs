//! Helper: a well-behaved device that other clients must not disturb.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{SetOnDrop, wait_for};

/// The device while it publishes.
pub struct Steady<'a> {
    acknowledged: &'a AtomicU64,
}

impl Steady<'_> {
    /// Waits until further readings of the device are acknowledged: it is still served.
    #[track_caller]
    pub fn goes_on(&self) {
        let before = self.acknowledged.load(Ordering::Relaxed);
        wait_for("the well-behaved device goes on", || {
            (self.acknowledged.load(Ordering::Relaxed) >= before + 20).then_some(())
        });
    }
}

/// Runs `attack` while a device publishes, one acknowledged reading after the other. All of them must arrive, the
/// device must go on to the end, and weir must be healthy then.
pub fn beside_a_steady_device(weir: &Weir, attack: impl FnOnce(&Steady<'_>)) {
    let (done, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let sent = std::thread::scope(|scope| {
        let end = SetOnDrop(&done);
        let device = scope.spawn(|| publish(weir.mqtt(), &done, &acknowledged));
        let steady = Steady { acknowledged: &acknowledged };
        steady.goes_on();
        attack(&steady);
        steady.goes_on();
        drop(end);
        device.join().expect("the well-behaved device was served to the end")
    });
    assert_eq!(weir.get("/healthz").status, 200);
    wait_for("all its readings are there", || {
        (weir.json("/api/v1/devices/steady")["accepted"].as_u64() == Some(sent)).then_some(())
    });
    let output = weir.output();
    assert!(!output.contains("panicked"), "{output}");
}

fn publish(address: SocketAddr, done: &AtomicBool, acknowledged: &AtomicU64) -> u64 {
    let mut client = TestClient::connect(address, MqttVersion::V5, "steady");
    let mut seq = 0;
    while !done.load(Ordering::Relaxed) {
        client.telemetry("steady", &format!(r#"{{"metric":"m","value":1,"seq":{seq}}}"#));
        seq += 1;
        acknowledged.store(seq, Ordering::Relaxed);
    }
    seq
}
