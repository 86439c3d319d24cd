//! Segments: their file names, their headers, and the list of segments of an open log.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::batch::{FORMAT_VERSION, u32_at, u64_at};
use super::checksum::{crc32c, crc32c_append};
use super::{Lsn, SegmentSummary};

/// Bytes of a segment's header.
pub(super) const HEADER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"WEIRSEG\n";
const CHECKED_BYTES: usize = HEADER_BYTES - 4;

/// Least distance between two entries of a segment's index.
const INDEX_INTERVAL_BYTES: u64 = 256 * 1024;

/// What a segment's header says about the segment before it, so that a missing or shortened file is found without reading
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Predecessor {
    /// First record of the segment before.
    pub(super) first: Lsn,
    /// Length of the segment before when it was closed.
    pub(super) bytes: u64,
}

/// The header of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// First record of the segment.
    pub(super) first: Lsn,
    /// Number that no client can know. It seeds the checksums of the segment's batch headers.
    pub(super) salt: u64,
    /// `None` in the log's first segment.
    pub(super) predecessor: Option<Predecessor>,
    /// Arrival time of the newest batch before this segment; `None` where there was none.
    pub(super) arrival_before_ms: Option<i64>,
}

/// Why bytes are not a segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SegmentFault {
    Unreadable,
    Version(u16),
}

impl SegmentHeader {
    /// Checksum seed of the segment's batch headers.
    pub(super) fn seed(&self) -> u32 {
        crc32c(&self.salt.to_le_bytes())
    }

    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let predecessor = self.predecessor.unwrap_or(Predecessor { first: self.first, bytes: 0 });
        let arrival = self.arrival_before_ms.unwrap_or(i64::MIN);
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_le_bytes());
        bytes[32..40].copy_from_slice(&predecessor.first.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&predecessor.bytes.to_le_bytes());
        bytes[48..56].copy_from_slice(&arrival.to_le_bytes());
        let crc = crc32c(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<SegmentHeader, SegmentFault> {
        let crc = crc32c_append(0, &bytes[..CHECKED_BYTES]);
        if bytes[0..8] != MAGIC || u32_at(bytes, CHECKED_BYTES) != crc {
            return Err(SegmentFault::Unreadable);
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != FORMAT_VERSION {
            return Err(SegmentFault::Version(version));
        }
        let predecessor = Predecessor { first: Lsn(u64_at(bytes, 32)), bytes: u64_at(bytes, 40) };
        let arrival = u64_at(bytes, 48).cast_signed();
        Ok(SegmentHeader {
            first: Lsn(u64_at(bytes, 16)),
            salt: u64_at(bytes, 24),
            predecessor: (predecessor.bytes > 0).then_some(predecessor),
            arrival_before_ms: (arrival != i64::MIN).then_some(arrival),
        })
    }
}

/// Name of the segment that begins with `first`.
pub(super) fn file_name(first: Lsn) -> String {
    format!("{:020}.log", first.0)
}

/// Path of the segment that begins with `first`.
pub(super) fn path(dir: &Path, first: Lsn) -> PathBuf {
    dir.join(file_name(first))
}

/// The first record of the segment with this file name; `None` for names that are not a segment's.
pub(super) fn parse_name(name: &str) -> Option<Lsn> {
    let digits = name.strip_suffix(".log")?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Lsn)
}

/// Places where batches begin in a segment: about one entry per [`INDEX_INTERVAL_BYTES`], from the front as far as they are
/// known.
#[derive(Debug, Clone, Default)]
pub(super) struct SparseIndex {
    /// First record and byte offset of batches.
    entries: Vec<(Lsn, u64)>,
}

impl SparseIndex {
    /// Adds a batch that begins at `offset`, unless the index has an entry nearby or behind it.
    pub(super) fn note(&mut self, first: Lsn, offset: u64) {
        let last = self.entries.last().map_or(0, |(_, offset)| *offset);
        if offset >= last + INDEX_INTERVAL_BYTES {
            self.entries.push((first, offset));
        }
    }

    /// The last entry at or before `position`; the segment's first batch where there is none.
    pub(super) fn seek(&self, position: Lsn, segment_first: Lsn) -> (Lsn, u64) {
        let index = self.entries.partition_point(|(first, _)| *first <= position);
        match index.checked_sub(1).and_then(|index| self.entries.get(index)) {
            Some(entry) => *entry,
            None => (segment_first, HEADER_BYTES as u64),
        }
    }
}

/// What an open log knows of one of its segments.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) first: Lsn,
    /// One past the last readable record.
    pub(super) end: Lsn,
    /// Readable bytes of the file.
    pub(super) bytes: u64,
    /// Checksum seed of the segment's batch headers.
    pub(super) seed: u32,
    pub(super) first_arrival_ms: Option<i64>,
    pub(super) last_arrival_ms: Option<i64>,
    pub(super) index: SparseIndex,
}

impl Segment {
    /// A segment that consists of its header.
    pub(super) fn empty(first: Lsn, seed: u32) -> Segment {
        Segment {
            first,
            end: first,
            bytes: HEADER_BYTES as u64,
            seed,
            first_arrival_ms: None,
            last_arrival_ms: None,
            index: SparseIndex::default(),
        }
    }

