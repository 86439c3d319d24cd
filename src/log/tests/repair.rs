//! Repair cuts damage out, and nothing else is lost.

use proptest::prelude::*;

use super::*;
use crate::log::repair::RepairPlan;
use crate::log::segment::file_name;

/// One batch of a log that was whole.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KnownBatch {
    file: PathBuf,
    offset: u64,
    batch: Seen,
    bytes: Vec<u8>,
}

/// A batch as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    first: u64,
    count: u32,
    arrival_ms: i64,
    is_hole: bool,
    records: Vec<Vec<u8>>,
}

impl Seen {
    fn of(batch: &Batch) -> Seen {
        Seen {
            first: batch.first().0,
            count: batch.count(),
            arrival_ms: batch.arrival_ms(),
            is_hole: batch.is_hole(),
            records: batch.records().map(<[u8]>::to_vec).collect(),
        }
    }
}

#[derive(Debug, Clone)]
enum Damaged {
    Flip(u8),
    Zeros(u64),
    Noise(u64),
    Truncated,
    Deleted,
}

/// An accident: what happens, to which file, and where in it.
type Accident = (Damaged, prop::sample::Index, prop::sample::Index);

fn accidents() -> impl Strategy<Value = Vec<Accident>> {
    let damaged = prop_oneof![
        4 => (0_u8..8).prop_map(Damaged::Flip),
        2 => (1_u64..400).prop_map(Damaged::Zeros),
        1 => (1_u64..400).prop_map(Damaged::Noise),
        2 => Just(Damaged::Truncated),
        1 => Just(Damaged::Deleted),
    ];
    prop::collection::vec((damaged, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4)
}

fn read_file(disk: &SimDisk, path: &Path) -> Option<Vec<u8>> {
    let file = disk.open_read(path).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

fn small() -> LogOptions {
    LogOptions { segment_bytes: 700, tail_max_bytes: 0, ..options() }
}

/// A closed log on a new disk, with batches of these numbers of records.
fn written(counts: &[u64]) -> (SimDisk, Vec<KnownBatch>) {
    let disk = SimDisk::new();
    let clock = TestClock::at(0);
    let (log, _) = Log::open_inline(Arc::new(disk.clone()), clock.clone(), small(), Lsn(0), Lsn(0)).unwrap();
    let mut end = 0;
    for (index, count) in counts.iter().enumerate() {
        clock.set(index as i64 * 10);
        log.append_wait(&records(end..end + count)).unwrap();
        end = log.sync().unwrap().0;
    }
    log.close().unwrap();
    let mut known = Vec::new();
    for segment in log.segments() {
        let file = dir().join(file_name(segment.first));
        let content = read_file(&disk, &file).unwrap();
        let mut offset = 64;
        let mut reader = log.reader(segment.first);
        while offset < segment.bytes {
            let batch = reader.next_batch().unwrap().unwrap();
            let bytes = content[offset as usize..(offset + batch.disk_bytes()) as usize].to_vec();
            known.push(KnownBatch { file: file.clone(), offset, batch: Seen::of(&batch), bytes });
            offset += batch.disk_bytes();
        }
    }
    (disk, known)
}

/// Damages the files by accidents; returns the segment files that can still be read.
fn damage(disk: &SimDisk, accidents: &[Accident]) -> Vec<PathBuf> {
    let files: Vec<PathBuf> = segment_files(disk).iter().map(|name| dir().join(name)).collect();
    let mut readable = files.clone();
    for (kind, file, at) in accidents {
        let path = &files[file.index(files.len())];
        let Some(content) = read_file(disk, path).filter(|content| !content.is_empty()) else { continue };
        let at = at.index(content.len()) as u64;
        let file = disk.open(path).unwrap();
        let rest = |len: u64| vec![0; len.min(content.len() as u64 - at) as usize];
        match kind {
            Damaged::Flip(bit) => disk.flip_bit(path, at, *bit).unwrap(),
            Damaged::Zeros(len) => file.write_all_at(&rest(*len), at).unwrap(),
            Damaged::Noise(len) => {
                let noise: Vec<u8> = rest(*len).iter().zip(0_u64..).map(|(_, i)| (i * 37 + at) as u8).collect();
                file.write_all_at(&noise, at).unwrap();
            }
            Damaged::Truncated => file.set_len(at).unwrap(),
            Damaged::Deleted => disk.remove(path).unwrap(),
        }
        if !matches!(kind, Damaged::Deleted) {
            file.sync().unwrap();
        }
        if at < 64 {
            // Most often the batches of the segment are saved, but that is not promised.
            readable.retain(|other| other != path);
        }
    }
    disk.sync_dir(dir()).unwrap();
    readable
}

/// The batches that no accident touched.
fn undamaged<'a>(disk: &SimDisk, known: &'a [KnownBatch], readable: &[PathBuf]) -> Vec<&'a KnownBatch> {
    let is_whole = |batch: &&KnownBatch| {
        let content = read_file(disk, &batch.file).unwrap_or_default();
        let at = batch.offset as usize;
        readable.contains(&batch.file) && content.get(at..at + batch.bytes.len()) == Some(batch.bytes.as_slice())
    };
    known.iter().filter(is_whole).collect()
}

