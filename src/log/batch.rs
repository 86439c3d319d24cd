//! A batch: the unit of group commit and of framing.
//!
//! The header carries a checksum of its own, seeded with the segment's salt, and the checksum of the body. So the chain of
//! headers can be followed without reading bodies, and neither bytes that a client put into a payload nor blocks of an
//! older file can pass for a header. This module knows the bytes of one batch; where a batch may stand, and what a bad one
//! means, is decided in `scan` and `inspect`.

use std::fmt;

use super::checksum::{crc32c, crc32c_append};
use super::{Lsn, RecordIter, Records};
use crate::defects::{self, Defect};

/// Format version of segments, and of batches that do not set the clock back.
pub(super) const FORMAT_VERSION: u16 = 1;
/// Newest format version of batches. Batches that set the clock back have it, so that a version that does not know them says
/// that they are of a newer one.
pub(super) const NEWEST_BATCH_VERSION: u16 = 2;
/// Bytes of a batch's header.
pub(super) const HEADER_BYTES: usize = 48;
/// First bytes of every batch.
pub(super) const MAGIC: [u8; 4] = *b"WBAT";

const CHECKED_BYTES: usize = HEADER_BYTES - 4;
/// Flag of a hole: the records are lost, and the body is padding.
const FLAG_HOLE: u16 = 1;
/// Flag of a batch whose arrival time may lie before that of the batch before it.
const FLAG_SETS_CLOCK_BACK: u16 = 2;

/// The header of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchHeader {
    /// Position of the first record.
    pub(super) first: Lsn,
    /// Number of records.
    pub(super) count: u32,
    pub(super) body_bytes: u32,
    /// Time given to the batch when it was written, Unix milliseconds.
    pub(super) arrival_ms: i64,
    /// The log was synced below this position when the batch was written.
    pub(super) synced_below: Lsn,
    pub(super) body_crc: u32,
    /// Whether the records are lost: `weir journal repair` put a hole in their place. The body is padding that nobody
    /// reads.
    pub(super) is_hole: bool,
    /// Whether the clock had been set back when the batch was written. Only such a batch may have an arrival time before
    /// that of the batch before it.
    pub(super) sets_clock_back: bool,
}

/// Why bytes are not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Magic,
    Checksum,
    Version(u16),
    Flags,
}

impl BatchHeader {
    /// One past the last record.
    pub(super) fn end(&self) -> Lsn {
        self.first.plus(self.count)
    }

    /// Bytes of header and body.
    pub(super) fn batch_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.body_bytes)
    }

    /// Bytes of the batch that are read: of a hole the header alone.
    pub(super) fn readable_bytes(&self) -> u64 {
        if self.is_hole { HEADER_BYTES as u64 } else { self.batch_bytes() }
    }

    pub(super) fn encode(&self, seed: u32) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        let (version, set_back) = match self.sets_clock_back {
            true => (NEWEST_BATCH_VERSION, FLAG_SETS_CLOCK_BACK),
            false => (FORMAT_VERSION, 0),
        };
        let hole = if self.is_hole { FLAG_HOLE } else { 0 };
        bytes[4..6].copy_from_slice(&version.to_le_bytes());
        bytes[6..8].copy_from_slice(&(hole | set_back).to_le_bytes());
        bytes[8..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.arrival_ms.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.synced_below.0.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32c_append(seed, &bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES], seed: u32) -> Result<BatchHeader, HeaderFault> {
        if bytes[0..4] != MAGIC {
            return Err(HeaderFault::Magic);
        }
        let checks = u32_at(bytes, CHECKED_BYTES) == crc32c_append(seed, &bytes[..CHECKED_BYTES]);
        if !checks && !defects::is(Defect::SkipHeaderChecksum) {
            return Err(HeaderFault::Checksum);
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        let known_flags = match version {
            FORMAT_VERSION => FLAG_HOLE,
            NEWEST_BATCH_VERSION => FLAG_HOLE | FLAG_SETS_CLOCK_BACK,
            _ => return Err(HeaderFault::Version(version)),
        };
        let flags = u16::from_le_bytes([bytes[6], bytes[7]]);
        if flags & !known_flags != 0 {
            return Err(HeaderFault::Flags);
        }
        Ok(BatchHeader {
            is_hole: flags & FLAG_HOLE != 0,
            sets_clock_back: flags & FLAG_SETS_CLOCK_BACK != 0,
            first: Lsn(u64_at(bytes, 16)),
            count: u32_at(bytes, 8),
            body_bytes: u32_at(bytes, 12),
            arrival_ms: u64_at(bytes, 24).cast_signed(),
            synced_below: Lsn(u64_at(bytes, 32)),
            body_crc: u32_at(bytes, 40),
        })
    }
}

/// Little-endian integer at a fixed place of a header; the callers' offsets lie within.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

/// Little-endian integer at a fixed place of a header; the callers' offsets lie within.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

/// One batch of records with its header.
pub struct Batch {
    header: BatchHeader,
    /// Header and body, as on disk; of a hole the header alone.
    bytes: Vec<u8>,
}

