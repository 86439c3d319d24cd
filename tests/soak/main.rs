//! The long run: load, kills, restarts, clock jumps, slow and failing disks against the real program, for a chosen
//! time.
//!
//! ```text
//! cargo test --release --test soak -- --minutes 30 [--seed N] [--report FILE.csv] [--rate N] [--keep-running]
//! ```
//! Without arguments it runs for some twenty seconds. `--rate` is messages per second; `--keep-running` leaves out
//! every fault that ends the process, so that slow growth within one process shows. The seed decides which faults come
//! in which order; their timing depends on the machine.
//!
//! The run is cut into rounds. At the end of each round the fleet pauses, and every acknowledged reading must be
//! counted exactly once. Memory, disk, files, descriptors and threads are sampled all the time; from ten minutes on, an
//! upward trend fails the run.

#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helper functions too")]

mod arguments;
mod check;
mod device;
mod faults;
mod fleet;
mod samples;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use arguments::SoakArguments;
use faults::Faults;
use fleet::SoakFleet;
use samples::Sampler;
use weir::random::Random;
use weir_test_kit::process::Program;

/// The program under test.
const WEIR: Program = weir_test_kit::program!();

/// Small sizes and intervals, so that the steady state is reached within minutes.
const SETTINGS: &[(&str, &str)] = &[
    ("window.size", "'250ms'"),
    ("window.idle_timeout", "'2s'"),
    ("window.allowed_lateness", "'5s'"),
    // The wall clock of weir jumps; readings carry the real time.
    ("validate.max_future", "'off'"),
    ("validate.max_age", "'off'"),
    ("state.device_ttl", "'off'"),
    ("state.checkpoint_interval", "'2s'"),
    ("state.savepoint_interval", "'20s'"),
    ("state.savepoints_kept", "2"),
    ("journal.commit_max_bytes", "'1MiB'"),
    ("journal.segment_size", "'1MiB'"),
    ("windows.retention_bytes", "'3MiB'"),
    ("errors.retention_bytes", "'1MiB'"),
];

/// Length of a round in a short run and in a long run.
const SHORT_ROUND: Duration = Duration::from_secs(8);
const LONG_ROUND: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments = match SoakArguments::parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error}");
            return ExitCode::from(64);
        }
    };
    println!("soak: {arguments}");
    run(&arguments);
    println!("\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
    ExitCode::SUCCESS
}

fn run(arguments: &SoakArguments) {
    let mut random = Random::new(arguments.seed);
    let mut weir = WEIR.prepare(SETTINGS);
    // Otherwise arenas of ended threads would count as memory of weir.
    weir.environment("MALLOC_ARENA_MAX", "2");
    let mut faults = Faults::new(&mut weir, arguments, random.fork());
    weir.restart();
    let sampler = Sampler::start(&weir, arguments.report.as_deref());
    let fleet = SoakFleet::start(&weir, arguments.rate, &mut random);
    let (started, length) = (Instant::now(), Duration::from_secs(arguments.seconds));
    let round_length = if arguments.is_long() { LONG_ROUND } else { SHORT_ROUND };
    let mut rounds = 0;
    while started.elapsed() < length {
        let round_end = Instant::now() + round_length.min(length.saturating_sub(started.elapsed()));
        faults.strike_until(round_end, &mut weir, &fleet, &sampler);
        let sent = fleet.hold();
        check::round(&weir, &sent);
        rounds += 1;
        println!(
            "{:>6} s  round {rounds} holds: {} messages acknowledged, {}",
            started.elapsed().as_secs(),
            fleet.acknowledged(),
            faults.told()
        );
        fleet.go_on(&sent);
    }
    let sent = fleet.end();
    weir.terminate();
    check::journal_is_sound(&weir);
    weir.restart();
    check::totals(&weir, &sent);
    let samples = sampler.end();
    weir.terminate();
    println!("\n{} messages acknowledged in {rounds} rounds; {}", fleet.acknowledged(), faults.told());
    samples.report();
    if arguments.is_long() {
        samples.assert_flat();
    }
}
