//! Helpers of the benches: many clients at once, loads, and printed figures.

pub mod client;
pub mod form;
pub mod full_load;
pub mod paced;
pub mod process;
pub mod reading;
pub mod round_trip;
pub mod times;

use std::time::Duration;

use form::BenchForm;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Numbers and words on the command line of a bench.
pub struct BenchArguments {
    numbers: std::vec::IntoIter<u64>,
    words: Vec<String>,
}

impl BenchArguments {
    /// `None` unless `cargo bench` started this program: `cargo test --benches` does not pass --bench, and nothing is
    /// measured then.
    pub fn read() -> Option<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let numbers: Vec<u64> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
        let is_bench = arguments.iter().any(|argument| argument == "--bench");
        is_bench.then(|| Self { numbers: numbers.into_iter(), words: arguments })
    }

    /// The forms that the command line names, or all.
    pub fn forms(&self) -> Vec<BenchForm> {
        let named = BenchForm::ALL.into_iter().filter(|form| self.words.iter().any(|word| word == form.name()));
        let named: Vec<BenchForm> = named.collect();
        if named.is_empty() { BenchForm::ALL.to_vec() } else { named }
    }

    /// The next number, or `default` where there is none.
    pub fn number(&mut self, default: u64) -> u64 {
        self.numbers.next().unwrap_or(default)
    }
}

/// Runs a bench on one thread, with as many sockets as this process may have; it ends with a panic after `limit`.
pub fn run<T>(limit: Duration, bench: impl Future<Output = T>) -> T {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the limit of open files is raised");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(limit, bench).await.expect("the bench ends in time") })
}

/// Prints bytes as megabytes (10^6 bytes).
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
