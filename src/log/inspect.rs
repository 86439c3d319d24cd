//! Lists and judges the segment files of a log: for recovery, verification and repair.
//!
//! The central question is whether bytes that cannot be read are a torn tail or damage. A torn tail is what an interrupted
//! write leaves at the end of the log; it was never acknowledged, and recovery cuts it. Damage is the loss of records that
//! were synced; weir refuses to start. "A later good record exists" does not tell the two apart, since the pages of one
//! unsynced write may reach the disk in any order. What tells them apart is proof that the bytes were once synced:
//!
//! - a later segment, since a segment is synced before the next one is created;
//! - a later batch whose header says that the log was synced behind this place when the header was made;
//! - a checkpoint that says so;
//! - a header whose checksum holds and whose content is impossible: no interrupted write leaves that.
//!
//! This module changes no file.

use std::io;
use std::path::{Path, PathBuf};

use super::Lsn;
use super::batch::{BatchHeader, FORMAT_VERSION};
use super::error::{Damage, LogError};
use super::scan::{FaultKind, ScanFault};
use super::segment::{self, HEADER_BYTES, Segment, SegmentFault, SegmentHeader};
use crate::defects::{self, Defect};
use crate::disk::{Disk, DiskFile};

/// One segment file of a directory.
#[derive(Debug, Clone)]
pub(super) struct SegmentFile {
    /// First record, from the file's name.
    pub(super) first: Lsn,
    pub(super) path: PathBuf,
    /// Length of the file.
    pub(super) bytes: u64,
}

/// The segment files of a directory, oldest first. Files with other names do not belong to the log and are left alone.
pub(super) fn list_segments(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<SegmentFile>> {
    let entries = disk.list(dir)?;
    let files = entries.into_iter().filter(|entry| !entry.is_dir).filter_map(|entry| {
        let first = segment::parse_name(&entry.name)?;
        Some(SegmentFile { first, path: dir.join(&entry.name), bytes: entry.len })
    });
    Ok(files.collect())
}

/// Reads the header of a segment file. The outer error is the file system's.
pub(super) fn read_header(file: &dyn DiskFile) -> io::Result<Result<SegmentHeader, SegmentFault>> {
    let mut bytes = [0; HEADER_BYTES];
    if file.read_at(&mut bytes, 0)? < HEADER_BYTES {
        return Ok(Err(SegmentFault::Unreadable));
    }
    Ok(SegmentHeader::decode(&bytes))
}

/// Whether a file is a segment whose creation was interrupted, if its header cannot be read: a segment is created with its
/// header alone, so a file that holds no more was never used.
pub(super) fn is_unfinished(file: &SegmentFile) -> bool {
    file.bytes <= HEADER_BYTES as u64
}

pub(super) fn damaged_header(file: &SegmentFile) -> Damage {
    Damage {
        file: file.path.clone(),
        offset: 0,
        expected: file.first,
        what: "the segment's header cannot be read".to_owned(),
        proof: "a segment's header is synced before anything else in it is written".to_owned(),
        lost_until: None,
    }
}

pub(super) fn newer(file: &Path, version: u16) -> LogError {
    LogError::NewerFormat { file: file.to_path_buf(), version, supported: FORMAT_VERSION }
}

/// Compares a segment's header with its file name and with the file before it; `None` where they agree.
pub(super) fn check_link(file: &SegmentFile, header: &SegmentHeader, before: Option<&SegmentFile>) -> Option<Damage> {
    let damage = |what: String, expected| Damage {
        file: file.path.clone(),
        offset: 0,
        expected,
        what,
        proof: "a segment is synced before its successor is created".to_owned(),
        lost_until: Some(file.first),
    };
    if header.first != file.first {
        return Some(damage(format!("its header says that it begins with record {}", header.first), file.first));
    }
    let before = before?;
    match header.predecessor {
        Some(predecessor) if predecessor.first != before.first => Some(damage(
            format!("the segment before it, {}, is missing", segment::file_name(predecessor.first)),
            predecessor.first,
        )),
        Some(predecessor) if predecessor.bytes != before.bytes => Some(Damage {
            file: before.path.clone(),
            offset: before.bytes.min(predecessor.bytes),
            expected: before.first,
            what: format!("the file has {} bytes and had {} when it was closed", before.bytes, predecessor.bytes),
            proof: "a segment is synced before its successor is created".to_owned(),
            lost_until: None,
        }),
        Some(_) => None,
        None => Some(damage("its header says that nothing was before it".to_owned(), before.first)),
    }
}

/// What a fault that ended a scan means.
pub(super) enum FaultClass {
    /// An interrupted write that was never synced: a torn tail.
    Torn,
    /// Synced records are lost.
    Damage(Damage),
    /// A batch of this format version, which this program does not know.
    Newer(u16),
}

/// Tells a torn tail from damage. `proof` is a later batch whose header proves that this place was synced, `successor` the
/// first record of the next segment, `known_synced` a position that a checkpoint says was synced.
pub(super) fn classify(
    path: &Path,
    fault: &ScanFault,
    proof: Option<&BatchHeader>,
    successor: Option<Lsn>,
    known_synced: Lsn,
) -> FaultClass {
    let (proof, lost_until) = match (fault.kind, successor, proof) {
        _ if successor.is_none() && defects::is(Defect::CutDamage) => return FaultClass::Torn,
        (FaultKind::Newer(version), ..) => return FaultClass::Newer(version),
        (_, Some(next), _) => {
            (format!("the next segment, which begins with record {next}, proves that it was synced"), {
                Some(proof.map_or(next, |later| later.first))
            })
        }
        (_, None, Some(later)) => {
            (format!("the batch of record {} proves that it was synced", later.first), Some(later.first))
        }
        (_, None, None) if known_synced > fault.expected => {
            (format!("a checkpoint proves that everything below record {known_synced} was synced"), Some(known_synced))
        }
        (FaultKind::Impossible, ..) => ("its checksum holds, so it was not an interrupted write".to_owned(), None),
        (FaultKind::Unreadable, None, None) => return FaultClass::Torn,
    };
    let ScanFault { offset, expected, what, .. } = *fault;
    FaultClass::Damage(Damage { file: path.to_path_buf(), offset, expected, what: what.to_owned(), proof, lost_until })
}

/// The fault of a segment that does not end where its successor begins, although every batch in it is whole.
pub(super) fn short_of(segment: &Segment, successor: Option<Lsn>) -> Option<ScanFault> {
    let successor = successor.filter(|next| *next != segment.end)?;
    let what = if successor > segment.end { "the segment ends" } else { "the segment holds records of the next" };
    Some(ScanFault { offset: segment.bytes, expected: segment.end, what, kind: FaultKind::Impossible })
}
