//! A full disk is not a failure.

use std::task::{Context, Poll};

use super::*;
use crate::log::wakers::tests::Bell;

/// Fills the disk until a write finds no space; returns one past the last record that was taken.
fn fill(log: &Log) -> u64 {
    let mut end = log.stats().appended.0;
    loop {
        match log.append(&records(end..end + 1), None) {
            Ok(position) => end = position.0,
            Err(AppendError::Full) if log.stats().disk_full => return end,
            Err(AppendError::Full) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn check_resume(sync: SyncPolicy, min_free_bytes: u64) {
    let (disk, log) = filled(LogOptions { sync, min_free_bytes, ..options() }, 20);
    let capacity = disk.used_bytes() + 3000;
    disk.set_capacity(Some(capacity));
    let end = fill(&log);
    let (bell, waker) = Bell::new();
    assert_eq!(log.poll_room(&mut Context::from_waker(&waker)), Poll::Pending);
    assert!(log.stats().failure.is_none());
    disk.set_capacity(Some(capacity + 100_000));
    bell.wait();
    append(&log, end..end + 100);
    assert!(!log.stats().disk_full);
    assert_eq!(check_records(&log, 0), end + 100);
    log.close().unwrap();
    let (log, recovery) = open(&disk.crash(1), options(), end + 100).unwrap();
    assert_eq!(recovery.end.0, end + 100);
    assert_eq!(check_records(&log, 0), end + 100);
}

#[test]
fn a_full_disk_is_waited_out() {
    check_resume(SyncPolicy::EveryCommit, 0);
    check_resume(SyncPolicy::OnRequest, 0);
}

#[test]
fn the_reserve_is_kept() {
    let (disk, log) = filled(options(), 20);
    log.close().unwrap();
    disk.set_capacity(Some(disk.used_bytes() + 5000));
    let (log, _) = open(&disk, LogOptions { min_free_bytes: 6000, ..options() }, 0).unwrap();
    let (bell, waker) = Bell::new();
    assert!(log.stats().disk_full, "looked at before the first append");
    assert_eq!(log.append(&records(20..21), None), Err(AppendError::Full));
    assert_eq!(log.poll_room(&mut Context::from_waker(&waker)), Poll::Pending);
    disk.set_capacity(Some(disk.used_bytes() + 7000));
    bell.wait();
    append(&log, 20..25);
    assert_eq!(check_records(&log, 0), 25);
}

#[test]
fn a_sync_does_not_wait_for_space() {
    let (disk, log) = filled(LogOptions { sync: SyncPolicy::OnRequest, ..options() }, 20);
    disk.set_capacity(Some(disk.used_bytes()));
    let end = fill(&log);
    assert!(matches!(log.sync(), Err(LogError::DiskFull { .. })));
    disk.set_capacity(None);
    let (bell, waker) = Bell::new();
    if log.poll_room(&mut Context::from_waker(&waker)).is_pending() {
        bell.wait();
    }
    assert_eq!(log.sync().unwrap().0, end);
}

#[test]
fn closing_with_a_full_disk_ends_and_says_so() {
    let (disk, log) = filled(options(), 20);
    disk.set_capacity(Some(disk.used_bytes() + 10));
    fill(&log);
    let error = log.close().unwrap_err().to_string();
    assert!(error.contains("disk is full"), "{error}");
    assert_eq!(verify_dir(&disk, dir()).unwrap().problems, [], "no half batch is left");
    let disk = disk.crash(4);
    disk.set_capacity(None);
    let (log, recovery) = open(&disk, options(), 20).unwrap();
    assert_eq!(recovery.end, Lsn(20));
    assert_eq!(check_records(&log, 0), 20);
}

#[test]
fn segments_are_freed_while_the_disk_is_full() {
    let (disk, log) = filled(options(), 300);
    disk.set_capacity(Some(disk.used_bytes() + 10));
    let end = fill(&log);
    log.release(Lsn(200));
    append(&log, end..end + 20);
    assert!(log.stats().first > Lsn(0));
    assert_eq!(check_records(&log, log.stats().first.0), end + 20);
}
