use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::*;
use crate::disk::sim::SimDisk;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const YEAR_MS: i64 = 365 * DAY_MS;
const START_MS: i64 = 1_800_000_000_000;
const HOLD: Duration = Duration::from_secs(24 * 3_600);

/// A wall clock that is set, and a monotonic clock that goes on with it.
#[derive(Debug, Default)]
struct MovedClock {
    offset_ms: AtomicI64,
    passed_ms: AtomicU64,
}

impl Clock for MovedClock {
    fn now_ms(&self) -> i64 {
        START_MS + self.offset_ms.load(Ordering::Relaxed) + self.monotonic().as_millis() as i64
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.passed_ms.load(Ordering::Relaxed))
    }
}

struct Machine {
    clock: Arc<MovedClock>,
    disk: SimDisk,
    guard: Arc<JumpGuard>,
}

impl Machine {
    /// A machine whose logs end `newest_ago_ms` before now.
    fn new(newest_ago_ms: Option<i64>) -> Self {
        let (clock, disk) = (Arc::<MovedClock>::default(), SimDisk::new());
        disk.create_dir_all(Path::new("data")).unwrap();
        let guard = open(&clock, &disk);
        guard.begin(newest_ago_ms.map(|ago_ms| START_MS - ago_ms));
        Self { clock, disk, guard }
    }

    fn restart(&mut self, newest_ago_ms: i64) {
        self.guard = open(&self.clock, &self.disk);
        assert_eq!(self.guard.age_now_ms(), None, "nothing is known yet");
        self.guard.begin(Some(self.clock.now_ms() - newest_ago_ms));
    }

    fn set(&self, offset_ms: i64) {
        self.clock.offset_ms.store(offset_ms, Ordering::Relaxed);
    }

    fn pass(&self, ms: i64) {
        self.clock.passed_ms.fetch_add(ms as u64, Ordering::Relaxed);
    }

    /// The hours for which nothing is deleted by age.
    fn hold_hours(&self) -> Option<u64> {
        let jump = self.guard.jump();
        assert_eq!(jump.is_none(), self.guard.age_now_ms() == Some(self.clock.now_ms()));
        jump.map(|jump| jump.hold_left.as_secs() / 3_600)
    }

    fn is_unready(&self) -> bool {
        self.guard.jump().is_some_and(|jump| jump.unready_left > Duration::ZERO)
    }
}

fn open(clock: &Arc<MovedClock>, disk: &SimDisk) -> Arc<JumpGuard> {
    JumpGuard::open(Arc::clone(clock) as Arc<dyn Clock>, Arc::new(disk.clone()), Path::new("data"), HOLD)
}

#[test]
fn a_jump_begins_a_hold_that_ends() {
    let machine = Machine::new(Some(0));
    assert_eq!(machine.hold_hours(), None);
    machine.set(YEAR_MS);
    assert_eq!((machine.hold_hours(), machine.is_unready()), (Some(24), true));
    assert_eq!(machine.guard.jump().map(|jump| ms(jump.step)), Some(YEAR_MS));
    machine.pass(HOUR_MS);
    assert_eq!((machine.hold_hours(), machine.is_unready()), (Some(23), false));
    machine.pass(24 * HOUR_MS);
    assert_eq!(machine.hold_hours(), None);
}

#[test]
fn a_clock_that_comes_back_ends_the_hold() {
    let machine = Machine::new(Some(0));
    machine.set(YEAR_MS);
    assert_eq!(machine.hold_hours(), Some(24));
    machine.pass(HOUR_MS);
    machine.set(0);
    assert_eq!(machine.hold_hours(), None);
    machine.set(YEAR_MS / 2);
    assert_eq!(machine.hold_hours(), Some(24), "another jump");
}

#[test]
fn a_clock_that_comes_back_only_half_way_is_still_ahead() {
    let machine = Machine::new(Some(0));
    machine.set(YEAR_MS);
    assert_eq!(machine.hold_hours(), Some(24));
    machine.pass(HOUR_MS);
    machine.set(YEAR_MS / 2);
    assert_eq!(machine.hold_hours(), Some(24));
    machine.set(YEAR_MS);
    assert_eq!(machine.hold_hours(), Some(24));
    machine.set(0);
    assert_eq!(machine.hold_hours(), None);
}

