//! Output logs as the operator's collector.

use std::collections::VecDeque;

use crate::core::output::{Collector, ErrorEntry, WindowResult};
use crate::log::{AppendError, Log, LogError, Lsn, Reader, Records};

/// Differences that are logged in full; more are only counted.
const MAX_REPORTED: u64 = 10;

/// One append to an output log is closed at this size. A journal batch can have effects larger than a batch of an
/// output log may be; with the largest record added this stays below it.
const APPEND_BYTES: usize = 512 * 1024;

/// One output log: appends what is new, compares what a replay produces again.
#[derive(Debug)]
struct OutputLog {
    name: &'static str,
    log: Log,
    position: u64,
    /// What the log held at start from `position` on; gone once the replay has passed it.
    held: Option<Held>,
    pending: VecDeque<Records>,
    scratch: Vec<u8>,
    mismatches: u64,
}

#[derive(Debug)]
struct Held {
    reader: Reader,
    batch: Option<(std::sync::Arc<crate::log::Batch>, usize)>,
    end: u64,
}

impl Held {
    /// The stored record at `position`, if the log still has it. Positions must not go back.
    fn record(&mut self, position: u64) -> Result<Option<&[u8]>, LogError> {
        loop {
            let passed = self.batch.as_ref().is_none_or(|(batch, _)| batch.end().0 <= position);
            if !passed {
                break;
            }
            match self.reader.next_batch()? {
                Some(batch) => self.batch = Some((batch, 0)),
                None => return Ok(None),
            }
        }
        let Some((batch, _)) = &self.batch else { return Ok(None) };
        let Some(index) = position.checked_sub(batch.first().0) else { return Ok(None) };
        Ok(batch.records().nth(index as usize))
    }
}

impl OutputLog {
    fn new(name: &'static str, log: Log, position: u64) -> Self {
        let end = log.readable().0;
        let held = (end > position).then(|| Held { reader: log.reader(Lsn(position)), batch: None, end });
        Self { name, log, position, held, pending: VecDeque::new(), scratch: Vec::new(), mismatches: 0 }
    }

    fn take(&mut self, seq: u64, encode: impl FnOnce(&mut Vec<u8>)) {
        assert_eq!(seq, self.position, "the {} log is at {} and the operator at {seq}", self.name, self.position);
        self.position += 1;
        match &mut self.held {
            None => pending_append(&mut self.pending).push_with(encode),
            Some(held) => {
                self.scratch.clear();
                encode(&mut self.scratch);
                let same = held.record(seq).map(|stored| stored.is_some_and(|stored| stored == self.scratch));
                if !matches!(same, Ok(true)) {
                    self.mismatches += 1;
                    if self.mismatches <= MAX_REPORTED {
                        self.report(seq);
                    }
                }
                if self.held.as_ref().is_some_and(|held| held.end <= self.position) {
                    self.held = None;
                }
            }
        }
    }

    fn appended(&mut self, end: Lsn) {
        self.pending.pop_front();
        let waiting: u64 = self.pending.iter().map(|records| u64::from(records.count())).sum();
        assert_eq!(end.0 + waiting, self.position, "the {} log numbers its records otherwise", self.name);
    }

    fn report(&mut self, seq: u64) {
        let stored = match self.held.as_mut().map(|held| held.record(seq)) {
            Some(Ok(Some(stored))) => String::from_utf8_lossy(stored).into_owned(),
            Some(Err(error)) => error.to_string(),
            _ => "nothing".into(),
        };
        let computed = String::from_utf8_lossy(&self.scratch);
        tracing::error!(log = self.name, seq, stored, %computed, "a replayed result differs from the stored one");
    }
}

/// The append that the next record goes into.
fn pending_append(pending: &mut VecDeque<Records>) -> &mut Records {
    if pending.back().is_none_or(|records| records.bytes() >= APPEND_BYTES) {
        pending.push_back(Records::default());
    }
    let last = pending.len() - 1;
    &mut pending[last]
}

/// Both output logs.
#[derive(Debug)]
pub struct Outputs {
    windows: OutputLog,
    errors: OutputLog,
}

impl Outputs {
    /// Outputs of an operator that stands at these positions. What the logs hold beyond them is compared, not written
    /// again.
    pub fn new(windows: Log, windows_position: u64, errors: Log, errors_position: u64) -> Self {
        Self {
            windows: OutputLog::new("windows", windows, windows_position),
            errors: OutputLog::new("errors", errors, errors_position),
        }
    }

    /// Hands what was collected to the logs. Where one has no room (the disk is nearly full), `wait` is called and
    /// the append tried again.
    pub fn append(&mut self, mut wait: impl FnMut(&Log)) -> Result<(), AppendError> {
        for output in [&mut self.windows, &mut self.errors] {
            while let Some(records) = output.pending.front() {
                match output.log.append(records, None) {
                    Ok(end) => output.appended(end),
                    Err(AppendError::Full) => wait(&output.log),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Position of the windows log after everything collected.
    pub fn windows_position(&self) -> u64 {
        self.windows.position
    }

    /// Position of the errors log after everything collected.
    pub fn errors_position(&self) -> u64 {
        self.errors.position
    }

    /// Replayed results that differed from the stored ones.
    pub fn mismatches(&self) -> u64 {
        self.windows.mismatches + self.errors.mismatches
    }
}

impl Collector for Outputs {
    fn window(&mut self, seq: u64, window: &WindowResult<'_>) {
        self.windows.take(seq, |out| window.encode(out));
    }

    fn error(&mut self, seq: u64, entry: &ErrorEntry<'_>) {
        self.errors.take(seq, |out| entry.encode(out));
    }
}
