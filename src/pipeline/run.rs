//! The loop of the pipeline: reads the journal, processes it, takes checkpoints, answers questions.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::clock::Clock;
use crate::core::map_activity::{FirstReadings, RecognisedMap};
use crate::core::operator::Operator;
use crate::core::rebirth::RebirthRequest;
use crate::core::record::{self, InvalidRecord};
use crate::defects::{self, Defect};
use crate::log::{AppendError, Batch, Log, LogError, Reader, Records};
use crate::pipeline::checkpoint::Checkpointer;
use crate::pipeline::error::CheckpointError;
use crate::pipeline::handle::{Pipeline, Requests};
use crate::pipeline::limits::StateLimits;
use crate::pipeline::sink::OutputLogs;

use crate::state::manifest::Positions;

/// Journal time between two ticks while windows are open and nothing arrives.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// Longest sleep of an idle pipeline. The watchdog sees a turn at least this often.
const MAX_SLEEP: Duration = Duration::from_millis(500);

/// Sleep while the checkpoint writer is behind.
const WRITER_PAUSE: Duration = Duration::from_millis(5);

/// Questions answered between two batches.
const QUERIES_PER_TURN: usize = 4;

/// A start that replayed at least this many records takes a checkpoint at once, so that a crash soon after does not
/// replay them again.
const CHECKPOINT_AFTER_REPLAY: u64 = 50_000;

/// Longest age of the published status while batches follow one another.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);

/// Longest age of the event times in the status. They need a look at every device.
const EVENT_TIME_INTERVAL: Duration = Duration::from_millis(250);

/// Why the pipeline stopped.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// The journal cannot be read.
    #[error("the pipeline cannot read the journal: {0}")]
    Journal(#[from] LogError),
    /// The journal holds a record that is of no known format.
    #[error("the batch at journal position {position} cannot be processed: {source}")]
    Record {
        /// Position of the batch.
        position: u64,
        /// Why the record cannot be read.
        source: InvalidRecord,
    },
    /// An output log failed and takes nothing more.
    #[error("an output log failed: {0}")]
    Output(AppendError),
    /// The last checkpoint could not be taken. Nothing is lost: the next start replays the journal.
    #[error("the last checkpoint failed: {0}")]
    Checkpoint(Arc<CheckpointError>),
    /// The checkpoint store is damaged. The next start replaces it.
    #[error("{0}; the next start moves the store aside and goes on from a savepoint or the journal")]
    Store(Arc<CheckpointError>),
}

/// Result of one turn of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// There may be more to do at once.
    Busy,
    /// The journal is processed. There is nothing to do for this time, or until the pipeline is woken.
    Idle(Duration),
    /// An output log has no room for results, because the disk is nearly full. Try again after this time, or when woken.
    Blocked(Duration),
}

/// Tells the pipeline to stop.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    requested: Arc<AtomicBool>,
}

impl Stop {
    /// Makes the pipeline process what is synced, take a checkpoint, and end.
    pub fn request(&self, pipeline: &Pipeline) {
        self.requested.store(true, Ordering::Release);
        pipeline.wake();
    }

    fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }
}

struct UnparkPipeline(Thread);

impl Wake for UnparkPipeline {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// State of the loop itself, kept from turn to turn.
#[derive(Debug)]
pub(super) struct LoopProgress {
    /// Whether the records found at start are processed.
    caught_up: bool,
    /// When replaying began, on the monotonic clock; `None` before the first turn.
    started: Option<Duration>,
    /// Journal position at which replaying began.
    from: u64,
    /// When the last batch or tick came, on the monotonic clock.
    last_batch: Duration,
    /// When the status was last published, on the monotonic clock.
    last_status: Duration,
    /// When the event times in the status were last computed, on the monotonic clock.
    event_time_taken: Option<Duration>,
}

impl LoopProgress {
    pub(super) fn new(position: u64, now: Duration) -> Self {
        Self {
            caught_up: false,
            started: None,
            from: position,
            last_batch: now,
            last_status: now,
            event_time_taken: None,
        }
    }
}

/// Sends requests to edge nodes, as messages of weir. It must not wait.
pub struct RebirthSender(pub Box<dyn Fn(RebirthRequest) + Send>);

impl fmt::Debug for RebirthSender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RebirthSender")
    }
}

