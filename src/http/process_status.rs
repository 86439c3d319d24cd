//! Health and numbers that only the assembled process knows, as a trait: HTTP does not depend on the assembly.

use std::collections::BTreeMap;

use serde::Serialize;

/// The outcome of one health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthCheck {
    /// Short name, such as `journal`.
    pub name: &'static str,
    /// Whether the check passed.
    pub ok: bool,
    /// What was found. Where the check failed, also what to do.
    pub message: String,
    /// Whether the message is told although the check passed.
    #[serde(skip)]
    pub warns: bool,
}

/// Numbers of the MQTT server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MqttStatus {
    /// Open network connections.
    pub connections: usize,
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained_messages: usize,
    /// Messages that wait for subscribers.
    pub queued_messages: usize,
    /// Bytes of the messages that wait for subscribers.
    pub queued_bytes: usize,
    /// Memory of messages that wait or are not acknowledged, in bytes.
    pub session_bytes: usize,
    /// Wills that would be found after a restart.
    pub wills: usize,
    /// Sessions and wills that changed and are not on disk yet.
    pub unstored_sessions: usize,
    /// Time since the oldest of these changes, in seconds.
    pub unstored_sessions_age_seconds: u64,
    /// Retained messages that changed and are not on disk yet.
    pub unstored_retained_messages: usize,
    /// Time since the oldest of these changes, in seconds.
    pub unstored_retained_age_seconds: u64,
    /// Whether the sessions, wills and retained messages of an earlier run are restored. Before that, their numbers say
    /// nothing.
    pub restored: bool,
}

/// The clock of the machine, and the time of the journal. Times are Unix milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ClockStatus {
    /// Whether the kernel says that its clock is synchronised; `None` where it does not tell.
    pub synchronized: Option<bool>,
    /// How far the newest arrival in the journal is ahead of the clock, in seconds.
    pub journal_ahead_seconds: f64,
    /// How long nothing is deleted by age, because the clock jumped forward, in seconds.
    pub hold_seconds: f64,
    /// Steps of the clock forward since the start.
    pub steps_forward: u64,
    /// Steps of the clock back since the start; a clock that was set back before it counts too.
    pub steps_back: u64,
    /// Journal time from which the clock was last set back; `None` if it never was.
    pub set_back_from: Option<i64>,
    /// Journal time to which it was set back then.
    pub set_back_to: Option<i64>,
}

/// How the last reload of the configuration (SIGHUP) ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReloadStatus {
    /// Time of the reload, Unix milliseconds; `None` before the first.
    pub last: Option<i64>,
    /// Why nothing changed; empty where the reload took effect.
    pub errors: Vec<String>,
    /// Keys whose values in the file differ from those in force and need a restart.
    pub restart_required: Vec<&'static str>,
}

/// A call of the file system that has not returned yet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PendingDiskCall {
    /// The call, such as `sync`.
    pub call: &'static str,
    /// The file or directory that the call is about.
    pub path: String,
    /// How long it has taken so far.
    pub seconds: f64,
}

/// What recovery at start took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RecoveryStatus {
    /// Time from start until the records found at start were processed.
    pub seconds: f64,
    /// Journal records processed again.
    pub records: u64,
}

/// Answers of the assembled process. Methods answer from memory: they are called on the server's threads.
pub trait ProcessStatus: Send + Sync {
    /// Checks of `/healthz`: whether the process can do its work at all.
    fn liveness(&self) -> Vec<HealthCheck>;
    /// Checks of `/readyz`: state restored, journal writable, disk answers, pipeline caught up, checkpoint not overdue.
    fn readiness(&self) -> Vec<HealthCheck>;
    /// Numbers of the MQTT server.
    fn mqtt(&self) -> MqttStatus;
    /// The clock of the machine.
    fn clock(&self) -> ClockStatus {
        ClockStatus::default()
    }
    /// How the last reload ended.
    fn reload(&self) -> ReloadStatus {
        ReloadStatus::default()
    }
    /// What recovery took; `None` until it is over.
    fn recovered(&self) -> Option<RecoveryStatus>;
    /// Bytes available on the file system of the data directory; `None` where it cannot be told.
    fn disk_available_bytes(&self) -> Option<u64>;
    /// The oldest call on each directory of the data directory that has not returned; `None` where there is none.
    fn pending_disk_calls(&self) -> BTreeMap<&'static str, Option<PendingDiskCall>> {
        BTreeMap::new()
    }
    /// Bytes of the state store on disk; `None` where it cannot be told.
    fn state_disk_bytes(&self) -> Option<u64> {
        None
    }
}
