//! The pipeline's loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::core::record::{self, InvalidRecord};
use crate::log::{AppendError, Batch, Log, LogError, Lsn, Reader, Records};
use crate::pipeline::handle::Pipeline;
use crate::pipeline::start::Runner;
use crate::state::manifest::Positions;

/// Journal time between two ticks while windows are open and nothing arrives.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// Longest sleep of an idle pipeline: the watchdog hears of it at least this often.
const MAX_SLEEP: Duration = Duration::from_millis(500);

/// Commands answered between two batches.
const COMMANDS_PER_TURN: usize = 4;

/// A start that replayed at least this many records takes a checkpoint at once, so that a crash soon after does not
/// replay them again.
const CHECKPOINT_AFTER_REPLAY: u64 = 50_000;

/// How old the published status may be while batches follow one another.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);

/// How old the event times in it may be: the lowest watermark is looked for among all devices.
const EVENT_TIME_INTERVAL: Duration = Duration::from_millis(250);

/// Why the pipeline stopped.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// The journal cannot be read.
    #[error("the pipeline cannot read the journal: {0}")]
    Journal(#[from] LogError),
    /// The journal holds something that is no record.
    #[error("the batch at journal position {position} cannot be processed: {source}")]
    Record {
        /// Position of the batch.
        position: u64,
        /// What is wrong.
        source: InvalidRecord,
    },
    /// An output log takes nothing more.
    #[error("an output log failed: {0}")]
    Output(AppendError),
    /// The checkpoint at the end, or at a change of settings, could not be taken. Nothing is lost: the next start
    /// replays the journal.
    #[error("a checkpoint that had to be taken failed: {0}")]
    Checkpoint(String),
}

/// Tells the pipeline to stop, and how long it may take over it.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    requested: Arc<AtomicBool>,
}

impl Stop {
    /// Processes what is synced, takes a checkpoint, and ends.
    pub fn request(&self, pipeline: &Pipeline) {
        self.requested.store(true, Ordering::Release);
        pipeline.wake();
    }

    fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Runner {
    /// Runs until `stop` is requested, then takes a last checkpoint within `grace`.
    pub fn run(mut self, stop: &Stop, grace: Duration) -> Result<(), PipelineError> {
        let result = self.run_to_end(stop, grace);
        if let Err(error) = &result {
            self.pipeline.update(|status| status.failure = Some(error.to_string()));
        }
        result
    }

    fn run_to_end(&mut self, stop: &Stop, grace: Duration) -> Result<(), PipelineError> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        self.pipeline.runs_on(std::thread::current());
        self.journal.watch(waker.clone());
        let mut reader = self.journal.reader(Lsn(self.position));
        self.recover(&mut reader, &waker, grace)?;
        let mut last_batch = Instant::now();
        let mut last_status = Instant::now();
        loop {
            self.pipeline.turn();
            self.answer();
            let batch = reader.next_batch()?;
            if let Some(batch) = &batch {
                self.process(batch, &waker)?;
                last_batch = Instant::now();
            }
            self.checkpoint();
            if batch.is_some() {
                if last_status.elapsed() >= STATUS_INTERVAL {
                    self.publish_status();
                    last_status = Instant::now();
                }
                continue;
            }
            self.publish_status();
            if stop.is_requested() {
                break;
            }
            if self.checkpointer.has_work() {
                continue;
            }
            self.rest(&mut last_batch);
        }
        let (positions, now_ms) = (self.positions(), self.clock.now_ms());
        let deadline = Instant::now() + grace;
        let outcome = self.checkpointer.finish(&mut self.operator, positions, now_ms, deadline);
        self.publish_status();
        outcome.map_err(PipelineError::Checkpoint)
    }

    /// Processes what was in the journal at start under the settings of the checkpoint, then goes on under the
    /// configured ones, from a checkpoint on: so a change of settings has a place in the journal, and a replay never
    /// crosses it. Nothing is processed under settings that are not on disk.
    fn recover(&mut self, reader: &mut Reader, waker: &Waker, limit: Duration) -> Result<(), PipelineError> {
        self.limits.look(self.operator.totals());
        let started = Instant::now();
        if !self.checkpointer.has_checkpoint() {
            self.take_checkpoint(limit)?;
        }
        let (from, end) = (self.position, self.recovered_end);
        while self.position < end {
            self.pipeline.turn();
            self.answer();
            let Some(batch) = reader.next_batch()? else { break };
            self.process(&batch, waker)?;
        }
        let replayed = self.position - from;
        let changed = *self.operator.settings() != self.settings;
        if changed {
            tracing::info!("the settings changed since the last checkpoint; the new ones hold from here on");
            self.operator.reconfigure(self.settings.clone(), &mut self.outputs);
            self.append_outputs(waker)?;
            self.take_checkpoint(limit)?;
        } else if replayed >= CHECKPOINT_AFTER_REPLAY {
            let (positions, now_ms) = (self.positions(), self.clock.now_ms());
            self.checkpointer.begin(&mut self.operator, positions, now_ms);
        }
        let took = started.elapsed();
        self.publish_status();
        self.pipeline.update(|status| {
            status.caught_up = true;
            status.replayed_records = replayed;
            status.caught_up_at = Some(Instant::now());
        });
        if replayed > 0 {
            tracing::info!(records = replayed, ?took, "replayed the journal");
        }
        Ok(())
    }

