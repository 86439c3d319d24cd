//! What the files of a log say: for recovery, and for reading without opening.

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
    pub(super) first: Lsn,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// The segment files of a directory, oldest first. Other files are not the log's and are left alone.
pub(super) fn list_segments(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<SegmentFile>> {
    let entries = disk.list(dir)?;
    let files = entries.into_iter().filter(|entry| !entry.is_dir).filter_map(|entry| {
        let first = segment::parse_name(&entry.name)?;
        Some(SegmentFile { first, path: dir.join(&entry.name), bytes: entry.len })
    });
    Ok(files.collect())
}

/// Reads the header of a segment file.
pub(super) fn read_header(file: &dyn DiskFile) -> io::Result<Result<SegmentHeader, SegmentFault>> {
    let mut bytes = [0; HEADER_BYTES];
    if file.read_at(&mut bytes, 0)? < HEADER_BYTES {
        return Ok(Err(SegmentFault::Unreadable));
    }
    Ok(SegmentHeader::decode(&bytes))
}

/// A segment is created with its header alone, so a file that holds no more was never used.
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

/// Compares a segment with the file before it. `None`: they fit.
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

/// What a fault at the end of a scan means.
pub(super) enum FaultClass {
    /// An interrupted write of something that was never synced.
    Torn,
    Damage(Damage),
    Newer(u16),
}

/// Tells a torn tail from damage. `successor`: the next segment begins there; `known_synced`: a checkpoint's position.
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

/// A segment that ends before its successor begins, although every batch in it is whole.
pub(super) fn short_of(segment: &Segment, successor: Option<Lsn>) -> Option<ScanFault> {
    let successor = successor.filter(|next| *next != segment.end)?;
    let what = if successor > segment.end { "the segment ends" } else { "the segment holds records of the next" };
    Some(ScanFault { offset: segment.bytes, expected: segment.end, what, kind: FaultKind::Impossible })
}
