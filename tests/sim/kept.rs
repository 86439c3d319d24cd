//! Simulation of what the broker keeps over a restart: retained messages and sessions, in their stores on a disk that fails,
//! fills up and loses its power.
//!
//! It is a world of its own, without devices and pipeline: the journal is on a disk that never fails, since these stores promise
//! less than the journal. A model knows what each name held since the numbers of unstored things were last 0. A restart must
//! find one of these states, and after the faults have ended the newest one.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio_util::sync::CancellationToken;
use weir::clock::Clock;
use weir::config::{IngestConfig, MqttConfig};
use weir::disk::Disk;
use weir::disk::sim::SimDisk;
use weir::log::{Keep, Log, LogOptions, Lsn, Retention, SyncPolicy};
use weir::mqtt::StreamServer;
use weir::mqtt::broker::{RetainedStore, SessionStore};
use weir::random::Random;
use weir::state::key_value::KeyValue;
use weir::state::open::StoreOptions;
use weir_test_kit::mqtt::{
    CONNACK, MqttVersion, PUBACK, PUBLISH, ReceivedPacket, TestConnect, TestMessage, acknowledgement, packet,
    subscribe_packet,
};

use super::clock::SimClock;
use super::plan::DATA_DIR;
use super::store::SimStore;
use super::wire::Wire;

const VERSION: MqttVersion = MqttVersion::V4;
const TOPICS: u64 = 6;
const CLIENTS: u64 = 4;
/// Seconds in which everything must be on disk once faults have ended: more than the longest pause of a store.
const SETTLE_SECONDS: u64 = 200;

/// How often each kind of event happened.
#[derive(Debug, Default, Clone, Copy)]
pub struct KeptFigures {
    pub restarts: u64,
    pub outages: u64,
    pub recoveries: u64,
    /// Starts that were refused because of a passing error.
    pub refused_starts: u64,
}

impl KeptFigures {
    pub fn add(&mut self, other: &Self) {
        let Self { restarts, outages, recoveries, refused_starts } = other;
        self.restarts += restarts;
        self.outages += outages;
        self.recoveries += recoveries;
        self.refused_starts += refused_starts;
    }
}

/// What a name may hold after a restart: the state that is surely on disk, then all later ones.
type KeptHistory<T> = Vec<Option<T>>;

/// What the broker was told to keep.
#[derive(Debug, Default)]
struct KeptModel {
    retained: BTreeMap<u64, KeptHistory<u64>>,
    /// Messages that wait for each client; `None`: it has no session.
    sessions: BTreeMap<u64, KeptHistory<Vec<u64>>>,
}

fn present<T: Clone>(history: &KeptHistory<T>) -> Option<T> {
    history.last().cloned().flatten()
}

/// Everything is on disk: only the newest states count.
fn settle<T>(kept: &mut BTreeMap<u64, KeptHistory<T>>) {
    for history in kept.values_mut() {
        history.drain(..history.len() - 1);
    }
}

/// Compares what a restart found of one name.
fn found<T: Clone + PartialEq + std::fmt::Debug>(
    what: &str,
    history: &mut KeptHistory<T>,
    found: Option<T>,
) -> Result<(), String> {
    if !history.contains(&found) {
        return Err(format!("{what} is {found:?} after a restart, and may be {history:?}"));
    }
    *history = vec![found];
    Ok(())
}

/// One process.
struct KeptLife {
    server: StreamServer,
    retained: RetainedStore,
    sessions: SessionStore,
}

/// State of one simulation.
struct KeptWorld {
    random: Random,
    clock: Arc<SimClock>,
    disk: SimDisk,
    model: KeptModel,
    life: KeptLife,
    figures: KeptFigures,
    next_value: u64,
    failing: bool,
}

