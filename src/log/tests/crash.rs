//! Random histories with power cuts.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum CrashStep {
    /// Appends this many records at once.
    Append(u64),
    Sync,
    /// Lets this many more syncs proceed, then holds the disk, so that a queue builds up.
    Hold(u64),
    Unhold,
    SetClock(i64),
    /// Releases all durable records but this many.
    Release(u64),
    Crash(u64),
    Restart,
}

fn step() -> impl Strategy<Value = CrashStep> {
    prop_oneof![
        12 => (1_u64..8).prop_map(CrashStep::Append),
        3 => Just(CrashStep::Sync),
        2 => (0_u64..3).prop_map(CrashStep::Hold),
        2 => Just(CrashStep::Unhold),
        2 => (-50_i64..1000).prop_map(CrashStep::SetClock),
        1 => (0_u64..100).prop_map(CrashStep::Release),
        3 => any::<u64>().prop_map(CrashStep::Crash),
        1 => Just(CrashStep::Restart),
    ]
}

struct History {
    options: LogOptions,
    disk: SimDisk,
    clock: Arc<TestClock>,
    log: Log,
    next: u64,
    /// Ends of appends. A recovered log ends at one of them.
    ends: BTreeSet<u64>,
    held: bool,
    arrival_ms: Option<i64>,
}

impl History {
    fn new(sync: SyncPolicy, tail_max_bytes: usize) -> History {
        let retention = Retention { keep: Keep::UpToBytes, max_bytes: Some(3000) };
        let options = LogOptions { sync, tail_max_bytes, segment_bytes: 700, retention, ..options() };
        let disk = SimDisk::new();
        let clock = TestClock::at(0);
        let (log, _) = Log::open(Arc::new(disk.clone()), clock.clone(), options.clone(), Lsn(0)).unwrap();
        History { options, disk, clock, log, next: 0, ends: BTreeSet::from([0]), held: false, arrival_ms: None }
    }

    fn apply(&mut self, step: CrashStep) {
        match step {
            CrashStep::Append(count) => self.append(count),
            CrashStep::Sync if !self.held => {
                assert_eq!(self.log.sync().unwrap(), Lsn(self.next));
                assert_eq!(self.log.durable(), Lsn(self.next));
            }
            CrashStep::Sync => {}
            CrashStep::Hold(count) => {
                self.held = true;
                self.disk.allow_syncs(Some(count));
            }
            CrashStep::Unhold => self.unhold(),
            CrashStep::SetClock(now_ms) => self.clock.set(now_ms),
            CrashStep::Release(all_but) => self.log.release(Lsn(self.log.durable().0.saturating_sub(all_but))),
            CrashStep::Crash(seed) => self.crash(seed),
            CrashStep::Restart => {
                self.unhold();
                self.log.close().unwrap();
                self.reopen(self.next);
                assert_eq!(self.log.durable(), Lsn(self.next), "a clean end keeps everything");
            }
        }
    }

    fn unhold(&mut self) {
        self.held = false;
        self.disk.allow_syncs(None);
    }

    fn append(&mut self, count: u64) {
        let batch = records(self.next..self.next + count);
        match self.log.append(&batch, None) {
            Ok(end) => {
                assert_eq!(end.0, self.next + count);
                self.next = end.0;
                self.ends.insert(end.0);
            }
            Err(AppendError::Full) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn crash(&mut self, seed: u64) {
        let durable = self.log.durable().0;
        self.held = false;
        self.disk = self.disk.crash(seed);
        self.reopen(durable);
    }

    fn reopen(&mut self, known_synced: u64) {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let (log, recovery) = Log::open(disk, self.clock.clone(), self.options.clone(), Lsn(known_synced)).unwrap();
        self.log = log;
        let end = recovery.end.0;
        assert!(
            end >= known_synced && end <= self.next,
            "{known_synced} were synced, {} appended: {recovery:?}",
            self.next
        );
        assert!(self.ends.contains(&end), "an append is there whole or not at all");
        self.next = end;
        self.check();
        assert!(recovery.last_arrival_ms >= self.arrival_ms.filter(|_| end > 0));
        assert_eq!(verify_dir(&self.disk, dir()).unwrap().problems, []);
    }

    fn check(&mut self) {
        let first = self.log.stats().first.0;
        let mut reader = self.log.reader(Lsn(first));
        let mut position = first;
        let mut arrival_ms = i64::MIN;
        while let Some(batch) = reader.next_batch().unwrap() {
            // Retention may free records that this reader has not read yet.
            position += reader.skipped().min(batch.first().0.saturating_sub(position));
            assert_eq!(batch.first().0, position);
            assert!(batch.arrival_ms() >= arrival_ms);
            for bytes in batch.records() {
                assert_eq!(bytes, record(position));
                position += 1;
            }
            arrival_ms = batch.arrival_ms();
        }
        assert!(position >= self.log.durable().0.min(self.next));
        if position == self.log.durable().0 {
            self.arrival_ms = Some(arrival_ms).filter(|time| *time != i64::MIN).or(self.arrival_ms);
        }
    }
}

fn check_history(sync: SyncPolicy, tail_max_bytes: usize, steps: Vec<CrashStep>) {
    let mut history = History::new(sync, tail_max_bytes);
    for step in steps {
        history.apply(step);
    }
    history.unhold();
    history.log.sync().unwrap();
    history.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_journal_keeps_what_it_acknowledged(steps in prop::collection::vec(step(), 1..60)) {
        check_history(SyncPolicy::EveryCommit, 500, steps);
    }

    #[test]
    fn a_log_synced_on_request_keeps_what_was_synced(steps in prop::collection::vec(step(), 1..60)) {
        check_history(SyncPolicy::OnRequest, 0, steps);
    }
}

/// A removal whose sync fails may be undone by a power cut. No later removal may survive without it.
#[test]
fn a_removal_that_is_not_certain_leaves_no_gap() {
    for seed in 0..40 {
        let disk = SimDisk::new();
        let (log, _) =
            Log::open_inline(Arc::new(disk.clone()), Arc::new(TestClock::default()), options(), Lsn(0), Lsn(0))
                .unwrap();
        append(&log, 0..400);
        let segments = log.segments();
        assert!(segments.len() > 4);
        disk.fail_dir_sync(1);
        log.release(segments[1].end);
        while log.step() {}
        assert_eq!(log.stats().first, segments[1].first, "one is gone");
        assert_eq!(check_records(&log, segments[1].first.0), 400);
        assert_eq!(log.reader(Lsn(0)).next_batch().unwrap().map(|batch| batch.first()), Some(segments[1].first));
        // The power is cut at the removal of the next segment.
        disk.cut_power_at(Some(1 + seed % 3));
        log.release(segments[3].end);
        while log.step() {}
        drop(log);
        let after = disk.crash(seed);
        let (log, recovery) = open(&after, options(), 399).unwrap();
        assert_eq!(check_records(&log, recovery.first.0), 400, "seed {seed}");
    }
}
