//! Torn tails are cut, damage is refused.

use proptest::prelude::*;

use super::*;
use crate::log::batch::BatchHeader;
use crate::log::segment::file_name;
use crate::log::verify::LogProblemKind;

/// A closed log with records 0..end, one per batch, in segments of about 4 KiB.
fn closed(end: u64) -> (SimDisk, Vec<SegmentSummary>) {
    let (disk, log) = filled(options(), end);
    log.close().unwrap();
    (disk, log.segments())
}

fn path(first: Lsn) -> PathBuf {
    dir().join(file_name(first))
}

fn damage(disk: &SimDisk, known_synced: u64) -> Damage {
    match open(disk, options(), known_synced) {
        Err(LogError::Damaged(damage)) => *damage,
        other => panic!("not damage: {:?}", other.map(|(_, recovery)| recovery)),
    }
}

/// Offset of the batch that holds only record `position`, counted from the records before it in its segment.
fn batch_offset(segment: &SegmentSummary, position: u64) -> u64 {
    let sizes = (segment.first.0..position).map(|position| 48 + records(position..position + 1).bytes() as u64);
    64 + sizes.sum::<u64>()
}

#[test]
fn a_synced_batch_that_decays_is_refused_with_all_that_is_known() {
    let (disk, segments) = closed(20);
    let offset = batch_offset(&segments[0], 12);
    disk.flip_bit(&path(Lsn(0)), offset + 50, 1).unwrap();
    let found = damage(&disk, 0);
    assert_eq!((found.file.clone(), found.offset, found.expected), (path(Lsn(0)), offset, Lsn(12)));
    assert_eq!(found.lost_until, Some(Lsn(13)));
    let text = found.to_string();
    for part in [
        "00000000000000000000.log",
        &offset.to_string(),
        "records 12 to 12",
        "weir journal verify",
        "Put back a copy of the data directory",
        "weir journal repair",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    let report = verify_dir(&disk, dir()).unwrap();
    assert!(report.is_damaged());
    assert_eq!((report.problems[0].offset, report.problems[0].kind), (offset, LogProblemKind::Damage));
    assert_eq!(report.segments[0].readable.end, Lsn(12));
}

#[test]
fn the_newest_batch_is_cut_unless_a_checkpoint_says_it_was_synced() {
    let (disk, segments) = closed(20);
    let offset = batch_offset(&segments[0], 19);
    disk.flip_bit(&path(Lsn(0)), offset + 50, 1).unwrap();
    assert_eq!(damage(&disk, 20).lost_until, Some(Lsn(20)));
    let report = verify_dir(&disk, dir()).unwrap();
    assert!(!report.is_damaged() && report.problems[0].kind == LogProblemKind::TornTail);
    let (log, recovery) = open(&disk, options(), 19).unwrap();
    assert_eq!((recovery.end, recovery.torn_bytes), (Lsn(19), segments[0].bytes - offset));
    append(&log, 19..30);
    assert_eq!(check_records(&log, 0), 30);
    log.close().unwrap();
    assert_eq!(open(&disk.crash(1), options(), 30).unwrap().1.torn_bytes, 0);
}

#[test]
fn zeros_and_scraps_at_the_end_are_cut() {
    for tail in [vec![0; 5000], vec![0; 3], b"WBAT".to_vec(), vec![0xFF; 100]] {
        let (disk, segments) = closed(20);
        let file = disk.open(&path(Lsn(0))).unwrap();
        file.write_all_at(&tail, segments[0].bytes).unwrap();
        file.sync().unwrap();
        let (log, recovery) = open(&disk, options(), 20).unwrap();
        assert_eq!((recovery.end, recovery.torn_bytes), (Lsn(20), tail.len() as u64));
        append(&log, 20..25);
        assert_eq!(check_records(&log, 0), 25);
    }
}

/// After a failed sync the operating system reads back bytes that are not on the disk, and will not be unless they are
/// written again.
#[test]
fn what_recovery_finds_after_a_failed_sync_is_certain() {
    for sync in [SyncPolicy::EveryCommit, SyncPolicy::OnRequest] {
        let options = LogOptions { sync, ..options() };
        let (disk, log) = filled(options.clone(), 10);
        disk.allow_syncs(Some(0));
        disk.fail_sync(1);
        for position in 10..15 {
            log.append(&records(position..position + 1), None).unwrap();
        }
        disk.allow_syncs(None);
        assert!(log.sync().is_err() && log.close().is_err());
        let (log, recovery) = open(&disk, options.clone(), 0).unwrap();
        assert!(recovery.end > Lsn(10), "a restart without a power cut finds what was written");
        assert_eq!(log.durable(), recovery.end);
        let (_log, after) = open(&disk.crash(0), options, recovery.end.0).unwrap();
        assert_eq!(after.end, recovery.end);
    }
}

/// A client can put any bytes into a payload, also those of a batch.
#[test]
fn a_batch_inside_a_torn_payload_proves_nothing() {
    let (disk, log) = filled(options(), 3);
    let forged = BatchHeader {
        first: Lsn(90),
        count: 1,
        body_bytes: 0,
        arrival_ms: 0,
        synced_below: Lsn(80),
        body_crc: 0,
        is_hole: false,
        sets_clock_back: false,
    };
    let mut records = Records::default();
    records.push(&forged.encode(0));
    log.append_wait(&records).unwrap();
    log.close().unwrap();
    let segments = log.segments();
    disk.flip_bit(&path(Lsn(0)), batch_offset(&segments[0], 3), 0).unwrap();
    assert_eq!(open(&disk, options(), 3).unwrap().1.end, Lsn(3));
}

#[test]
fn damage_in_an_old_segment_is_found_at_the_latest_when_it_is_read() {
    let (disk, segments) = closed(300);
    let offset = batch_offset(&segments[1], segments[1].first.0 + 3);
    disk.flip_bit(&path(segments[1].first), offset + 60, 1).unwrap();
    assert_eq!(damage(&disk, segments[1].first.0).offset, offset);
    let (log, recovery) = open(&disk, options(), 300).unwrap();
    assert_eq!(recovery.end, Lsn(300));
    let mut reader = log.reader(Lsn(0));
    let error = loop {
        match reader.next_batch() {
            Ok(batch) => assert!(batch.is_some(), "the damage was not seen"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains(&offset.to_string()), "{error}");
    assert_eq!(reader.position().0, segments[1].first.0 + 3);
    assert_eq!(check_records(&log, segments[2].first.0), 300);
}

#[test]
fn missing_and_shortened_files_are_damage() {
    let check = |change: &dyn Fn(&SimDisk, &[SegmentSummary]), what: &str| {
        let (disk, segments) = closed(300);
        change(&disk, &segments);
        let found = damage(&disk, 300);
        assert!(found.what.contains(what), "{found}");
        assert!(verify_dir(&disk, dir()).unwrap().is_damaged() || what == "the log ends", "{what}");
    };
    check(&|disk, segments| disk.remove(&path(segments[1].first)).unwrap(), "is missing");
    check(&|disk, segments| disk.remove(&path(segments.last().unwrap().first)).unwrap(), "the log ends");
    check(
        &|disk, segments| {
            let offset = batch_offset(&segments[0], 5);
            disk.open(&path(Lsn(0))).unwrap().set_len(offset).unwrap();
        },
        "when it was closed",
    );
    check(&|disk, segments| disk.flip_bit(&path(segments[1].first), 20, 0).unwrap(), "header cannot be read");
    check(
        &|disk, segments| disk.rename(&path(segments[0].first), &path(Lsn(1))).unwrap(),
        "its header says that it begins with",
    );
    let (disk, _) = closed(0);
    disk.remove(&path(Lsn(0))).unwrap();
    assert!(damage(&disk, 7).what.contains("no segment file"));
    assert!(open(&disk, options(), 0).is_ok());
}

#[test]
fn a_segment_whose_creation_was_interrupted_is_created_again() {
    for left in [0, 1, 63, 64] {
        let (disk, log) = filled(options(), 80);
        let last = *log.segments().last().unwrap();
        log.close().unwrap();
        let next = disk.create(&path(last.end)).unwrap();
        next.write_all_at(&vec![0; left], 0).unwrap();
        assert!(!verify_dir(&disk, dir()).unwrap().is_damaged());
        let (log, recovery) = open(&disk, options(), 80).unwrap();
        assert_eq!((recovery.end, recovery.torn_bytes), (Lsn(80), left as u64));
        append(&log, 80..200);
        log.close().unwrap();
        let (log, _) = open(&disk.crash(left as u64), options(), 200).unwrap();
        assert_eq!(check_records(&log, 0), 200);
    }
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let (disk, _) = closed(5);
    let file = disk.open(&path(Lsn(0))).unwrap();
    let mut header = [0; 64];
    file.read_at(&mut header, 0).unwrap();
    header[8] = 2;
    let crc = crate::log::checksum::crc32c(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&header, 0).unwrap();
    let error = open(&disk, options(), 0).unwrap_err();
    assert!(matches!(error, LogError::NewerFormat { version: 2, supported: 1, .. }), "{error}");
    assert_eq!(verify_dir(&disk, dir()).unwrap().problems[0].kind, LogProblemKind::NewerFormat);
    let mut reader = DirectoryReader::open(Arc::new(disk), dir()).unwrap();
    assert!(reader.next().unwrap().is_err() && reader.next().is_none());
}

#[test]
fn a_directory_is_read_without_opening_the_log() {
    let (disk, segments) = closed(300);
    let report = verify_dir(&disk, dir()).unwrap();
    assert_eq!(report.problems, []);
    assert!(report.segments.iter().map(|segment| segment.readable).eq(segments.iter().copied()));
    assert_eq!(report.segments.iter().map(SegmentReport::records).sum::<u64>(), 300);
    assert_eq!(report.segments.iter().map(|segment| segment.batches).sum::<u64>(), 300);
    let reader = DirectoryReader::open(Arc::new(disk.clone()), dir()).unwrap();
    assert_eq!(reader.first(), Some(Lsn(0)));
    let mut position = 0;
    for batch in reader {
        for bytes in batch.unwrap().records() {
            assert_eq!(bytes, record(position));
            position += 1;
        }
    }
    assert_eq!(position, 300);
    assert!(verify_dir(&disk, Path::new("elsewhere")).is_err());
}

#[test]
fn a_directory_can_be_read_while_its_log_is_written() {
    let (disk, log) = filled(LogOptions { tail_max_bytes: 0, ..options() }, 150);
    let mut reader = DirectoryReader::open(Arc::new(disk.clone()), dir()).unwrap();
    let first = reader.next().unwrap().unwrap();
    append(&log, 150..400);
    let last = reader.map(Result::unwrap).last().unwrap();
    assert!(first.first() == Lsn(0) && last.end() >= Lsn(150), "{last:?}");

    // Segments at the front that are freed before they are read are left out; a gap behind a segment that was read is an
    // error.
    let unread = DirectoryReader::open(Arc::new(disk.clone()), dir()).unwrap();
    let mut begun = DirectoryReader::open(Arc::new(disk.clone()), dir()).unwrap();
    begun.next().unwrap().unwrap();
    log.release(Lsn(300));
    log.append_wait(&records(400..401)).unwrap();
    log.close().unwrap();
    let kept = log.stats().first;
    assert!(kept > Lsn(100), "{kept}");
    let mut next = kept;
    for batch in unread {
        let batch = batch.unwrap();
        assert_eq!(batch.first(), next);
        next = batch.end();
    }
    assert!(next >= Lsn(400));
    let error = begun.find_map(Result::err).expect("a gap");
    assert!(matches!(error, LogError::Freed { .. }), "{error}");
}

/// Reads as far as possible; returns the end, and whether an error ended the reading.
fn read_all(disk: &SimDisk) -> (u64, bool) {
    let mut position = 0;
    for batch in DirectoryReader::open(Arc::new(disk.clone()), dir()).unwrap() {
        let Ok(batch) = batch else { return (position, true) };
        for bytes in batch.records() {
            assert_eq!(bytes, record(position), "a wrong record was given out");
            position += 1;
        }
    }
    (position, false)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// A flipped bit anywhere is refused if the records are known to have been synced, and never gives a wrong record.
    #[test]
    fn no_flipped_bit_goes_unnoticed(file in 0_usize..3, at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let (disk, segments) = closed(200);
        let segment = &segments[file.min(segments.len() - 1)];
        disk.flip_bit(&path(segment.first), at.index(segment.bytes as usize) as u64, bit).unwrap();
        let (end, refused) = read_all(&disk);
        prop_assert!(end < 200, "unnoticed");
        prop_assert_eq!(verify_dir(&disk, dir()).unwrap().is_damaged(), refused);
        prop_assert_eq!(open(&disk, options(), 0).is_err(), refused);
        let (disk, _) = closed(200);
        disk.flip_bit(&path(segment.first), at.index(segment.bytes as usize) as u64, bit).unwrap();
        prop_assert!(open(&disk, options(), 200).is_err() || segment.end.0 < 200);
    }
}
