//! Appending, group commit, wakers, failures.

use std::sync::mpsc;
use std::task::{Context, Poll};

use super::*;
use crate::log::wakers::tests::Bell;

fn batch_counts(log: &Log) -> Vec<u32> {
    let mut reader = log.reader(Lsn(0));
    std::iter::from_fn(|| reader.next_batch().unwrap()).map(|batch| batch.count()).collect()
}

#[test]
fn what_is_appended_is_read_back_and_survives_a_restart() {
    for sync in [SyncPolicy::EveryCommit, SyncPolicy::OnRequest] {
        let disk = SimDisk::new();
        let (log, recovery) = open(&disk, LogOptions { sync, ..options() }, 0).unwrap();
        assert_eq!(recovery, RecoverySummary::default());
        append(&log, 0..200);
        assert_eq!(log.durable(), Lsn(200));
        assert_eq!(check_records(&log, 0), 200);
        assert!(log.stats().segments > 1, "{:?}", log.stats());
        log.close().unwrap();
        let (log, recovery) = open(&disk, LogOptions { sync, ..options() }, 150).unwrap();
        assert_eq!((recovery.first, recovery.end, recovery.torn_bytes), (Lsn(0), Lsn(200), 0));
        for from in 0..200 {
            assert_eq!(check_records(&log, from), 200);
        }
        append(&log, 200..210);
        assert_eq!(check_records(&log, 0), 210);
    }
}

#[test]
fn what_waits_during_a_sync_becomes_one_batch() {
    let (disk, log) = filled(options(), 1);
    disk.allow_syncs(Some(0));
    log.append(&records(1..2), None).unwrap();
    disk.wait_for_held_sync();
    for position in 2..7 {
        log.append(&records(position..position + 1), None).unwrap();
    }
    assert_eq!((log.durable(), log.readable()), (Lsn(1), Lsn(1)), "nothing counts before its sync");
    disk.allow_syncs(None);
    log.sync().unwrap();
    assert_eq!(batch_counts(&log), [1, 1, 5]);
}

#[test]
fn a_batch_is_no_larger_than_its_bound_and_an_append_is_never_split() {
    let (disk, log) = filled(LogOptions { queue_max_bytes: 100_000, ..options() }, 1);
    disk.allow_syncs(Some(0));
    log.append(&records(1..2), None).unwrap();
    disk.wait_for_held_sync();
    let mut appends = vec![];
    for position in (2..200).step_by(6) {
        let records = records(position..position + 6);
        appends.push(records.bytes());
        log.append(&records, None).unwrap();
    }
    disk.allow_syncs(None);
    log.sync().unwrap();
    let mut reader = log.reader(Lsn(2));
    while let Some(batch) = reader.next_batch().unwrap() {
        assert!(batch.disk_bytes() <= 1024 + 48 && batch.count() % 6 == 0, "{batch:?}");
    }
    assert_eq!(check_records(&log, 0), 200);
    let too_large = records(200..230);
    assert!(matches!(log.append(&too_large, None), Err(AppendError::TooLarge { limit: 1024, .. })));
    assert!(matches!(log.append_wait(&too_large), Err(AppendError::TooLarge { .. })));
}

#[test]
fn only_those_whose_records_were_synced_are_woken() {
    let (disk, log) = filled(options(), 1);
    let ((first, first_waker), (second, second_waker), (watcher, watcher_waker)) =
        (Bell::new(), Bell::new(), Bell::new());
    disk.allow_syncs(Some(1));
    log.append(&records(1..2), Some(&first_waker)).unwrap();
    first.wait();
    assert_eq!(log.durable(), Lsn(2));
    log.append(&records(2..3), Some(&second_waker)).unwrap();
    disk.wait_for_held_sync();
    log.append(&records(3..4), Some(&second_waker)).unwrap();
    log.append(&records(4..5), Some(&second_waker)).unwrap();
    assert_eq!(second.rings(), 0);
    log.watch(watcher_waker);
    disk.allow_syncs(None);
    log.close().unwrap();
    assert_eq!((first.rings(), second.rings(), watcher.rings()), (1, 2, 2));
}

