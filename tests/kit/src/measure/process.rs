//! Memory and disk figures of a weir process, from /proc, and the speed of the bare disk.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use super::times::Times;
use crate::process::Weir;

/// Number of bare writes that publishes are compared with.
const BARE_SYNCS: usize = 2_000;
/// Data of one bare write: about the size of a publish in the journal.
const BARE_BYTES: [u8; 220] = [7; 220];

/// Resident memory in bytes.
pub struct ResidentMemory {
    pub now: u64,
    /// Most memory since the start, or since [`Weir::forget_peak`].
    pub peak: u64,
}

impl Weir {
    fn of_proc(&self, file: &str, field: &str) -> u64 {
        let path = format!("/proc/{}/{file}", self.pid().as_raw_nonzero());
        let text = fs::read_to_string(path).expect("Linux tells about its processes");
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().nth(1)?.parse().ok());
        value.unwrap_or_else(|| panic!("/proc has no {field}"))
    }

    pub fn memory(&self) -> ResidentMemory {
        let bytes = |field| self.of_proc("status", field) * 1024;
        ResidentMemory { now: bytes("VmRSS"), peak: bytes("VmHWM") }
    }

    /// Resets [`ResidentMemory::peak`].
    pub fn forget_peak(&self) {
        let path = format!("/proc/{}/clear_refs", self.pid().as_raw_nonzero());
        fs::write(path, "5").expect("Linux forgets the peak");
    }

    /// Bytes of whole pages that the kernel has written or will write for this process.
    pub fn disk_bytes(&self) -> u64 {
        self.of_proc("io", "write_bytes")
    }

    /// Times of a bare write and `fdatasync` on the disk of the data directory.
    pub fn bare_syncs(&self) -> Times {
        bare_syncs(&self.path("bare"))
    }
}

fn bare_syncs(path: &Path) -> Times {
    let mut file = File::create(path).expect("a file");
    let one = || {
        let started = Instant::now();
        file.write_all(&BARE_BYTES).expect("a write");
        file.sync_data().expect("a sync");
        started.elapsed()
    };
    Times::of(std::iter::repeat_with(one).take(BARE_SYNCS).collect())
}
