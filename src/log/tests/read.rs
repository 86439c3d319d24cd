//! Readers, retention, segments.

use super::*;
use crate::log::wakers::tests::Bell;

#[test]
fn a_reader_falls_back_to_the_files_and_returns_to_memory() {
    for tail_max_bytes in [0, 2048, 1 << 20] {
        let (_disk, log) = filled(LogOptions { tail_max_bytes, ..options() }, 300);
        let mut reader = log.reader(Lsn(0));
        assert_eq!(check_reader(&mut reader, 0), 300);
        assert_eq!(reader.reads_files(), tail_max_bytes == 0);
        append(&log, 300..400);
        assert_eq!(check_reader(&mut reader, 300), 400);
        assert_eq!((reader.position(), reader.skipped()), (Lsn(400), 0));
        assert!(reader.next_batch().unwrap().is_none());
        reader.seek(Lsn(17));
        assert_eq!(check_reader(&mut reader, 17), 400);
    }
}

#[test]
fn readers_follow_a_log_that_is_being_written() {
    let end = 2000;
    for tail_max_bytes in [0, 2048] {
        let (_disk, log) = filled(LogOptions { tail_max_bytes, ..options() }, 0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let (mut reader, mut position) = (log.reader(Lsn(0)), 0);
                    while position < end {
                        let (bell, waker) = Bell::new();
                        log.watch(waker);
                        position = check_reader(&mut reader, position);
                        if position < end && log.readable().0 <= position {
                            bell.wait();
                        }
                    }
                });
            }
            for position in (0..end).step_by(4) {
                log.append_wait(&records(position..position + 4)).unwrap();
            }
        });
        assert_eq!(check_records(&log, 0), end);
    }
}

#[test]
fn a_reader_beyond_the_end_waits_there() {
    let (_disk, log) = filled(options(), 10);
    let mut reader = log.reader(Lsn(12));
    assert!(reader.next_batch().unwrap().is_none());
    append(&log, 10..15);
    assert_eq!(check_reader(&mut reader, 12), 15);
}

#[test]
fn segments_tile_the_log() {
    let clock = TestClock::at(0);
    let disk = SimDisk::new();
    let (log, _) = Log::open(Arc::new(disk.clone()), clock.clone(), options(), Lsn(0)).unwrap();
    for position in 0..300 {
        clock.set(position as i64);
        append(&log, position..position + 1);
    }
    let written = log.segments();
    log.close().unwrap();
    let (log, _) = open(&disk, options(), 300).unwrap();
    assert_eq!(log.segments(), written, "recovery without reading the old segments knows the same");
    let (log, _) = open(&disk, options(), 0).unwrap();
    assert_eq!(log.segments(), written);
    let mut end = Lsn(0);
    for segment in written {
        assert_eq!(segment.first, end);
        assert!(segment.end > segment.first && segment.bytes < 4096 + 200);
        assert_eq!(segment.first_arrival_ms, Some(segment.first.0 as i64));
        assert_eq!(segment.last_arrival_ms, Some(segment.end.0 as i64 - 1));
        end = segment.end;
    }
    assert_eq!(end, Lsn(300));
}

#[test]
fn a_seek_is_short_once_the_segment_was_read() {
    let big = LogOptions { segment_bytes: 8 << 20, commit_max_bytes: 8192, tail_max_bytes: 0, ..options() };
    let (disk, log) = filled(LogOptions { sync: SyncPolicy::OnRequest, queue_max_bytes: 1 << 20, ..big.clone() }, 0);
    for position in (0..30_000).step_by(50) {
        log.append_wait(&records(position..position + 50)).unwrap();
    }
    log.close().unwrap();
    let (log, _) = open(&disk, big, 0).unwrap();
    for from in [0, 1, 15_000, 29_999] {
        assert_eq!(check_records(&log, from), 30_000);
    }
    assert!(log.stats().disk_bytes > 1_500_000 && log.stats().segments == 1);
    for from in [100, 15_000, 29_000] {
        let before = disk.read_bytes();
        let batch = log.reader(Lsn(from)).next_batch().unwrap().unwrap();
        assert!(batch.first().0 <= from && batch.end().0 > from);
        assert!(disk.read_bytes() - before <= 7 * 64 * 1024, "{}", disk.read_bytes() - before);
    }
}

fn retained(keep: Keep) -> LogOptions {
    LogOptions { retention: Retention { keep, max_bytes: Some(20_000) }, tail_max_bytes: 0, ..options() }
}

#[test]
fn released_segments_are_freed_and_readers_go_on_behind_them() {
    let (disk, log) = filled(retained(Keep::Released), 300);
    let mut early = log.reader(Lsn(0));
    let before = segment_files(&disk).len();
    let third = log.segments()[3];
    log.release(Lsn(third.first.0 + 1));
    log.close().unwrap();
    assert_eq!(segment_files(&disk).len(), before - 3);
    assert_eq!((log.stats().first, log.stats().segments), (third.first, before - 3));
    assert_eq!(check_reader_after_gap(&mut early, third.first.0), 300);
    assert_eq!(early.skipped(), third.first.0);
    let (log, recovery) = open(&disk, retained(Keep::Released), third.first.0 + 1).unwrap();
    assert_eq!(recovery.first, third.first);
    assert_eq!(check_records(&log, third.first.0), 300);
}

fn check_reader_after_gap(reader: &mut Reader, first: u64) -> u64 {
    let batch = reader.next_batch().unwrap().unwrap();
    assert_eq!(batch.first().0, first);
    check_reader(reader, batch.end().0)
}

#[test]
fn kept_segments_go_by_bytes_whatever_their_age() {
    let (disk, log) = filled(retained(Keep::UpToBytes), 1000);
    assert!(log.stats().disk_bytes > 20_000, "nothing is released yet");
    log.release(Lsn(1000));
    log.close().unwrap();
    let left: u64 = disk.list(dir()).unwrap().iter().map(|entry| entry.len).sum();
    assert_eq!(left, log.stats().disk_bytes);
    assert!(left <= 20_000 && left > 15_000, "{left}");
}

#[test]
fn a_power_cut_while_segments_are_freed_leaves_no_gap() {
    for seed in 0..30 {
        let (disk, log) = filled(retained(Keep::Released), 300);
        log.release(Lsn(250));
        log.append_wait(&records(300..301)).unwrap();
        let durable = log.durable().0;
        let disk = disk.crash(seed);
        let (log, recovery) = open(&disk, retained(Keep::Released), durable).unwrap();
        assert!(recovery.end.0 >= durable && recovery.first.0 <= 250, "seed {seed}: {recovery:?}");
        check_records(&log, recovery.first.0);
    }
}
