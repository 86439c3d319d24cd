//! Runs many seeds on a few threads, each seed on one.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weir::sync::lock;

use super::kept::{self, KeptFigures};
use super::world::{SeedReport, SimFigures, run};
use weir::random::Random;

/// Threads that run seeds.
const WORKERS: usize = 2;
/// Number of failures after which no further seed starts.
const MAX_FAILURES: usize = 5;

/// Writes to standard error directly: the test harness would capture `eprintln!`.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A number from an environment variable; panics if the variable is set to anything else.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, and is {text:?}")))
}

/// A first seed from the clock.
pub fn fresh_base() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Random::new(since.as_nanos() as u64).next_u64() >> 16
}

/// Runs one seed inside the runtime and metrics recorder that weir needs.
pub fn run_seed(seed: u64, print: bool) -> SeedReport {
    quiet_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _guard = runtime.enter();
    SIMULATING.set(true);
    let report = run(seed, print);
    SIMULATING.set(false);
    report
}

/// Runs one seed of the stores of retained messages and sessions: its figures, and its failure.
pub fn run_kept_seed(seed: u64) -> (KeptFigures, Option<String>) {
    quiet_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _guard = runtime.enter();
    kept::run(seed)
}

thread_local! {
    static SIMULATING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Silences panics inside a simulation: they are results and are reported with their seeds.
fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !SIMULATING.get() {
                before(info);
            }
        }));
    });
}

/// The seeds of one run, and its end.
pub struct Campaign {
    pub stored: VecDeque<u64>,
    pub base: u64,
    pub count: u64,
    pub until: Option<Instant>,
}

#[derive(Default)]
struct CampaignProgress {
    stored: VecDeque<u64>,
    next: u64,
    done: u64,
    figures: SimFigures,
    failures: Vec<(u64, String)>,
}

impl Campaign {
    /// Runs the seeds; panics where one fails, after it has said how to run it again.
    pub fn run(self) -> SimFigures {
        let begun = Instant::now();
        let progress = Mutex::new(CampaignProgress { stored: self.stored.clone(), ..CampaignProgress::default() });
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    while let Some(seed) = self.next(&progress) {
                        let report = run_seed(seed, false);
                        note(&progress, seed, report);
                    }
                });
            }
        });
        let CampaignProgress { done, figures, failures, .. } =
            progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        let seconds = begun.elapsed().as_secs_f64();
        tell(&format!("simulated {done} seeds in {seconds:.1} s: {figures:?}"));
        let seeds: Vec<u64> = failures.iter().map(|(seed, _)| *seed).collect();
        assert!(failures.is_empty(), "{} seeds failed: {seeds:?}", failures.len());
        figures
    }

    fn next(&self, progress: &Mutex<CampaignProgress>) -> Option<u64> {
        let mut progress = lock(progress);
        if progress.failures.len() >= MAX_FAILURES {
            return None;
        }
        if let Some(seed) = progress.stored.pop_front() {
            return Some(seed);
        }
        let is_over = self.until.map_or(progress.next >= self.count, |until| Instant::now() >= until);
        if is_over {
            return None;
        }
        progress.next += 1;
        if self.until.is_some() && progress.next.is_multiple_of(2_000) {
            tell(&format!("{} seeds begun: {:?}", progress.next, progress.figures));
        }
        Some(self.base.wrapping_add(progress.next - 1))
    }
}

fn note(progress: &Mutex<CampaignProgress>, seed: u64, report: SeedReport) {
    let mut progress = lock(progress);
    progress.done += 1;
    progress.figures.add(&report.figures);
    if let Some((what, last_events)) = report.failure {
        tell(&format!(
            "\nseed {seed} failed: {what}\nlast events:\n{last_events}run it again with\n  \
             WEIR_SIM_SEED={seed} cargo test --test sim one_seed\n"
        ));
        progress.failures.push((seed, what));
    }
}

/// The end of a run that takes this many minutes.
pub fn deadline(minutes: u64) -> Instant {
    Instant::now() + Duration::from_secs(minutes * 60)
}
