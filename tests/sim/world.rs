//! Everything that one seed simulates: a machine, clients, network and time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use weir::disk::sim::SimDisk;

use super::check::check;
use super::client::SimClient;
use super::clock::SimClock;
use super::ledger::SimLedger;
use super::plan::SimPlan;
use super::process::SimProcess;
use super::trace::Trace;
use weir::random::Random;

/// Rounds in which devices send after the clock was set right for good.
const RIGHT_ROUNDS: u64 = 60;
/// Most rounds until everything is processed once faults have ended.
const SETTLE_ROUNDS: u64 = 4_000;

/// Outcome of a seed.
#[derive(Debug)]
pub struct SeedReport {
    pub trace_hash: u64,
    pub figures: SimFigures,
    /// The failure and the last events.
    pub failure: Option<(String, String)>,
}

/// How often each kind of event happened.
#[derive(Debug, Default, Clone, Copy)]
pub struct SimFigures {
    pub actions: u64,
    pub messages: u64,
    pub acknowledged: u64,
    pub power_cuts: u64,
    pub kills: u64,
    pub starts: u64,
    pub starts_cut_short: u64,
    pub checks: u64,
    pub broken_connections: u64,
    pub io_failures: u64,
    pub full_disks: u64,
    pub clock_jumps: u64,
    pub decays: u64,
    pub refusals: u64,
    pub fallbacks: u64,
}

impl SimFigures {
    pub fn add(&mut self, other: &Self) {
        let Self { actions, messages, acknowledged, power_cuts, kills, starts, starts_cut_short, checks, .. } = other;
        self.actions += actions;
        self.messages += messages;
        self.acknowledged += acknowledged;
        self.power_cuts += power_cuts;
        self.kills += kills;
        self.starts += starts;
        self.starts_cut_short += starts_cut_short;
        self.checks += checks;
        self.broken_connections += other.broken_connections;
        self.io_failures += other.io_failures;
        self.full_disks += other.full_disks;
        self.clock_jumps += other.clock_jumps;
        self.decays += other.decays;
        self.refusals += other.refusals;
        self.fallbacks += other.fallbacks;
    }
}

/// State of one simulation.
pub struct World {
    pub(super) random: Random,
    pub(super) plan: SimPlan,
    pub(super) clock: Arc<SimClock>,
    pub(super) disk: SimDisk,
    pub(super) clients: Vec<SimClient>,
    pub(super) ledger: SimLedger,
    pub(super) process: Option<SimProcess>,
    pub(super) trace: Trace,
    pub(super) figures: SimFigures,
    /// Actions that a failed process still does before it is gone.
    pub(super) dying: Option<u64>,
    /// Whether faults have ended.
    pub(super) settling: bool,
    /// Journal position that was durable when the process went.
    pub(super) durable_at_end: u64,
    syncs_seen: u64,
}

/// Runs one seed.
pub fn run(seed: u64, print: bool) -> SeedReport {
    let mut world = World::new(seed, print);
    let result = catch_unwind(AssertUnwindSafe(|| world.live())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    });
    world.figures.messages = world.ledger.messages.len() as u64;
    world.figures.acknowledged = world.ledger.acknowledged as u64;
    if let Err(what) = &result {
        world.note(format_args!("FAILED {what}"));
    }
    SeedReport {
        trace_hash: world.trace.hash(),
        figures: world.figures,
        failure: result.err().map(|what| (what, world.trace.last_lines())),
    }
}

/// A range with one random index below a count; empty for a count of 0.
fn one_of(count: usize, random: &mut Random) -> std::ops::Range<usize> {
    let index = random.index(count);
    index..(index + 1).min(count)
}

impl World {
    fn new(seed: u64, print: bool) -> Self {
        let mut random = Random::new(seed);
        let plan = SimPlan::new(&mut random.fork());
        let clock = Arc::new(SimClock::default());
        let now_ms = clock.true_ms();
        let clients = (0..plan.clients)
            .map(|number| SimClient::new(number, plan.mqtt.max_inflight, plan.remaps, now_ms, &mut random.fork()))
            .collect();
        Self {
            random,
            plan,
            clock,
            disk: SimDisk::new(),
            clients,
            ledger: SimLedger::default(),
            process: None,
            trace: Trace::new(print),
            figures: SimFigures::default(),
            dying: None,
            settling: false,
            durable_at_end: 0,
            syncs_seen: 0,
        }
    }

