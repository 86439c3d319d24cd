//! What can still be guessed from damaged bytes.

use super::Cut;
use crate::disk::Disk;
use crate::log::batch::{HEADER_BYTES, MAGIC, u32_at};
use crate::log::{LogError, RecordIter};

/// Damaged bytes that are looked at, at most: it is for a hint alone.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

impl Cut {
    /// Gives what may have been the records of each batch in the damaged bytes to `look`. Nothing about them is
    /// certain: checksums are wrong, lengths may be, and a payload can look like a batch.
    pub fn guess(&self, disk: &dyn Disk, look: &mut dyn FnMut(RecordIter<'_>)) -> Result<(), LogError> {
        let bytes = (self.end_offset - self.offset).min(MAX_BYTES);
        if bytes == 0 {
            return Ok(());
        }
        let mut damaged = vec![0; usize::try_from(bytes).unwrap_or_default()];
        let read = disk.open_read(&self.file).and_then(|file| file.read_at(&mut damaged, self.offset));
        let read = read.map_err(LogError::io(&self.file.display().to_string(), "read a segment"))?;
        damaged.truncate(read);
        let mut at = 0;
        while let Some(rest) = damaged.get(at..).filter(|rest| rest.len() > HEADER_BYTES) {
            let is_batch = rest[..MAGIC.len()] == MAGIC;
            // Where the damage begins a batch began, whatever its header looks like now.
            if is_batch || at == 0 {
                let stated = if is_batch { u32_at(rest, 12) as usize } else { usize::MAX };
                let body = &rest[HEADER_BYTES..];
                look(RecordIter::new(&body[..stated.min(body.len())]));
            }
            let next = rest[1..].windows(MAGIC.len()).position(|window| window == MAGIC);
            at += 1 + next.unwrap_or(rest.len());
        }
        Ok(())
    }
}
