//! The manifest of a checkpoint: its id, its positions, the operator's state outside of key groups, and the place and
//! checksum of each key group's blob. Blobs belong to a checkpoint only through a manifest.
//!
//! ```text
//! magic "WEIRCKPT"  version u16  id u64  started_ms i64  replay_from u64  windows_position u64  errors_position u64
//! header_len u32  header  group_count u16  { group u16  slot u8  len u32  crc32c u32 }…  crc32c u32 of all before it
//! ```
//! Integers are little-endian.

use thiserror::Error;

use crate::cursor::ByteCursor;

const MAGIC: &[u8; 8] = b"WEIRCKPT";

/// Newest manifest version this weir reads, and the one it writes.
pub const VERSION: u16 = 1;

/// Positions that belong to a checkpoint's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Positions {
    /// Journal position below which all records are in the state. A recovery replays from here.
    pub replay_from: u64,
    /// End of the windows log when the state was taken.
    pub windows: u64,
    /// End of the errors log when the state was taken.
    pub errors: u64,
}

/// Place, length and checksum of the blob of one key group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupEntry {
    /// Slot of the blob, 0 or 1.
    pub slot: u8,
    /// Length of the blob in bytes.
    pub len: u32,
    /// CRC-32C of the blob.
    pub crc: u32,
}

/// A checkpoint without its blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Id of the checkpoint; it grows by one per checkpoint of a data directory.
    pub id: u64,
    /// Time at which the state was taken, Unix milliseconds.
    pub started_ms: i64,
    /// Log positions of the state.
    pub positions: Positions,
    /// The operator's state outside of key groups.
    pub header: Vec<u8>,
    /// Key groups and their blobs; groups without state are left out.
    pub groups: Vec<(u16, GroupEntry)>,
}

/// Bytes that are not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidManifest {
    /// Too few bytes, wrong magic, wrong checksum, or lengths that do not fit.
    #[error("manifest: {0}")]
    Damaged(&'static str),
    /// Written by a later weir.
    #[error("manifest version {0}")]
    Newer(u16),
}

impl Manifest {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.header.len() + self.groups.len() * 11);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.started_ms.to_le_bytes());
        for position in [self.positions.replay_from, self.positions.windows, self.positions.errors] {
            out.extend_from_slice(&position.to_le_bytes());
        }
        out.extend_from_slice(&(self.header.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.header);
        out.extend_from_slice(&(self.groups.len() as u16).to_le_bytes());
        for (group, entry) in &self.groups {
            out.extend_from_slice(&group.to_le_bytes());
            out.push(entry.slot);
            out.extend_from_slice(&entry.len.to_le_bytes());
            out.extend_from_slice(&entry.crc.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the stored form. The version is checked before the checksum, since a later format may place the checksum
    /// elsewhere.
    ///
    /// # Errors
    /// The bytes are not a manifest, or one of a later format.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidManifest> {
        use InvalidManifest::{Damaged, Newer};
        let mut fields = ManifestFields(ByteCursor::new(bytes));
        if fields.take::<8>()? != *MAGIC {
            return Err(Damaged("wrong magic"));
        }
        let version = fields.u16()?;
        if version > VERSION {
            return Err(Newer(version));
        }
        let (content, crc) = bytes.split_last_chunk::<4>().ok_or(Damaged("too short"))?;
        if crc32c::crc32c(content) != u32::from_le_bytes(*crc) {
            return Err(Damaged("wrong checksum"));
        }
        let id = fields.u64()?;
        let started_ms = fields.u64()? as i64;
        let positions = Positions { replay_from: fields.u64()?, windows: fields.u64()?, errors: fields.u64()? };
        let header_len = fields.u32()? as usize;
        let header = fields.slice(header_len)?.to_vec();
        let count = fields.u16()?;
        let mut groups = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let group = fields.u16()?;
            let [slot] = fields.take::<1>()?;
            groups.push((group, GroupEntry { slot, len: fields.u32()?, crc: fields.u32()? }));
        }
        if fields.0.rest().len() != crc.len() {
            return Err(Damaged("bytes left over"));
        }
        Ok(Self { id, started_ms, positions, header, groups })
    }
}

struct ManifestFields<'a>(ByteCursor<'a>);

impl<'a> ManifestFields<'a> {
    const TOO_SHORT: InvalidManifest = InvalidManifest::Damaged("too short");

    fn take<const N: usize>(&mut self) -> Result<[u8; N], InvalidManifest> {
        self.0.array().ok_or(Self::TOO_SHORT)
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], InvalidManifest> {
        self.0.slice(len).ok_or(Self::TOO_SHORT)
    }

    fn u16(&mut self) -> Result<u16, InvalidManifest> {
        self.0.u16().ok_or(Self::TOO_SHORT)
    }

    fn u32(&mut self) -> Result<u32, InvalidManifest> {
        self.0.u32().ok_or(Self::TOO_SHORT)
    }

    fn u64(&mut self) -> Result<u64, InvalidManifest> {
        self.0.u64().ok_or(Self::TOO_SHORT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            id: 7,
            started_ms: -5,
            positions: Positions { replay_from: 1, windows: 2, errors: 3 },
            header: b"header".to_vec(),
            groups: vec![(0, GroupEntry { slot: 0, len: 9, crc: 1 }), (1023, GroupEntry { slot: 1, len: 0, crc: 2 })],
        }
    }

    #[test]
    fn reads_back() {
        assert_eq!(Manifest::decode(&manifest().encode()), Ok(manifest()));
    }

    #[test]
    fn every_flipped_bit_and_every_prefix_is_refused() {
        let bytes = manifest().encode();
        for at in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..at]).is_err(), "prefix of {at} bytes");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(Manifest::decode(&flipped).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = manifest().encode();
        bytes[8] = 2;
        assert_eq!(Manifest::decode(&bytes), Err(InvalidManifest::Newer(2)));
    }
}
