//! The output logs: new results are appended, results of a replay are compared with the stored ones.
//!
//! After a crash the journal is replayed from the last checkpoint, and the output logs may be ahead of it. Results that
//! they already hold are not written again. They must be the same, since results depend on the journal alone; a
//! difference is counted and logged, and makes `/healthz` fail.

use std::collections::VecDeque;

use crate::core::output::{Collector, ErrorEntry, WindowResult, is_same_error};
use crate::core::proportion::MAX_MESSAGE_BYTES;
use crate::defects::{self, Defect};
use crate::log::{AppendError, Log, LogError, Lsn, Reader, Records};

/// Number of differences that are logged in full. Further ones are only counted.
const MAX_REPORTED: u64 = 10;

/// An append to an output log is closed at this size. The results of one journal batch can be larger than a batch of an
/// output log may be; an append of this size with the largest result added, or with the errors of one message, stays below.
const APPEND_BYTES: usize = 512 * 1024;
const _: () = assert!(APPEND_BYTES + MAX_MESSAGE_BYTES < 1024 * 1024);

/// One output log: appends new results, compares replayed ones.
#[derive(Debug)]
struct OutputLog {
    name: &'static str,
    log: Log,
    /// Whether a stored result and a computed one are the same.
    is_same: fn(&[u8], &[u8]) -> bool,
    position: u64,
    /// Results in the log from `position` on, which a replay produces again; `None` once the replay has passed them.
    held: Option<StoredResults>,
    /// Appends that the log has not taken yet.
    pending: VecDeque<Records>,
    scratch: Vec<u8>,
    mismatches: u64,
}

/// The part of an output log that a replay produces again.
#[derive(Debug)]
struct StoredResults {
    reader: Reader,
    /// Records of the current batch; the first is at `position`.
    records: VecDeque<Vec<u8>>,
    position: u64,
    /// End of the last hole that was met.
    lost_until: u64,
    /// First record that the log still has. Those before were freed by age or size; a replay from a savepoint may produce
    /// them again.
    kept_from: u64,
    end: u64,
}

/// Why there is no stored result to compare with. The text stands in the place of the stored bytes in a log line.
#[derive(Debug, thiserror::Error)]
enum StoredResultError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("nothing")]
    Missing,
    #[error("nothing before position {next}")]
    Skipped { next: u64 },
}

impl StoredResults {
    /// Whether the log still has the record at `position`.
    fn is_kept(&self, position: u64) -> bool {
        position >= self.kept_from
    }

    /// The stored record at `position`, or `None` where it is lost in a hole. Positions must grow.
    ///
    /// # Errors
    /// The log cannot be read, or has no record there.
    fn take(&mut self, position: u64) -> Result<Option<Vec<u8>>, StoredResultError> {
        while self.records.is_empty() {
            if position < self.lost_until {
                return Ok(None);
            }
            let batch = self.reader.next_batch()?.ok_or(StoredResultError::Missing)?;
            if batch.is_hole() {
                self.lost_until = batch.end().0;
                continue;
            }
            self.position = batch.first().0;
            self.records.extend(batch.records().map(<[u8]>::to_vec));
            let before = position.saturating_sub(self.position).min(self.records.len() as u64);
            self.records.drain(..before as usize);
            self.position += before;
        }
        if self.position != position {
            return Err(StoredResultError::Skipped { next: self.position });
        }
        self.position += 1;
        Ok(self.records.pop_front())
    }
}

impl OutputLog {
    fn new(name: &'static str, log: Log, position: u64, is_same: fn(&[u8], &[u8]) -> bool) -> Self {
        let end = log.readable().0;
        let held = (end > position && !defects::is(Defect::AppendReplayedResults)).then(|| StoredResults {
            reader: log.reader(Lsn(position)),
            records: VecDeque::new(),
            position,
            lost_until: 0,
            kept_from: log.stats().first.0,
            end,
        });
        Self { name, log, is_same, position, held, pending: VecDeque::new(), scratch: Vec::new(), mismatches: 0 }
    }

