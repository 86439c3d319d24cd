//! Samples of memory, disk, descriptors and threads of the process over time.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use weir_test_kit::process::Weir;

const EVERY: Duration = Duration::from_secs(2);
const PARTS: usize = 5;

/// What is sampled: name, unit, and what the last fifth may have more than the second one: a share of it, and an
/// amount. The allowances cover what the steady state itself does between two checkpoints: a segment, a savepoint, a
/// sled file that is cut only now and then.
const COLUMNS: [Column; 9] = [
    Column { name: "rss", unit: "MiB", scale: 1 << 20, share: 0.15, amount: 8 },
    Column { name: "data", unit: "MiB", scale: 1 << 20, share: 0.15, amount: 4 },
    Column { name: "journal", unit: "KiB", scale: 1 << 10, share: 0.25, amount: 2_048 },
    Column { name: "windows", unit: "KiB", scale: 1 << 10, share: 0.15, amount: 1_024 },
    Column { name: "errors", unit: "KiB", scale: 1 << 10, share: 0.15, amount: 1_024 },
    Column { name: "state", unit: "KiB", scale: 1 << 10, share: 0.25, amount: 2_048 },
    Column { name: "files", unit: "", scale: 1, share: 0.15, amount: 4 },
    Column { name: "descriptors", unit: "", scale: 1, share: 0.15, amount: 8 },
    Column { name: "threads", unit: "", scale: 1, share: 0.0, amount: 3 },
];

struct Column {
    name: &'static str,
    unit: &'static str,
    scale: u64,
    share: f64,
    amount: u64,
}

type ResourceSample = [u64; COLUMNS.len()];

/// Takes samples in its own thread.
pub struct Sampler {
    pid: Arc<AtomicI32>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Samples>,
}

/// All samples of a run.
pub struct Samples(Vec<ResourceSample>);

impl Sampler {
    /// Starts sampling; writes each sample as a line to `report`.
    pub fn start(weir: &Weir, report: Option<&Path>) -> Self {
        let mut file = report.map(|path| File::create(path).expect("the report can be written"));
        if let Some(file) = &mut file {
            let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
            writeln!(file, "seconds,{}", names.join(",")).expect("the report can be written");
        }
        let (pid, stop) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicBool::new(false)));
        let (data, process, stopped, started) = (weir.data(), pid.clone(), stop.clone(), Instant::now());
        let thread = std::thread::spawn(move || {
            let mut samples = Vec::new();
            while !stopped.load(Ordering::Acquire) {
                if let Some(sample) = sample(process.load(Ordering::Acquire), &data) {
                    if let Some(file) = &mut file {
                        let values: Vec<String> = sample.iter().map(u64::to_string).collect();
                        let seconds = started.elapsed().as_secs();
                        writeln!(file, "{seconds},{}", values.join(",")).expect("the report can be written");
                    }
                    samples.push(sample);
                }
                std::thread::park_timeout(EVERY);
            }
            Samples(samples)
        });
        let sampler = Self { pid, stop, thread };
        sampler.runs_as(weir);
        sampler
    }

    /// Tells the sampler the new process after a restart.
    pub fn runs_as(&self, weir: &Weir) {
        self.pid.store(weir.pid().as_raw_nonzero().get(), Ordering::Release);
    }

    pub fn end(self) -> Samples {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        self.thread.join().expect("the sampler did not panic")
    }
}

/// Takes one sample; `None` while no process runs.
fn sample(pid: i32, data: &Path) -> Option<ResourceSample> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    let (rss_kib, threads): (u64, u64) = (field("VmRSS:")?, field("Threads:")?);
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    let (bytes, files) = size(data);
    let part = |name: &str| size(&data.join(name)).0;
    Some([
        rss_kib * 1024,
        bytes,
        part("journal"),
        part("windows"),
        part("errors"),
        part("state"),
        files,
        descriptors,
        threads,
    ])
}

/// Bytes and number of the files below a directory. What is removed meanwhile does not count.
fn size(directory: &Path) -> (u64, u64) {
    let entries: Vec<PathBuf> =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.iter().fold((0, 0), |(bytes, files), path| match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let inner = size(path);
            (bytes + inner.0, files + inner.1)
        }
        Ok(metadata) => (bytes + metadata.len(), files + 1),
        Err(_) => (bytes, files),
    })
}

impl Samples {
    fn median(&self, part: usize, column: usize) -> u64 {
        let samples = &self.0[self.0.len() * part / PARTS..self.0.len() * (part + 1) / PARTS];
        let mut values: Vec<u64> = samples.iter().map(|sample| sample[column]).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    }

    /// Prints a table of medians by fifths of the run.
    pub fn report(&self) {
        println!("\nmedians of {} samples by fifths of the run, and the largest of all", self.0.len());
        for (index, column) in COLUMNS.iter().enumerate() {
            let medians: Vec<String> =
                (0..PARTS).map(|part| format!("{:>9}", self.median(part, index) / column.scale)).collect();
            let largest = self.0.iter().map(|sample| sample[index]).max().unwrap_or(0) / column.scale;
            println!("{:>12} {:<4}{}  max {largest}", column.name, column.unit, medians.join(""));
        }
    }

    /// Checks that the last fifth has no more than the second one, apart from what the steady state itself varies.
    pub fn assert_flat(&self) {
        for (index, column) in COLUMNS.iter().enumerate() {
            let (before, after) = (self.median(1, index), self.median(PARTS - 1, index));
            let allowed = before + (before as f64 * column.share) as u64 + column.amount * column.scale;
            assert!(after <= allowed, "{} grows: {before} in the second fifth, {after} in the last", column.name);
        }
    }
}
