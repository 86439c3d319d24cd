//! Regions of files in which weir must notice a flipped bit. Parsed by docs/journal-format.md, not with the reader of
//! weir.

use std::ops::Range;
use std::path::{Path, PathBuf};

use weir::disk::Disk;
use weir::disk::sim::SimDisk;

use super::store;

const SEGMENT_HEADER_BYTES: usize = 64;
const BATCH_HEADER_BYTES: usize = 48;

/// One batch of a segment file.
#[derive(Debug)]
struct BatchSpan {
    bytes: Range<usize>,
    first: u64,
    synced_below: u64,
}

/// A range of bytes of a file that later data proves to be synced.
#[derive(Debug, Clone)]
pub struct Region {
    pub path: PathBuf,
    pub bytes: Range<usize>,
}

/// Bytes of a log that no start may lose: closed segments, and bytes that later batches declare synced.
pub fn synced_regions(disk: &SimDisk, dir: &Path) -> Vec<Region> {
    let mut files = segments(disk, dir);
    // A segment that a power cut may take proves nothing about the one before it.
    files.retain(|path| disk.certain_bytes(path) >= SEGMENT_HEADER_BYTES as u64);
    let newest = files.len().saturating_sub(1);
    let mut regions = Vec::new();
    for (index, path) in files.into_iter().enumerate() {
        let batches = batches(&certain(disk, &path));
        let Some(last) = batches.last() else { continue };
        let end = if index < newest {
            last.bytes.end
        } else {
            let synced_below = batches.iter().map(|batch| batch.synced_below).max().unwrap_or(0);
            let proven = batches.iter().filter(|batch| batch.first < synced_below).map(|batch| batch.bytes.end).max();
            // Without such a batch the file may become one whose creation was interrupted.
            proven.unwrap_or(0)
        };
        if end > 0 {
            regions.push(Region { path, bytes: 0..end });
        }
    }
    regions
}

/// Bytes of the newest file of a log behind the last record below `durable`. They may be lost.
pub fn unsynced_region(disk: &dyn Disk, dir: &Path, durable: u64) -> Option<Region> {
    let path = segments(disk, dir).pop()?;
    let bytes = content(disk, &path);
    let batches = batches(&bytes);
    let begin = batches.iter().find(|batch| batch.first >= durable).map(|batch| batch.bytes.start)?;
    Some(Region { path, bytes: begin..bytes.len() })
}

/// Batches of the state store that later batches declare synced.
pub fn store_regions(disk: &SimDisk, directory: &Path) -> Vec<Region> {
    let path = directory.join(store::FILE);
    store::provably_synced(&certain(disk, &path))
        .into_iter()
        .map(|bytes| Region { path: path.clone(), bytes })
        .collect()
}

fn segments(disk: &dyn Disk, dir: &Path) -> Vec<PathBuf> {
    let entries = disk.list(dir).unwrap_or_default();
    entries.into_iter().filter(|entry| entry.name.ends_with(".log")).map(|entry| dir.join(entry.name)).collect()
}

/// Length of the part of a file that survives a power cut. After a failed sync, reads may return bytes that were never
/// stored, so a batch that may be lost proves nothing.
fn certain(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let mut bytes = content(disk, path);
    bytes.truncate(disk.certain_bytes(path) as usize);
    bytes
}

fn content(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let read = || {
        let file = disk.open_read(path)?;
        let mut bytes = vec![0; file.len()? as usize];
        file.read_at(&mut bytes, 0)?;
        std::io::Result::Ok(bytes)
    };
    read().unwrap_or_default()
}

/// The complete batches from the beginning of a segment.
fn batches(bytes: &[u8]) -> Vec<BatchSpan> {
    let mut batches = Vec::new();
    let mut at = SEGMENT_HEADER_BYTES;
    let Some(salt) = bytes.get(24..32) else { return batches };
    while let Some(header) = bytes.get(at..at + BATCH_HEADER_BYTES) {
        let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(salt), &header[..44]);
        let end = at + BATCH_HEADER_BYTES + u32_at(12) as usize;
        let Some(body) = bytes.get(at + BATCH_HEADER_BYTES..end) else { break };
        if header[..4] != *b"WBAT" || checksum != u32_at(44) || crc32c::crc32c(body) != u32_at(40) {
            break;
        }
        batches.push(BatchSpan { bytes: at..end, first: u64_at(16), synced_below: u64_at(32) });
        at = end;
    }
    batches
}