    /// Takes a result. A result that `follows` another one goes into the same append as the result before it.
    fn take(&mut self, seq: u64, follows: bool, encode: impl FnOnce(&mut Vec<u8>)) {
        assert_eq!(seq, self.position, "the {} log is at {} and the operator at {seq}", self.name, self.position);
        self.position += 1;
        match &mut self.held {
            None => pending_append(&mut self.pending, follows).push_with(encode),
            Some(held) if !held.is_kept(seq) => {}
            Some(held) => {
                self.scratch.clear();
                encode(&mut self.scratch);
                let stored = held.take(seq).transpose();
                // Where the stored result is lost there is nothing to compare with.
                let is_same = |stored: &[u8]| (self.is_same)(stored, &self.scratch);
                if let Some(stored) = stored.filter(|stored| !stored.as_deref().is_ok_and(is_same)) {
                    self.mismatches += 1;
                    if self.mismatches <= MAX_REPORTED {
                        let stored =
                            stored.map_or_else(|error| error.to_string(), |bytes| bytes.escape_ascii().to_string());
                        let computed = self.scratch.escape_ascii();
                        tracing::error!(log = self.name, seq, stored, %computed, "a replayed result differs");
                    }
                }
            }
        }
        if self
            .held
            .as_ref()
            .is_some_and(|held| held.end + u64::from(defects::is(Defect::DropReplayedResults)) <= self.position)
        {
            self.held = None;
        }
    }

    fn appended(&mut self, end: Lsn) {
        self.pending.pop_front();
        let waiting: u64 = self.pending.iter().map(|records| u64::from(records.count())).sum();
        assert_eq!(end.0 + waiting, self.position, "the {} log numbers its records otherwise", self.name);
    }
}

/// The append that the next result goes into.
fn pending_append(pending: &mut VecDeque<Records>, follows: bool) -> &mut Records {
    if pending.back().is_none_or(|records| records.bytes() >= APPEND_BYTES && !follows) {
        pending.push_back(Records::default());
    }
    let last = pending.len() - 1;
    &mut pending[last]
}

/// The windows log and the errors log, as the collector of the operator.
#[derive(Debug)]
pub struct OutputLogs {
    windows: OutputLog,
    errors: OutputLog,
}

impl OutputLogs {
    /// Output logs of an operator whose next results are at these positions. Results that the logs hold from there on are
    /// compared and not written again.
    pub fn new(windows: Log, windows_position: u64, errors: Log, errors_position: u64) -> Self {
        Self {
            windows: OutputLog::new("windows", windows, windows_position, <[u8]>::eq),
            errors: OutputLog::new("errors", errors, errors_position, is_same_error),
        }
    }