    fn process(&mut self, batch: &Batch, waker: &Waker) -> Result<(), PipelineError> {
        assert!(batch.first().0 <= self.position, "the journal freed records that no checkpoint has");
        if batch.is_hole() {
            let (first, end) = (batch.first().0, batch.end().0);
            tracing::warn!(first, end, "passing journal records that are lost: `weir journal repair` cut them out");
        }
        let skip = (self.position - batch.first().0) as usize;
        let records = batch.records().skip(skip);
        self.operator
            .apply(self.position, batch.arrival_ms(), records, &mut self.outputs)
            .map_err(|source| PipelineError::Record { position: batch.first().0, source })?;
        self.position = batch.end().0;
        self.arrival_ms = Some(batch.arrival_ms());
        assert_eq!(self.operator.totals().unaccounted(), 0, "a reading is neither in a window nor rejected");
        self.append_outputs(waker)
    }

    fn append_outputs(&mut self, waker: &Waker) -> Result<(), PipelineError> {
        let pipeline = &self.pipeline;
        self.outputs.append(|log| wait_for_room(log, waker, pipeline)).map_err(PipelineError::Output)
    }

    fn answer(&mut self) {
        for command in self.commands.try_iter().take(COMMANDS_PER_TURN) {
            command(&self.operator);
        }
    }

    fn checkpoint(&mut self) {
        self.checkpointer.poll(&mut self.operator);
        if self.checkpointer.is_due(self.position) {
            let (positions, now_ms) = (self.positions(), self.clock.now_ms());
            self.checkpointer.begin(&mut self.operator, positions, now_ms);
        }
        self.checkpointer.step(&mut self.operator);
    }

    /// Takes a checkpoint now and waits for it. None may be under way.
    fn take_checkpoint(&mut self, limit: Duration) -> Result<(), PipelineError> {
        let (positions, now_ms) = (self.positions(), self.clock.now_ms());
        let taken = self.checkpointer.take(&mut self.operator, positions, now_ms, Instant::now() + limit);
        taken.map_err(PipelineError::Checkpoint)
    }

    fn positions(&self) -> Positions {
        Positions {
            replay_from: self.position,
            windows: self.outputs.windows_position(),
            errors: self.outputs.errors_position(),
        }
    }

    /// Nothing to read: lets time pass into the journal where windows wait for it, and sleeps.
    fn rest(&mut self, last_batch: &mut Instant) {
        let mut sleep = MAX_SLEEP;
        if self.operator.has_open_windows() {
            let silent = last_batch.elapsed();
            if silent >= TICK_INTERVAL {
                let mut tick = Records::default();
                tick.push_with(record::encode_tick);
                // Where the journal has no room time cannot pass; where it failed, reading it says so.
                if self.journal.append(&tick, None).is_ok() {
                    *last_batch = Instant::now();
                }
            } else {
                sleep = sleep.min(TICK_INTERVAL - silent);
            }
        }
        if self.checkpointer.is_encoding() {
            sleep = sleep.min(Duration::from_millis(5));
        }
        std::thread::park_timeout(sleep);
    }

    fn publish_status(&mut self) {
        self.limits.look(self.operator.totals());
        if self.event_time_taken.is_none_or(|taken| taken.elapsed() >= EVENT_TIME_INTERVAL) {
            self.event_time_taken = Some(Instant::now());
            let (newest_event_ms, lowest_watermark_ms) = self.operator.event_time();
            self.pipeline.update(|status| {
                status.newest_event_ms = newest_event_ms;
                status.lowest_watermark_ms = lowest_watermark_ms;
            });
        }
        let (operator, position, arrival_ms) = (&self.operator, self.position, self.arrival_ms);
        let mismatches = self.outputs.mismatches();
        self.pipeline.update(|status| {
            status.position = position;
            status.arrival_ms = arrival_ms;
            status.totals.clone_from(operator.totals());
            status.sizes = operator.sizes();
            status.replay_mismatches = mismatches;
        });
    }
}

/// Waits until an output log takes appends again. The pipeline stays alive for the watchdog: a full disk is not a
/// fault.
fn wait_for_room(log: &Log, waker: &Waker, pipeline: &Pipeline) {
    pipeline.turn();
    if log.poll_room(&mut Context::from_waker(waker)) == Poll::Pending {
        std::thread::park_timeout(MAX_SLEEP);
    }
}
