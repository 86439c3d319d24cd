//! All devices of the soak, with one thread each, and their common pauses.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::device::{Burst, SentTotals, SoakDevice, SoakDeviceKind};
use weir::random::Random;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

/// How many devices of each kind.
const MEMBERS: &[(SoakDeviceKind, usize)] = &[
    (SoakDeviceKind::Numbered, 18),
    (SoakDeviceKind::Plain, 8),
    (SoakDeviceKind::ExactlyOnce, 4),
    (SoakDeviceKind::Faulty, 3),
    (SoakDeviceKind::Backlog, 3),
    (SoakDeviceKind::Idle, 6),
];

/// Pause before another attempt to connect.
const RECONNECT: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FleetPhase {
    Send,
    Hold,
    End,
}

struct FleetState {
    phase: FleetPhase,
    address: SocketAddr,
    /// Totals of the devices that are silent.
    silent: Vec<SentTotals>,
    round: u64,
    round_from_ms: i64,
}

struct FleetControl {
    state: Mutex<FleetState>,
    changed: Condvar,
    acknowledged: AtomicU64,
    /// Messages per second of one device.
    rate: u64,
}

/// All devices.
pub struct SoakFleet {
    shared: Arc<FleetControl>,
    members: Vec<JoinHandle<()>>,
}

impl SoakFleet {
    /// Starts devices that together send `rate` messages per second.
    pub fn start(weir: &Weir, rate: u64, random: &mut Random) -> Self {
        let state = FleetState {
            phase: FleetPhase::Send,
            address: weir.mqtt(),
            silent: Vec::new(),
            round: 0,
            round_from_ms: 0,
        };
        let steady: usize = MEMBERS
            .iter()
            .filter(|(kind, _)| !matches!(kind, SoakDeviceKind::Backlog | SoakDeviceKind::Idle))
            .map(|m| m.1)
            .sum();
        let shared = Arc::new(FleetControl {
            state: Mutex::new(state),
            changed: Condvar::new(),
            acknowledged: AtomicU64::new(0),
            rate: (rate / steady as u64).max(1),
        });
        let kinds = MEMBERS.iter().flat_map(|&(kind, count)| (0..count).map(move |index| (kind, index)));
        let members = kinds
            .map(|(kind, index)| {
                let (shared, device) = (shared.clone(), SoakDevice::new(kind, index, random.fork()));
                std::thread::spawn(move || shared.live(device))
            })
            .collect();
        Self { shared, members }
    }

    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Tells the devices the new address after a restart.
    pub fn moved(&self, weir: &Weir) {
        self.shared.lock().address = weir.mqtt();
    }

    /// Pauses the fleet: waits until every device is silent and all its messages are acknowledged.
    pub fn hold(&self) -> Vec<SentTotals> {
        self.silence(FleetPhase::Hold)
    }

    /// Starts a new round. Event times of its readings begin after those of the last round.
    pub fn go_on(&self, sent: &[SentTotals]) {
        let newest_ms = sent.iter().map(|one| one.newest_ms).max().unwrap_or(0);
        let mut state = self.shared.lock();
        state.phase = FleetPhase::Send;
        // The next full second behind everything sent: windows are a second long.
        state.round_from_ms = (newest_ms / 1_000 + 1) * 1_000;
        state.silent.clear();
        state.round += 1;
        self.shared.changed.notify_all();
    }

    /// Ends the fleet: waits until all messages are acknowledged and every device has ended.
    pub fn end(&self) -> Vec<SentTotals> {
        self.silence(FleetPhase::End)
    }

    fn silence(&self, phase: FleetPhase) -> Vec<SentTotals> {
        let mut state = self.shared.lock();
        state.phase = phase;
        self.shared.changed.notify_all();
        drop(state);
        wait_for("every device is acknowledged what it sent", || {
            let failed = self.members.iter().any(|member| phase != FleetPhase::End && member.is_finished());
            assert!(!failed, "a device failed");
            let state = self.shared.lock();
            (state.silent.len() == self.members.len()).then(|| state.silent.clone())
        })
    }
}

impl FleetControl {
    fn lock(&self) -> MutexGuard<'_, FleetState> {
        self.state.lock().expect("no device panicked")
    }

    fn live(&self, mut device: SoakDevice) {
        let mut connection: Option<TestClient> = None;
        let (mut again, mut told) = (false, None);
        loop {
            if !device.has_pending() && !self.may_send(&mut device, &mut told) {
                return;
            }
            let client = match connection.take() {
                Some(client) => client,
                None => match TestClient::try_connect(self.address(), MqttVersion::V4, &device.sent.device) {
                    Ok(client) => client,
                    // weir is down, or was killed just now.
                    Err(_) => {
                        std::thread::sleep(RECONNECT);
                        continue;
                    }
                },
            };
            let mut made = 0;
            if !device.has_pending() {
                made = device.make_burst();
                again = false;
            }
            let before = device.acknowledged;
            let outcome = device.send(client, again);
            self.acknowledged.fetch_add(device.acknowledged - before, Ordering::Relaxed);
            match outcome {
                Ok(Burst::Acknowledged(client)) => {
                    connection = Some(client);
                    self.rest(device.pause(made, self.rate));
                }
                Ok(Burst::Abandoned) | Err(_) => again = true,
            }
        }
    }

    fn address(&self) -> SocketAddr {
        self.lock().address
    }

    /// Waits during a pause; `false`: the run has ended. `told`: the last round in which the device reported its
    /// totals.
    fn may_send(&self, device: &mut SoakDevice, told: &mut Option<u64>) -> bool {
        let mut state = self.lock();
        if state.phase == FleetPhase::Send {
            return true;
        }
        while state.phase != FleetPhase::Send {
            if *told != Some(state.round) {
                *told = Some(state.round);
                state.silent.push(device.sent.clone());
            }
            if state.phase == FleetPhase::End {
                return false;
            }
            state = self.changed.wait(state).expect("no device panicked");
        }
        device.sent.round_from_ms = state.round_from_ms;
        (device.sent.round_readings, device.sent.round_sum) = (0, 0);
        true
    }

    /// Waits between two bursts, or until the fleet is paused.
    fn rest(&self, pause: Duration) {
        let state = self.lock();
        let sending = |state: &mut FleetState| state.phase == FleetPhase::Send;
        drop(self.changed.wait_timeout_while(state, pause, sending).expect("no device panicked"));
    }
}
