//! One simulated process: the parts of weir, put together as `weir run` does, without threads.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio_util::sync::CancellationToken;
use weir::clock::Clock;
use weir::clock_jump::JumpGuard;
use weir::core::record;
use weir::core::settings::Settings;
use weir::disk::Disk;
use weir::disk::sim::SimDisk;
use weir::log::{Log, LogError, Lsn, Records};
use weir::mqtt::StreamServer;
use weir::pipeline::handle::Pipeline;
use weir::pipeline::run::{PipelineError, Runner, Turn};
use weir::pipeline::start::{PipelineResources, StartError, positions, prepare};
use weir::state::key_value::KeyValue;
use weir::state::open::StoreOptions;
use weir::state::recovery::{self, Fallback, RecoveryError, RecoveryOptions};

use super::clock::SimClock;
use super::plan::{CLOCK_JUMP_HOLD, CLOCK_TOLERANCE_MS, DATA_DIR, SimPlan};
use super::store::SimStore;
use super::wire::Wire;

/// Why a start failed.
#[derive(Debug)]
pub enum BootError {
    State(RecoveryError),
    Log(LogError),
    Start(StartError),
}

impl BootError {
    /// Whether weir says that data is damaged or lost.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::State(error) => error.is_damage(),
            Self::Log(error) => matches!(error, LogError::Damaged(_)),
            Self::Start(error) => matches!(error, StartError::Gap { .. } | StartError::Restore { .. }),
        }
    }
}

impl std::fmt::Display for BootError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::State(error) => error.fmt(f),
            Self::Log(error) => error.fmt(f),
            Self::Start(error) => error.fmt(f),
        }
    }
}

struct SimConnection {
    wire: Wire,
    serve: Pin<Box<dyn Future<Output = ()>>>,
}

/// A running weir.
pub struct SimProcess {
    /// Journal, windows, errors.
    pub logs: [Log; 3],
    pub pipeline: Pipeline,
    runner: Runner,
    mqtt: StreamServer,
    /// The record that says that weir listens (again) is in the journal.
    listens: bool,
    connections: Vec<SimConnection>,
    guard: Arc<JumpGuard>,
    /// Settings of this start.
    settings: Settings,
    /// Why the pipeline stopped.
    pub stopped: Option<PipelineError>,
}

impl SimProcess {
    /// Starts weir on a disk.
    pub fn boot(
        plan: &SimPlan,
        settings: Settings,
        disk: &SimDisk,
        clock: &Arc<SimClock>,
    ) -> Result<(Self, Option<Fallback>), BootError> {
        clock.boot();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let guard = JumpGuard::open(clock.clone(), shared.clone(), Path::new(DATA_DIR), CLOCK_JUMP_HOLD);
        let clock: Arc<dyn Clock> = guard.clone();
        let for_store = disk.clone();
        let recovered = recovery::open(&RecoveryOptions {
            disk: shared.clone(),
            clock: clock.clone(),
            data_dir: PathBuf::from(DATA_DIR),
            store: StoreOptions {
                open: Arc::new(move |directory| {
                    SimStore::open(&for_store, directory).map(|store| Box::new(store) as Box<dyn KeyValue>)
                }),
                limit: None,
            },
        })
        .map_err(BootError::State)?;
        let synced = positions(recovered.checkpoint.as_ref());
        let open = |name, known_synced| {
            let opened = Log::open_inline(shared.clone(), clock.clone(), plan.log(name), Lsn(known_synced), Lsn(0));
            opened.map_err(BootError::Log)
        };
        let (journal, found) = open("journal", synced.replay_from)?;
        let (windows, _) = open("windows", synced.windows)?;
        let (errors, _) = open("errors", synced.errors)?;
        guard.begin(newest_arrival_ms(&journal));
        let (runner, pipeline) = prepare(PipelineResources {
            journal: journal.clone(),
            windows: windows.clone(),
            errors: errors.clone(),
            store: recovered.store,
            checkpoint: recovered.checkpoint,
            settings: settings.clone(),
            checkpoint_interval: plan.checkpoint_interval,
            savepoints: plan.savepoints.clone(),
            disk: shared.clone(),
            clock: clock.clone(),
            threads: false,
            recovered_end: found.end,
        })
        .map_err(BootError::Start)?;
        let mqtt = StreamServer::new(&plan.mqtt, &plan.ingest, journal.clone(), clock.clone());
        let process = Self {
            logs: [journal, windows, errors],
            pipeline,
            runner,
            mqtt,
            listens: false,
            connections: Vec::new(),
            guard,
            settings,
            stopped: None,
        };
        Ok((process, recovered.fallback))
    }