    /// Hands collected results to the logs. Returns a log that has no room (the disk is nearly full); its results wait.
    ///
    /// # Errors
    /// A log failed.
    pub fn append(&mut self) -> Result<Option<&Log>, AppendError> {
        for output in [&mut self.windows, &mut self.errors] {
            while let Some(records) = output.pending.front() {
                match output.log.append(records, None) {
                    Ok(end) => output.appended(end),
                    Err(AppendError::Full) => return Ok(Some(&output.log)),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(None)
    }

    /// Whether the logs have taken all collected results.
    pub fn is_empty(&self) -> bool {
        self.windows.pending.is_empty() && self.errors.pending.is_empty()
    }

    /// Position of the windows log behind all collected results.
    pub fn windows_position(&self) -> u64 {
        self.windows.position
    }

    /// Position of the errors log behind all collected results.
    pub fn errors_position(&self) -> u64 {
        self.errors.position
    }

    /// Number of replayed results that differ from the stored ones.
    pub fn mismatches(&self) -> u64 {
        self.windows.mismatches + self.errors.mismatches
    }
}

impl Collector for OutputLogs {
    fn window(&mut self, seq: u64, window: &WindowResult<'_>) {
        self.windows.take(seq, false, |out| window.encode(out));
    }

    fn error(&mut self, seq: u64, entry: &ErrorEntry<'_>) {
        self.errors.take(seq, entry.follows.is_some(), |out| entry.encode(out));
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::core::output::RejectedPart::{Message, Reading};
    use crate::core::reason::Reason;
    use crate::disk::Disk;
    use crate::disk::sim::SimDisk;
    use crate::log::repair::RepairPlan;
    use crate::log::{LogOptions, Retention, SyncPolicy};

    fn open(disk: &SimDisk) -> Log {
        let options = LogOptions {
            name: "windows",
            dir: PathBuf::from("windows"),
            segment_bytes: 1 << 20,
            commit_max_bytes: 1 << 16,
            queue_max_bytes: 1 << 18,
            tail_max_bytes: 0,
            sync: SyncPolicy::EveryCommit,
            min_free_bytes: 0,
            retention: Retention::default(),
            clock_tolerance_ms: 60_000,
        };
        Log::open_inline(Arc::new(disk.clone()), Arc::new(SystemClock), options, Lsn(0), Lsn(0)).unwrap().0
    }

    /// Results 0 to 9 with a hole in the place of 4 and 5.
    fn with_hole() -> Log {
        let disk = SimDisk::new();
        let log = open(&disk);
        for pair in 0..5_u8 {
            let mut records = Records::default();
            records.push(&[2 * pair; 20]);
            records.push(&[2 * pair + 1; 20]);
            log.append_wait(&records).unwrap();
            log.sync().unwrap();
        }
        log.close().unwrap();
        let batch = 48 + 2 * 21;
        disk.flip_bit(Path::new("windows/00000000000000000000.log"), 64 + 2 * batch + 60, 0).unwrap();
        disk.create_dir_all(Path::new("damaged")).unwrap();
        RepairPlan::new(&disk, Path::new("windows"), None)
            .unwrap()
            .apply(&disk, "windows", Path::new("damaged"))
            .unwrap();
        open(&disk)
    }

    fn mismatches(from: u64, wrong: Option<u64>) -> u64 {
        let log = with_hole();
        let mut output = OutputLog::new("windows", log, from, <[u8]>::eq);
        for seq in from..12 {
            let value = if wrong == Some(seq) { 99 } else { seq as u8 };
            output.take(seq, false, |out| out.extend_from_slice(&[value; 20]));
        }
        assert_eq!(
            output.pending.iter().map(|records| u64::from(records.count())).sum::<u64>(),
            2,
            "10 and 11 are new"
        );
        output.mismatches
    }

    #[test]
    fn a_replay_compares_nothing_with_a_hole() {
        for from in 0..10 {
            assert_eq!(mismatches(from, None), 0, "from {from}");
            for wrong in from..10 {
                assert_eq!(mismatches(from, Some(wrong)), u64::from(![4, 5].contains(&wrong)), "{wrong} differs");
            }
        }
    }

    /// An error at journal position 7 with this sentence, as the errors log held it before format 4.
    fn older_error(sentence: &[u8]) -> Vec<u8> {
        let head = [1, 7, 0, 2, Reason::Malformed as u8, sentence.len() as u8];
        [&head, sentence, b"\x00\x00\x01c\x01t\x01p\x01"].concat()
    }

    #[test]
    fn errors_of_an_earlier_version_are_no_mismatches() {
        let log = open(&SimDisk::new());
        let sentences = ["the payload is a number", "an element of the array is null"];
        let mut records = Records::default();
        sentences.iter().for_each(|sentence| records.push(&older_error(sentence.as_bytes())));
        log.append_wait(&records).unwrap();
        log.sync().unwrap();
        let mismatches = |computed: [&str; 2]| {
            let mut output = OutputLog::new("errors", log.clone(), 0, is_same_error);
            for (seq, (message, part)) in (0..).zip(computed.into_iter().zip([Message, Reading])) {
                let stored = older_error(message.as_bytes());
                let entry = ErrorEntry { message: message.into(), part, ..ErrorEntry::decode(&stored).unwrap() };
                output.take(seq, false, |out| entry.encode(out));
            }
            assert!(output.pending.is_empty());
            output.mismatches
        };
        assert_eq!(mismatches(sentences), 0);
        assert_eq!(mismatches(["a better sentence", "another one"]), 0);
    }
}
