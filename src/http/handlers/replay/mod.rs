//! `POST /api/v1/errors/{seq}/replay` and `POST /api/v1/errors/replay`: stored errors become journal records again.
//!
//! An answer that says "replayed" follows the journal's sync, as a PUBACK does. The operator makes sure that each error is
//! replayed once, whatever the journal holds; the questions and claims here make the answer right.

mod effects;
mod outcome;
mod request;
mod work;

use axum::extract::{self, Extension, Path, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::http::auth::Requester;
use crate::http::claims::ReplayClaims;
use crate::http::handlers::results::error_seq;
use crate::http::problem::ApiProblem;
use crate::http::scans::run_scan;
use crate::http::state::ApiState;

pub(in crate::http) use effects::list as effects;
use outcome::{ReplayOutcome, ReplayRefusal};
use work::ReplayWork;

/// Body of the answer to one replay.
#[derive(Serialize)]
struct ReplayedError {
    seq: u64,
    journal_position: u64,
}

/// The outcome for one error of a list.
#[derive(Serialize)]
struct ReplayResult {
    seq: u64,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    journal_position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// Body of the answer to a list of replays.
#[derive(Serialize)]
struct ReplayReport {
    replayed: usize,
    refused: usize,
    results: Vec<ReplayResult>,
}

pub(in crate::http) async fn one(
    extract::State(state): extract::State<ApiState>,
    Extension(requester): Extension<Requester>,
    Path(seq): Path<String>,
    request: Request,
) -> Result<Response, ApiProblem> {
    let seq = error_seq(&seq)?;
    request::empty(request).await?;
    let outcome = replay_recorded(state, requester, vec![seq]).await?.pop();
    match outcome {
        Some((seq, ReplayOutcome::Replayed(journal_position))) => {
            Ok(axum::Json(ReplayedError { seq, journal_position }).into_response())
        }
        Some((seq, ReplayOutcome::Refused(refusal))) => Err(refusal.problem(seq)),
        None => Err(ApiProblem::internal()),
    }
}

pub(in crate::http) async fn bulk(
    extract::State(state): extract::State<ApiState>,
    Extension(requester): Extension<Requester>,
    request: Request,
) -> Result<Response, ApiProblem> {
    let seqs = request::seqs(request).await?;
    let outcomes = replay_recorded(state, requester, seqs).await?;
    let refused_for_now = |outcome: &ReplayOutcome| match outcome {
        ReplayOutcome::Refused(refusal) => refusal.status() == StatusCode::SERVICE_UNAVAILABLE,
        ReplayOutcome::Replayed(_) => false,
    };
    // Where every error was refused for the moment only, the whole request can be sent again.
    if let Some((seq, ReplayOutcome::Refused(refusal))) = outcomes.first()
        && outcomes.iter().all(|(_, outcome)| refused_for_now(outcome))
    {
        return Err(refusal.problem(*seq));
    }
    let results: Vec<ReplayResult> = outcomes.into_iter().map(|(seq, outcome)| item(seq, &outcome)).collect();
    let replayed = results.iter().filter(|item| item.journal_position.is_some()).count();
    Ok(axum::Json(ReplayReport { replayed, refused: results.len() - replayed, results }).into_response())
}

fn item(seq: u64, outcome: &ReplayOutcome) -> ReplayResult {
    match outcome {
        ReplayOutcome::Replayed(position) => {
            ReplayResult { seq, outcome: "replayed", journal_position: Some(*position), detail: None }
        }
        ReplayOutcome::Refused(refusal) => {
            ReplayResult { seq, outcome: refusal.name(), journal_position: None, detail: Some(refusal.detail(seq)) }
        }
    }
}

/// Replays in a task of its own: the replays are recorded in the audit log even if the requester disconnects.
async fn replay_recorded(
    state: ApiState,
    requester: Requester,
    seqs: Vec<u64>,
) -> Result<Vec<(u64, ReplayOutcome)>, ApiProblem> {
    let replaying = tokio::spawn(async move {
        let outcomes = replay(&state, seqs).await?;
        let replayed: Vec<u64> = outcomes
            .iter()
            .filter_map(|(seq, outcome)| matches!(outcome, ReplayOutcome::Replayed(_)).then_some(*seq))
            .collect();
        match replayed[..] {
            [] => {}
            [seq] => requester.did(&format!("error replayed {seq}"), ""),
            [first, .., last] => {
                requester.did(&format!("errors replayed {}", replayed.len()), &format!("between {first} and {last}"));
            }
        }
        Ok(outcomes)
    });
    replaying.await?
}

/// Replays these errors, which are in ascending order and different, and waits until the journal has synced them.
async fn replay(state: &ApiState, seqs: Vec<u64>) -> Result<Vec<(u64, ReplayOutcome)>, ApiProblem> {
    let status = state.resources.pipeline.status();
    if !status.caught_up {
        // The operator does not know of earlier replays in the journal yet.
        return Err(ApiProblem::unavailable(
            "the journal found at start is still being processed; try again in a second",
        ));
    }
    if state.resources.journal.stats().appended == state.journal_start {
        // The records of this start, with the settings in force, come first.
        return Err(ApiProblem::unavailable("weir is just starting; try again in a second"));
    }
    let (claim, taken) = ReplayClaims::claim(&state.replays, &seqs, status.position)
        .ok_or_else(|| ApiProblem::unavailable("too many replays wait for the pipeline; try again in a second"))?;
    let replayed = state.resources.pipeline.are_replayed(seqs.clone()).await?;
    let mut outcomes: Vec<(u64, Option<ReplayOutcome>)> = Vec::with_capacity(seqs.len());
    for (seq, replayed) in seqs.into_iter().zip(replayed) {
        let refusal = match (replayed, taken.contains(&seq)) {
            (true, _) => Some(ReplayRefusal::AlreadyReplayed),
            (false, true) => Some(ReplayRefusal::InProgress),
            (false, false) => None,
        };
        outcomes.push((seq, refusal.map(ReplayOutcome::Refused)));
    }
    let work = ReplayWork::new(state.resources.journal.clone(), state.resources.results.clone(), claim);
    let synced = work.sync_wait();
    let outcomes = run_scan(state, move || work.run(outcomes)).await?;
    let last = outcomes.iter().filter_map(|(_, outcome)| match outcome {
        ReplayOutcome::Replayed(position) => Some(*position),
        ReplayOutcome::Refused(_) => None,
    });
    if let Some(last) = last.max() {
        synced.wait_for(last).await?;
    }
    Ok(outcomes)
}
