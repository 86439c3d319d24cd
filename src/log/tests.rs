//! The log as a whole on a simulated disk.

mod commit;
mod crash;
mod damage;
mod full;
mod inline;
mod read;
mod repair;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::disk::Disk;
use crate::disk::sim::SimDisk;

/// A clock that a test sets.
#[derive(Debug, Default)]
pub(super) struct TestClock(AtomicI64);

impl TestClock {
    pub(super) fn at(now_ms: i64) -> Arc<TestClock> {
        Arc::new(TestClock(AtomicI64::new(now_ms)))
    }

    pub(super) fn set(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
}

pub(super) fn options() -> LogOptions {
    LogOptions {
        name: "journal",
        dir: PathBuf::from("data/journal"),
        segment_bytes: 4096,
        commit_max_bytes: 1024,
        queue_max_bytes: 4096,
        tail_max_bytes: 2048,
        sync: SyncPolicy::EveryCommit,
        min_free_bytes: 0,
        retention: Retention::default(),
        clock_tolerance_ms: 60_000,
    }
}

pub(super) fn open(disk: &SimDisk, options: LogOptions, known_synced: u64) -> Result<(Log, RecoverySummary), LogError> {
    Log::open(Arc::new(disk.clone()), Arc::new(TestClock::default()), options, Lsn(known_synced))
}

/// The record at a position: the position, and a filling whose length follows from the position.
pub(super) fn record(position: u64) -> Vec<u8> {
    let mut bytes = position.to_le_bytes().to_vec();
    bytes.resize(8 + (position % 90) as usize, 0xA5);
    bytes
}

pub(super) fn records(range: std::ops::Range<u64>) -> Records {
    let mut records = Records::default();
    for position in range {
        records.push(&record(position));
    }
    records
}

/// Appends records `range`, one per append, and waits until they are synced.
pub(super) fn append(log: &Log, range: std::ops::Range<u64>) {
    for position in range {
        assert_eq!(log.append_wait(&records(position..position + 1)), Ok(Lsn(position + 1)));
    }
    log.sync().unwrap();
}

/// Opens a new log on a new disk and appends records up to `end`, each a batch of its own.
pub(super) fn filled(options: LogOptions, end: u64) -> (SimDisk, Log) {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, options, 0).unwrap();
    for position in 0..end {
        append(&log, position..position + 1);
    }
    (disk, log)
}

pub(super) fn dir() -> &'static Path {
    Path::new("data/journal")
}

/// Reads from `from` to the end and checks every record; returns the end.
pub(super) fn check_records(log: &Log, from: u64) -> u64 {
    let mut reader = log.reader(Lsn(from));
    check_reader(&mut reader, from)
}

pub(super) fn check_reader(reader: &mut Reader, from: u64) -> u64 {
    let mut position = from;
    let mut arrival_ms = i64::MIN;
    while let Some(batch) = reader.next_batch().unwrap() {
        assert!(batch.first().0 <= position, "gap before record {}", batch.first());
        assert!(batch.arrival_ms() >= arrival_ms);
        arrival_ms = batch.arrival_ms();
        let skip = (position - batch.first().0) as usize;
        for bytes in batch.records().skip(skip) {
            assert_eq!(bytes, record(position));
            position += 1;
        }
        assert_eq!(batch.end().0, position);
    }
    position
}

pub(super) fn segment_files(disk: &SimDisk) -> Vec<String> {
    disk.list(dir()).unwrap().into_iter().map(|entry| entry.name).collect()
}
