//! Reads a segment file batch by batch, for recovery, verification and readers.

use std::io;
use std::sync::Arc;

use super::batch::{BatchHeader, FORMAT_VERSION, HEADER_BYTES, HeaderFault, MAGIC};
use super::checksum::crc32c;
use super::records::holds_exactly;
use super::segment::Segment;
use super::{Batch, Lsn};
use crate::defects::{self, Defect};

/// The first read is small, since a seek may need no more; then each is twice the last, up to the largest.
const FIRST_READ_BYTES: usize = 64 * 1024;
const LARGEST_READ_BYTES: usize = 1024 * 1024;

/// Why no batch can be read at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScanFault {
    /// Offset of the batch in its file.
    pub(super) offset: u64,
    /// The record that should begin there.
    pub(super) expected: Lsn,
    /// What is wrong.
    pub(super) what: &'static str,
    pub(super) kind: FaultKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// What an interrupted write can leave.
    Unreadable,
    /// The checksums hold and the content is wrong: no interrupted write leaves that.
    Impossible,
    /// A format version of the future.
    Newer(u16),
}

/// A position in a segment file.
#[derive(Debug)]
pub(super) struct SegmentScanner {
    file: Arc<dyn crate::disk::DiskFile>,
    seed: u32,
    /// Where the next batch begins.
    offset: u64,
    /// The record that begins there.
    expected: Lsn,
    /// Arrival time of the batch before, which none behind it may undercut.
    arrival_ms: Option<i64>,
    /// Bytes of the file that may be read.
    limit: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
    next_read_bytes: usize,
}

impl SegmentScanner {
    /// Begins at `offset`, where the batch with record `expected` begins, and reads no byte at or behind `limit`.
    pub(super) fn new(
        file: Arc<dyn crate::disk::DiskFile>,
        seed: u32,
        (expected, offset): (Lsn, u64),
        arrival_ms: Option<i64>,
        limit: u64,
    ) -> SegmentScanner {
        SegmentScanner {
            file,
            seed,
            offset,
            expected,
            arrival_ms,
            limit,
            buffer: Vec::new(),
            buffer_at: 0,
            next_read_bytes: FIRST_READ_BYTES,
        }
    }

    /// Where the next batch begins in the file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The record that the next batch begins with.
    pub(super) fn expected(&self) -> Lsn {
        self.expected
    }

