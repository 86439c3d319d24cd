//! Deterministic simulation: the real log, core, pipeline, state and MQTT server of weir in one thread, on a simulated
//! disk, clock and network. A seed chooses the faults. docs/simulation.md tells what is
//! simulated and what is not.
//!
//! - `cargo test --test sim` runs the stored seeds and 2,500 fresh ones.
//! - `WEIR_SIM_SEED=n cargo test --test sim one_seed` runs one seed and prints every event.
//! - `cargo test --features defects --test sim defects` shows that each broken variant of weir is caught.
//! - `WEIR_SIM_SEEDS=n` runs so many fresh seeds, `WEIR_SIM_MINUTES=n` runs for so long, and `WEIR_SIM_BASE=n` begins
//!   with that seed.

#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helper functions too")]

mod answer;
mod campaign;
mod check;
mod client;
mod clock;
mod decay;
#[cfg(feature = "defects")]
mod defects;
mod device;
mod explain;
mod faults;
mod kept;
mod language;
mod ledger;
mod outputs;
mod plan;
mod process;
mod retained;
mod sparkplug;
mod store;
mod trace;
mod wire;
mod world;

use campaign::{Campaign, deadline, fresh_base, number, run_kept_seed, run_seed, tell};

/// Fresh seeds of one run.
const SEEDS: u64 = 2_500;

/// Seeds that once failed, from seeds.txt.
fn stored() -> Vec<u64> {
    let lines = include_str!("seeds.txt").lines();
    let numbers = lines.map(|line| line.split('#').next().unwrap_or_default().trim());
    numbers.filter(|text| !text.is_empty()).map(|text| text.parse().expect("a seed per line")).collect()
}

#[test]
fn no_seed_breaks_the_promises() {
    let base = number("WEIR_SIM_BASE").unwrap_or_else(fresh_base);
    let count = number("WEIR_SIM_SEEDS").unwrap_or(SEEDS);
    tell(&format!("simulation: {} stored seeds, then from {base} on", stored().len()));
    let until = number("WEIR_SIM_MINUTES").map(deadline);
    let figures = Campaign { stored: stored().into(), base, count, until }.run();
    if count >= SEEDS {
        // Without enough faults the run proves nothing.
        let faults = [figures.power_cuts, figures.kills, figures.starts_cut_short, figures.broken_connections];
        assert!(faults.iter().all(|count| *count >= SEEDS), "{figures:?}");
        let rare = [figures.io_failures, figures.full_disks, figures.clock_jumps, figures.decays, figures.fallbacks];
        assert!(rare.iter().all(|count| *count >= SEEDS / 20), "{figures:?}");
        assert!(figures.refusals >= SEEDS / 40 && figures.acknowledged >= 50 * SEEDS, "{figures:?}");
    }
}

/// Seeds of one run of the stores of retained messages and sessions.
const KEPT_SEEDS: u64 = 300;

#[test]
fn no_seed_breaks_what_the_stores_promise() {
    let base = number("WEIR_SIM_BASE").unwrap_or_else(fresh_base);
    let count = number("WEIR_SIM_SEEDS").unwrap_or(KEPT_SEEDS);
    tell(&format!("simulation of the stores of sessions and retained messages: from {base} on"));
    let mut figures = kept::KeptFigures::default();
    for seed in base..base + count {
        let (of_seed, failure) = run_kept_seed(seed);
        figures.add(&of_seed);
        if let Some(failure) = failure {
            panic!("seed {seed}: {failure}; run it again with WEIR_SIM_BASE={seed} WEIR_SIM_SEEDS=1");
        }
    }
    tell(&format!("simulated {count} seeds: {figures:?}"));
    if count >= KEPT_SEEDS {
        let often = [figures.restarts, figures.outages, figures.recoveries];
        assert!(often.iter().all(|times| *times >= count) && figures.refused_starts >= count / 20, "{figures:?}");
    }
}

#[test]
fn one_seed() {
    let Some(seed) = number("WEIR_SIM_SEED") else { return };
    let report = run_seed(seed, true);
    tell(&format!("seed {seed}: trace {:016x}, {:?}", report.trace_hash, report.figures));
    assert!(
        report.failure.is_none(),
        "seed {seed} failed: {}",
        report.failure.map(|(what, _)| what).unwrap_or_default()
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in (0..20).chain(stored()) {
        let [first, second] = [run_seed(seed, false), run_seed(seed, false)];
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
    }
    assert_ne!(run_seed(1, false).trace_hash, run_seed(2, false).trace_hash);
}
