//! What all requests share.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::access::http_access::HttpAccess;
use crate::clock::Clock;
use crate::config::Config;
use crate::http::replay::Claims;
use crate::http::source::{Queries, Source};
use crate::log::{Log, Lsn};
use crate::mqtt::AdmissionControl;
use crate::pipeline::handle::{CheckpointInfo, PipelineStatus};
use crate::results::feed::EventFeed;
use crate::results::log::ResultLogs;
use crate::sync::lock;
use crate::tls::TlsEndpoint;

/// Scans of the result logs at a time: they read files, and must leave the cores to the pipeline.
pub(super) const MAX_SCANS: usize = 3;
/// Live streams at a time.
pub(super) const MAX_STREAMS: usize = 64;
/// Samples, one per second, that rates are computed over.
const SAMPLES: usize = 11;

/// What the application hands to the server.
pub struct Parts {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// The pipeline.
    pub pipeline: Arc<dyn Queries>,
    /// The journal, for its numbers and for replays of errors.
    pub journal: Log,
    /// The output logs.
    pub results: Arc<ResultLogs>,
    /// New results, for event streams.
    pub feed: Arc<EventFeed>,
    /// What only the application knows.
    pub source: Arc<dyn Source>,
    /// The metrics recorder.
    pub metrics: PrometheusHandle,
    /// Where MQTT over WebSocket goes; `None`: nowhere.
    pub admission: Option<AdmissionControl>,
    /// Who may use the API.
    pub access: Arc<HttpAccess>,
    /// Certificates in use, for the status page.
    pub certificates: Vec<Arc<TlsEndpoint>>,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
}

/// The server's state. Clones share it.
#[derive(Clone)]
pub struct State(Arc<Shared>);

/// The inside of [`State`].
pub struct Shared {
    pub(super) parts: Parts,
    pub(super) started: Instant,
    pub(super) started_ms: i64,
    pub(super) scans: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
    /// End of the journal when weir began to serve: until something is appended, the door has not opened.
    pub(super) journal_start: Lsn,
    /// Errors that are being replayed.
    pub(super) replays: Arc<Claims>,
    /// Cancelled when streams must end.
    pub(super) closing: CancellationToken,
    samples: Mutex<VecDeque<Sample>>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    messages: u64,
    readings: u64,
}

/// What comes in, per second, over the last ten seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub(super) struct Rates {
    /// MQTT messages processed.
    pub messages_per_second: f64,
    /// Readings received.
    pub readings_per_second: f64,
}

impl State {
    /// The state of a server that is about to start. Uptime counts from here.
    pub fn new(parts: Parts) -> Self {
        let started_ms = parts.clock.now_ms();
        Self(Arc::new(Shared {
            started: Instant::now(),
            started_ms,
            scans: Arc::new(Semaphore::new(MAX_SCANS)),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            journal_start: parts.journal.stats().appended,
            replays: Arc::default(),
            closing: CancellationToken::new(),
            samples: Mutex::new(VecDeque::with_capacity(SAMPLES)),
            parts,
        }))
    }
}

impl Deref for State {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("started_ms", &self.started_ms).finish_non_exhaustive()
    }
}

impl Shared {
    /// Takes a sample for the rates; called once per second.
    pub(super) fn sample(&self, at: Instant) {
        let totals = self.parts.pipeline.status().totals;
        let mut samples = lock(&self.samples);
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(Sample { at, messages: totals.messages, readings: totals.received });
    }

    /// Rates between the oldest and the newest sample.
    pub(super) fn rates(&self) -> Rates {
        let samples = lock(&self.samples);
        let (Some(first), Some(last)) = (samples.front(), samples.back()) else {
            return Rates::default();
        };
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        if seconds <= 0.0 {
            return Rates::default();
        }
        let rate = |first: u64, last: u64| last.saturating_sub(first) as f64 / seconds;
        Rates {
            messages_per_second: rate(first.messages, last.messages),
            readings_per_second: rate(first.readings, last.readings),
        }
    }

    /// The three logs by name.
    pub(super) fn logs(&self) -> [(&'static str, &Log); 3] {
        let results = &self.parts.results;
        [("journal", &self.parts.journal), ("windows", results.windows.log()), ("errors", results.errors.log())]
    }

    /// Synced journal records that the pipeline has not processed.
    pub(super) fn backlog(&self, status: &PipelineStatus) -> u64 {
        self.parts.journal.durable().0.saturating_sub(status.position)
    }

    /// Time since the checkpoint was on disk.
    pub(super) fn checkpoint_age_seconds(&self, checkpoint: &CheckpointInfo) -> f64 {
        let done_ms = checkpoint.started_ms.saturating_add_unsigned(checkpoint.duration_ms);
        self.parts.clock.now_ms().saturating_sub(done_ms).max(0) as f64 / 1_000.0
    }
}