/// The pipeline, ready to run on a thread or turn by turn.
#[derive(Debug)]
pub struct Runner {
    pub(super) journal: Log,
    pub(super) reader: Reader,
    pub(super) operator: Operator,
    pub(super) outputs: OutputLogs,
    pub(super) checkpointer: Checkpointer,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) pipeline: Pipeline,
    pub(super) requests: Requests,
    /// Woken when the journal grows or an output log has room again.
    pub(super) waker: Waker,
    /// Journal position of the next record.
    pub(super) position: u64,
    /// Arrival time of the last batch of this run.
    pub(super) arrival_ms: Option<i64>,
    pub(super) limits: StateLimits,
    pub(super) progress: LoopProgress,
    /// End of the journal as it was found at start: records below it are replayed.
    pub(super) recovered_end: u64,
    pub(super) rebirths: Option<RebirthSender>,
}

impl Runner {
    /// Sends requests to edge nodes with `sender`. Without one they are dropped.
    pub fn with_rebirths(self, sender: RebirthSender) -> Self {
        Self { rebirths: Some(sender), ..self }
    }

    /// Runs until `stop` is requested, then takes a last checkpoint within `grace`.
    ///
    /// # Errors
    /// A log or the checkpoint store failed, see [`PipelineError`].
    pub fn run(mut self, stop: &Stop, grace: Duration) -> Result<(), PipelineError> {
        self.waker = Waker::from(Arc::new(UnparkPipeline(std::thread::current())));
        self.pipeline.runs_on(std::thread::current());
        self.journal.watch(self.waker.clone());
        let result = self.run_until(stop).and_then(|()| self.finish(grace));
        if let Err(error) = &result {
            self.pipeline.update(|status| status.failure = Some(error.to_string()));
        }
        result
    }

    fn run_until(&mut self, stop: &Stop) -> Result<(), PipelineError> {
        loop {
            match self.turn()? {
                Turn::Busy => {}
                Turn::Idle(_) if stop.is_requested() => return Ok(()),
                Turn::Idle(sleep) | Turn::Blocked(sleep) => std::thread::park_timeout(sleep),
            }
        }
    }

    /// Takes a checkpoint of the present state, unless the newest one is of it.
    ///
    /// # Errors
    /// [`PipelineError::Checkpoint`].
    pub fn finish(&mut self, grace: Duration) -> Result<(), PipelineError> {
        let (positions, now_ms) = (self.positions(), self.clock.now_ms());
        let outcome = self.checkpointer.finish(&mut self.operator, positions, now_ms, grace);
        self.publish_status();
        outcome.map_err(PipelineError::Checkpoint)
    }

    /// Does the next piece of work. It waits for nothing, except for the disk where the checkpoint writer has no thread.
    ///
    /// # Errors
    /// A log or the checkpoint store failed, see [`PipelineError`].
    pub fn turn(&mut self) -> Result<Turn, PipelineError> {
        self.pipeline.turn();
        self.answer();
        if !self.append_outputs()? {
            return Ok(Turn::Blocked(MAX_SLEEP));
        }
        let now = self.clock.monotonic();
        if !self.progress.caught_up {
            return self.replay(now);
        }
        let batch = self.reader.next_batch()?;
        if let Some(batch) = &batch {
            self.process(batch)?;
            self.progress.last_batch = now;
        }
        self.checkpoint()?;
        if batch.is_some() {
            if now.saturating_sub(self.progress.last_status) >= STATUS_INTERVAL {
                self.publish_status();
            }
            return Ok(Turn::Busy);
        }
        self.publish_status();
        if self.checkpointer.has_work() { Ok(Turn::Busy) } else { Ok(Turn::Idle(self.rest(now))) }
    }

    /// Processes a batch that was in the journal at start. No checkpoint begins before all of them are processed.
    fn replay(&mut self, now: Duration) -> Result<Turn, PipelineError> {
        if self.progress.started.is_none() {
            self.limits.look(self.operator.totals());
        }
        let started = *self.progress.started.get_or_insert(now);
        if self.position < self.recovered_end
            && let Some(batch) = self.reader.next_batch()?
        {
            self.process(&batch)?;
            return Ok(Turn::Busy);
        }
        self.progress.caught_up = true;
        let replayed = self.position - self.progress.from;
        if replayed >= CHECKPOINT_AFTER_REPLAY {
            self.checkpointer.hasten();
        }
        self.publish_status();
        self.pipeline.update(|status| {
            status.caught_up = true;
            status.replayed_records = replayed;
            status.caught_up_at = Some(Instant::now());
        });
        if replayed > 0 {
            tracing::info!(records = replayed, took = ?now.saturating_sub(started), "replayed the journal");
        }
        Ok(Turn::Busy)
    }