    pub(super) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.event(self.clock.true_ms(), what);
    }

    fn live(&mut self) -> Result<(), String> {
        let plan = format!("{:?}", self.plan);
        self.note(format_args!("{plan}"));
        self.start()?;
        for _ in 0..self.plan.actions {
            self.figures.actions += 1;
            self.act()?;
            self.after_action()?;
        }
        self.settle()
    }

    fn act(&mut self) -> Result<(), String> {
        if self.fault()? {
            return Ok(());
        }
        match self.random.below(20) {
            0..=2 => self.pass_time(),
            3..=7 => self.client_works()?,
            8..=11 => self.network_works(),
            12..=14 => self.connection_works(),
            15..=16 => self.log_works(0),
            17 => {
                let log = 1 + self.random.index(2);
                self.log_works(log);
            }
            _ => self.pipeline_works(),
        }
        Ok(())
    }

    /// What the machine does whatever is done: a slow disk takes its time, and a process that failed ends.
    fn after_action(&mut self) -> Result<(), String> {
        let syncs = self.disk.syncs();
        self.clock.advance((syncs - std::mem::replace(&mut self.syncs_seen, syncs)) * self.plan.sync_ms);
        if self.disk.is_cut() {
            return self.power_goes();
        }
        if self.dying.is_none()
            && let Some(why) = self.process.as_ref().and_then(SimProcess::failure)
        {
            let left = self.random.below(8);
            self.note(format_args!("weir fails, {left} actions left: {why}"));
            self.dying = Some(left);
        }
        match &mut self.dying {
            Some(0) => self.end_of_failed(),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn pass_time(&mut self) {
        if let Some(process) = self.process.as_ref().filter(|_| self.random.one_in(4)) {
            process.look_at_clock();
        }
        let ms = match self.random.below(12) {
            0 => self.random.below(12_000),
            1..=3 => self.random.below(1_500),
            _ => self.random.below(120),
        };
        self.clock.advance(ms);
    }

    fn client_works(&mut self) -> Result<(), String> {
        let some =
            if self.random.one_in(3) { 0..self.clients.len() } else { one_of(self.clients.len(), &mut self.random) };
        for index in some {
            self.work_of_client(index)?;
        }
        Ok(())
    }

    pub(super) fn work_of_client(&mut self, index: usize) -> Result<(), String> {
        let now_ms = self.clock.true_ms();
        let listens = self.process.as_mut().is_some_and(SimProcess::listens);
        let client = &mut self.clients[index];
        client.measure(now_ms, &mut self.random);
        if listens && let Some(wire) = client.connect(now_ms) {
            self.trace.event(now_ms, format_args!("{} connects", client.name));
            if let Some(process) = &mut self.process {
                process.accept(wire);
            }
        }
        let (messages, acknowledged) = (self.ledger.messages.len(), self.ledger.acknowledged);
        let ended = client.receive(&mut self.ledger)?;
        if client.owes_state() && !ended {
            return self.state_comes_again(index);
        }
        let client = &mut self.clients[index];
        client.send(&mut self.ledger, &mut self.random);
        let sent = self.ledger.messages.len() - messages;
        let acked = self.ledger.acknowledged - acknowledged;
        if sent + acked > 0 {
            self.trace.event(now_ms, format_args!("{} acknowledged {acked}, sends {sent}", client.name));
        }
        if ended {
            self.trace.event(now_ms, format_args!("{} was disconnected", client.name));
            client.break_off(0, now_ms + 500);
        }
        Ok(())
    }

    fn network_works(&mut self) {
        let Some(process) = &self.process else { return };
        let connections = process.connections();
        let some = if self.random.one_in(3) { 0..connections } else { one_of(connections, &mut self.random) };
        for index in some {
            self.line_works(index);
        }
    }

    fn line_works(&mut self, index: usize) {
        let Some(process) = &self.process else { return };
        let wire = process.wire(index).clone();
        let (up, down) = wire.in_flight();
        // Sometimes all bytes arrive, sometimes a part of a packet.
        let part = |random: &mut Random, all: usize| if random.one_in(3) { random.index(all + 1) } else { all };
        wire.deliver_up(part(&mut self.random, up));
        wire.deliver_down(part(&mut self.random, down));
        if wire.client_gone() && self.random.one_in(4) {
            wire.tell_server();
        }
    }

    fn connection_works(&mut self) {
        let Some(process) = &mut self.process else { return };
        let connections = process.connections();
        let some = if self.random.one_in(3) { 0..connections } else { one_of(connections, &mut self.random) };
        for index in some.rev() {
            if process.poll(index) {
                self.trace.event(self.clock.true_ms(), format_args!("connection {index} ended"));
            }
        }
    }

    fn log_works(&mut self, index: usize) {
        let Some(process) = &self.process else { return };
        let log = &process.logs[index];
        if log.step() {
            let (stats, operations) = (log.stats(), self.disk.operations());
            let (durable, first) = (stats.durable, stats.first);
            let name = ["journal", "windows", "errors"][index];
            self.note(format_args!("{name} {first} to {durable} durable, disk operation {operations}"));
        }
    }

    fn pipeline_works(&mut self) {
        let Some(process) = &mut self.process else { return };
        // A checkpoint takes dozens of turns.
        let turns = if self.random.one_in(3) { 1 + self.random.below(100) } else { 1 };
        let turn = (0..turns).map_while(|_| process.turn()).last();
        let status = process.pipeline.status();
        let checkpoint = status.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.id);
        self.trace.event(
            self.clock.true_ms(),
            format_args!("pipeline {turn:?} at {}, checkpoint {checkpoint}", status.position),
        );
    }

    /// Checks weir once it has processed what the journal has.
    pub(super) fn check_now(&mut self, at_end: bool) -> Result<bool, String> {
        let Some(process) = &mut self.process else { return Ok(false) };
        if !process.catch_up() {
            return Ok(false);
        }
        let checked = check(process, &self.plan, &self.ledger, at_end);
        if self.disk.is_cut() {
            return Ok(false);
        }
        checked?;
        self.figures.checks += 1;
        let records = process.logs[0].durable();
        let windows = process.logs[1].stats().appended;
        self.note(format_args!("checked: {records} records, {windows} windows"));
        Ok(true)
    }

    /// No more faults: clients redeliver until everything is acknowledged, then time passes until all windows are
    /// closed.
    fn settle(&mut self) -> Result<(), String> {
        self.note(format_args!("no more faults"));
        self.settling = true;
        self.disk.set_capacity(None);
        self.disk.cut_power_at(None);
        self.disk.fail_nothing();
        // The clock is set right, and devices go on for a while.
        self.clock.set_wall_offset_ms(0);
        self.ledger.right_from = Some(self.ledger.messages.len());
        for _ in 0..RIGHT_ROUNDS {
            self.settle_round()?;
        }
        self.clients.iter_mut().for_each(SimClient::stop);
        for _ in 0..SETTLE_ROUNDS {
            if self.settle_round()? {
                return self.check_at_end();
            }
        }
        let open = self.process.as_ref().map(|process| process.pipeline.status().sizes);
        let waiting: Vec<_> = self.clients.iter().filter(|client| !client.is_done()).collect();
        Err(format!("it does not come to rest: {open:?}, {waiting:?}"))
    }

    fn settle_round(&mut self) -> Result<bool, String> {
        self.clock.advance(250);
        for index in 0..self.clients.len() {
            self.work_of_client(index)?;
        }
        let Some(process) = &mut self.process else { return Err("weir is not there".into()) };
        process.look_at_clock();
        for index in (0..process.connections()).rev() {
            let wire = process.wire(index).clone();
            let (up, down) = wire.in_flight();
            wire.deliver_up(up);
            wire.deliver_down(down);
            if wire.client_gone() {
                wire.tell_server();
            }
            process.poll(index);
        }
        let is_idle = process.catch_up();
        self.after_action()?;
        let Some(process) = &self.process else { return Ok(false) };
        let is_closed = process.pipeline.status().sizes.open_windows == 0;
        Ok(is_idle && is_closed && self.clients.iter().all(SimClient::is_done))
    }

    fn check_at_end(&mut self) -> Result<(), String> {
        if let Some(unacknowledged) = self.ledger.messages.iter().position(|m| !m.acknowledged && !m.lossy) {
            return Err(format!("message {unacknowledged} was never acknowledged: a defect of the simulation"));
        }
        if !self.check_now(true)? {
            return Err("the end could not be checked".into());
        }
        let wraps: u64 = self.clients.iter().map(SimClient::wraps).sum();
        let seen = self.process.as_ref().map_or(0, |process| process.pipeline.status().totals.sequence_wraps);
        if seen < wraps {
            return Err(format!("of {wraps} wraps of counters {seen} were recognised"));
        }
        // Another start finds the same on disk.
        self.go_down(self.random.clone().one_in(2));
        self.start()?;
        if !self.check_now(true)? {
            return Err("the end could not be checked after a restart".into());
        }
        Ok(())
    }
}
