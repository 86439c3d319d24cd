//! Cursors on an open log.

use std::io;
use std::sync::Arc;

use super::inspect::newer;
use super::scan::{FaultKind, ScanFault, SegmentScanner};
use super::segment::index_interval_bytes;
use super::shared::LogState;
use super::{Batch, Damage, LogError, Lsn};
use crate::sync::lock;

/// A cursor on a log: follows the tail from memory and falls back to the segment files.
///
/// It reads from the files in large pieces and checks every batch; it holds memory only while it does so.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<LogState>,
    position: Lsn,
    skipped: u64,
    file: Option<SegmentCursor>,
}

/// The segment file that a reader is in.
#[derive(Debug)]
struct SegmentCursor {
    first: Lsn,
    scanner: SegmentScanner,
    /// Offset that was last noted in the segment's index.
    noted: u64,
}

impl Reader {
    pub(super) fn new(shared: Arc<LogState>, from: Lsn) -> Reader {
        Reader { shared, position: from, skipped: 0, file: None }
    }

    /// The next readable batch, or `None` when it has caught up. The first batch may begin before the asked position:
    /// skip records below it. Where retention has freed the position, it goes on with the oldest record kept and
    /// counts what it missed in [`Reader::skipped`].
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

    /// Records that retention freed before this reader came to them.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Moves to another position; `skipped` stays.
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

    /// The open file was read to the end that was known when it was opened: it has grown, or another follows.
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

    /// Opens the segment of the position, or the oldest one if that was freed, at the batch that holds it.
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
                // Freed between the look and the open: then it is no longer in the list, unless it is really gone.
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

    /// Remembers where batches begin, so that later seeks are short. The scanner stands behind `batch`.
    fn note(&self, file: &mut SegmentCursor, batch: &Batch) {
        let offset = file.scanner.offset() - batch.disk_bytes();
        if offset >= file.noted + index_interval_bytes() {
            file.noted = offset;
            lock(&self.shared.segments).note(file.first, batch.first(), offset);
        }
    }

    /// The same for the batch at which the scanner stands.
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
