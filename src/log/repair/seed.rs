//! Recovers the checksum seed of a segment whose header is damaged. Without the seed no batch of the segment can be read.
//!
//! There are two ways. If the salt in the header is intact, some batch header in the file fits it; no client can know the
//! salt, so no payload can pretend to. Otherwise the seed follows from the first batch: a checksum can be run backwards
//! over the bytes that it covers. Only the batch at the beginning of the file is trusted, since elsewhere a payload could
//! pretend to be a batch.

use std::io;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::log::batch::{BatchHeader, HEADER_BYTES, MAGIC, u32_at, u64_at};
use crate::log::checksum::{crc32c, crc32c_append};
use crate::log::inspect::SegmentFile;
use crate::log::records::holds_exactly;
use crate::log::scan::SegmentScanner;
use crate::log::segment;

/// Polynomial of CRC-32C, reflected.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// A salt that fits the batches of a segment with a damaged header; `None` where no batch can be trusted.
pub(super) fn recover_salt(file: &SegmentFile, handle: &Arc<dyn DiskFile>) -> io::Result<Option<u64>> {
    let mut header = [0; segment::HEADER_BYTES];
    let read = handle.read_at(&mut header, 0)?;
    if read == header.len() {
        let salt = u64_at(&header, 24);
        let start = (file.first, segment::HEADER_BYTES as u64);
        let mut scanner = SegmentScanner::new(handle.clone(), seed_of(salt), start, None, file.bytes);
        if scanner.find(start.1, |_, _| true)?.is_some() {
            return Ok(Some(salt));
        }
    }
    Ok(seed_from_first_batch(file, &**handle)?.map(salt_for))
}

fn seed_of(salt: u64) -> u32 {
    crc32c(&salt.to_le_bytes())
}

fn seed_from_first_batch(file: &SegmentFile, handle: &dyn DiskFile) -> io::Result<Option<u32>> {
    let at = segment::HEADER_BYTES as u64;
    let Some(bytes) = header_at(handle, at)? else { return Ok(None) };
    let seed = unwind(u32_at(&bytes, HEADER_BYTES - 4), &bytes[..HEADER_BYTES - 4]);
    let Ok(header) = BatchHeader::decode(&bytes, seed) else { return Ok(None) };
    if header.first != file.first || header.is_hole || header.batch_bytes() > file.bytes.saturating_sub(at) {
        return Ok(None);
    }
    let mut body = vec![0; header.body_bytes as usize];
    let read = handle.read_at(&mut body, at + HEADER_BYTES as u64)?;
    if read < body.len() || crc32c(&body) != header.body_crc || !holds_exactly(&body, header.count) {
        return Ok(None);
    }
    // Only a second header that fits the same seed shows that no byte of the first one is wrong.
    let next = header_at(handle, at + header.batch_bytes())?;
    let fits = next.is_some_and(|next| BatchHeader::decode(&next, seed).is_ok_and(|next| next.first == header.end()));
    Ok(fits.then_some(seed))
}

fn header_at(handle: &dyn DiskFile, at: u64) -> io::Result<Option<[u8; HEADER_BYTES]>> {
    let mut bytes = [0; HEADER_BYTES];
    let read = handle.read_at(&mut bytes, at)?;
    Ok((read == HEADER_BYTES && bytes[..MAGIC.len()] == MAGIC).then_some(bytes))
}

fn table_entry(index: u32) -> u32 {
    (0..8).fold(index, |value, _| if value & 1 == 1 { (value >> 1) ^ POLYNOMIAL } else { value >> 1 })
}

/// The checksum that, followed by `bytes`, gives `crc`.
fn unwind(crc: u32, bytes: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256).map(table_entry).collect();
    let mut state = !crc;
    for byte in bytes.iter().rev() {
        // The highest bytes of the table's entries are all different, so the entry is found by it.
        let index = table.iter().position(|entry| entry >> 24 == state >> 24).unwrap_or_default();
        state = ((state ^ table[index]) << 8) | (index as u32 ^ u32::from(*byte));
    }
    !state
}

/// A salt whose seed is `seed`.
fn salt_for(seed: u32) -> u64 {
    let low = [0x5A; 4];
    let high = (crc32c(&low) ^ unwind(seed, &[0; 4])).to_le_bytes();
    let salt = u64::from_le_bytes([low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]]);
    debug_assert_eq!(crc32c_append(0, &salt.to_le_bytes()), seed);
    salt
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_checksum_runs_backwards(seed: u32, bytes: Vec<u8>) {
            prop_assert_eq!(unwind(crc32c_append(seed, &bytes), &bytes), seed);
        }

        #[test]
        fn every_seed_has_a_salt(seed: u32) {
            prop_assert_eq!(seed_of(salt_for(seed)), seed);
        }
    }
}
