//! The metrics of one log. They are looked up once, when the log is opened.

use std::fmt;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

use crate::telemetry::names;

/// Counters of one log. The gauges of a log are set from [`super::LogStats`] when the metrics are scraped.
pub(super) struct LogMeters {
    records: Counter,
    batches: Counter,
    written_bytes: Counter,
    sync_seconds: Histogram,
    torn_bytes: Counter,
}

impl LogMeters {
    pub(super) fn new(log: &'static str) -> LogMeters {
        LogMeters {
            records: counter!(names::LOG_APPENDED, "log" => log),
            batches: counter!(names::LOG_BATCHES, "log" => log),
            written_bytes: counter!(names::LOG_WRITTEN_BYTES, "log" => log),
            sync_seconds: histogram!(names::LOG_SYNC_SECONDS, "log" => log),
            torn_bytes: counter!(names::LOG_TORN_BYTES, "log" => log),
        }
    }

    pub(super) fn batch_written(&self, records: u32, bytes: usize) {
        self.records.increment(u64::from(records));
        self.batches.increment(1);
        self.written_bytes.increment(bytes as u64);
    }

    pub(super) fn segment_begun(&self, bytes: usize) {
        self.written_bytes.increment(bytes as u64);
    }

    pub(super) fn synced(&self, took: Duration) {
        self.sync_seconds.record(took.as_secs_f64());
    }

    pub(super) fn tail_cut(&self, bytes: u64) {
        self.torn_bytes.increment(bytes);
    }
}

impl fmt::Debug for LogMeters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogMeters")
    }
}