/// Runs one seed; returns its figures, and its failure.
pub fn run(seed: u64) -> (KeptFigures, Option<String>) {
    let mut random = Random::new(seed);
    let (clock, disk) = (Arc::new(SimClock::default()), SimDisk::new());
    let life = match boot(&disk, &clock) {
        Ok(life) => life,
        Err(error) => return (KeptFigures::default(), Some(error)),
    };
    let model = KeptModel {
        retained: (0..TOPICS).map(|topic| (topic, vec![None])).collect(),
        sessions: (0..CLIENTS).map(|client| (client, vec![None])).collect(),
    };
    let actions = 100 + random.below(400);
    let figures = KeptFigures::default();
    let mut world = KeptWorld { random, clock, disk, model, life, figures, next_value: 1, failing: false };
    let failure = world.live(actions).err();
    (world.figures, failure)
}

fn boot(disk: &SimDisk, clock: &Arc<SimClock>) -> Result<KeptLife, String> {
    clock.boot();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let options = || {
        let for_store = disk.clone();
        let open = move |directory: &Path| {
            SimStore::open(&for_store, directory).map(|store| Box::new(store) as Box<dyn KeyValue>)
        };
        StoreOptions { open: Arc::new(open), limit: None }
    };
    let (directory, clock): (_, Arc<dyn Clock>) = (Path::new(DATA_DIR), clock.clone());
    let told = |error: weir::state::StateError| format!("{}{error}", if error.is_damage() { "DAMAGE " } else { "" });
    let retained = RetainedStore::open_inline(directory, shared.clone(), clock.clone(), options()).map_err(told)?;
    let sessions = SessionStore::open_inline(directory, shared, clock.clone(), options()).map_err(told)?;
    let journal = LogOptions {
        name: "journal",
        dir: PathBuf::from("journal"),
        segment_bytes: 1 << 20,
        commit_max_bytes: 1 << 16,
        queue_max_bytes: 1 << 16,
        tail_max_bytes: 0,
        sync: SyncPolicy::EveryCommit,
        min_free_bytes: 0,
        retention: Retention { keep: Keep::Released, max_bytes: None },
        clock_tolerance_ms: 60_000,
    };
    let opened = Log::open_inline(Arc::new(SimDisk::new()), clock.clone(), journal, Lsn(0), Lsn(0));
    let (journal, _) = opened.map_err(|error| error.to_string())?;
    let server = StreamServer::new(&MqttConfig::default(), &IngestConfig::default(), journal, clock);
    server.restore(retained.clone(), sessions.clone(), Lsn(0));
    Ok(KeptLife { server, retained, sessions })
}

/// One connection to weir, served until it has nothing more to say.
struct Visit {
    wire: Wire,
    serve: Pin<Box<dyn Future<Output = ()>>>,
    bytes: Vec<u8>,
    /// Packets that came together with the CONNACK.
    early: Vec<ReceivedPacket>,
}

impl Visit {
    fn begin(server: &StreamServer, connect: &[u8]) -> (Self, bool) {
        let wire = Wire::default();
        wire.send(connect);
        let (server, stream) = (server.clone(), wire.server_end());
        let serve = Box::pin(async move { server.serve(stream, CancellationToken::new()).await });
        let mut visit = Self { wire, serve, bytes: Vec::new(), early: Vec::new() };
        visit.early = visit.exchange();
        let connack = visit.early.iter().find(|packet| packet.kind == CONNACK);
        let present = connack.is_some_and(|packet| packet.body[0] & 1 == 1);
        (visit, present)
    }

    /// Polls until nothing more comes; returns what came.
    fn exchange(&mut self) -> Vec<ReceivedPacket> {
        let mut packets = std::mem::take(&mut self.early);
        loop {
            self.wire.deliver_up(usize::MAX);
            let mut context = Context::from_waker(Waker::noop());
            let ended = self.serve.as_mut().poll(&mut context) == Poll::Ready(());
            self.wire.deliver_down(usize::MAX);
            let received = self.wire.receive();
            let silent = received.is_empty();
            self.bytes.extend(received);
            while let Some(packet) = ReceivedPacket::take(&mut self.bytes) {
                packets.push(packet);
            }
            if silent || ended {
                return packets;
            }
        }
    }

