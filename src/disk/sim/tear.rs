//! What a power cut leaves of writes that were not synced.

use crate::random::Random;

/// Sizes that media store atomically. A power cut picks one of them per file.
const UNITS_BYTES: [u64; 2] = [4096, 512];

/// A change of one file's content.
#[derive(Debug)]
pub(super) enum UnsyncedChange {
    Write(u64, Vec<u8>),
    Resize(u64),
}

impl UnsyncedChange {
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => put(content, *offset, bytes),
            Self::Resize(len) => content.resize(*len as usize, 0),
        }
    }
}

/// The content of one file.
#[derive(Debug, Default)]
pub(super) struct FileState {
    /// Content that reads return.
    pub(super) content: Vec<u8>,
    /// Content that a power cut cannot take away.
    pub(super) certain: Vec<u8>,
    pub(super) unsynced: Vec<UnsyncedChange>,
}

impl FileState {
    pub(super) fn change(&mut self, change: UnsyncedChange) {
        change.apply(&mut self.content);
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.certain);
        }
    }

    /// Cuts the power. The file keeps none of its unsynced changes, all of them, or parts of each.
    pub(super) fn crash(&mut self, choices: &mut Random) {
        let fate = choices.below(4);
        let unit_bytes = UNITS_BYTES[choices.below(2) as usize];
        for change in std::mem::take(&mut self.unsynced) {
            match (fate, change) {
                (0, _) => {}
                (1, change) => change.apply(&mut self.certain),
                (_, UnsyncedChange::Write(offset, bytes)) => {
                    tear(&mut self.certain, offset, &bytes, unit_bytes, choices)
                }
                (_, resize) => {
                    if choices.below(2) == 0 {
                        resize.apply(&mut self.certain);
                    }
                }
            }
        }
        self.content = self.certain.clone();
    }

    /// Inverts the bits of `mask` wherever the byte is stored: in what reads return, in what is certain, and in unsynced
    /// writes. `false` where the file has no such byte.
    pub(super) fn flip(&mut self, offset: usize, mask: u8) -> bool {
        let Some(byte) = self.content.get_mut(offset) else { return false };
        *byte ^= mask;
        if let Some(byte) = self.certain.get_mut(offset) {
            *byte ^= mask;
        }
        for change in &mut self.unsynced {
            if let UnsyncedChange::Write(start, bytes) = change
                && let Some(byte) = offset.checked_sub(*start as usize).and_then(|at| bytes.get_mut(at))
            {
                *byte ^= mask;
            }
        }
        true
    }
}

/// Applies an unsynced write as a power cut leaves it: of each unit the whole, a part, nothing, or zeros or foreign bytes
/// in its place.
fn tear(content: &mut Vec<u8>, offset: u64, bytes: &[u8], unit_bytes: u64, choices: &mut Random) {
    let mut done = 0_usize;
    while done < bytes.len() {
        let at = offset + done as u64;
        let unit_rest = (unit_bytes - at % unit_bytes) as usize;
        let chunk = &bytes[done..bytes.len().min(done + unit_rest)];
        match choices.below(4) {
            0 => {}
            1 => put(content, at, &chunk[..choices.below(chunk.len() as u64) as usize]),
            // The file grew and its new block was not written: it holds zeros, or what a deleted file left there.
            2 if at >= content.len() as u64 && choices.below(4) == 0 => {
                let left = if choices.below(2) == 0 { 0 } else { choices.below(256) as u8 };
                put(content, at, &vec![left; chunk.len()]);
            }
            _ => put(content, at, chunk),
        }
        done += chunk.len();
    }
}

pub(super) fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let start = offset as usize;
    let end = start + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(bytes);
}