#[test]
fn a_record_of_a_log_synced_on_request_wakes_its_task_after_the_sync() {
    let (disk, log) = filled(LogOptions { sync: SyncPolicy::OnRequest, ..options() }, 0);
    let ((bell, waker), (written, written_waker)) = (Bell::new(), Bell::new());
    log.watch(written_waker);
    let syncs = disk.syncs();
    log.append(&records(0..3), Some(&waker)).unwrap();
    written.wait();
    assert_eq!((log.readable(), log.durable(), bell.rings()), (Lsn(3), Lsn(0), 0));
    assert_eq!(check_records(&log, 0), 3);
    assert_eq!(log.sync().unwrap(), Lsn(3));
    bell.wait();
    assert_eq!((log.durable(), disk.syncs()), (Lsn(3), syncs + 1));
    assert_eq!(log.sync().unwrap(), Lsn(3));
    assert_eq!(disk.syncs(), syncs + 1, "nothing was left to sync");
}

#[test]
fn a_full_queue_refuses_and_tells_when_there_is_room() {
    let (disk, log) = filled(LogOptions { queue_max_bytes: 1500, ..options() }, 1);
    let (bell, waker) = Bell::new();
    let mut context = Context::from_waker(&waker);
    assert_eq!(log.poll_room(&mut context), Poll::Ready(()));
    disk.allow_syncs(Some(0));
    let mut end = 1;
    while log.append(&records(end..end + 1), None).is_ok() {
        end += 1;
    }
    assert_eq!(log.append(&records(end..end + 1), None), Err(AppendError::Full));
    assert!(log.stats().queued_bytes <= 1500 && log.stats().queued_bytes > 1400);
    assert_eq!(log.poll_room(&mut context), Poll::Pending);
    assert_eq!(log.poll_room(&mut context), Poll::Pending);
    disk.allow_syncs(None);
    bell.wait();
    assert_eq!(log.poll_room(&mut context), Poll::Ready(()));
    append(&log, end..end + 50);
    assert_eq!(bell.rings(), 1);
    assert_eq!(check_records(&log, 0), end + 50);
}

/// Appends three records; the disk fails at the second one.
fn check_poison(sync: SyncPolicy, inject: impl Fn(&SimDisk)) {
    let (disk, log) = filled(LogOptions { sync, ..options() }, 5);
    let ((bell, waker), (room, room_waker)) = (Bell::new(), Bell::new());
    let (send, receive) = mpsc::channel();
    log.on_failure(Box::new(move |reason| send.send(reason).unwrap()));
    disk.allow_syncs(Some(0));
    inject(&disk);
    log.append(&records(5..6), Some(&waker)).unwrap();
    let _ = log.append(&records(6..7), Some(&waker));
    while log.append(&records(7..8), None).is_ok() {}
    let waits = log.poll_room(&mut Context::from_waker(&room_waker)).is_pending();
    disk.allow_syncs(None);
    let _ = log.sync();
    let reason = receive.recv().unwrap();
    assert!(reason.contains("injected") && reason.contains("00000000000000000000.log"), "{reason}");
    bell.wait();
    if waits {
        room.wait();
    }
    assert_eq!(log.append(&records(5..6), None), Err(AppendError::Closed));
    assert_eq!(log.append_wait(&records(5..6)), Err(AppendError::Closed));
    assert!(matches!(log.sync(), Err(LogError::Failed { .. })));
    assert_eq!(log.durable(), Lsn(5));
    assert_eq!(log.stats().failure, Some(reason.clone()));
    assert!(log.poll_room(&mut Context::from_waker(&room_waker)).is_ready());
    assert!(log.close().unwrap_err().to_string().contains(&reason));
    let (send, receive) = mpsc::channel();
    log.on_failure(Box::new(move |reason| send.send(reason).unwrap()));
    assert_eq!(receive.recv().unwrap(), reason, "told at once when it has failed already");
    let (log, recovery) = open(&disk.crash(3), LogOptions { sync, ..options() }, 5).unwrap();
    assert!(recovery.end >= Lsn(5));
    check_records(&log, 0);
}

#[test]
fn a_failed_sync_closes_the_log_for_good() {
    check_poison(SyncPolicy::EveryCommit, |disk| disk.fail_sync(1));
    check_poison(SyncPolicy::OnRequest, |disk| disk.fail_sync(1));
}

#[test]
fn a_failed_write_closes_the_log_for_good() {
    check_poison(SyncPolicy::EveryCommit, |disk| disk.fail_write(1));
    check_poison(SyncPolicy::OnRequest, |disk| disk.fail_write(1));
}

