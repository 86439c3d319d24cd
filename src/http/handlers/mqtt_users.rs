//! `/api/v1/mqtt/users`.

use axum::Json;
use axum::extract;
use axum::http::Uri;
use serde::Serialize;

use crate::http::parameters::Parameters;
use crate::http::problem::ApiProblem;
use crate::http::state::ApiState;
use crate::mqtt::broker::UserUsage;

/// Body of the answer.
#[derive(Serialize)]
pub(in crate::http) struct MqttUserList {
    /// The users that hold most, heaviest first.
    users: Vec<UserUsage>,
    /// Number of users that hold something.
    count: usize,
    /// The tenants that hold something, heaviest first.
    tenants: Vec<UserUsage>,
}

/// Lists what MQTT users hold, with their quotas. There is no next page: only the heaviest users are of interest.
pub(in crate::http) async fn list(
    extract::State(state): extract::State<ApiState>,
    uri: Uri,
) -> Result<Json<MqttUserList>, ApiProblem> {
    let limit = Parameters::read(&uri, &["limit"])?.limit()?;
    let usage = state.resources.mqtt_admission.as_ref().map(|admission| admission.usage(limit));
    let (tenants, users, count) = usage.unwrap_or_default();
    Ok(Json(MqttUserList { users, count, tenants }))
}
