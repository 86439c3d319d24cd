//! The state that all requests share. Handlers depend on it; it depends on no handler.

use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::access::http_access::HttpAccess;
use crate::clock::Clock;
use crate::config::Config;
use crate::http::claims::ReplayClaims;
use crate::http::limits::{MAX_SCANS, MAX_STREAMS};
use crate::http::process_status::ProcessStatus;
use crate::http::rates::{IngestRates, RateSamples};
use crate::log::{Log, Lsn};
use crate::mqtt::AdmissionControl;
use crate::pipeline::handle::{CheckpointInfo, Pipeline, PipelineStatus};
use crate::results::feed::EventFeed;
use crate::results::log::ResultLogs;
use crate::sync::lock;
use crate::tls::TlsEndpoint;

/// The parts of weir that the HTTP server uses.
pub struct HttpResources {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// The pipeline, for questions about devices, checkpoints and savepoints.
    pub pipeline: Pipeline,
    /// The journal, for its numbers and for replays of errors.
    pub journal: Log,
    /// The output logs.
    pub results: Arc<ResultLogs>,
    /// New results, for event streams.
    pub feed: Arc<EventFeed>,
    /// Health and numbers that only the assembled process knows.
    pub process: Arc<dyn ProcessStatus>,
    /// The metrics recorder.
    pub metrics: PrometheusHandle,
    /// Serves MQTT over WebSocket; `None` refuses it.
    pub mqtt_admission: Option<AdmissionControl>,
    /// Decides who may use the API.
    pub access: Arc<HttpAccess>,
    /// Certificates in use, for the status page.
    pub certificates: Vec<Arc<TlsEndpoint>>,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
}

/// The server's state. Clones share it.
#[derive(Clone)]
pub struct ApiState(Arc<ApiShared>);

/// The data behind [`ApiState`].
pub struct ApiShared {
    pub(super) resources: HttpResources,
    /// When the server started. Uptime counts from here.
    pub(super) started: Instant,
    /// When the server started, Unix milliseconds.
    pub(super) started_ms: i64,
    /// A permit for each query of the output logs.
    pub(super) scans: Arc<Semaphore>,
    /// A permit for each event stream.
    pub(super) streams: Arc<Semaphore>,
    /// End of the journal when the server started. Until something is appended, MQTT is not served yet.
    pub(super) journal_start: Lsn,
    /// Errors that are being replayed.
    pub(super) replays: Arc<ReplayClaims>,
    /// Cancelled when streams must end.
    pub(super) closing: CancellationToken,
    samples: Mutex<RateSamples>,
}

impl ApiState {
    /// The state of a server that is about to start.
    pub fn new(resources: HttpResources) -> Self {
        Self(Arc::new(ApiShared {
            started: Instant::now(),
            started_ms: resources.clock.now_ms(),
            scans: Arc::new(Semaphore::new(MAX_SCANS)),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            journal_start: resources.journal.stats().appended,
            replays: Arc::default(),
            closing: CancellationToken::new(),
            samples: Mutex::default(),
            resources,
        }))
    }
}

impl Deref for ApiState {
    type Target = ApiShared;

    fn deref(&self) -> &ApiShared {
        &self.0
    }
}

impl std::fmt::Debug for ApiState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiState").field("started_ms", &self.started_ms).finish_non_exhaustive()
    }
}

impl ApiShared {
    /// Takes a sample for the rates; called once per second.
    pub(super) fn sample(&self, at: Instant) {
        let totals = self.resources.pipeline.status().totals;
        lock(&self.samples).add(at, &totals);
    }

    /// Rates over the last ten seconds.
    pub(super) fn rates(&self) -> IngestRates {
        lock(&self.samples).rates()
    }

    /// Event streams that are open.
    pub(super) fn open_streams(&self) -> usize {
        MAX_STREAMS - self.streams.available_permits()
    }

    /// The three logs by name.
    pub(super) fn logs(&self) -> [(&'static str, &Log); 3] {
        let HttpResources { journal, results, .. } = &self.resources;
        [("journal", journal), ("windows", results.windows.log()), ("errors", results.errors.log())]
    }

    /// Synced journal records that the pipeline has not processed.
    pub(super) fn backlog(&self, status: &PipelineStatus) -> u64 {
        self.resources.journal.durable().0.saturating_sub(status.position)
    }

    /// Time since the checkpoint was on disk.
    pub(super) fn checkpoint_age_seconds(&self, checkpoint: &CheckpointInfo) -> f64 {
        let done_ms = checkpoint.started_ms.saturating_add_unsigned(checkpoint.duration_ms);
        self.resources.clock.now_ms().saturating_sub(done_ms).max(0) as f64 / 1_000.0
    }
}