    fn messages(packets: &[ReceivedPacket]) -> Vec<TestMessage> {
        let published = packets.iter().filter(|packet| packet.kind == PUBLISH);
        published.map(|packet| TestMessage::read(packet, VERSION)).collect()
    }

    /// Receives and acknowledges all messages that wait.
    fn drain(&mut self) -> Vec<u64> {
        let mut numbers = Vec::new();
        loop {
            let messages = Self::messages(&self.exchange());
            if messages.is_empty() {
                return numbers;
            }
            for message in messages {
                numbers.extend(message.text().parse::<u64>());
                if message.qos > 0 {
                    self.wire.send(&acknowledgement(PUBACK, message.id));
                }
            }
        }
    }

    fn leave(mut self) {
        const DISCONNECT: u8 = 0xE0;
        self.wire.send(&packet(DISCONNECT, &[]));
        self.exchange();
    }
}

impl KeptWorld {
    fn live(&mut self, actions: u64) -> Result<(), String> {
        for _ in 0..actions {
            self.act()?;
            self.after_action()?;
        }
        self.come_to_rest()?;
        let power = self.random.one_in(2);
        self.restart(power)
    }

    fn act(&mut self) -> Result<(), String> {
        match self.random.below(32) {
            0..=5 => self.retain(),
            6..=9 => self.queue(),
            10..=12 => self.visit(),
            13..=16 => self.clock.advance(self.random.below(2_500)),
            17 => self.clock.advance(self.random.below(60_000)),
            18..=22 => self.life.server.store_round(),
            23..=26 => drop(self.life.retained.step()),
            27..=29 => drop(self.life.sessions.step()),
            30 => self.fault(),
            _ if self.random.one_in(4) => {
                let power = self.random.one_in(2);
                return self.restart(power);
            }
            _ => {}
        }
        Ok(())
    }

    fn value(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value
    }

    fn retain(&mut self) {
        let (topic, value) = (self.random.below(TOPICS), self.value());
        let kept = (!self.random.one_in(3)).then_some(value);
        let payload = kept.map(|value| value.to_string()).unwrap_or_default();
        self.life.server.broker().publish(&format!("r/{topic}"), payload.into(), 0, true);
        self.model.retained.entry(topic).or_default().push(kept);
    }

    fn queue(&mut self) {
        let (client, value) = (self.random.below(CLIENTS), self.value());
        self.life.server.broker().publish(&format!("s/{client}"), value.to_string().into(), 1, false);
        let history = self.model.sessions.entry(client).or_default();
        if let Some(mut waiting) = present(history) {
            waiting.push(value);
            history.push(Some(waiting));
        }
    }

    /// A client takes what waits for it, or ends its session.
    fn visit(&mut self) {
        let client = self.random.below(CLIENTS);
        let connect = TestConnect::new(VERSION, &format!("c{client}"));
        let history = self.model.sessions.entry(client).or_default();
        if self.random.one_in(3) {
            Visit::begin(&self.life.server, &connect.packet()).0.leave();
            history.push(None);
            return;
        }
        take(&self.life.server, client);
        history.push(Some(Vec::new()));
    }

    fn fault(&mut self) {
        self.failing = true;
        let nth = 1 + self.random.below(4);
        match self.random.below(6) {
            0 => self.disk.fail_write(nth),
            1 | 2 => self.disk.fail_sync(nth),
            3 => self.disk.set_capacity(Some(self.disk.used_bytes() + self.random.below(2_000))),
            4 => self.disk.set_capacity(None),
            _ => self.disk.cut_power_at(Some(1 + self.random.below(12))),
        }
    }

