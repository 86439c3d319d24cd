//! What goes wrong, and what must then happen.

use std::path::{Path, PathBuf};

use weir::clock::Clock;
use weir::disk::Disk;

use super::decay::{self, Region};
use super::plan::DATA_DIR;
use super::process::{BootError, SimProcess};
use super::world::World;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Eleven years.
const YEARS_MS: i64 = 4_018 * DAY_MS;

/// Starts in a row that may be cut short.
const MAX_CUT_STARTS: u64 = 6;
/// Starts in a row at most, for whatever reasons.
const MAX_STARTS: u64 = 40;

/// A bit that was flipped.
#[derive(Debug, Clone)]
pub struct Flip {
    path: PathBuf,
    offset: u64,
    bit: u8,
}

/// What was done to stored bytes while weir was down.
#[derive(Debug, Clone)]
pub enum Decay {
    /// A bit of a log that was synced for certain: weir must notice.
    Log { flip: Flip, name: &'static str },
    /// A bit of the state store: weir must notice, and do without.
    Store(Flip),
    /// The state store is gone.
    StoreLost,
}

impl World {
    fn happens(&mut self, rate: u64) -> bool {
        rate > 0 && self.random.one_in(rate)
    }

    /// Lets something go wrong now and then; returns whether it did.
    pub(super) fn fault(&mut self) -> Result<bool, String> {
        let rates = self.plan.rates;
        if self.happens(rates.power_cut) {
            let within = 1 + self.random.below(60);
            self.note(format_args!("the power will go at disk operation {}", self.disk.operations() + within));
            self.disk.cut_power_at(Some(within));
        } else if self.happens(rates.kill) {
            self.note(format_args!("weir is killed"));
            self.figures.kills += 1;
            self.go_down(false);
            self.start()?;
        } else if self.happens(rates.io_failure) {
            self.io_failure();
        } else if self.happens(rates.full_disk) {
            self.fill_or_free_disk();
        } else if self.happens(rates.clock_jump) {
            self.jump_clock();
        } else if self.happens(rates.break_off) {
            self.break_connection();
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn io_failure(&mut self) {
        self.figures.io_failures += 1;
        let nth = 1 + self.random.below(6);
        let kind = self.random.below(4);
        self.note(format_args!("a disk call will fail: kind {kind}, number {nth}"));
        match kind {
            0 => self.disk.fail_write(nth),
            1 => self.disk.fail_dir_sync(nth),
            _ => self.disk.fail_sync(nth),
        }
    }

    fn fill_or_free_disk(&mut self) {
        self.figures.full_disks += 1;
        let free = self.random.below(60_000);
        let capacity = if self.random.one_in(2) { None } else { Some(self.disk.used_bytes() + free) };
        self.note(format_args!("the disk holds {capacity:?} bytes"));
        self.disk.set_capacity(capacity);
    }

    fn jump_clock(&mut self) {
        self.figures.clock_jumps += 1;
        // Never so far back that a device with a right clock is minutes ahead of the arrival, unless that is what is tried.
        let lies = [-YEARS_MS, -DAY_MS, -HOUR_MS, 0, HOUR_MS, DAY_MS, YEARS_MS];
        let offset_ms = match self.random.below(6) {
            _ if self.plan.clock_lies && !self.random.one_in(4) => *self.random.pick(&lies),
            0 => 0,
            1 => self.random.range(-200_000, 0),
            2 => self.random.range(0, 7_200_000),
            // Ahead by more than results may be old.
            3 => 7_200_000,
            _ => self.random.range(-5_000, 60_000),
        };
        self.note(format_args!("the wall clock is off by {offset_ms} ms"));
        self.clock.set_wall_offset_ms(offset_ms);
    }

    fn break_connection(&mut self) {
        let index = self.random.index(self.clients.len());
        let Some(wire) = self.clients[index].wire() else { return };
        let (up, down) = wire.in_flight();
        let arriving = self.random.index(up + 1);
        let pause_ms = match self.random.below(5) {
            0 => self.random.range(0, 40_000),
            _ => self.random.range(0, 1_000),
        };
        self.figures.broken_connections += 1;
        self.note(format_args!(
            "connection of client-{index} breaks: {arriving} of {up} bytes arrive, {down} are lost"
        ));
        self.clients[index].break_off(arriving, self.clock.true_ms() + pause_ms);
    }

    /// The process is gone; with it, or without, the power.
    pub(super) fn go_down(&mut self, power: bool) {
        if let Some(process) = self.process.take() {
            self.durable_at_end = process.logs[0].durable().0;
            drop(process);
        }
        self.dying = None;
        for index in 0..self.clients.len() {
            let pause_ms = self.random.range(0, 3_000);
            self.clients[index].break_off(0, self.clock.true_ms() + pause_ms);
        }
        self.disk.cut_power_at(None);
        self.disk.fail_nothing();
        if power || self.disk.is_cut() {
            self.figures.power_cuts += 1;
            self.disk = self.disk.crash(self.random.next_u64());
        }
        self.clock.advance(self.random.below(20_000));
    }

    pub(super) fn power_goes(&mut self) -> Result<(), String> {
        self.note(format_args!("the power is gone"));
        self.go_down(true);
        self.start()
    }

    /// A process that failed has ended; often it is the machine that was ill.
    pub(super) fn end_of_failed(&mut self) -> Result<(), String> {
        let power = self.random.one_in(2);
        self.note(format_args!("weir has ended; power cut: {power}"));
        self.go_down(power);
        self.start()
    }

    /// Starts weir, however often it takes, and checks what it found now and then.
    pub(super) fn start(&mut self) -> Result<(), String> {
        let rate = self.plan.rates.decay;
        let mut decay = None;
        if !self.settling && self.happens(rate) {
            decay = self.decay();
        }
        for attempt in 0..MAX_STARTS {
            let disturbed = !self.settling && attempt < MAX_CUT_STARTS && self.disturb_start();
            self.figures.starts += 1;
            let settings = self.plan.next_settings(&mut self.random);
            let window_ms = settings.window_ms;
            match SimProcess::boot(&self.plan, settings, &self.disk, &self.clock) {
                Ok((process, fallback)) => {
                    self.note(format_args!("weir runs with windows of {window_ms} ms, fallback {fallback:?}"));
                    if let Some(Decay::Log { flip, name }) = &decay {
                        self.must_have_noticed(process, flip, name)?;
                        decay = None;
                        continue;
                    }
                    if fallback.is_some() {
                        self.figures.fallbacks += 1;
                        if decay.is_none() {
                            return Err(format!(
                                "the state store was unusable, and nothing happened to it: {fallback:?}"
                            ));
                        }
                    }
                    self.restore_retained(&process);
                    self.process = Some(process);
                    return self.after_start();
                }
                Err(error) => self.failed_start(&error, &mut decay, disturbed)?,
            }
        }
        Err("weir does not start".into())
    }

    /// Lets the power go, or a call fail, during a start.
    fn disturb_start(&mut self) -> bool {
        let rates = self.plan.rates;
        if rates.power_cut > 0 && self.random.one_in(4) {
            let within = 1 + self.random.below(24);
            self.note(format_args!("the power will go at operation {within} of the start"));
            self.disk.cut_power_at(Some(within));
            return true;
        }
        if rates.io_failure > 0 && self.random.one_in(6) {
            self.io_failure();
            return true;
        }
        false
    }

    fn failed_start(&mut self, error: &BootError, decay: &mut Option<Decay>, disturbed: bool) -> Result<(), String> {
        self.note(format_args!("the start failed: {error}"));
        if self.disk.is_cut() {
            self.figures.starts_cut_short += 1;
            self.go_down(true);
            return Ok(());
        }
        if error.is_refusal() {
            self.figures.refusals += 1;
            let Some(decayed) = decay.take() else {
                return Err(format!("weir refuses to start, and nothing was damaged: {error}"));
            };
            return self.undo(&decayed, error);
        }
        let is_full = self.disk.available_bytes(Path::new(DATA_DIR)).is_ok_and(|free| free < 200_000);
        if is_full {
            self.disk.set_capacity(None);
        } else if !disturbed {
            return Err(format!("weir does not start, and nothing went wrong: {error}"));
        }
        let power = self.random.one_in(2);
        self.go_down(power);
        Ok(())
    }

    fn after_start(&mut self) -> Result<(), String> {
        if self.random.one_in(2) {
            self.check_now(false)?;
        }
        Ok(())
    }

    /// Lets stored bytes decay.
    fn decay(&mut self) -> Option<Decay> {
        let data = PathBuf::from(DATA_DIR);
        match self.random.below(8) {
            0..=1 => {
                let flip = self.flip_in(decay::store_regions(&self.disk, &data.join("state")))?;
                Some(Decay::Store(flip))
            }
            2 => {
                let moved = self.disk.rename(&data.join("state"), &data.join("lost"));
                moved.and_then(|()| self.disk.sync_dir(&data)).ok()?;
                self.figures.decays += 1;
                self.note(format_args!("the state store is lost"));
                Some(Decay::StoreLost)
            }
            3..=4 => {
                // Nobody was promised these bytes: weir cuts them off, or they are whole by chance.
                let region = decay::unsynced_region(&self.disk, &data.join("journal"), self.durable_at_end)?;
                self.flip_in(vec![region]);
                None
            }
            _ => {
                let name = *self.random.pick(&["journal", "journal", "windows", "errors"]);
                let flip = self.flip_in(decay::synced_regions(&self.disk, &data.join(name)))?;
                Some(Decay::Log { flip, name })
            }
        }
    }

    fn flip_in(&mut self, regions: Vec<Region>) -> Option<Flip> {
        if regions.is_empty() {
            return None;
        }
        let Region { path, bytes } = self.random.pick(&regions).clone();
        let offset = (bytes.start + self.random.index(bytes.len())) as u64;
        let flip = Flip { path, offset, bit: self.random.below(8) as u8 };
        self.disk.flip_bit(&flip.path, flip.offset, flip.bit).ok()?;
        self.figures.decays += 1;
        self.note(format_args!("decay: {flip:?}"));
        Some(flip)
    }

    /// weir runs although a log has decayed. That is right as long as it has not looked there: what it reads must say
    /// so.
    fn must_have_noticed(&mut self, process: SimProcess, flip: &Flip, name: &str) -> Result<(), String> {
        drop(process);
        if self.disk.is_cut() {
            // Not to be told any more.
            self.go_down(true);
        } else {
            let reads = weir::log::verify_dir(&self.disk, &PathBuf::from(DATA_DIR).join(name));
            if let Ok(report) = reads
                && report.problems.is_empty()
            {
                return Err(format!(
                    "the {name} log decayed, weir started, and nothing is wrong with it any more: {flip:?}"
                ));
            }
            self.go_down(false);
        }
        self.flip_back(flip);
        Ok(())
    }

    /// Puts back what decayed after weir refused it: as a person would from a copy.
    fn undo(&mut self, decay: &Decay, error: &BootError) -> Result<(), String> {
        self.go_down(false);
        match decay {
            Decay::Log { flip, .. } => self.flip_back(flip),
            // Where there was no space for a savepoint, the journal may have been freed without one.
            Decay::Store(_) | Decay::StoreLost
                if self.plan.savepoints.interval.is_some() && self.figures.full_disks == 0 =>
            {
                return Err(format!("the state store is lost, and the savepoints are of no use: {error}"));
            }
            Decay::Store(flip) => self.flip_back(flip),
            Decay::StoreLost => {
                let data = PathBuf::from(DATA_DIR);
                let (lost, state) = (data.join("lost"), data.join("state"));
                let aside = data.join(format!("empty-{}", self.clock.now_ms()));
                let back = self.disk.rename(&state, &aside).and_then(|()| self.disk.rename(&lost, &state));
                let back = back.and_then(|()| self.disk.sync_dir(&data));
                back.map_err(|error| format!("the state store cannot be put back: {error}"))?;
            }
        }
        Ok(())
    }

    fn flip_back(&mut self, flip: &Flip) {
        // The file may have been freed or cut since.
        let _ = self.disk.flip_bit(&flip.path, flip.offset, flip.bit);
        self.note(format_args!("put back: {flip:?}"));
    }
}