fn side_dir() -> PathBuf {
    PathBuf::from("data/damaged")
}

fn repair(disk: &SimDisk, synced: Option<Lsn>) -> Result<(), LogError> {
    let plan = RepairPlan::new(disk, dir(), synced)?;
    let cut: Vec<_> = plan
        .cuts()
        .iter()
        .map(|cut| {
            let content = read_file(disk, &cut.file).unwrap_or_default();
            content[cut.offset as usize..cut.end_offset as usize].to_vec()
        })
        .collect();
    let kept = plan.apply(disk, "journal", &side_dir())?;
    for (bytes, kept) in cut.iter().zip(kept) {
        assert_eq!(kept.and_then(|path| read_file(disk, &path)).unwrap_or_default(), *bytes);
    }
    Ok(())
}

/// All batches in the directory, which must be sound and without a gap.
fn read_all(disk: &SimDisk) -> Vec<Seen> {
    let mut next = None;
    let reader = DirectoryReader::open(Arc::new(disk.clone()), dir()).unwrap();
    let batches = reader.map(|batch| {
        let seen = Seen::of(&batch.unwrap());
        assert!(next.is_none_or(|next| next == seen.first), "a gap before {seen:?}");
        next = Some(seen.first + u64::from(seen.count));
        seen
    });
    batches.collect()
}

fn check_open(disk: &SimDisk, synced: Option<Lsn>) -> Result<RecoverySummary, LogError> {
    let synced = synced.unwrap_or_default();
    let clock = TestClock::at(0);
    let opened = Log::open_inline(Arc::new(disk.clone()), clock, small(), synced, Lsn(0));
    let (log, recovery) = opened?;
    let mut reader = log.reader(recovery.first);
    while reader.next_batch()?.is_some() {}
    Ok(recovery)
}

/// The position that a checkpoint knows: none, the end, or one in between.
fn known_synced(end: u64, part: Option<prop::sample::Index>) -> Option<Lsn> {
    part.map(|part| Lsn(part.index(end as usize + 1) as u64))
}

