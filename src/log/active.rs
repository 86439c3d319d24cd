//! The active segment: the one file of a log that is written, and how it is created.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Lsn;
use super::segment::{self, HEADER_BYTES, SegmentHeader};
use crate::defects::{self, Defect};
use crate::disk::{Disk, DiskFile};

/// The segment that batches are written to.
#[derive(Debug)]
pub(super) struct ActiveSegment {
    pub(super) file: Arc<dyn DiskFile>,
    /// First record of the segment.
    pub(super) first: Lsn,
    /// Checksum seed of the segment's batch headers.
    pub(super) seed: u32,
    /// Byte offset at which the next batch is written.
    pub(super) offset: u64,
}

/// Creates a segment. File, header and name are synced before this returns, so a batch in it counts as durable once the
/// file is synced again. A file of this name that an interrupted attempt left is overwritten.
pub(super) fn create(disk: &dyn Disk, dir: &Path, header: &SegmentHeader) -> io::Result<ActiveSegment> {
    let path = segment::path(dir, header.first);
    let file = match disk.create(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let file = disk.open(&path)?;
            file.set_len(0)?;
            file
        }
        other => other?,
    };
    file.write_all_at(&header.encode(), 0)?;
    // A failed sync is final, also where it failed for lack of space. The kind of the error is dropped, so that the writer
    // does not take it for a full disk and try again.
    file.sync()
        .and_then(|()| if defects::is(Defect::ForgetDirectorySync) { Ok(()) } else { disk.sync_dir(dir) })
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(ActiveSegment { file, first: header.first, seed: header.seed(), offset: HEADER_BYTES as u64 })
}

/// A number that nobody outside this process can guess: the standard library seeds its hash maps from the operating
/// system's randomness. It seeds the checksums of the segment's batch headers. A client therefore cannot put bytes into a
/// payload that pass for a batch, and blocks of an older segment that the file system left in the file do not either.
pub(super) fn new_salt() -> u64 {
    RandomState::new().build_hasher().finish()
}
