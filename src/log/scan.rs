//! Reads a segment file batch by batch and says what is wrong with the first batch that cannot be read. For recovery,
//! verification, repair and readers.
//!
//! A scan says what it found, not what that means: `inspect` tells a torn tail from damage. Errors of the file system are
//! the outer result, faults of the content the inner one.

use std::io;
use std::sync::Arc;

use super::batch::{BatchHeader, HEADER_BYTES, HeaderFault, MAGIC, NEWEST_BATCH_VERSION};
use super::checksum::crc32c;
use super::records::holds_exactly;
use super::segment::Segment;
use super::{Batch, Lsn};
use crate::defects::{self, Defect};

/// Bytes of the first read. It is small, since a seek may need no more; each further read is twice as large, up to
/// [`LARGEST_READ_BYTES`].
const FIRST_READ_BYTES: usize = 64 * 1024;
const LARGEST_READ_BYTES: usize = 1024 * 1024;

/// Why no batch can be read at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScanFault {
    /// Byte offset of the batch in its file.
    pub(super) offset: u64,
    /// The record that should begin there.
    pub(super) expected: Lsn,
    /// What is wrong, for a message.
    pub(super) what: &'static str,
    pub(super) kind: FaultKind,
}

/// The kinds of faults, by what can cause them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// Bytes that an interrupted write can leave.
    Unreadable,
    /// The checksums hold and the content is wrong. No interrupted write leaves that.
    Impossible,
    /// A later format version.
    Newer(u16),
}

/// A place in a segment file, moving batch by batch to the end.
#[derive(Debug)]
pub(super) struct SegmentScanner {
    file: Arc<dyn crate::disk::DiskFile>,
    /// Checksum seed of the segment's batch headers.
    seed: u32,
    /// Byte offset of the next batch.
    offset: u64,
    /// First record of the next batch.
    expected: Lsn,
    /// Arrival time of the batch before. Only a batch that sets the clock back may have an earlier one.
    arrival_ms: Option<i64>,
    /// End of the bytes of the file that may be read.
    limit: u64,
    buffer: Vec<u8>,
    /// Byte offset in the file at which the buffer begins.
    buffer_at: u64,
    next_read_bytes: usize,
}

impl SegmentScanner {
    /// A scanner at `offset`, where the batch with first record `expected` begins. It reads no byte at or behind `limit`.
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

    /// Byte offset of the next batch in the file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// First record of the next batch.
    pub(super) fn expected(&self) -> Lsn {
        self.expected
    }

    /// Allows reading up to `limit`: the file has grown.
    pub(super) fn extend(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// The header of the next batch; `None` at the limit. The scanner does not move.
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
                let kind =
                    if version > NEWEST_BATCH_VERSION { FaultKind::Newer(version) } else { FaultKind::Impossible };
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
        if !header.sets_clock_back && self.arrival_ms.is_some_and(|before| header.arrival_ms < before) {
            return Err(self.fault("its arrival time lies before its predecessor's", FaultKind::Impossible));
        }
        if header.batch_bytes() > self.limit - self.offset {
            return Err(self.unreadable("its body is cut short"));
        }
        Ok(())
    }

    /// Moves behind the next batch, whose header this is.
    pub(super) fn skip(&mut self, header: &BatchHeader) {
        self.offset += header.batch_bytes();
        self.expected = header.end();
        self.arrival_ms = Some(header.arrival_ms);
    }

    /// Checks the body of the next batch, whose header this is. The padding of a hole is not checked: nobody reads it.
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

    /// Reads and checks the next batch and moves behind it; `None` at the limit.
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

    /// Searches behind the next batch for a header that says that records at or behind `expected` were synced. It proves
    /// that the batch that cannot be read here was once whole. Returns the first such header.
    pub(super) fn find_proof(&mut self) -> io::Result<Option<BatchHeader>> {
        let expected = self.expected;
        let found = self.find(self.offset + 1, |_, header| header.synced_below > expected)?;
        Ok(found.map(|(_, header)| header))
    }

    /// The first header at or behind `from` that has a valid checksum and that `is_wanted` accepts, with its byte offset.
    /// The bytes that are searched need not be batches.
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

    /// Moves to another batch, whose first record is `expected` and which begins at `offset`.
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

    /// The `len` bytes at `offset`; fewer where the limit or the end of the file comes first.
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

    /// Fills the buffer with `len` bytes from `offset`; the bytes of them that it already holds are kept.
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

/// What a scan of a whole segment found, apart from what it added to the [`Segment`].
#[derive(Debug)]
pub(super) struct Survey {
    /// Number of batches that can be read.
    pub(super) batches: u64,
    /// Number of records that holes stand for.
    pub(super) lost: u64,
    /// One past the last record that a hole stands for.
    pub(super) lost_until: Option<Lsn>,
    /// The log was synced below this position when the last batch was written.
    pub(super) synced_below: Option<Lsn>,
    /// The fault that ended the scan before the end of the file.
    pub(super) fault: Option<ScanFault>,
    /// A later header that proves that the unreadable bytes were synced.
    pub(super) proof: Option<BatchHeader>,
}

/// Checks every batch from the scanner's place to the end and adds the sound ones to `segment`.
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