fn check(counts: &[u64], accidents: &[Accident], part: Option<prop::sample::Index>) {
    let end: u64 = counts.iter().sum();
    let synced = known_synced(end, part);

    let (disk, known) = written(counts);
    let readable = damage(&disk, accidents);
    let whole = undamaged(&disk, &known, &readable);
    if let Ok(recovery) = check_open(&disk, synced) {
        assert!(recovery.end >= synced.unwrap_or_default());
        let proven = whole.iter().map(|known| known.batch.first).max().unwrap_or(0);
        assert!(recovery.end.0 >= proven, "records below {proven} were synced: {recovery:?}");
    }

    let (disk, known) = written(counts);
    let readable = damage(&disk, accidents);
    let whole: Vec<Seen> = undamaged(&disk, &known, &readable).into_iter().map(|known| known.batch.clone()).collect();
    repair(&disk, synced).unwrap();
    assert!(RepairPlan::new(&disk, dir(), synced).unwrap().is_empty(), "nothing is left to repair");
    assert!(!verify_dir(&disk, dir()).unwrap().is_damaged());
    let found = read_all(&disk);
    for batch in &whole {
        assert!(found.contains(batch), "lost: {batch:?}");
    }
    for batch in found.iter().filter(|batch| !batch.is_hole) {
        assert!(known.iter().any(|known| known.batch == *batch), "never written: {batch:?}");
    }
    let recovery = check_open(&disk, synced).unwrap();
    assert!(recovery.end >= synced.unwrap_or_default());
    assert_eq!(check_open(&disk.crash(3), synced).unwrap().end, recovery.end);
}

fn check_interrupted(counts: &[u64], accidents: &[Accident], at: prop::sample::Index, seed: u64) {
    let synced = Some(Lsn(counts.iter().sum()));
    let (disk, _) = written(counts);
    damage(&disk, accidents);
    let before = disk.operations();
    repair(&disk, synced).unwrap();
    let (expected, operations) = (read_all(&disk), disk.operations() - before);
    if operations == 0 {
        return;
    }
    let (disk, _) = written(counts);
    damage(&disk, accidents);
    disk.cut_power_at(Some(at.index(operations as usize) as u64 + 1));
    assert!(repair(&disk, synced).is_err(), "the power was cut");
    let disk = disk.crash(seed);
    repair(&disk, synced).unwrap();
    assert_eq!(read_all(&disk), expected);
    check_open(&disk, synced).unwrap();
}

fn counts() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(1_u64..5, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_damaged_the_rest_survives(
        counts in counts(),
        accidents in accidents(),
        part in prop::option::of(any::<prop::sample::Index>()),
    ) {
        check(&counts, &accidents, part);
    }

    #[test]
    fn an_interrupted_repair_is_finished_by_the_next(
        counts in counts(),
        accidents in accidents(),
        at: prop::sample::Index,
        seed: u64,
    ) {
        check_interrupted(&counts, &accidents, at, seed);
    }
}

/// A closed log of 60 batches with one record each, and its segment files.
fn sixty() -> (SimDisk, Vec<KnownBatch>, Vec<String>) {
    let (disk, known) = written(&[1; 60]);
    let files = segment_files(&disk);
    assert!(files.len() > 3, "{files:?}");
    (disk, known, files)
}

#[test]
fn a_damaged_segment_header_loses_no_record() {
    for bit in 0..64 * 8 {
        let (disk, known, files) = sixty();
        disk.flip_bit(&dir().join(&files[1]), bit / 8, (bit % 8) as u8).unwrap();
        assert!(check_open(&disk, None).is_err());
        let plan = RepairPlan::new(&disk, dir(), None).unwrap();
        assert_eq!(plan.cuts().iter().map(|cut| cut.lost()).sum::<u64>(), 0);
        repair(&disk, None).unwrap();
        assert!(read_all(&disk).iter().eq(known.iter().map(|known| &known.batch)), "bit {bit}");
        check_open(&disk, Some(Lsn(60))).unwrap();
    }
}

