//! Checks that the simulation catches each deliberately broken variant of weir.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use weir::defects::{Defect, select};
use weir::sync::lock;

use super::campaign::{number, run_kept_seed, run_seed, tell};

/// Most seeds for one defect.
const MAX_SEEDS: u64 = 1_500;
/// Defects of the stores of retained messages and sessions, which have a simulation of their own.
const OF_STORES: [Defect; 3] = [Defect::GiveUpStore, Defect::ForgetStoreOutage, Defect::KeepStaleValues];
/// Threads that run the seeds.
const WORKERS: usize = 2;

/// Runs seeds until one fails; returns the seed and its failure.
fn hunt(defect: Defect) -> Option<(u64, String)> {
    let base = number("WEIR_SIM_BASE").unwrap_or(0);
    select(Some(defect));
    let caught = (0..MAX_SEEDS).find_map(|number| {
        let what = if OF_STORES.contains(&defect) {
            run_kept_seed(base + number).1?
        } else {
            run_seed(base + number, false).failure?.0
        };
        Some((number + 1, what))
    });
    select(None);
    caught
}

#[test]
fn defects_are_all_caught() {
    let chosen = std::env::var("WEIR_SIM_DEFECTS").ok();
    let is_chosen = |defect: &Defect| {
        let name = format!("{defect:?}");
        chosen.as_ref().is_none_or(|names| names.split(',').any(|chosen| chosen == name))
    };
    let waiting: Mutex<VecDeque<Defect>> = Mutex::new(Defect::ALL.into_iter().filter(is_chosen).collect());
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let next = || lock(&waiting).pop_front();
                while let Some(defect) = next() {
                    match hunt(defect) {
                        Some((seeds, what)) => {
                            let short: String = what.chars().take(160).collect();
                            tell(&format!("{defect:?} is caught by seed {seeds}: {short}"));
                        }
                        None => lock(&missed).push(defect),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(missed.is_empty(), "not caught within {MAX_SEEDS} seeds: {missed:?}");
}

/// One defect and one seed by hand, with every event: `WEIR_SIM_DEFECT=ReuseSlot WEIR_SIM_SEED=3`.
#[test]
fn one_defect() {
    let (Ok(name), Some(seed)) = (std::env::var("WEIR_SIM_DEFECT"), number("WEIR_SIM_SEED")) else { return };
    let defect = Defect::ALL.into_iter().find(|defect| format!("{defect:?}") == name).expect("a defect's name");
    select(Some(defect));
    let what = if OF_STORES.contains(&defect) {
        run_kept_seed(seed).1
    } else {
        run_seed(seed, true).failure.map(|(what, _)| what)
    };
    select(None);
    tell(&format!("{defect:?}, seed {seed}: {what:?}"));
}
