//! A log without a thread.

use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use super::*;
use crate::log::wakers::tests::Bell;
use crate::log::writer::FULL_RETRY;

/// A clock whose monotonic time a test moves.
#[derive(Debug, Default)]
struct InlineClock {
    monotonic_ms: AtomicU64,
}

impl InlineClock {
    fn pass(&self, time: Duration) {
        self.monotonic_ms.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for InlineClock {
    fn now_ms(&self) -> i64 {
        77
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }
}

struct Inline {
    disk: SimDisk,
    clock: Arc<InlineClock>,
    log: Log,
}

fn inline(options: LogOptions) -> Inline {
    let (disk, clock) = (SimDisk::new(), Arc::new(InlineClock::default()));
    let (log, recovery) = Log::open_inline(Arc::new(disk.clone()), clock.clone(), options, Lsn(0), Lsn(0)).unwrap();
    assert_eq!(recovery, RecoverySummary::default());
    Inline { disk, clock, log }
}

fn run(log: &Log) -> usize {
    std::iter::from_fn(|| log.step().then_some(())).count()
}

/// The content of a directory without the bytes that depend on the random salts.
fn content(disk: &SimDisk) -> (Vec<SegmentSummary>, Vec<String>) {
    let report = verify_dir(disk, dir()).unwrap();
    assert_eq!(report.problems, []);
    let segments = report.segments.iter().map(|segment| segment.readable).collect();
    let reader = DirectoryReader::open(Arc::new(disk.clone()), dir()).unwrap();
    let batches = reader.map(|batch| batch.unwrap()).map(|batch| {
        format!("{} {} {} {:?}", batch.first(), batch.arrival_ms(), batch.synced_below(), batch.records())
    });
    (segments, batches.collect())
}

#[test]
fn it_writes_what_a_log_with_a_thread_writes() {
    for sync in [SyncPolicy::EveryCommit, SyncPolicy::OnRequest] {
        let contents = [false, true].map(|is_inline| {
            let disk = SimDisk::new();
            let options = LogOptions { sync, ..options() };
            let clock = TestClock::at(5);
            let open = if is_inline { Log::open_inline } else { Log::open_at };
            let (log, _) = open(Arc::new(disk.clone()), clock.clone(), options, Lsn(0), Lsn(0)).unwrap();
            for position in 0..200 {
                clock.set(position as i64 * 3 % 100);
                append(&log, position..position + 1);
            }
            log.release(Lsn(60));
            log.append_wait(&records(200..207)).unwrap();
            log.close().unwrap();
            assert_eq!(log.append(&records(207..208), None), Err(AppendError::Closed));
            assert_eq!((log.durable(), check_records(&log, 100)), (Lsn(207), 207));
            content(&disk)
        });
        assert_eq!(contents[0], contents[1]);
    }
}

#[test]
fn nothing_happens_without_a_step() {
    let Inline { disk, log, .. } = inline(options());
    run(&log);
    let ((bell, waker), (watcher, watcher_waker)) = (Bell::new(), Bell::new());
    log.watch(watcher_waker);
    log.append(&records(0..3), Some(&waker)).unwrap();
    log.append(&records(3..5), Some(&waker)).unwrap();
    assert_eq!((log.readable(), log.durable(), bell.rings()), (Lsn(0), Lsn(0), 0));
    let syncs = disk.syncs();
    assert!(log.step());
    assert_eq!((log.durable(), bell.rings(), watcher.rings(), disk.syncs()), (Lsn(5), 1, 1, syncs + 1));
    assert!(!log.step(), "idle");
    assert_eq!(check_records(&log, 0), 5);
}

#[test]
fn waiting_calls_drive_the_writer() {
    let Inline { log, .. } = inline(LogOptions { sync: SyncPolicy::OnRequest, ..options() });
    let mut end = 0;
    while end < 300 {
        end = log.append_wait(&records(end..end + 3)).unwrap().0;
    }
    assert!(log.stats().queued_bytes <= options().queue_max_bytes);
    assert_eq!(log.sync().unwrap(), Lsn(300));
    assert_eq!((log.durable(), check_records(&log, 0)), (Lsn(300), 300));
    assert!(!log.step());
}

#[test]
fn dropping_it_writes_nothing() {
    for sync in [SyncPolicy::EveryCommit, SyncPolicy::OnRequest] {
        let Inline { disk, log, .. } = inline(LogOptions { sync, ..options() });
        append(&log, 0..5);
        let (before, syncs) = (content(&disk), disk.syncs());
        log.append(&records(5..9), None).unwrap();
        drop(log);
        assert_eq!((content(&disk), disk.syncs()), (before, syncs));
        assert_eq!(open(&disk.crash(1), options(), 5).unwrap().1.end, Lsn(5));
    }
}

#[test]
fn a_full_disk_is_tried_again_in_its_time() {
    let Inline { disk, clock, log } = inline(options());
    append(&log, 0..20);
    disk.set_capacity(Some(disk.used_bytes() + 10));
    let (waiting, waiting_waker) = Bell::new();
    log.append(&records(20..25), Some(&waiting_waker)).unwrap();
    assert!(run(&log) > 0);
    assert!(log.stats().disk_full && log.stats().failure.is_none());
    let (bell, waker) = Bell::new();
    assert_eq!(log.poll_room(&mut Context::from_waker(&waker)), Poll::Pending);
    assert_eq!(log.append(&records(25..26), None), Err(AppendError::Full));
    assert_eq!(log.append_wait(&records(25..26)), Err(AppendError::Full));
    assert!(matches!(log.sync(), Err(LogError::DiskFull { .. })));
    assert_eq!(verify_dir(&disk, dir()).unwrap().problems, [], "no half batch is left");
    clock.pass(FULL_RETRY);
    assert!(log.step() && !log.step(), "tried once, in vain");
    disk.set_capacity(None);
    clock.pass(FULL_RETRY - Duration::from_millis(1));
    assert!(!log.step() && bell.rings() == 0);
    clock.pass(Duration::from_millis(1));
    assert!(log.step());
    assert_eq!((bell.rings(), waiting.rings(), log.durable()), (1, 1, Lsn(25)));
    append(&log, 25..100);
    assert_eq!(check_records(&log, 0), 100);
}

#[test]
fn a_new_segment_that_finds_no_space_is_begun_later() {
    let Inline { disk, clock, log } = inline(options());
    let mut end = 0;
    while log.segments()[0].bytes < options().segment_bytes {
        append(&log, end..end + 1);
        end += 1;
    }
    disk.set_capacity(Some(disk.used_bytes() + 10));
    log.append(&records(end..end + 1), None).unwrap();
    run(&log);
    assert!(log.stats().disk_full);
    disk.set_capacity(None);
    clock.pass(FULL_RETRY);
    assert_eq!(log.sync().unwrap(), Lsn(end + 1));
    assert_eq!((log.stats().segments, check_records(&log, 0)), (2, end + 1));
    log.close().unwrap();
    assert_eq!(open(&disk.crash(0), options(), end + 1).unwrap().1.end, Lsn(end + 1));
}

#[test]
fn freed_segments_give_the_space_that_was_missing() {
    let Inline { disk, log, .. } = inline(options());
    append(&log, 0..300);
    disk.set_capacity(Some(disk.used_bytes() + 10));
    log.append(&records(300..310), None).unwrap();
    run(&log);
    assert!(log.stats().disk_full);
    log.release(Lsn(200));
    run(&log);
    assert_eq!((log.stats().disk_full, log.durable()), (false, Lsn(310)));
}

#[test]
fn the_reserve_is_looked_at_in_its_time() {
    let Inline { disk, clock, log } = inline(LogOptions { min_free_bytes: 6000, ..options() });
    disk.set_capacity(Some(disk.used_bytes() + 6040));
    clock.pass(Duration::from_secs(1));
    append(&log, 0..3);
    assert!(log.stats().disk_full, "looked at after the write");
    disk.set_capacity(None);
    assert!(!log.step());
    clock.pass(FULL_RETRY);
    assert!(log.step());
    append(&log, 3..5);
}

#[test]
fn closing_with_a_full_disk_fails() {
    let Inline { disk, log, .. } = inline(options());
    append(&log, 0..20);
    disk.set_capacity(Some(disk.used_bytes() + 10));
    let (bell, waker) = Bell::new();
    log.append(&records(20..25), Some(&waker)).unwrap();
    run(&log);
    let error = log.close().unwrap_err().to_string();
    assert!(error.contains("disk is full"), "{error}");
    assert!(bell.rings() == 1 && !log.step());
}

#[test]
fn a_failed_sync_ends_it() {
    let Inline { disk, log, .. } = inline(options());
    append(&log, 0..5);
    disk.fail_sync(1);
    let (bell, waker) = Bell::new();
    log.append(&records(5..6), Some(&waker)).unwrap();
    assert!(log.step() && !log.step());
    assert_eq!((bell.rings(), log.durable()), (1, Lsn(5)));
    assert!(matches!(log.sync(), Err(LogError::Failed { .. })));
    assert_eq!(log.append_wait(&records(6..7)), Err(AppendError::Closed));
    assert!(log.close().is_err());
}

#[test]
fn an_idle_log_gives_its_buffers_back() {
    let Inline { clock, log, .. } = inline(options());
    log.append_wait(&records(0..15)).unwrap();
    log.sync().unwrap();
    append(&log, 15..16);
    assert!(!log.step(), "not yet");
    clock.pass(Duration::from_secs(1));
    assert!(log.step(), "the buffer of a large batch is not kept for small ones");
    clock.pass(Duration::from_secs(1));
    assert!(!log.step());
}
