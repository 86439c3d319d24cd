//! [`Reader`]: a cursor on an open log.
//!
//! Readers are independent of the writer: they wait for nothing and hold nothing up. A reader that falls behind the tail
//! in memory reads the segment files; one that falls behind retention misses records and counts them.

use std::io;
use std::sync::Arc;

use super::inspect::newer;
use super::scan::{FaultKind, ScanFault, SegmentScanner};
use super::segment::index_interval_bytes;
use super::shared::LogState;
use super::{Batch, Damage, LogError, Lsn};
use crate::sync::lock;

/// A cursor on an open log. It follows the newest batches from memory and falls back to the segment files.
///
/// It reads the files in large pieces and checks every batch. It holds memory for that only while it reads files.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<LogState>,
    /// Position of the next record to be read.
    position: Lsn,
    /// Number of records that retention freed before they were read.
    skipped: u64,
    /// The segment file that is being read; `None` while the reader follows the tail in memory.
    file: Option<SegmentCursor>,
}

/// A reader's place in a segment file.
#[derive(Debug)]
struct SegmentCursor {
    first: Lsn,
    scanner: SegmentScanner,
    /// Byte offset that was last noted in the segment's index.
    noted: u64,
}

impl Reader {
    pub(super) fn new(shared: Arc<LogState>, from: Lsn) -> Reader {
        Reader { shared, position: from, skipped: 0, file: None }
    }

    /// The next readable batch; `None` when the reader has caught up. The first batch may begin before the position that
    /// was asked for: the caller skips the records below it. Where retention has freed the position, the reader goes on
    /// with the oldest record kept and counts the records it missed in [`Reader::skipped`].
    ///
    /// # Errors
    /// A segment file cannot be read, or is damaged. A later call tries again.
    pub fn next_batch(&mut self) -> Result<Option<Arc<Batch>>, LogError> {
        if self.position >= self.shared.readable() {
            return Ok(None);
        }
        let in_memory = lock(&self.shared.tail).find(self.position);
        let batch = match in_memory {
            Some(batch) => {
                self.file = None;
                batch
            }
            None => Arc::new(self.read()?),
        };
        self.position = batch.end();
        Ok(Some(batch))
    }

    /// Position of the next record to be read.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// Number of records that retention freed before this reader came to them.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Moves to another position; [`Reader::skipped`] stays.
    pub fn seek(&mut self, position: Lsn) {
        self.position = position;
        self.file = None;
    }

    #[cfg(test)]
    pub(super) fn reads_files(&self) -> bool {
        self.file.is_some()
    }

    /// Reads the batch at the position from its segment file.
    fn read(&mut self) -> Result<Batch, LogError> {
        let mut file = match self.file.take() {
            Some(file) if file.scanner.expected() == self.position => file,
            _ => self.open()?,
        };
        loop {
            match file.scanner.batch().map_err(self.io())? {
                Ok(Some(batch)) if batch.end() > self.position => {
                    self.note(&mut file, &batch);
                    self.file = Some(file);
                    return Ok(batch);
                }
                Ok(Some(_)) => {}
                Ok(None) => file = self.go_on(file)?,
                Err(fault) => return Err(self.damage(file.first, &fault)),
            }
        }
    }

    /// Goes on behind the end that the open file had when it was opened: the file has grown, or another one follows.
    fn go_on(&mut self, mut file: SegmentCursor) -> Result<SegmentCursor, LogError> {
        let (first, expected) = (file.first, file.scanner.expected());
        let grown_to = lock(&self.shared.segments)
            .find(expected)
            .filter(|segment| segment.first == first)
            .map(|segment| segment.bytes);
        match grown_to {
            Some(bytes) if bytes > file.scanner.offset() => {
                file.scanner.extend(bytes);
                Ok(file)
            }
            Some(_) => Err(self.damage(first, &file.scanner.fault("the segment ends", FaultKind::Impossible))),
            None => self.open(),
        }
    }

    /// Opens the segment that holds the position, or the oldest one where that was freed, at the batch that holds it.
    fn open(&mut self) -> Result<SegmentCursor, LogError> {
        let mut missing = None;
        loop {
            let segments = lock(&self.shared.segments);
            let oldest = segments.first();
            if self.position < oldest {
                self.skipped += oldest.0 - self.position.0;
                self.position = oldest;
            }
            let Some(segment) = segments.find(self.position) else {
                return Err(self.no_segment());
            };
            let start = segment.index.seek(self.position, segment.first);
            let found = (segment.first, segment.seed, start, segment.bytes);
            drop(segments);
            match self.open_file(found) {
                Ok(file) => return self.seek_in(file),
                // Retention may have freed the file between the look and the open. Then the second look finds another
                // segment; if it finds the same one, the file is really missing.
                Err(error) if missing == Some(found.0) => return Err(error),
                Err(_) => missing = Some(found.0),
            }
        }
    }

    fn open_file(&self, (first, seed, start, limit): (Lsn, u32, (Lsn, u64), u64)) -> Result<SegmentCursor, LogError> {
        let file = self.shared.disk.open_read(&self.shared.segment_path(first)).map_err(self.io())?;
        let scanner = SegmentScanner::new(file, seed, start, None, limit);
        Ok(SegmentCursor { first, scanner, noted: start.1 })
    }

    /// Follows the headers to the batch that holds the position.
    fn seek_in(&self, mut file: SegmentCursor) -> Result<SegmentCursor, LogError> {
        loop {
            match file.scanner.header().map_err(self.io())? {
                Ok(Some(header)) if header.end() <= self.position => {
                    self.note_offset(&mut file, header.first);
                    file.scanner.skip(&header);
                }
                Ok(_) => return Ok(file),
                Err(fault) => return Err(self.damage(file.first, &fault)),
            }
        }
    }

    /// Notes in the segment's index where `batch` begins, so that later seeks are short. The scanner stands behind it.
    fn note(&self, file: &mut SegmentCursor, batch: &Batch) {
        let offset = file.scanner.offset() - batch.disk_bytes();
        if offset >= file.noted + index_interval_bytes() {
            file.noted = offset;
            lock(&self.shared.segments).note(file.first, batch.first(), offset);
        }
    }

    /// Notes in the segment's index where the batch begins at which the scanner stands.
    fn note_offset(&self, file: &mut SegmentCursor, batch_first: Lsn) {
        let offset = file.scanner.offset();
        if offset >= file.noted + index_interval_bytes() {
            file.noted = offset;
            lock(&self.shared.segments).note(file.first, batch_first, offset);
        }
    }

    fn io(&self) -> impl Fn(io::Error) -> LogError + use<> {
        LogError::io(self.shared.options.name, "read a segment")
    }

    fn damage(&self, segment_first: Lsn, fault: &ScanFault) -> LogError {
        let file = self.shared.segment_path(segment_first);
        if let FaultKind::Newer(version) = fault.kind {
            return newer(&file, version);
        }
        Damage {
            file,
            offset: fault.offset,
            expected: fault.expected,
            what: fault.what.to_owned(),
            proof: "it was readable before".to_owned(),
            lost_until: None,
        }
        .into()
    }

    fn no_segment(&self) -> LogError {
        Damage {
            file: self.shared.options.dir.clone(),
            offset: 0,
            expected: self.position,
            what: "no segment holds it".to_owned(),
            proof: "the log says that it can be read".to_owned(),
            lost_until: None,
        }
        .into()
    }
}
