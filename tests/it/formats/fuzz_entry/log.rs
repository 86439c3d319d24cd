//! Segment files for the log.

use std::path::Path;
use std::sync::Arc;

use weir::clock::{Clock, SystemClock};
use weir::disk::Disk;
use weir::disk::sim::SimDisk;
use weir::log::{DirectoryReader, Log, LogOptions, Lsn, Records, Retention, SyncPolicy, verify_dir};

const DIRECTORY: &str = "/journal";

/// Options of a small journal.
pub fn options() -> LogOptions {
    LogOptions {
        name: "journal",
        dir: DIRECTORY.into(),
        segment_bytes: 1 << 16,
        commit_max_bytes: 1 << 20,
        queue_max_bytes: 1 << 20,
        tail_max_bytes: 0,
        sync: SyncPolicy::EveryCommit,
        min_free_bytes: 0,
        retention: Retention::default(),
        clock_tolerance_ms: 60_000,
    }
}

/// Opens a log without threads, if its files are good.
pub fn open(disk: &SimDisk) -> Option<Log> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Log::open_inline(disk, clock, options(), Lsn(0), Lsn(0)).ok().map(|(log, _)| log)
}

/// The first byte says what the rest is: 0 a segment file as it is; 1 one whose checksums are put right, so that what
/// is behind them is read too; else changes to a good file of which only what was not changed may be read.
pub fn log(data: &[u8]) {
    let Some((&shape, bytes)) = data.split_first() else { return };
    match shape % 3 {
        0 => read_all(bytes.to_vec(), None),
        1 => read_all(with_checksums(bytes.to_vec()), None),
        _ => {
            let (mut file, records) = good_segment();
            for change in bytes.chunks_exact(3) {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % file.len();
                match change[2] {
                    0 => file.truncate(at.max(1)),
                    flip => file[at] ^= flip,
                }
            }
            read_all(file, Some(&records));
        }
    }
}

fn segment_path() -> std::path::PathBuf {
    Path::new(DIRECTORY).join("00000000000000000000.log")
}

fn good_segment() -> (Vec<u8>, Vec<Vec<u8>>) {
    let disk = SimDisk::new();
    let log = open(&disk).expect("an empty disk holds a log");
    let mut all = Vec::new();
    for batch in 0..5_u8 {
        let mut records = Records::default();
        for length in 0..4_usize {
            let record = vec![batch + 1; length * 40];
            records.push_with(|out| out.extend_from_slice(&record));
            all.push(record);
        }
        log.append(&records, None).expect("there is room");
        while log.step() {}
    }
    let file = disk.open_read(&segment_path()).expect("the segment");
    let mut bytes = vec![0; 1 << 16];
    let count = file.read_at(&mut bytes, 0).expect("it can be read");
    bytes.truncate(count);
    (bytes, all)
}

/// Puts magic, version and checksums right: docs/journal-format.md.
fn with_checksums(mut file: Vec<u8>) -> Vec<u8> {
    if file.len() < 64 {
        return file;
    }
    file[..10].copy_from_slice(b"WEIRSEG\n\x01\0");
    file[16..24].fill(0);
    file[32..48].fill(0);
    let checksum = crc32c::crc32c(&file[..60]);
    file[60..64].copy_from_slice(&checksum.to_le_bytes());
    let salt: [u8; 8] = file[24..32].try_into().expect("eight bytes");
    let mut at = 64;
    while file.len() >= at + 48 {
        file[at..at + 6].copy_from_slice(b"WBAT\x01\0");
        let left = file.len() - at - 48;
        // Bodies of up to 255 bytes, so that there are several.
        let body = usize::from(file[at + 12]).min(left);
        file[at + 12..at + 16].copy_from_slice(&(body as u32).to_le_bytes());
        let checksum = crc32c::crc32c(&file[at + 48..at + 48 + body]);
        file[at + 40..at + 44].copy_from_slice(&checksum.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&salt), &file[at..at + 44]);
        file[at + 44..at + 48].copy_from_slice(&checksum.to_le_bytes());
        at += 48 + body;
    }
    file
}

/// Verifies, reads, opens and appends. `written`: what the records may be.
fn read_all(bytes: Vec<u8>, written: Option<&[Vec<u8>]>) {
    let disk = SimDisk::new();
    let directory = Path::new(DIRECTORY);
    disk.create_dir_all(directory).expect("a directory");
    let file = disk.create(&segment_path()).expect("a file");
    file.write_all_at(&bytes, 0).expect("a write");
    let _ = verify_dir(&disk, directory);
    if let Ok(reader) = DirectoryReader::open(Arc::new(disk.clone()), directory) {
        for batch in reader.take(10_000) {
            let Ok(batch) = batch else { break };
            for (index, record) in batch.records().enumerate() {
                let position = batch.first().0 as usize + index;
                assert!(written.is_none_or(|written| written[position] == record), "record {position} was changed");
            }
        }
    }
    let Some(log) = open(&disk) else { return };
    let end = log.durable();
    let mut records = Records::default();
    records.push_with(|out| out.extend_from_slice(b"new"));
    log.append(&records, None).expect("there is room");
    while log.step() {}
    assert_eq!(log.durable().0, end.0 + 1, "a log that opens goes on");
}
