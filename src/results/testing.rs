//! Output logs for tests, on a simulated disk.

use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::SystemClock;
use crate::core::output::{ErrorEntry, RejectedPart, WindowFlags, WindowResult};
use crate::core::reason::Reason;
use crate::disk::sim::SimDisk;
use crate::log::{Log, LogOptions, Lsn, Records, Retention, SyncPolicy};
use crate::results::log::ResultLogs;

fn log(name: &'static str) -> Log {
    let options = LogOptions {
        name,
        dir: PathBuf::from(name),
        segment_bytes: 1 << 20,
        commit_max_bytes: 1 << 16,
        queue_max_bytes: 1 << 18,
        tail_max_bytes: 1 << 18,
        sync: SyncPolicy::OnRequest,
        min_free_bytes: 0,
        retention: Retention::default(),
        clock_tolerance_ms: 60_000,
    };
    Log::open(Arc::new(SimDisk::new()), Arc::new(SystemClock), options, Lsn(0)).unwrap().0
}

/// Two empty logs.
pub(crate) fn result_logs() -> Arc<ResultLogs> {
    ResultLogs::new(log("windows"), log("errors"))
}

fn append(log: &Log, encode: impl Fn(&str, &mut Vec<u8>), texts: &[&str]) {
    let mut records = Records::default();
    for text in texts {
        records.push_with(|out| encode(text, out));
    }
    log.append_wait(&records).unwrap();
    log.sync().unwrap();
}

/// Appends a window of pump-7 for each metric, in one batch.
pub(crate) fn append_windows(results: &ResultLogs, metrics: &[&str]) {
    let encode = |metric: &str, out: &mut Vec<u8>| {
        let window = WindowResult {
            device_id: "pump-7",
            metric,
            unit: None,
            window_start_ms: 0,
            window_end_ms: 5_000,
            revision: 0,
            supersedes: None,
            count: 1,
            sum: 1.0,
            mean: 1.0,
            min: 1.0,
            max: 1.0,
            first: 1.0,
            last: 1.0,
            stddev: 0.0,
            flags: WindowFlags::default(),
        };
        window.encode(out);
    };
    append(results.windows.log(), encode, metrics);
}

/// Appends a late reading for each message, in one batch.
pub(crate) fn append_errors(results: &ResultLogs, messages: &[&str]) {
    let encode = |message: &str, out: &mut Vec<u8>| {
        let entry = ErrorEntry {
            journal_position: 1,
            index: 0,
            arrival_ms: 2,
            reason: Reason::Late,
            part: RejectedPart::Reading,
            message: message.into(),
            device_id: None,
            metric: None,
            client_id: "c",
            topic: "t",
            own_device: None,
            user: None,
            payload: b"{}",
            payload_bytes: 2,
            is_unseen: false,
            origin: None,
            is_cut: false,
            follows: None,
            folded: None,
        };
        entry.encode(out);
    };
    append(results.errors.log(), encode, messages);
}