#[test]
fn a_plan_changes_nothing_and_says_what_is_lost() {
    let (disk, known, _) = sixty();
    let hit = &known[17];
    disk.flip_bit(&hit.file, hit.offset + 50, 3).unwrap();
    let operations = disk.operations();
    let plan = RepairPlan::new(&disk, dir(), Some(Lsn(60))).unwrap();
    assert_eq!(disk.operations(), operations);
    let [cut] = plan.cuts() else { panic!("{plan:?}") };
    assert_eq!((cut.first, cut.end, cut.lost(), cut.may_be_more), (Lsn(17), Lsn(18), 1, false));
    assert_eq!((cut.offset, cut.end_offset), (hit.offset, hit.offset + hit.bytes.len() as u64));
    assert_eq!((cut.after_ms, cut.before_ms), (Some(160), Some(180)));
    let mut guessed = Vec::new();
    cut.guess(&disk, &mut |records| guessed.extend(records.map(<[u8]>::to_vec))).unwrap();
    assert_eq!(guessed.len(), 1);
    repair(&disk, Some(Lsn(60))).unwrap();
    let report = verify_dir(&disk, dir()).unwrap();
    assert_eq!(report.problems, []);
    assert_eq!(
        report
            .segments
            .iter()
            .map(|segment| (segment.records(), segment.lost))
            .fold((0, 0), |(a, b), (c, d)| (a + c, b + d)),
        (59, 1)
    );
}

#[test]
fn a_missing_segment_is_rebuilt_with_its_length() {
    let (disk, known, files) = sixty();
    let bytes = disk.open_read(&dir().join(&files[1])).unwrap().len().unwrap();
    disk.remove(&dir().join(&files[1])).unwrap();
    disk.sync_dir(dir()).unwrap();
    repair(&disk, None).unwrap();
    assert_eq!(segment_files(&disk), files);
    assert_eq!(disk.open_read(&dir().join(&files[1])).unwrap().len().unwrap(), bytes);
    let lost = known.iter().filter(|known| known.file.ends_with(&files[1])).count();
    let holes: Vec<Seen> = read_all(&disk).into_iter().filter(|batch| batch.is_hole).collect();
    assert_eq!(holes.iter().map(|hole| hole.count as usize).sum::<usize>(), lost);
}

#[test]
fn what_a_checkpoint_needs_is_there_after_a_repair() {
    let missing = |which: &dyn Fn(&[String]) -> Vec<String>, known_synced: u64| {
        let (disk, _, files) = sixty();
        for name in which(&files) {
            disk.remove(&dir().join(name)).unwrap();
        }
        disk.sync_dir(dir()).unwrap();
        repair(&disk, Some(Lsn(known_synced))).unwrap();
        let recovery = check_open(&disk, Some(Lsn(known_synced))).unwrap();
        assert!(recovery.first.0 <= known_synced && recovery.end.0 >= known_synced, "{recovery:?}");
        (recovery, read_all(&disk))
    };
    let (recovery, _) = missing(&|files| files.to_vec(), 60);
    assert_eq!((recovery.first, recovery.end), (Lsn(60), Lsn(60)));
    let (recovery, batches) = missing(&|files| files[files.len() - 1..].to_vec(), 60);
    assert_eq!(recovery.end, Lsn(60));
    assert!(batches.last().unwrap().is_hole);
    for gone in [1, 2] {
        let (recovery, batches) = missing(&|files| files[..gone].to_vec(), 3);
        assert_eq!(recovery.end, Lsn(60));
        assert!(batches[0].is_hole && batches[0].first <= 3);
    }
}

#[test]
fn a_repaired_log_goes_on() {
    let (disk, known, files) = sixty();
    let last = known.last().unwrap();
    disk.flip_bit(&last.file, last.offset + 50, 3).unwrap();
    disk.flip_bit(&dir().join(&files[0]), 100, 3).unwrap();
    repair(&disk, Some(Lsn(60))).unwrap();
    let (log, recovery) = open(&disk, small(), 60).unwrap();
    assert_eq!(recovery.end, Lsn(60));
    append(&log, 60..130);
    let mut reader = log.reader(Lsn(0));
    let mut records = 0;
    while let Some(batch) = reader.next_batch().unwrap() {
        for (bytes, position) in batch.records().zip(batch.first().0..) {
            assert_eq!(bytes, record(position));
            records += 1;
        }
        assert!(!batch.is_hole() || batch.records().next().is_none());
    }
    assert_eq!((records, reader.position()), (128, Lsn(130)));
}