    fn process(&mut self, batch: &Batch) -> Result<(), PipelineError> {
        assert!(batch.first().0 <= self.position, "the journal freed records that no checkpoint has");
        if batch.is_hole() {
            let (first, end) = (batch.first().0, batch.end().0);
            tracing::warn!(first, end, "passing journal records that are lost: `weir journal repair` cut them out");
            // With a checkpoint behind the hole no later start computes results without the lost records.
            self.checkpointer.hasten();
        }
        let skip = (self.position - batch.first().0) as usize;
        if skip == 0 && batch.sets_clock_back() {
            self.operator.set_clock_back(batch.arrival_ms(), &mut self.outputs);
        }
        let records = batch.records().skip(skip);
        self.operator
            .apply(self.position, batch.arrival_ms(), records, &mut self.outputs)
            .map_err(|source| PipelineError::Record { position: batch.first().0, source })?;
        for device in self.operator.take_over_share() {
            // What is processed again was told before.
            if self.progress.caught_up {
                let device = device.as_deref().unwrap_or("(none: errors without a known device)");
                tracing::warn!(
                    device,
                    "a device has filled its share of the error log (errors.device_share): of its further errors one a minute \
                     is stored, the others are counted; look at what it sends"
                );
            }
        }
        for (device, note) in self.operator.take_notes() {
            // What is processed again was told before.
            if self.progress.caught_up {
                tracing::info!("device {device}: {}", note.as_str());
            }
        }
        for RecognisedMap { map, first: FirstReadings { topic, device, .. } } in self.operator.take_recognised() {
            tracing::info!("map {map} takes {topic}; first device {device}");
        }
        for request in self.operator.take_rebirths() {
            // What is processed again was asked for before.
            if self.progress.caught_up
                && let Some(RebirthSender(send)) = &self.rebirths
            {
                send(request);
            }
        }
        self.position = batch.end().0;
        self.checkpointer.processed(batch.disk_bytes());
        self.arrival_ms = Some(batch.arrival_ms());
        assert_eq!(self.operator.totals().unaccounted(), 0, "a reading is neither in a window nor rejected");
        self.append_outputs()?;
        Ok(())
    }

    /// Hands results to the output logs. Returns `false` where a log has no room; the log then wakes the pipeline. A full
    /// disk is no failure.
    fn append_outputs(&mut self) -> Result<bool, PipelineError> {
        let mut context = Context::from_waker(&self.waker);
        while let Some(full) = self.outputs.append().map_err(PipelineError::Output)? {
            if full.poll_room(&mut context) == Poll::Pending {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn answer(&mut self) {
        for query in self.requests.queries.try_iter().take(QUERIES_PER_TURN) {
            query(&self.operator);
        }
        for reply in self.requests.savepoints.try_iter() {
            self.checkpointer.want_savepoint(reply);
        }
    }

    fn checkpoint(&mut self) -> Result<(), PipelineError> {
        self.checkpointer.poll(&mut self.operator).map_err(PipelineError::Store)?;
        // A checkpoint states positions of the output logs, so that they must have taken all results first.
        if self.outputs.is_empty() && self.checkpointer.is_due(self.position) {
            let (positions, now_ms) = (self.positions(), self.clock.now_ms());
            self.checkpointer.begin(&mut self.operator, positions, now_ms);
            if defects::is(Defect::FreeJournalEarly) {
                self.journal.release(crate::log::Lsn(self.position));
            }
        }
        self.checkpointer.step(&mut self.operator);
        Ok(())
    }

    fn positions(&self) -> Positions {
        Positions {
            replay_from: self.position,
            windows: self.outputs.windows_position(),
            errors: self.outputs.errors_position(),
        }
    }

    /// With nothing to read: appends a tick where windows wait for time to pass. Returns how long to sleep.
    fn rest(&mut self, now: Duration) -> Duration {
        let mut sleep = MAX_SLEEP;
        if self.operator.has_open_windows() {
            let silent = now.saturating_sub(self.progress.last_batch);
            if silent >= TICK_INTERVAL {
                let mut tick = Records::default();
                tick.push_with(record::encode_tick);
                // Without room in the journal no time can pass. If the journal failed, reading it tells so.
                if self.journal.append(&tick, None).is_ok() {
                    self.progress.last_batch = now;
                }
            } else {
                sleep = sleep.min(TICK_INTERVAL - silent);
            }
        }
        if self.checkpointer.is_encoding() { sleep.min(WRITER_PAUSE) } else { sleep }
    }

    fn publish_status(&mut self) {
        let now = self.clock.monotonic();
        self.progress.last_status = now;
        self.limits.look(self.operator.totals());
        let taken = self.progress.event_time_taken;
        if taken.is_none_or(|taken| now.saturating_sub(taken) >= EVENT_TIME_INTERVAL) {
            self.progress.event_time_taken = Some(now);
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
            status.set_back = operator.last_set_back();
            status.totals.clone_from(operator.totals());
            status.sizes = operator.sizes();
            status.replay_mismatches = mismatches;
        });
    }
}