    /// Adds a batch at the end.
    pub(super) fn grow(&mut self, first: Lsn, end: Lsn, arrival_ms: i64, bytes: u64) {
        self.index.note(first, self.bytes);
        self.end = end;
        self.bytes += bytes;
        self.first_arrival_ms.get_or_insert(arrival_ms);
        self.last_arrival_ms = Some(arrival_ms);
    }

    pub(super) fn summary(&self) -> SegmentSummary {
        SegmentSummary {
            first: self.first,
            end: self.end,
            bytes: self.bytes,
            first_arrival_ms: self.first_arrival_ms,
            last_arrival_ms: self.last_arrival_ms,
        }
    }
}

/// The segments of an open log, oldest first; the last is the active one.
#[derive(Debug, Default)]
pub(super) struct Segments {
    pub(super) list: VecDeque<Segment>,
}

impl Segments {
    pub(super) fn first(&self) -> Lsn {
        self.list.front().map_or(Lsn(0), |segment| segment.first)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.list.iter().map(|segment| segment.bytes).sum()
    }

    /// The segment that holds `position`; `None` where that was freed or is not written yet.
    pub(super) fn find(&self, position: Lsn) -> Option<&Segment> {
        let index = self.list.partition_point(|segment| segment.first <= position).checked_sub(1)?;
        self.list.get(index).filter(|segment| position < segment.end)
    }

    /// Adds a batch that begins at `offset` to the index of its segment.
    pub(super) fn note(&mut self, segment_first: Lsn, batch_first: Lsn, offset: u64) {
        let index = self.list.partition_point(|segment| segment.first < segment_first);
        if let Some(segment) = self.list.get_mut(index).filter(|segment| segment.first == segment_first) {
            segment.index.note(batch_first, offset);
        }
    }
}

/// Bytes after which a reader adds its place to a segment's index.
pub(super) const fn index_interval_bytes() -> u64 {
    INDEX_INTERVAL_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        first: Lsn(1234),
        salt: 0x1122_3344_5566_7788,
        predecessor: Some(Predecessor { first: Lsn(1000), bytes: 4096 }),
        arrival_before_ms: Some(-5),
    };

    #[test]
    fn a_header_reads_back() {
        let first = SegmentHeader { predecessor: None, arrival_before_ms: None, ..HEADER };
        for header in [HEADER, first] {
            assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        }
    }

    /// Version 1 as released: a change here is a new version.
    #[test]
    fn the_bytes_of_version_1() {
        let mut expected = Vec::new();
        expected.extend_from_slice(b"WEIRSEG\n\x01\0\0\0\0\0\0\0\xD2\x04\0\0\0\0\0\0\x88\x77\x66\x55\x44\x33\x22\x11");
        expected.extend_from_slice(b"\xE8\x03\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\xFB\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0\0\0");
        let crc = crc32c(&expected);
        expected.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(HEADER.encode().as_slice(), expected);
    }

    #[test]
    fn damage_and_newer_versions_are_told_apart() {
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = HEADER.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bytes), Err(SegmentFault::Unreadable), "bit {bit}");
        }
        let mut bytes = HEADER.encode();
        bytes[8] = 9;
        let crc = crc32c(&bytes[..CHECKED_BYTES]).to_le_bytes();
        bytes[CHECKED_BYTES..].copy_from_slice(&crc);
        assert_eq!(SegmentHeader::decode(&bytes), Err(SegmentFault::Version(9)));
    }

    #[test]
    fn names_carry_the_first_record_and_sort_by_it() {
        assert_eq!(file_name(Lsn(1234)), "00000000000000001234.log");
        assert_eq!(parse_name(&file_name(Lsn(u64::MAX))), Some(Lsn(u64::MAX)));
        for name in ["1234.log", "00000000000000001234.tmp", "0000000000000000+234.log", "99999999999999999999.log"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }

    #[test]
    fn the_index_finds_the_batch_at_or_before_a_record() {
        let mut index = SparseIndex::default();
        for batch in 0..1000_u64 {
            index.note(Lsn(100 + batch * 10), HEADER_BYTES as u64 + batch * 4096);
        }
        assert_eq!(index.entries.len(), 1000 * 4096 / INDEX_INTERVAL_BYTES as usize);
        assert_eq!(index.seek(Lsn(100), Lsn(100)), (Lsn(100), HEADER_BYTES as u64));
        for position in 100..10_100 {
            let (first, offset) = index.seek(Lsn(position), Lsn(100));
            assert!(first.0 <= position && position - first.0 <= 650);
            assert_eq!(offset, HEADER_BYTES as u64 + (first.0 - 100) / 10 * 4096);
        }
        index.note(Lsn(200), 5000);
        assert_eq!(index.entries.len(), 15, "what lies behind the last entry is known");
    }

    #[test]
    fn a_record_is_found_in_its_segment() {
        let mut segments = Segments::default();
        for first in [10, 20, 30] {
            let mut segment = Segment::empty(Lsn(first), 0);
            segment.grow(Lsn(first), Lsn(first + 10), 5, 100);
            segments.list.push_back(segment);
        }
        let found = |position| segments.find(Lsn(position)).map(|segment| segment.first.0);
        assert_eq!([found(9), found(10), found(29), found(39), found(40)], [None, Some(10), Some(20), Some(30), None]);
        assert_eq!(segments.bytes(), 3 * (HEADER_BYTES as u64 + 100));
    }
}
