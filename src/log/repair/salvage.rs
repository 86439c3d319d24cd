//! Guesses records from damaged bytes, as a hint for people: whose records may be lost.

use super::Cut;
use crate::disk::Disk;
use crate::log::batch::{HEADER_BYTES, MAGIC, u32_at};
use crate::log::{LogError, RecordIter};

/// Most damaged bytes that are searched.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

impl Cut {
    /// Calls `look` with the possible records of each batch in the damaged bytes. Nothing about them is certain: checksums
    /// are wrong, lengths may be wrong, and a payload can look like a batch.
    ///
    /// # Errors
    /// The file cannot be read.
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
            // A batch began where the damage begins, whatever the header looks like.
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
