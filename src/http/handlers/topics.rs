//! `/api/v1/topics`.

use axum::Json;
use axum::extract;
use axum::http::Uri;

use crate::http::parameters::Parameters;
use crate::http::problem::ApiProblem;
use crate::http::state::ApiState;
use crate::mqtt::broker::UnmatchedTopicList;

/// Lists topics that no ingest topic takes, the most frequent first. There is no next page: the list changes all the time.
pub(in crate::http) async fn list(
    extract::State(state): extract::State<ApiState>,
    uri: Uri,
) -> Result<Json<UnmatchedTopicList>, ApiProblem> {
    let parameters = Parameters::read(&uri, &["unmatched", "all", "limit"])?;
    if parameters.switch("unmatched")? != Some(true) {
        return Err(ApiProblem::bad_request("give unmatched=1: weir lists the topics that are no ingest topics"));
    }
    let (all, limit) = (parameters.switch("all")?.unwrap_or(false), parameters.limit()?);
    let admission = state.resources.mqtt_admission.as_ref();
    Ok(Json(admission.map(|admission| admission.unmatched_topics(all, limit)).unwrap_or_default()))
}
