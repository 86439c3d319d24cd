//! `POST /api/v1/errors/{seq}/replay` and `POST /api/v1/errors/replay`: stored errors become journal records again.
//!
//! An answer that says "replayed" follows the journal's sync, as a PUBACK does. That each error is replayed once is the
//! operator's to decide, whatever the journal holds; what is asked and claimed here is so that the answer is right.

mod claims;
mod request;
mod work;

pub(super) use claims::Claims;

use axum::extract::{self, Extension, Path, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::http::auth::Sender;
use crate::http::problem::Problem;
use crate::http::results;
use crate::http::state::State;

use work::Work;

/// Errors in one request.
pub(super) const MAX_SEQS: usize = 1_000;

/// What became of one error.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// It is in the journal, at this position.
    Replayed(u64),
    /// It is not.
    Refused(Refusal),
}

/// Why an error was not replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    /// No such number yet.
    Unknown,
    /// Retention freed it; the oldest one kept.
    Freed(u64),
    /// It cannot be read.
    Unreadable,
    /// A fault that a device reported.
    DeviceError,
    /// A duplicate.
    Duplicate,
    /// It was replayed.
    AlreadyReplayed,
    /// Another request replays it just now.
    InProgress,
    /// Only its beginning is stored, and the journal no longer has the rest.
    PayloadCut { stored: usize, whole: u64 },
    /// The journal takes nothing: the disk is nearly full.
    DiskFull,
    /// The journal has no room just now.
    Busy,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Refusal::Unknown => StatusCode::NOT_FOUND,
            Refusal::Freed(_) | Refusal::Unreadable => StatusCode::GONE,
            Refusal::DiskFull | Refusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::CONFLICT,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Refusal::Unknown => "unknown",
            Refusal::Freed(_) => "freed",
            Refusal::Unreadable => "unreadable",
            Refusal::DeviceError => "device_error",
            Refusal::Duplicate => "duplicate",
            Refusal::AlreadyReplayed => "already_replayed",
            Refusal::InProgress => "in_progress",
            Refusal::PayloadCut { .. } => "payload_cut",
            Refusal::DiskFull => "disk_full",
            Refusal::Busy => "busy",
        }
    }

    fn detail(&self, seq: u64) -> String {
        match self {
            Refusal::Unknown => format!("there is no error {seq}; /api/v1/errors lists those that there are"),
            Refusal::Freed(first) => {
                format!(
                    "error {seq} is no longer stored, the oldest is {first}; errors.retention keeps them for longer"
                )
            }
            Refusal::Unreadable => {
                format!(
                    "error {seq} was cut out of the errors log when it was repaired; /api/v1/errors lists those left"
                )
            }
            Refusal::DeviceError => {
                format!(
                    "error {seq} is a fault that the device reported, not a reading that was rejected; look at the device"
                )
            }
            Refusal::Duplicate => {
                format!("error {seq} is a duplicate: its reading is counted already, there is nothing to do")
            }
            Refusal::AlreadyReplayed => format!(
                "error {seq} was replayed before, which happens once; where that was rejected again there is a newer \
                 error with replay_of {seq}, which can be replayed"
            ),
            Refusal::InProgress => {
                format!("error {seq} is being replayed by another request; look for it in the windows, or ask again")
            }
            Refusal::PayloadCut { stored, whole } => format!(
                "of error {seq} only the first {stored} of {whole} bytes are stored, and the journal no longer has the \
                 rest; journal.retention would have kept it. Let the device send it again"
            ),
            Refusal::DiskFull => {
                "the disk is nearly full, the journal takes nothing (journal.min_free_disk); free space and try again"
                    .to_owned()
            }
            Refusal::Busy => "the journal has no room just now; try again in a second".to_owned(),
        }
    }

    fn problem(&self, seq: u64) -> Problem {
        let retry_after_seconds = (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(match self {
            Refusal::DiskFull => 10,
            _ => 1,
        });
        Problem { status: self.status(), detail: self.detail(seq), retry_after_seconds }
    }
}

#[derive(Serialize)]
struct One {
    seq: u64,
    journal_position: u64,
}

#[derive(Serialize)]
struct Item {
    seq: u64,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    journal_position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Serialize)]
struct Bulk {
    replayed: usize,
    refused: usize,
    results: Vec<Item>,
}

