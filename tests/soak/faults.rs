//! Faults that happen to weir while the fleet sends.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::WEIR;
use crate::arguments::SoakArguments;
use crate::fleet::SoakFleet;
use crate::samples::Sampler;
use weir::random::Random;
use weir_test_kit::mqtt::{MqttVersion, connect_packet};
use weir_test_kit::process::Weir;
use weir_test_kit::shim::{Calls, EIO, ENOSPC, Rule, Shim};

#[derive(Debug, Clone, Copy)]
enum SoakFault {
    Kill,
    KillTwice,
    Terminate,
    ClockJump,
    SlowDisk,
    FullDisk,
    SyncError,
    WriteError,
    DamagedState,
    Storm,
}

const ENDING: &[SoakFault] = &[
    SoakFault::Kill,
    SoakFault::Kill,
    SoakFault::KillTwice,
    SoakFault::Terminate,
    SoakFault::SyncError,
    SoakFault::WriteError,
    SoakFault::DamagedState,
];
const HARMLESS: &[SoakFault] = &[SoakFault::ClockJump, SoakFault::SlowDisk, SoakFault::FullDisk, SoakFault::Storm];

const PAGE_BYTES: usize = 4_096;

/// The exit code of a weir whose disk failed.
const DISK_FAILED: i32 = 74;

/// Random faults, and the shim that causes some of them.
pub struct Faults {
    random: Random,
    shim: Shim,
    journal_syncs: Rule,
    other_syncs: Rule,
    writes: [Rule; 4],
    clock_offset_ms: i64,
    keep_running: bool,
    /// Longest pause between two faults.
    pause: Duration,
    struck: BTreeMap<String, u32>,
}

impl Faults {
    pub fn new(weir: &mut Weir, arguments: &SoakArguments, random: Random) -> Self {
        let mut shim = Shim::new(WEIR, &weir.path(""));
        for (name, value) in shim.environment() {
            weir.environment(name, value);
        }
        let journal_syncs = shim.rule(Calls::Sync, "/data/journal/");
        let other_syncs = shim.rule(Calls::Sync, "/data/");
        let writes = ["journal", "windows", "errors", "state"];
        let writes = writes.map(|part| shim.rule(Calls::Write, &format!("/data/{part}/")));
        let pause = Duration::from_secs(if arguments.is_long() { 12 } else { 2 });
        let struck = BTreeMap::new();
        let keep_running = arguments.keep_running;
        Self { random, shim, journal_syncs, other_syncs, writes, clock_offset_ms: 0, keep_running, pause, struck }
    }

    /// Causes one fault after the other until `end`. Each fault is over when the next one begins.
    pub fn strike_until(&mut self, end: Instant, weir: &mut Weir, fleet: &SoakFleet, sampler: &Sampler) {
        loop {
            let pause = Duration::from_millis(self.random.below(self.pause.as_millis() as u64));
            let left = end.saturating_duration_since(Instant::now());
            std::thread::sleep(pause.min(left));
            if pause >= left {
                return;
            }
            let ends = !self.keep_running && self.random.below(2) == 0;
            let among = if ends { ENDING } else { HARMLESS };
            let fault = among[self.random.below(among.len() as u64) as usize];
            *self.struck.entry(format!("{fault:?}")).or_default() += 1;
            self.strike(fault, weir);
            sampler.runs_as(weir);
            fleet.moved(weir);
        }
    }

    /// How often each fault struck.
    pub fn told(&self) -> String {
        self.struck.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    }

    fn strike(&mut self, fault: SoakFault, weir: &mut Weir) {
        match fault {
            SoakFault::Kill => {
                weir.kill();
                weir.restart();
            }
            SoakFault::KillTwice => {
                weir.kill();
                weir.spawn();
                weir.kill();
                weir.restart();
            }
            SoakFault::Terminate => {
                weir.terminate();
                weir.restart();
            }
            SoakFault::ClockJump => self.jump(),
            SoakFault::SlowDisk => self.slow_disk(),
            SoakFault::FullDisk => self.full_disk(),
            SoakFault::SyncError => self.fatal(self.journal_syncs, weir),
            SoakFault::WriteError => self.fatal(self.writes[0], weir),
            SoakFault::DamagedState => self.damage_state(weir),
            SoakFault::Storm => storm(weir, &mut self.random),
        }
    }

    /// Moves the clock, mostly ahead by up to ten minutes, sometimes back by up to twenty seconds, while journal time
    /// stands still and silence closes no windows.
    fn jump(&mut self) {
        let back = self.random.below(4) == 0;
        let by_ms = if back { -(self.random.below(20_000) as i64) } else { self.random.below(600_000) as i64 };
        self.clock_offset_ms += by_ms;
        self.shim.set_clock_offset_ms(self.clock_offset_ms);
    }

    fn slow_disk(&mut self) {
        let delay = Duration::from_millis(20 + self.random.below(280));
        self.shim.delay(self.journal_syncs, delay);
        self.shim.delay(self.other_syncs, delay);
        std::thread::sleep(Duration::from_millis(500 + self.random.below(3_000)));
        self.shim.delay(self.journal_syncs, Duration::ZERO);
        self.shim.delay(self.other_syncs, Duration::ZERO);
    }

    /// Lets writes to one part fail for lack of space for a while.
    fn full_disk(&mut self) {
        let rule = self.writes[self.random.below(self.writes.len() as u64) as usize];
        self.shim.fail_from_now_on(rule, ENOSPC);
        std::thread::sleep(Duration::from_millis(500 + self.random.below(3_000)));
        self.shim.heal(rule);
    }

    /// Flips bits of the state store or cuts it short while weir is down; weir then starts from a savepoint.
    fn damage_state(&mut self, weir: &mut Weir) {
        weir.kill();
        let path = weir.data().join("state/db");
        let mut bytes = fs::read(&path).expect("the state store can be read");
        if self.random.below(3) == 0 {
            bytes.truncate(self.random.below(bytes.len() as u64 + 1) as usize);
        } else {
            for page in bytes.chunks_mut(PAGE_BYTES) {
                let at = self.random.below(page.len() as u64) as usize;
                page[at] ^= 1 << self.random.below(8);
            }
        }
        fs::write(&path, bytes).expect("the state store can be written");
        weir.restart();
        // weir never deletes a store that it moved aside.
        for entry in fs::read_dir(weir.data()).expect("the data directory can be read").flatten() {
            if entry.file_name().to_string_lossy().starts_with("state.damaged-") {
                fs::remove_dir_all(entry.path()).expect("a store moved aside can be removed");
            }
        }
    }

    /// Lets one call fail: weir ends with the exit code of a failed disk.
    fn fatal(&mut self, rule: Rule, weir: &mut Weir) {
        self.shim.fail(rule, EIO, 1);
        let status = weir.wait_exit();
        self.shim.heal(rule);
        assert_eq!(status.code(), Some(DISK_FAILED), "exit code after a failed disk");
        weir.restart();
    }
}

/// Opens many connections at once: some send a CONNECT, some random bytes, some nothing.
fn storm(weir: &Weir, random: &mut Random) {
    let mut connections = Vec::new();
    for index in 0..60 {
        let Ok(mut stream) = TcpStream::connect(weir.mqtt()) else { continue };
        let bytes = match index % 3 {
            0 => connect_packet(MqttVersion::V4, &format!("storm-{index}")),
            1 => random.bytes(40),
            _ => Vec::new(),
        };
        // weir may have closed the connection already.
        let _ = stream.write_all(&bytes);
        connections.push(stream);
    }
}