#[test]
fn small_steps_are_followed_slowly_and_add_up_when_they_are_fast() {
    let machine = Machine::new(Some(0));
    machine.set(HOUR_MS / 2);
    assert_eq!(machine.hold_hours(), None);
    machine.pass(DAY_MS);
    assert_eq!(machine.hold_hours(), None);
    machine.set(HOUR_MS);
    assert_eq!(machine.hold_hours(), None, "the first step was followed");
    machine.pass(60_000);
    machine.set(2 * HOUR_MS);
    assert_eq!(machine.hold_hours(), Some(24), "the second was not");
    let machine = Machine::new(Some(0));
    machine.set(-YEAR_MS);
    assert_eq!(machine.hold_hours(), None, "a step back deletes nothing");
}

#[test]
fn a_start_compares_the_clock_with_the_newest_record() {
    assert_eq!(Machine::new(None).hold_hours(), None, "there is nothing to delete");
    assert_eq!(Machine::new(Some(HOUR_MS)).hold_hours(), None);
    let off = Machine::new(Some(9 * HOUR_MS));
    assert_eq!((off.hold_hours(), off.is_unready()), (Some(24), false), "off over night");
    let ahead = Machine::new(Some(YEAR_MS));
    assert_eq!((ahead.hold_hours(), ahead.is_unready()), (Some(24), false), "off for long, or a wrong clock");
}

/// While the clock is ahead, new records get its time. So the stored time decides, and the stored hold.
#[test]
fn a_restart_neither_hides_a_jump_nor_ends_its_hold() {
    let mut machine = Machine::new(Some(0));
    machine.guard.look();
    machine.set(YEAR_MS);
    machine.restart(0);
    assert_eq!(machine.hold_hours(), Some(24), "it jumped and weir was killed before it looked");
    machine.pass(4 * HOUR_MS);
    machine.guard.look();
    machine.restart(0);
    assert_eq!(machine.hold_hours(), Some(20));
    machine.set(0);
    machine.restart(0);
    assert_eq!(machine.hold_hours(), None, "it is right again");
}

#[test]
fn small_steps_add_up_over_restarts() {
    let mut machine = Machine::new(Some(0));
    machine.guard.look();
    machine.set(HOUR_MS - 1_000);
    machine.guard.store_now();
    assert_eq!(machine.hold_hours(), None);
    machine.restart(0);
    machine.set(2 * HOUR_MS - 2_000);
    assert_eq!(machine.hold_hours(), Some(24));
}

/// weir may be killed between the step back and the clock's return: results would be deleted by age at the next start.
#[test]
fn a_step_back_is_stored_at_once() {
    let mut machine = Machine::new(Some(0));
    machine.guard.look();
    machine.set(-DAY_MS);
    machine.pass(1_000);
    machine.guard.look();
    machine.set(0);
    machine.restart(0);
    assert_eq!(machine.hold_hours(), Some(24), "nobody can tell which time is the wrong one");
}

#[test]
fn what_could_not_be_stored_is_stored_by_the_next_look() {
    let mut machine = Machine::new(Some(0));
    machine.disk.set_capacity(Some(0));
    machine.guard.look();
    machine.disk.set_capacity(None);
    machine.pass(1_000);
    machine.guard.look();
    machine.set(YEAR_MS);
    machine.restart(0);
    assert_eq!(machine.hold_hours(), Some(24), "the newest record has the time of the clock that jumped");
}

/// A machine without a battery for its clock begins in 1970 and is set a little later.
#[test]
fn the_first_setting_of_a_clock_is_no_reason_to_be_unready() {
    let machine = Machine::new(None);
    machine.set(-START_MS);
    assert_eq!(machine.hold_hours(), None);
    machine.set(0);
    assert_eq!((machine.hold_hours(), machine.is_unready()), (Some(24), false));
}

#[test]
fn a_file_that_cannot_be_read_is_as_none() {
    let mut machine = Machine::new(Some(0));
    machine.guard.look();
    replace_file(&machine.disk, Path::new("data/clock.json"), b"{").unwrap();
    machine.restart(0);
    assert_eq!(machine.hold_hours(), None);
    replace_file(&machine.disk, Path::new("data/clock.json"), br#"{"version":1,"seen_ms":1831536000000,"hold":{"from_ms":1800000000000,"to_ms":1831536000000,"left_ms":7200000}}"#)
        .unwrap();
    machine.set(YEAR_MS);
    machine.restart(0);
    assert_eq!(machine.hold_hours(), Some(2), "the file of version 1");
}

#[test]
fn a_clock_that_was_back_between_two_looks_is_seen_where_its_time_is_used() {
    let machine = Machine::new(Some(0));
    machine.guard.look();
    machine.set(-DAY_MS);
    // A batch gets its arrival time.
    let arrival_ms = machine.guard.now_ms();
    machine.pass(300);
    machine.set(0);
    assert_eq!(machine.hold_hours(), Some(24), "the batch of {arrival_ms} must not look a day old");
}