pub(super) async fn one(
    extract::State(state): extract::State<State>,
    Extension(sender): Extension<Sender>,
    Path(seq): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let seq = results::error_seq(&seq)?;
    request::empty(request).await?;
    let outcome = replay_recorded(state, sender, vec![seq]).await?.pop();
    match outcome {
        Some((seq, Outcome::Replayed(journal_position))) => {
            Ok(axum::Json(One { seq, journal_position }).into_response())
        }
        Some((seq, Outcome::Refused(refusal))) => Err(refusal.problem(seq)),
        None => Err(Problem::internal()),
    }
}

pub(super) async fn bulk(
    extract::State(state): extract::State<State>,
    Extension(sender): Extension<Sender>,
    request: Request,
) -> Result<Response, Problem> {
    let seqs = request::seqs(request).await?;
    let outcomes = replay_recorded(state, sender, seqs).await?;
    let refused_for_now = |outcome: &Outcome| match outcome {
        Outcome::Refused(refusal) => refusal.status() == StatusCode::SERVICE_UNAVAILABLE,
        Outcome::Replayed(_) => false,
    };
    // Where nothing came of it for now, the whole request can be sent again.
    if let Some((seq, Outcome::Refused(refusal))) = outcomes.first()
        && outcomes.iter().all(|(_, outcome)| refused_for_now(outcome))
    {
        return Err(refusal.problem(*seq));
    }
    let results: Vec<Item> = outcomes.into_iter().map(|(seq, outcome)| item(seq, &outcome)).collect();
    let replayed = results.iter().filter(|item| item.journal_position.is_some()).count();
    Ok(axum::Json(Bulk { replayed, refused: results.len() - replayed, results }).into_response())
}

fn item(seq: u64, outcome: &Outcome) -> Item {
    match outcome {
        Outcome::Replayed(position) => {
            Item { seq, outcome: "replayed", journal_position: Some(*position), detail: None }
        }
        Outcome::Refused(refusal) => {
            Item { seq, outcome: refusal.name(), journal_position: None, detail: Some(refusal.detail(seq)) }
        }
    }
}

/// Replays in a task of its own: whoever asks may leave, what was replayed is recorded all the same.
async fn replay_recorded(state: State, sender: Sender, seqs: Vec<u64>) -> Result<Vec<(u64, Outcome)>, Problem> {
    let replaying = tokio::spawn(async move {
        let outcomes = replay(&state, seqs).await?;
        let replayed: Vec<u64> = outcomes
            .iter()
            .filter_map(|(seq, outcome)| matches!(outcome, Outcome::Replayed(_)).then_some(*seq))
            .collect();
        match replayed[..] {
            [] => {}
            [seq] => sender.did(&format!("error replayed {seq}"), ""),
            [first, .., last] => {
                sender.did(&format!("errors replayed {}", replayed.len()), &format!("between {first} and {last}"));
            }
        }
        Ok(outcomes)
    });
    replaying.await?
}

/// Replays these errors, which are in ascending order and different, and waits until they are in the journal for good.
async fn replay(state: &State, seqs: Vec<u64>) -> Result<Vec<(u64, Outcome)>, Problem> {
    let status = state.parts.pipeline.status();
    if !status.caught_up {
        // What the journal holds of earlier replays is not known to the operator yet.
        return Err(Problem::unavailable("the journal found at start is still being processed; try again in a second"));
    }
    if state.parts.journal.stats().appended == state.journal_start {
        // The settings of now and the end of all silence come first.
        return Err(Problem::unavailable("weir is just starting; try again in a second"));
    }
    let (claim, taken) = Claims::claim(&state.replays, &seqs, status.position)
        .ok_or_else(|| Problem::unavailable("too many replays wait for the pipeline; try again in a second"))?;
    let replayed = state.parts.pipeline.are_replayed(seqs.clone()).await?;
    let mut outcomes: Vec<(u64, Option<Outcome>)> = Vec::with_capacity(seqs.len());
    for (seq, replayed) in seqs.into_iter().zip(replayed) {
        let refusal = match (replayed, taken.contains(&seq)) {
            (true, _) => Some(Refusal::AlreadyReplayed),
            (false, true) => Some(Refusal::InProgress),
            (false, false) => None,
        };
        outcomes.push((seq, refusal.map(Outcome::Refused)));
    }
    let work = Work::new(state.parts.journal.clone(), state.parts.results.clone(), claim);
    let synced = work.synced();
    let outcomes = results::blocking(state, move || work.run(outcomes)).await?;
    let last = outcomes.iter().filter_map(|(_, outcome)| match outcome {
        Outcome::Replayed(position) => Some(*position),
        Outcome::Refused(_) => None,
    });
    if let Some(last) = last.max() {
        synced.wait_for(last).await?;
    }
    Ok(outcomes)
}
