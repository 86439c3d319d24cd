//! What HTTP asks of the parts beside it, as traits, so that it does not depend on them.

use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::core::query::{DeviceDetail, DeviceSummary, LastWindow};
use crate::pipeline::handle::{CheckpointInfo, Pipeline, PipelineStatus, SavepointRefused, Unavailable};
use crate::state::savepoint::SavepointInfo;

/// The outcome of one health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Short name, such as `journal`.
    pub name: &'static str,
    /// Whether it passed.
    pub ok: bool,
    /// What was found; where it failed, what to do.
    pub message: String,
}

/// Numbers of the MQTT door.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Door {
    /// Open network connections.
    pub connections: usize,
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained_messages: usize,
    /// Messages waiting for subscribers.
    pub queued_messages: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Memory of messages that wait or are unacknowledged, in bytes.
    pub session_bytes: usize,
    /// Wills that a restart finds.
    pub wills: usize,
    /// Sessions and wills that changed and are not on disk yet.
    pub unstored_sessions: usize,
}

/// How the last reload of the configuration ended (SIGHUP).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reload {
    /// When it was, in Unix milliseconds; `None`: there was none.
    pub last: Option<i64>,
    /// Why nothing changed; empty where it took effect.
    pub errors: Vec<String>,
    /// Keys whose values in the file are others than those in force: they need a restart.
    pub restart_required: Vec<&'static str>,
}

/// What recovery at start took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Recovered {
    /// From start until the records found at start were processed.
    pub seconds: f64,
    /// Journal records processed again.
    pub records: u64,
}

/// What only the assembled process knows. Methods answer from memory: they are called on the server's threads.
pub trait Source: Send + Sync {
    /// Checks of `/healthz`: whether the process can do its work at all.
    fn liveness(&self) -> Vec<Check>;
    /// Checks of `/readyz`: state restored, journal writable, pipeline caught up, checkpoint not overdue.
    fn readiness(&self) -> Vec<Check>;
    /// Numbers of the MQTT door.
    fn door(&self) -> Door;
    /// How the last reload ended.
    fn reload(&self) -> Reload {
        Reload::default()
    }
    /// What recovery took; `None` until it is over.
    fn recovered(&self) -> Option<Recovered>;
    /// Bytes available on the file system of the data directory; `None` where it cannot be told.
    fn disk_available_bytes(&self) -> Option<u64>;
    /// Bytes of the state store on disk; `None` where it cannot be told.
    fn state_disk_bytes(&self) -> Option<u64> {
        None
    }
    /// Progress of the built-in simulator, for the status page; `None` when it does not run.
    fn simulator(&self) -> Option<serde_json::Value> {
        None
    }
}

/// The pipeline's answers.
pub trait Queries: Send + Sync {
    /// Devices in order of id, after `after`.
    fn devices(&self, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Vec<DeviceSummary>, Unavailable>>;
    /// One device whole.
    fn device(&self, device_id: String) -> BoxFuture<'_, Result<Option<DeviceDetail>, Unavailable>>;
    /// Last closed windows that ended after `since_ms`, and how many are left out.
    fn last_windows(&self, since_ms: i64, limit: usize)
    -> BoxFuture<'_, Result<(Vec<LastWindow>, usize), Unavailable>>;
    /// Whether each of these errors was replayed.
    fn are_replayed(&self, error_seqs: Vec<u64>) -> BoxFuture<'_, Result<Vec<bool>, Unavailable>>;
    /// The newest completed checkpoints, newest first.
    fn checkpoints(&self) -> Vec<CheckpointInfo>;
    /// Takes a savepoint.
    fn savepoint(&self) -> BoxFuture<'_, Result<SavepointInfo, SavepointRefused>>;
    /// The savepoints on disk, newest first.
    fn savepoints(&self) -> Vec<SavepointInfo>;
    /// State at the end of the last batch.
    fn status(&self) -> PipelineStatus;
}

impl Queries for Pipeline {
    fn devices(&self, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Vec<DeviceSummary>, Unavailable>> {
        Box::pin(Pipeline::devices(self, after, limit))
    }
    fn device(&self, device_id: String) -> BoxFuture<'_, Result<Option<DeviceDetail>, Unavailable>> {
        Box::pin(Pipeline::device(self, device_id))
    }
    fn last_windows(
        &self,
        since_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<(Vec<LastWindow>, usize), Unavailable>> {
        Box::pin(Pipeline::last_windows(self, since_ms, limit))
    }
    fn are_replayed(&self, error_seqs: Vec<u64>) -> BoxFuture<'_, Result<Vec<bool>, Unavailable>> {
        Box::pin(Pipeline::are_replayed(self, error_seqs))
    }
    fn checkpoints(&self) -> Vec<CheckpointInfo> {
        Pipeline::checkpoints(self)
    }
    fn savepoint(&self) -> BoxFuture<'_, Result<SavepointInfo, SavepointRefused>> {
        Box::pin(Pipeline::savepoint(self))
    }
    fn savepoints(&self) -> Vec<SavepointInfo> {
        Pipeline::savepoints(self)
    }
    fn status(&self) -> PipelineStatus {
        Pipeline::status(self)
    }
}
