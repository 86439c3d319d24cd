//! Outcomes of replays, and the reasons for which an error is not replayed.

use axum::http::StatusCode;

use crate::http::problem::ApiProblem;

/// The outcome for one error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReplayOutcome {
    /// The replay is in the journal, at this position.
    Replayed(u64),
    /// The error was not replayed.
    Refused(ReplayRefusal),
}

/// Why an error was not replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReplayRefusal {
    /// No error has this number yet.
    Unknown,
    /// Retention freed the error. The value is the oldest number that is kept.
    Freed(u64),
    /// A repair cut the error out of the log.
    Unreadable,
    /// The error is a fault that a device reported.
    DeviceError,
    /// The error is a duplicate.
    Duplicate,
    /// The error stands for so many readings, and does not say which, because the errors log has no room for that.
    NotListed(u64),
    /// The error was replayed before.
    AlreadyReplayed,
    /// Another request is replaying the error.
    InProgress,
    /// Only a part of the message is stored, and the journal no longer has the rest.
    PayloadCut { stored: usize, whole: u64 },
    /// The journal takes nothing because the disk is nearly full.
    DiskFull,
    /// The journal has no room at the moment.
    Busy,
}

impl ReplayRefusal {
    /// HTTP status of a request for this error alone.
    pub fn status(&self) -> StatusCode {
        match self {
            ReplayRefusal::Unknown => StatusCode::NOT_FOUND,
            ReplayRefusal::Freed(_) | ReplayRefusal::Unreadable => StatusCode::GONE,
            ReplayRefusal::DiskFull | ReplayRefusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::CONFLICT,
        }
    }

    /// Name of the outcome in a report.
    pub fn name(&self) -> &'static str {
        match self {
            ReplayRefusal::Unknown => "unknown",
            ReplayRefusal::Freed(_) => "freed",
            ReplayRefusal::Unreadable => "unreadable",
            ReplayRefusal::DeviceError => "device_error",
            ReplayRefusal::Duplicate => "duplicate",
            ReplayRefusal::NotListed(_) => "not_listed",
            ReplayRefusal::AlreadyReplayed => "already_replayed",
            ReplayRefusal::InProgress => "in_progress",
            ReplayRefusal::PayloadCut { .. } => "payload_cut",
            ReplayRefusal::DiskFull => "disk_full",
            ReplayRefusal::Busy => "busy",
        }
    }

    /// A sentence for the requester.
    pub fn detail(&self, seq: u64) -> String {
        match self {
            ReplayRefusal::Unknown => format!("there is no error {seq}; /api/v1/errors lists those that there are"),
            ReplayRefusal::Freed(first) => {
                format!(
                    "error {seq} is no longer stored, the oldest is {first}; errors.retention keeps them for longer"
                )
            }
            ReplayRefusal::Unreadable => {
                format!(
                    "error {seq} was cut out of the errors log when it was repaired; /api/v1/errors lists those left"
                )
            }
            ReplayRefusal::DeviceError => {
                format!(
                    "error {seq} is a fault that the device reported, not a reading that was rejected; look at the device"
                )
            }
            ReplayRefusal::Duplicate => {
                format!("error {seq} is a duplicate: the same reading came before, there is nothing to do")
            }
            ReplayRefusal::AlreadyReplayed => format!(
                "error {seq} was replayed before, which happens once; where that was rejected again there is a newer \
                 error with replay_of {seq}, which can be replayed"
            ),
            ReplayRefusal::InProgress => {
                format!("error {seq} is being replayed by another request; look for it in the windows, or ask again")
            }
            ReplayRefusal::NotListed(readings) => format!(
                "error {seq} stands for {readings} readings of its message, and there was no room to note which; let the \
                 device send them again, in smaller messages that are not compressed"
            ),
            ReplayRefusal::PayloadCut { stored, whole } if *stored as u64 == *whole => format!(
                "of error {seq} the client, the topic or the user is stored in part, and the journal no longer has the \
                 rest; journal.retention would have kept it. Let the device send it again"
            ),
            ReplayRefusal::PayloadCut { stored, whole } => format!(
                "of error {seq} only the first {stored} of {whole} bytes are stored, and the journal no longer has the \
                 rest; journal.retention would have kept it. Let the device send it again"
            ),
            ReplayRefusal::DiskFull => {
                "the disk is nearly full, the journal takes nothing (journal.min_free_disk); free space and try again"
                    .to_owned()
            }
            ReplayRefusal::Busy => "the journal has no room just now; try again in a second".to_owned(),
        }
    }

    /// The answer to a request for this error alone.
    pub fn problem(&self, seq: u64) -> ApiProblem {
        let retry_after_seconds = (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(match self {
            ReplayRefusal::DiskFull => 10,
            _ => 1,
        });
        ApiProblem { status: self.status(), detail: self.detail(seq), retry_after_seconds }
    }
}