    /// Looks at the clock, as `weir run` does every second, and lets the journal follow a clock that was set back.
    pub fn look_at_clock(&self) {
        self.guard.look();
        let ahead_ms = newest_arrival_ms(&self.logs[0]).unwrap_or(i64::MIN).saturating_sub(self.guard.now_ms());
        if ahead_ms > CLOCK_TOLERANCE_MS {
            let mut tick = Records::default();
            tick.push_with(record::encode_tick);
            // On a full disk the next look tries again.
            let _ = self.logs[0].append(&tick, None);
        }
    }

    /// Whether connections are accepted. First the journal records that weir did not listen until this moment, and the settings.
    pub fn listens(&mut self) -> bool {
        if !self.listens {
            let mut resumed = Records::default();
            resumed.push_with(record::encode_resumed);
            resumed.push_with(|out| record::encode_settings(&self.settings, out));
            self.listens = self.logs[0].append(&resumed, None).is_ok();
        }
        self.listens
    }

    pub fn accept(&mut self, wire: Wire) {
        let (mqtt, stream) = (self.mqtt.clone(), wire.server_end());
        let serve = async move { mqtt.serve(stream, CancellationToken::new()).await };
        self.connections.push(SimConnection { wire, serve: Box::pin(serve) });
    }

    /// Retains a message as one that the store of retained messages held when weir started.
    pub fn retain(&self, topic: &str, payload: &[u8]) {
        self.mqtt.broker().publish(topic, payload.to_vec().into(), 1, true);
    }

    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    pub fn wire(&self, index: usize) -> &Wire {
        &self.connections[index].wire
    }

    /// Polls a connection; returns whether it ended.
    pub fn poll(&mut self, index: usize) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let ended = self.connections[index].serve.as_mut().poll(&mut context) == Poll::Ready(());
        if ended {
            drop(self.connections.remove(index));
        }
        ended
    }

    /// Runs one turn of the pipeline.
    pub fn turn(&mut self) -> Option<Turn> {
        if self.stopped.is_some() {
            return None;
        }
        match self.runner.turn() {
            Ok(turn) => Some(turn),
            Err(error) => {
                self.stopped = Some(error);
                None
            }
        }
    }

    /// The failure after which `weir run` ends.
    pub fn failure(&self) -> Option<String> {
        let stopped = self.stopped.as_ref().map(ToString::to_string);
        stopped.or_else(|| self.logs.iter().find_map(|log| log.stats().failure))
    }

    /// Works until nothing is left to do at the current time. `false`: weir failed or waits for disk space.
    pub fn catch_up(&mut self) -> bool {
        const MAX_ROUNDS: usize = 1_000_000;
        for _ in 0..MAX_ROUNDS {
            let stepped = self.logs.iter().fold(false, |any, log| log.step() | any);
            match self.turn() {
                None | Some(Turn::Blocked(_)) if !stepped => return false,
                Some(Turn::Idle(_)) if !stepped => {
                    let written = self.logs.iter().all(|log| log.readable() == log.stats().appended);
                    return self.failure().is_none() && written;
                }
                _ => {}
            }
        }
        panic!("the pipeline does not come to rest");
    }
}

/// Arrival time of the newest batch of a log.
fn newest_arrival_ms(log: &Log) -> Option<i64> {
    log.segments().iter().rev().find_map(|segment| segment.last_arrival_ms)
}