impl Batch {
    /// A batch that is in no log: for replays of recorded data, and tests.
    pub fn from_records(first: Lsn, arrival_ms: i64, records: &Records) -> Batch {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend_from_slice(records.body());
        let header = BatchHeader {
            first,
            count: records.count(),
            body_bytes: records.bytes() as u32,
            arrival_ms,
            synced_below: first,
            body_crc: crc32c(records.body()),
            is_hole: false,
            sets_clock_back: false,
        };
        Batch { header, bytes }
    }

    /// A batch from its header and its bytes: those of header and body, of a hole those of the header alone.
    pub(super) fn new(header: BatchHeader, bytes: Vec<u8>) -> Batch {
        debug_assert_eq!(bytes.len() as u64, header.readable_bytes());
        Batch { header, bytes }
    }

    /// Position of the first record.
    pub fn first(&self) -> Lsn {
        self.header.first
    }

    /// One past the last record.
    pub fn end(&self) -> Lsn {
        self.header.end()
    }

    /// Whether the records are lost: `weir journal repair` puts a hole in the place of records that cannot be read, so
    /// that positions stay as they were.
    pub fn is_hole(&self) -> bool {
        self.header.is_hole
    }

    /// Number of records; in a hole the number of lost records.
    pub fn count(&self) -> u32 {
        self.header.count
    }

    /// Time given to the batch when it was written, Unix milliseconds. It is less than its predecessor's only where the batch
    /// sets the clock back.
    pub fn arrival_ms(&self) -> i64 {
        self.header.arrival_ms
    }

    /// Whether the clock was found to have been set back when the batch was written.
    pub fn sets_clock_back(&self) -> bool {
        self.header.sets_clock_back
    }

    /// The log was synced below this position when the batch was written.
    pub fn synced_below(&self) -> Lsn {
        self.header.synced_below
    }

    /// The records in order; a hole yields none.
    pub fn records(&self) -> RecordIter<'_> {
        RecordIter::new(self.bytes.get(HEADER_BYTES..).unwrap_or_default())
    }

    /// Bytes of the batch on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.header.batch_bytes()
    }

    /// Bytes of memory that the batch holds.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + size_of::<Batch>()
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.header.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: BatchHeader = BatchHeader {
        first: Lsn(0x0102_0304_0506_0708),
        count: 3,
        body_bytes: 0x1000,
        arrival_ms: -2,
        synced_below: Lsn(7),
        body_crc: 0xE306_9283,
        is_hole: false,
        sets_clock_back: false,
    };

    #[test]
    fn a_header_reads_back() {
        let hole = BatchHeader { is_hole: true, ..HEADER };
        let set_back = BatchHeader { sets_clock_back: true, ..HEADER };
        for header in [HEADER, hole, set_back, BatchHeader { is_hole: true, ..set_back }] {
            assert_eq!(BatchHeader::decode(&header.encode(9), 9), Ok(header));
        }
        assert_eq!((HEADER.readable_bytes(), hole.readable_bytes()), (0x1030, 48));
        assert_eq!(HEADER.end(), Lsn(0x0102_0304_0506_070B));
    }

    /// Version 1 as released: a change here is a new version.
    #[test]
    fn the_bytes_of_version_1() {
        let mut expected = Vec::new();
        expected.extend_from_slice(b"WBAT\x01\0\0\0\x03\0\0\0\0\x10\0\0\x08\x07\x06\x05\x04\x03\x02\x01");
        expected.extend_from_slice(b"\xFE\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x07\0\0\0\0\0\0\0\x83\x92\x06\xE3");
        let crc = crc32c_append(9, &expected);
        expected.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(HEADER.encode(9).as_slice(), expected);
    }

    /// A version that knows only version 1 must say that the batch is of a newer one.
    #[test]
    fn a_batch_that_sets_the_clock_back_is_of_version_2() {
        let bytes = BatchHeader { sets_clock_back: true, ..HEADER }.encode(9);
        assert_eq!(bytes[4..8], [2, 0, 2, 0]);
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = HEADER.encode(9);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(BatchHeader::decode(&bytes, 9).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_header_of_another_segment_is_refused() {
        assert_eq!(BatchHeader::decode(&HEADER.encode(9), 8), Err(HeaderFault::Checksum));
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = HEADER.encode(9);
        bytes[4] = 3;
        let crc = crc32c_append(9, &bytes[..CHECKED_BYTES]).to_le_bytes();
        bytes[CHECKED_BYTES..].copy_from_slice(&crc);
        assert_eq!(BatchHeader::decode(&bytes, 9), Err(HeaderFault::Version(3)));
    }

    #[test]
    fn an_unknown_flag_is_refused() {
        let mut bytes = HEADER.encode(9);
        bytes[6] = 2;
        let crc = crc32c_append(9, &bytes[..CHECKED_BYTES]).to_le_bytes();
        bytes[CHECKED_BYTES..].copy_from_slice(&crc);
        assert_eq!(BatchHeader::decode(&bytes, 9), Err(HeaderFault::Flags));
    }

    #[test]
    fn a_batch_made_from_records_gives_them_back() {
        let mut records = Records::default();
        records.push(b"one");
        records.push_with(|out| out.extend_from_slice(b"two"));
        let batch = Batch::from_records(Lsn(5), 77, &records);
        assert_eq!((batch.first(), batch.end(), batch.arrival_ms(), batch.count()), (Lsn(5), Lsn(7), 77, 2));
        assert!(batch.records().eq([b"one", b"two"]));
    }
}