    /// The file has grown: bytes below `limit` may be read now.
    pub(super) fn extend(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// The header of the next batch; `None` at the limit. Does not move.
    pub(super) fn header(&mut self) -> io::Result<Result<Option<BatchHeader>, ScanFault>> {
        if self.offset >= self.limit {
            return Ok(Ok(None));
        }
        let (seed, offset) = (self.seed, self.offset);
        let Some(bytes) = self.view(offset, HEADER_BYTES)?.first_chunk() else {
            return Ok(Err(self.unreadable("its header is cut short")));
        };
        let header = match BatchHeader::decode(bytes, seed) {
            Ok(header) => header,
            Err(HeaderFault::Magic) => return Ok(Err(self.unreadable("no batch begins there"))),
            Err(HeaderFault::Checksum) => return Ok(Err(self.unreadable("its header fails the checksum"))),
            Err(HeaderFault::Flags) => return Ok(Err(self.fault("its flags are unknown", FaultKind::Impossible))),
            Err(HeaderFault::Version(version)) => {
                let kind = if version > FORMAT_VERSION { FaultKind::Newer(version) } else { FaultKind::Impossible };
                return Ok(Err(self.fault("its format version is unknown", kind)));
            }
        };
        Ok(self.check(&header).map(|()| Some(header)))
    }

    fn check(&self, header: &BatchHeader) -> Result<(), ScanFault> {
        if header.first != self.expected {
            return Err(self.fault("the batch there begins with another record", FaultKind::Impossible));
        }
        if header.count == 0 || header.synced_below > header.first {
            return Err(self.fault("its header contradicts itself", FaultKind::Impossible));
        }
        if self.arrival_ms.is_some_and(|before| header.arrival_ms < before) {
            return Err(self.fault("its arrival time lies before its predecessor's", FaultKind::Impossible));
        }
        if header.batch_bytes() > self.limit - self.offset {
            return Err(self.unreadable("its body is cut short"));
        }
        Ok(())
    }

    /// Moves behind the batch whose header this is.
    pub(super) fn skip(&mut self, header: &BatchHeader) {
        self.offset += header.batch_bytes();
        self.expected = header.end();
        self.arrival_ms = Some(header.arrival_ms);
    }

    /// Checks the batch whose header this is. A hole's padding can be anything.
    pub(super) fn check_body(&mut self, header: &BatchHeader) -> io::Result<Result<(), ScanFault>> {
        if header.is_hole {
            return Ok(Ok(()));
        }
        let offset = self.offset;
        let bytes = self.view(offset, header.batch_bytes() as usize)?;
        let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
        if body.len() != header.body_bytes as usize {
            return Ok(Err(self.unreadable("its body is cut short")));
        }
        if crc32c(body) != header.body_crc && !defects::is(Defect::SkipBodyChecksum) {
            return Ok(Err(self.unreadable("its records fail the checksum")));
        }
        if !holds_exactly(body, header.count) {
            return Ok(Err(self.fault("its records do not fill its body", FaultKind::Impossible)));
        }
        Ok(Ok(()))
    }

    /// Reads the next batch and moves behind it; `None` at the limit.
    pub(super) fn batch(&mut self) -> io::Result<Result<Option<Batch>, ScanFault>> {
        let header = match self.header()? {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(Ok(None)),
            Err(fault) => return Ok(Err(fault)),
        };
        if let Err(fault) = self.check_body(&header)? {
            return Ok(Err(fault));
        }
        let offset = self.offset;
        let bytes = self.view(offset, header.readable_bytes() as usize)?.to_vec();
        self.skip(&header);
        Ok(Ok(Some(Batch::new(header, bytes))))
    }

    /// Looks behind the next batch for a header that says that records at or behind `expected` were synced: proof
    /// that what cannot be read here was once whole. Returns the first such header.
    pub(super) fn find_proof(&mut self) -> io::Result<Option<BatchHeader>> {
        let expected = self.expected;
        let found = self.find(self.offset + 1, |_, header| header.synced_below > expected)?;
        Ok(found.map(|(_, header)| header))
    }

    /// The first header at or behind `from` that has a valid checksum and that `is_wanted` takes, with its offset. What
    /// is searched need not be batches.
    pub(super) fn find(
        &mut self,
        mut from: u64,
        mut is_wanted: impl FnMut(u64, &BatchHeader) -> bool,
    ) -> io::Result<Option<(u64, BatchHeader)>> {
        let seed = self.seed;
        while from < self.limit {
            let bytes = self.view(from, LARGEST_READ_BYTES)?;
            let searched = bytes.len();
            for (at, window) in bytes.windows(HEADER_BYTES).enumerate() {
                if window[..MAGIC.len()] != MAGIC {
                    continue;
                }
                let header = window.first_chunk().and_then(|bytes| BatchHeader::decode(bytes, seed).ok());
                let offset = from + at as u64;
                if let Some(header) = header.filter(|header| is_wanted(offset, header)) {
                    return Ok(Some((offset, header)));
                }
            }
            if searched < HEADER_BYTES {
                break;
            }
            from += (searched - HEADER_BYTES + 1) as u64;
        }
        Ok(None)
    }

    /// Goes to another batch: `expected` begins at `offset`.
    pub(super) fn jump(&mut self, (expected, offset): (Lsn, u64), arrival_ms: Option<i64>) {
        (self.expected, self.offset, self.arrival_ms) = (expected, offset, arrival_ms);
    }

    /// Arrival time of the batch before the next one.
    pub(super) fn arrival_ms(&self) -> Option<i64> {
        self.arrival_ms
    }

    fn unreadable(&self, what: &'static str) -> ScanFault {
        self.fault(what, FaultKind::Unreadable)
    }

    /// A fault at the next batch.
    pub(super) fn fault(&self, what: &'static str, kind: FaultKind) -> ScanFault {
        ScanFault { offset: self.offset, expected: self.expected, what, kind }
    }

    /// The `len` bytes at `offset`, or what is there of them before the limit and the end of the file.
    fn view(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let available = usize::try_from(self.limit.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(available);
        let buffered = self.buffer_at + self.buffer.len() as u64;
        if offset < self.buffer_at || offset + len as u64 > buffered {
            self.read(offset, len.max(self.next_read_bytes).min(available))?;
        }
        let start = (offset - self.buffer_at) as usize;
        let end = (start + len).min(self.buffer.len());
        Ok(self.buffer.get(start..end).unwrap_or_default())
    }

    /// Fills the buffer with `len` bytes from `offset`, reusing what it holds of them.
    fn read(&mut self, offset: u64, len: usize) -> io::Result<()> {
        let held = offset
            .checked_sub(self.buffer_at)
            .and_then(|skip| usize::try_from(skip).ok())
            .filter(|skip| *skip < self.buffer.len());
        let kept = match held {
            Some(skip) => {
                self.buffer.copy_within(skip.., 0);
                self.buffer.len() - skip
            }
            None => 0,
        };
        let kept = kept.min(len);
        self.buffer.resize(len, 0);
        self.buffer_at = offset;
        let read = match self.buffer.get_mut(kept..) {
            Some(rest) => self.file.read_at(rest, offset + kept as u64),
            None => Ok(0),
        };
        match read {
            Ok(read) => self.buffer.truncate(kept + read),
            Err(error) => {
                self.buffer.clear();
                return Err(error);
            }
        }
        self.next_read_bytes = (self.next_read_bytes * 2).min(LARGEST_READ_BYTES);
        Ok(())
    }
}

/// What a scan of a whole segment found, besides what it added to the [`Segment`].
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) batches: u64,
    /// Records that holes stand for, and one past the last of them.
    pub(super) lost: u64,
    pub(super) lost_until: Option<Lsn>,
    /// The log was synced below this position when the last batch was written.
    pub(super) synced_below: Option<Lsn>,
    /// What ended the scan before the end of the file.
    pub(super) fault: Option<ScanFault>,
    /// Proof behind the fault that what is unreadable was synced.
    pub(super) proof: Option<BatchHeader>,
}

/// Checks every batch from the scanner's position to the end and adds them to `segment`.
pub(super) fn survey(scanner: &mut SegmentScanner, segment: &mut Segment) -> io::Result<Survey> {
    let (mut batches, mut lost, mut lost_until, mut synced_below) = (0, 0, None, None);
    let fault = loop {
        let header = match scanner.header()? {
            Ok(Some(header)) => header,
            Ok(None) => break None,
            Err(fault) => break Some(fault),
        };
        if let Err(fault) = scanner.check_body(&header)? {
            break Some(fault);
        }
        scanner.skip(&header);
        segment.grow(header.first, header.end(), header.arrival_ms, header.batch_bytes());
        batches += 1;
        if header.is_hole {
            lost += u64::from(header.count);
            lost_until = Some(header.end());
        }
        synced_below = Some(header.synced_below);
    };
    let proof = if fault.is_some() { scanner.find_proof()? } else { None };
    Ok(Survey { batches, lost, lost_until, synced_below, fault, proof })
}
