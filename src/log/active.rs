//! The segment file that is written.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Lsn;
use super::segment::{self, HEADER_BYTES, SegmentHeader};
use crate::defects::{self, Defect};
use crate::disk::{Disk, DiskFile};

/// The segment that batches are written to, and the end of what is written.
#[derive(Debug)]
pub(super) struct ActiveSegment {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) first: Lsn,
    /// Checksum seed of its batch headers.
    pub(super) seed: u32,
    /// Where the next batch goes.
    pub(super) offset: u64,
}

/// Creates a segment and makes it survive a power cut before any batch in it can count as durable. A file of that
/// name that an interrupted attempt left is overwritten.
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
    // A failed sync is final, also where it failed for want of space: the kind is dropped so that nobody retries.
    file.sync()
        .and_then(|()| if defects::is(Defect::ForgetDirectorySync) { Ok(()) } else { disk.sync_dir(dir) })
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(ActiveSegment { file, first: header.first, seed: header.seed(), offset: HEADER_BYTES as u64 })
}

/// A number that nobody outside this process can guess: the standard library seeds its hash maps from the operating
/// system's randomness. A client therefore cannot forge a batch inside a payload, and blocks of an older segment that
/// a file system left in a file do not pass for this one's.
pub(super) fn new_salt() -> u64 {
    RandomState::new().build_hasher().finish()
}
