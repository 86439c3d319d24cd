//! `GET /api/v1/errors/replay`: what became of replayed errors.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract;
use axum::http::Uri;
use serde::Serialize;

use super::request;
use crate::core::replay_effects::ReplayEffect;
use crate::http::problem::ApiProblem;
use crate::http::state::ApiState;

/// Body of the answer.
#[derive(Serialize)]
pub(in crate::http) struct ReplayEffectList {
    results: Vec<ReplayEffectBody>,
}

/// What became of one error.
#[derive(Serialize)]
struct ReplayEffectBody {
    seq: u64,
    state: &'static str,
    #[serde(flatten)]
    effect: Option<ProcessedReplay>,
}

/// Readings of a replay that was processed.
#[derive(Serialize)]
struct ProcessedReplay {
    counted: u64,
    rejected: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_error: Option<u64>,
}

impl From<ReplayEffect> for ProcessedReplay {
    fn from(effect: ReplayEffect) -> Self {
        Self {
            counted: effect.counted,
            rejected: effect.rejected.into_iter().map(|(reason, count)| (reason.as_str(), count)).collect(),
            detail: effect.sentence,
            new_error: effect.error_seq,
        }
    }
}

pub(in crate::http) async fn list(
    extract::State(state): extract::State<ApiState>,
    uri: Uri,
) -> Result<Json<ReplayEffectList>, ApiProblem> {
    let seqs = request::seqs_of_query(&uri)?;
    if !state.resources.pipeline.status().caught_up {
        return Err(ApiProblem::unavailable(
            "the journal found at start is still being processed; try again in a second",
        ));
    }
    // Before the operator is asked: a replay that it does not know then is still to be processed.
    let appended = state.replays.appended(&seqs);
    let known = state.resources.pipeline.replay_effects(seqs.clone()).await?;
    let body = |(seq, (is_replayed, effect)): (u64, (bool, Option<ReplayEffect>))| {
        let name = match (is_replayed, &effect) {
            (_, Some(_)) => "processed",
            (true, None) => "forgotten",
            (false, None) if appended.contains(&seq) => "pending",
            (false, None) => "not_replayed",
        };
        ReplayEffectBody { seq, state: name, effect: effect.map(ProcessedReplay::from) }
    };
    Ok(Json(ReplayEffectList { results: seqs.into_iter().zip(known).map(body).collect() }))
}