    fn after_action(&mut self) -> Result<(), String> {
        if self.disk.is_cut() {
            return self.restart(true);
        }
        for store in self.life.server.broker().store_health() {
            let (is_out, is_stored) = (store.failure.is_some(), store.unstored == 0);
            self.figures.outages += u64::from(is_out);
            self.figures.recoveries += u64::from(store.is_rewriting);
            match store.directory {
                "retained" if is_stored => settle(&mut self.model.retained),
                "sessions" if is_stored => settle(&mut self.model.sessions),
                _ => {}
            }
        }
        Ok(())
    }

    /// Faults have ended: everything must get to disk without a restart.
    fn come_to_rest(&mut self) -> Result<(), String> {
        self.disk.fail_nothing();
        self.disk.cut_power_at(None);
        self.disk.set_capacity(None);
        for _ in 0..SETTLE_SECONDS {
            self.clock.advance(1_000);
            self.life.server.store_round();
            while self.life.retained.step() | self.life.sessions.step() {}
            self.after_action()?;
            let health = self.life.server.broker().store_health();
            if health.iter().all(|store| store.unstored == 0 && store.failure.is_none() && !store.is_rewriting) {
                return Ok(());
            }
        }
        Err(format!("the stores do not recover: {:?}", self.life.server.broker().store_health()))
    }

    fn restart(&mut self, power: bool) -> Result<(), String> {
        self.figures.restarts += 1;
        if power {
            self.disk = self.disk.crash(self.random.next_u64());
        } else {
            self.disk.fail_nothing();
        }
        self.disk.cut_power_at(None);
        if self.random.one_in(4) {
            self.disk.fail_sync(1 + self.random.below(4));
        }
        self.life = match boot(&self.disk, &self.clock) {
            Ok(life) => life,
            Err(error) if error.starts_with("DAMAGE") => return Err(format!("a start is refused: {error}")),
            Err(_) => {
                self.figures.refused_starts += 1;
                self.disk.fail_nothing();
                self.disk.set_capacity(None);
                boot(&self.disk, &self.clock)?
            }
        };
        let names = self.disk.list(Path::new(DATA_DIR)).map_err(|error| error.to_string())?;
        if let Some(aside) = names.iter().find(|entry| entry.name.contains(".damaged-")) {
            return Err(format!("{} was moved aside", aside.name));
        }
        self.compare()
    }

    /// Compares what the restarted weir holds with the model.
    fn compare(&mut self) -> Result<(), String> {
        let (mut reader, _) = Visit::begin(&self.life.server, &TestConnect::new(VERSION, "reader").packet());
        reader.wire.send(&subscribe_packet(VERSION, 1, ["r/#"], 0, &[]));
        let mut retained = BTreeMap::new();
        for message in Visit::messages(&reader.exchange()) {
            let topic = message.topic.trim_start_matches("r/").parse::<u64>().map_err(|error| error.to_string())?;
            retained.insert(topic, message.text().parse::<u64>().map_err(|error| error.to_string())?);
        }
        reader.leave();
        for (topic, history) in &mut self.model.retained {
            found(&format!("retained message {topic}"), history, retained.get(topic).copied())?;
        }
        for (client, history) in &mut self.model.sessions {
            let (present, waiting) = take(&self.life.server, *client);
            found(&format!("session {client}"), history, present.then_some(waiting))?;
            history.push(Some(Vec::new()));
        }
        Ok(())
    }
}

/// A client continues its session, or begins one, and takes all that waits.
fn take(server: &StreamServer, client: u64) -> (bool, Vec<u64>) {
    let connect = TestConnect::new(VERSION, &format!("c{client}")).kept(1_000_000);
    let (mut visit, present) = Visit::begin(server, &connect.packet());
    let waiting = visit.drain();
    visit.wire.send(&subscribe_packet(VERSION, 1, [format!("s/{client}")], 1, &[]));
    visit.exchange();
    visit.leave();
    (present, waiting)
}
