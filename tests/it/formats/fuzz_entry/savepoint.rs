//! Savepoint files.

use std::path::Path;

use weir::core::operator::Operator;
use weir::disk::Disk;
use weir::disk::sim::SimDisk;
use weir::state::checkpoint_store::Checkpoint;
use weir::state::savepoint::{self, SavepointError};

use super::is_one_line;

/// A savepoint of format 1.
const GOOD: &[u8] = include_bytes!("../../../fixtures/format-1/data/savepoints/savepoint-00000000000000000027.weir");

/// The first byte says what the rest is: 0 a file as it is; 1 a file whose checksums are put right; 2 changes to a good
/// file, which must be noticed; 3 changes to a good file whose checksums are put right. Each change is a position (two bytes)
/// and the bits to flip; no bits: the file ends there.
pub fn savepoint(data: &[u8]) {
    let Some((&shape, bytes)) = data.split_first() else { return };
    let content = if shape & 2 == 0 { bytes.to_vec() } else { changed(bytes) };
    let content = if shape & 1 == 0 { content } else { with_checksums(content) };
    match read(&content) {
        Ok(checkpoint) => {
            assert!(shape & 3 != 2 || content == GOOD, "a changed file was read");
            let groups = checkpoint.groups.iter().map(|blob| (blob.group, blob.bytes.as_slice()));
            let restored = Operator::restore(&checkpoint.manifest.header, groups);
            match restored {
                Ok(operator) => assert!(operator.next_window_seq() < u64::MAX),
                Err(error) => is_one_line(&error.to_string()),
            }
        }
        Err(error) => {
            assert!(!matches!(error, SavepointError::Io { .. }), "{error}");
            is_one_line(&error.to_string());
        }
    }
}

/// Reads a file with this content: its description, then all of it.
fn read(content: &[u8]) -> Result<Checkpoint, SavepointError> {
    let (disk, path) = (SimDisk::new(), Path::new("/savepoints/one.weir"));
    disk.create_dir_all(Path::new("/savepoints")).expect("a directory");
    let file = disk.create(path).expect("a file");
    file.write_all_at(content, 0).expect("a write");
    let listed = savepoint::list(&disk, Path::new("/savepoints")).expect("the directory can be listed");
    assert_eq!(listed.len(), 1, "a file that cannot be read is listed too");
    let described = savepoint::inspect(&disk, path);
    let read = savepoint::read(&disk, path);
    assert!(described.is_ok() || read.is_err(), "a file without a description was read");
    read
}

fn changed(changes: &[u8]) -> Vec<u8> {
    let mut file = GOOD.to_vec();
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % file.len();
        match change[2] {
            0 => file.truncate(at.max(1)),
            flip => file[at] ^= flip,
        }
    }
    file
}

/// Puts lengths and checksums right, as far as the file goes: docs/savepoint-format.md.
fn with_checksums(mut file: Vec<u8>) -> Vec<u8> {
    let fixed = put_right(&mut file);
    if let Some(end) = fixed {
        file.truncate(end);
        let crc = crc32c::crc32c(&file);
        file.extend_from_slice(&crc.to_le_bytes());
        file.extend_from_slice(b"WEIREND.");
    }
    file
}

/// Returns where the blobs end; `None`: the file is too short for a manifest.
fn put_right(file: &mut [u8]) -> Option<usize> {
    file.get_mut(..10)?.copy_from_slice(b"WEIRSAVE\x01\0");
    let length_at = 11 + usize::from(*file.get(10)?) + 9;
    let manifest_at = length_at + 4;
    // The content of the manifest without its checksum, and the checksums of manifest and head behind it.
    let length = u32::from_le_bytes(file.get(length_at..manifest_at)?.try_into().ok()?) as usize;
    let length = length.min(file.len().checked_sub(manifest_at + 4)?);
    let content = length.checked_sub(4)?;
    file[length_at..manifest_at].copy_from_slice(&(length as u32).to_le_bytes());
    let blobs_at = manifest_at + length + 4;
    let end = put_groups_right(file, manifest_at, manifest_at + content, blobs_at);
    let crc = crc32c::crc32c(&file[manifest_at..manifest_at + content]);
    file[manifest_at + content..manifest_at + length].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c::crc32c(&file[..manifest_at + length]);
    file[manifest_at + length..blobs_at].copy_from_slice(&crc.to_le_bytes());
    Some(end)
}

/// Puts the entries of the key groups in the manifest right. Returns where their blobs end.
fn put_groups_right(file: &mut [u8], manifest_at: usize, content_end: usize, blobs_at: usize) -> usize {
    const HEADER_LENGTH_AT: usize = 50;
    const ENTRY_BYTES: usize = 11;
    let mut blob_at = blobs_at;
    if content_end < manifest_at + HEADER_LENGTH_AT + 4 {
        return blob_at;
    }
    file[manifest_at..manifest_at + 10].copy_from_slice(b"WEIRCKPT\x01\0");
    let header_at = manifest_at + HEADER_LENGTH_AT;
    let header = u32::from_le_bytes([file[header_at], file[header_at + 1], file[header_at + 2], file[header_at + 3]]);
    let Some(mut entry_at) = header_at.checked_add(4 + header as usize + 2) else { return blob_at };
    while entry_at + ENTRY_BYTES <= content_end {
        let length_at = entry_at + 3;
        // Blobs of up to 64 KiB, so that there are several.
        let length = usize::from(u16::from_le_bytes([file[length_at], file[length_at + 1]])).min(file.len() - blob_at);
        let crc = crc32c::crc32c(&file[blob_at..blob_at + length]);
        file[length_at..length_at + 4].copy_from_slice(&(length as u32).to_le_bytes());
        file[length_at + 4..length_at + 8].copy_from_slice(&crc.to_le_bytes());
        blob_at += length;
        entry_at += ENTRY_BYTES;
    }
    blob_at
}