#[test]
fn side_files_are_never_overwritten() {
    let (disk, known, _) = sixty();
    let (first, second) = (&known[3], &known[5]);
    disk.flip_bit(&first.file, first.offset + 50, 3).unwrap();
    repair(&disk, None).unwrap();
    // The hole decays, and the batch behind it.
    disk.flip_bit(&first.file, first.offset + 20, 3).unwrap();
    disk.flip_bit(&second.file, second.offset + 50, 3).unwrap();
    repair(&disk, None).unwrap();
    let kept: Vec<String> = disk.list(&side_dir()).unwrap().into_iter().map(|entry| entry.name).collect();
    let place = |offset: u64| format!("journal-00000000000000000000-{offset}");
    let mut expected = vec![
        format!("{}.1.bin", place(first.offset)),
        format!("{}.bin", place(first.offset)),
        format!("{}.bin", place(second.offset)),
    ];
    expected.sort();
    assert_eq!(kept, expected);
    assert!(RepairPlan::new(&disk, dir(), None).unwrap().is_empty());
}

#[test]
fn a_newer_format_is_not_repaired() {
    let (disk, _, files) = sixty();
    let path = dir().join(&files[1]);
    let mut header = [0; 64];
    let file = disk.open(&path).unwrap();
    file.read_at(&mut header, 0).unwrap();
    header[8] = 2;
    let crc = crate::log::checksum::crc32c(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&header, 0).unwrap();
    assert!(matches!(RepairPlan::new(&disk, dir(), None), Err(LogError::NewerFormat { .. })));
}

#[test]
fn a_log_is_cut_back_to_any_position() {
    for position in 0..=60 {
        let counts = [4; 15];
        let (disk, _) = written(&counts);
        RepairPlan::cut_back(&disk, dir(), Lsn(position)).unwrap().apply(&disk, "windows", &side_dir()).unwrap();
        let left: Vec<Vec<u8>> = read_all(&disk).into_iter().flat_map(|batch| batch.records).collect();
        assert!(left.iter().eq((0..position).map(record).collect::<Vec<_>>().iter()), "cut at {position}");
        assert!(RepairPlan::cut_back(&disk, dir(), Lsn(position)).unwrap().is_empty());
        let (log, recovery) = open(&disk, small(), position).unwrap();
        assert_eq!(recovery.end, Lsn(position));
        append(&log, position..position + 20);
        assert_eq!(check_records(&log, 0), position + 20);
    }
}

#[test]
fn an_interrupted_cut_leaves_what_lies_before_the_position() {
    let (disk, _) = written(&[4; 15]);
    let before = disk.operations();
    RepairPlan::cut_back(&disk, dir(), Lsn(17)).unwrap().apply(&disk, "windows", &side_dir()).unwrap();
    for operation in 1..=disk.operations() - before {
        let (disk, _) = written(&[4; 15]);
        disk.cut_power_at(Some(operation));
        let plan = RepairPlan::cut_back(&disk, dir(), Lsn(17)).unwrap();
        assert!(plan.apply(&disk, "windows", &side_dir()).is_err());
        let disk = disk.crash(operation);
        assert!(check_open(&disk, Some(Lsn(17))).is_ok());
        RepairPlan::cut_back(&disk, dir(), Lsn(17)).unwrap().apply(&disk, "windows", &side_dir()).unwrap();
        let (log, recovery) = open(&disk, small(), 17).unwrap();
        assert_eq!((recovery.end, check_records(&log, 0)), (Lsn(17), 17));
    }
}

#[test]
fn recovery_tells_of_holes_behind_the_checkpoint_alone() {
    let (disk, known, _) = sixty();
    let hit = known.iter().find(|known| known.batch.first == 50).unwrap();
    disk.flip_bit(&hit.file, hit.offset + 50, 3).unwrap();
    repair(&disk, None).unwrap();
    for (synced, lost_until) in [(0, Some(Lsn(51))), (50, Some(Lsn(51))), (51, None), (60, None)] {
        assert_eq!(check_open(&disk, Some(Lsn(synced))).unwrap().lost_until, lost_until, "checkpoint at {synced}");
    }
}
