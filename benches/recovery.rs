//! `kill -9` under full load, and the time of the next start. The exit code is 1 if an acknowledged reading is missing.
//!
//! `cargo bench --bench recovery`. Arguments: `-- [rounds] [seed]`. The seed decides when weir is killed.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on ends")]

use std::collections::HashMap;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use weir::random::Random;
use weir_test_kit::measure::client::connect_packet;
use weir_test_kit::measure::form::BenchForm;
use weir_test_kit::measure::full_load::{FullLoad, LoadedDevice};
use weir_test_kit::measure::reading::now_ms;
use weir_test_kit::measure::round_trip::RoundTrips;
use weir_test_kit::measure::times::{Times, ms};
use weir_test_kit::measure::{BenchArguments, run};
use weir_test_kit::process::{Program, Weir};

/// The program under test.
const WEIR: Program = weir_test_kit::program!();

const LOAD: FullLoad = FullLoad { form: BenchForm::Native, devices: 100, in_flight: 100, messages: u64::MAX };
/// Shortest time from the start of the load to the kill, and the longest random addition to it.
const KILL_AFTER_MS: u64 = 600;
const KILL_WITHIN_MS: u64 = 600;
/// Number of measured starts on an empty directory.
const STARTS: u64 = 10;
/// Time limit of a round.
const ROUND_LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let Some(mut arguments) = BenchArguments::read() else { return ExitCode::SUCCESS };
    let (rounds, seed) = (arguments.number(6), arguments.number(now_ms() as u64));
    let starts = Times::of((0..STARTS).map(|_| start_on_nothing()).collect());
    println!("{STARTS} starts on an empty directory, until weir listens: {}", range(&starts));
    println!("seed {seed}");
    let mut weir = WEIR.start_on_disk();
    let (mut devices, mut figures) = (Vec::new(), RecoveryFigures::default());
    for round in 0..rounds {
        devices.extend(load_and_kill(&mut weir, round, Random::new(seed.wrapping_add(round)).next_u64()));
        figures.restart(&mut weir);
    }
    figures.print();
    match check(&mut weir, &devices) {
        Ok(told) => {
            println!("{told}");
            ExitCode::SUCCESS
        }
        Err(told) => {
            eprintln!("{told}");
            ExitCode::FAILURE
        }
    }
}

fn start_on_nothing() -> Duration {
    let mut weir = WEIR.prepare_on_disk(&[]);
    weir.spawn();
    weir.running()
}

fn range(times: &Times) -> String {
    format!("{} to {}, median {}", ms(times.min()), ms(times.max()), ms(times.median()))
}

/// Runs one round; returns its devices with the readings acknowledged before the kill.
fn load_and_kill(weir: &mut Weir, round: u64, random: u64) -> Vec<LoadedDevice> {
    let moment = Duration::from_millis(KILL_AFTER_MS + random % KILL_WITHIN_MS);
    let address = weir.mqtt();
    let name = format!("round-{round}");
    let kill = async {
        tokio::time::sleep(moment).await;
        weir.kill();
    };
    let (devices, ()) = run(ROUND_LIMIT, async { tokio::join!(LOAD.run(address, &name), kill) });
    devices
}

/// Times of all starts after a kill.
#[derive(Default)]
struct RecoveryFigures {
    first_puback: Vec<Duration>,
    ready: Vec<Duration>,
    replayed: Vec<u64>,
}

impl RecoveryFigures {
    fn restart(&mut self, weir: &mut Weir) {
        weir.spawn();
        let listening = weir.running();
        first_puback(weir).expect("a PUBACK");
        let first_puback = weir.running();
        weir.wait_until("weir is ready", Weir::is_ready);
        let ready = weir.running();
        let replayed = weir.metric_sum("weir_recovery_replayed_records") as u64;
        println!(
            "killed and started: listening after {}, first PUBACK after {}, {replayed} records replayed after {}",
            ms(listening),
            ms(first_puback),
            ms(ready)
        );
        self.first_puback.push(first_puback);
        self.ready.push(ready);
        self.replayed.push(replayed);
    }

    fn print(self) {
        println!("from start to the first PUBACK: {}", range(&Times::of(self.first_puback)));
        println!("from start to ready: {}", range(&Times::of(self.ready)));
        let (fewest, most) = (self.replayed.iter().min().unwrap_or(&0), self.replayed.iter().max().unwrap_or(&0));
        println!("records replayed: {fewest} to {most}");
    }
}

fn first_puback(weir: &Weir) -> io::Result<Duration> {
    // A device of its own for each start: its readings are numbered from 0.
    let name = format!("probe-{}", now_ms());
    RoundTrips::connect(weir.mqtt(), &connect_packet(&name, None), &name)?.publish()
}

/// Checks that every acknowledged reading is counted, and each counted reading is in exactly one window.
fn check(weir: &mut Weir, devices: &[LoadedDevice]) -> Result<String, String> {
    let status = weir.watch("all windows are closed", |weir| {
        let status = weir.json("/api/v1/status");
        (status["backlog"]["records"] == 0 && status["windows"]["open"] == 0).then_some(status)
    });
    let (unaccounted, mismatches) =
        (&status["readings"]["unaccounted"], weir.metric_sum("weir_replay_mismatches_total"));
    if unaccounted != 0 || mismatches != 0.0 {
        return Err(format!("{unaccounted} readings unaccounted for, {mismatches} results differ in the replay"));
    }
    let in_windows = window_counts(weir, status["windows"]["first"].as_u64().expect("a number"));
    let (mut acknowledged, mut kept) = (0, 0);
    for device in devices {
        let detail = weir.json(&format!("/api/v1/devices/{}", device.name));
        kept += check_device(device, &detail, in_windows.get(&device.name).copied().unwrap_or(0))?;
        acknowledged += device.acknowledged;
    }
    Ok(format!(
        "{acknowledged} acknowledged readings of {} devices: none is missing; {kept} are in windows, each once",
        devices.len()
    ))
}

/// Checks one device and returns its counted readings. A device sends readings in the order of their numbers, from 0.
fn check_device(device: &LoadedDevice, detail: &Value, in_windows: u64) -> Result<u64, String> {
    let LoadedDevice { name, acknowledged, .. } = device;
    let expected = |kept: u64| serde_json::json!([[0, kept - 1]]);
    let kept = detail["accepted"].as_u64().unwrap_or(0);
    if kept < *acknowledged || kept != in_windows || kept == 0 || detail["sequence_ranges"] != expected(kept) {
        return Err(format!("{name}: {acknowledged} acknowledged, {in_windows} in windows, weir has {detail}"));
    }
    Ok(kept)
}

/// Readings per device in the newest revision of all windows. Waits until `fired` windows are listed.
fn window_counts(weir: &mut Weir, fired: u64) -> HashMap<String, u64> {
    weir.watch("all windows are shown", |weir| {
        let windows = windows(weir);
        (windows.len() as u64 >= fired).then(|| {
            let mut counts = HashMap::new();
            for window in windows {
                let device = window["device_id"].as_str().unwrap_or_default().to_owned();
                *counts.entry(device).or_default() += window["count"].as_u64().unwrap_or(0);
            }
            counts
        })
    })
}

fn windows(weir: &Weir) -> Vec<Value> {
    let (mut windows, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = weir.json(&format!("/api/v1/windows?limit=1000{cursor}"));
        windows.extend(page["windows"].as_array().expect("a list").iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return windows,
        }
    }
}