#[test]
fn closing_writes_what_waits_and_takes_nothing_more() {
    for sync in [SyncPolicy::EveryCommit, SyncPolicy::OnRequest] {
        let (disk, log) = filled(LogOptions { sync, ..options() }, 0);
        log.append(&records(0..5), None).unwrap();
        let other = log.clone();
        log.close().unwrap();
        other.close().unwrap();
        assert_eq!(other.append(&records(5..6), None), Err(AppendError::Closed));
        assert_eq!((other.durable(), check_records(&other, 0)), (Lsn(5), 5));
        let disk = disk.crash(1);
        assert_eq!(open(&disk, options(), 5).unwrap().1.end, Lsn(5));
    }
}

#[test]
fn dropping_the_last_handle_closes() {
    let (disk, log) = filled(options(), 0);
    let other = log.clone();
    drop(log);
    other.append(&records(0..5), None).unwrap();
    drop(other);
    assert_eq!(open(&disk.crash(1), options(), 5).unwrap().1.end, Lsn(5));
}

#[test]
fn an_empty_append_writes_nothing() {
    let (_disk, log) = filled(options(), 2);
    assert_eq!(log.append(&Records::default(), None), Ok(Lsn(2)));
    log.sync().unwrap();
    assert_eq!(batch_counts(&log), [1, 1]);
}

#[test]
fn a_log_can_begin_where_its_reader_stands() {
    let disk = SimDisk::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let clock = TestClock::at(5);
    let (log, recovery) = Log::open_at(shared, clock, options(), Lsn(100), Lsn(100)).unwrap();
    assert_eq!((recovery.first, recovery.end), (Lsn(100), Lsn(100)));
    append(&log, 100..110);
    drop(log);
    let (log, recovery) = open(&disk, options(), 100).unwrap();
    assert_eq!((recovery.first, recovery.end), (Lsn(100), Lsn(110)));
    assert_eq!(check_records(&log, 100), 110);
}

#[test]
fn arrival_time_stands_still_within_the_tolerance() {
    let disk = SimDisk::new();
    let mut last = i64::MIN;
    for (start, now_ms) in [1000, 400, 2000, -7].into_iter().enumerate() {
        let clock = TestClock::at(now_ms);
        let (log, recovery) = Log::open(Arc::new(disk.clone()), clock.clone(), options(), Lsn(0)).unwrap();
        assert_eq!(recovery.last_arrival_ms, (start > 0).then_some(last));
        let begin = start as u64 * 20;
        append(&log, begin..begin + 10);
        clock.set(now_ms - 300);
        append(&log, begin + 10..begin + 20);
        log.close().unwrap();
        check_records(&log, 0);
        last = log.segments().last().unwrap().last_arrival_ms.unwrap();
        assert_eq!(last, if start < 2 { 1000 } else { 2000 });
    }
}

/// Appends a record at each time of the clock, with a new start before each where `restart` says so.
fn arrivals(times_ms: &[i64], restart: bool) -> Vec<(i64, bool)> {
    let (disk, clock) = (SimDisk::new(), TestClock::at(0));
    let open = || Log::open(Arc::new(disk.clone()), clock.clone(), options(), Lsn(0)).unwrap().0;
    let mut log = open();
    for (start, &now_ms) in (0..).zip(times_ms) {
        if restart {
            log.close().unwrap();
            log = open();
        }
        clock.set(now_ms);
        append(&log, start..start + 1);
        log.sync().unwrap();
    }
    log.close().unwrap();
    let report = verify_dir(&disk, &options().dir).unwrap();
    assert!(report.problems.is_empty(), "{report:?}");
    let batches = DirectoryReader::open(Arc::new(disk), &options().dir).unwrap();
    batches.map(|batch| batch.map(|batch| (batch.arrival_ms(), batch.sets_clock_back())).unwrap()).collect()
}

#[test]
fn arrival_time_follows_a_clock_that_was_set_back_by_more_than_the_tolerance() {
    let times_ms = [100_000, 40_000, 39_999, 50_000, 49_000, -20_000, 9_000_000, 8_000_000];
    let expected = [
        (100_000, false),
        (100_000, false),
        (39_999, true),
        (50_000, false),
        (50_000, false),
        (-20_000, true),
        (9_000_000, false),
        (8_000_000, true),
    ];
    assert_eq!(arrivals(&times_ms, false), expected);
    assert_eq!(arrivals(&times_ms, true), expected);
}
