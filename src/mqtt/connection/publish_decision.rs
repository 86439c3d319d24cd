//! What the access rules say of a publish.

use std::sync::Arc;

use crate::access::Permissions;
use crate::config::OnDeniedPublish;
use crate::mqtt::wire::topic::IngestTopics;

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublishDecision {
    /// It is taken; on a topic of readings that names no device they are of `own_device` alone.
    Allowed { own_device: Option<Arc<str>> },
    /// It is not taken; what becomes of it under 3.1.1.
    Denied(OnDeniedPublish),
}

/// Judges a publish on `topic`.
pub(crate) fn decide_publish(permissions: &Permissions, topic: &str, ingest: &IngestTopics) -> PublishDecision {
    let denied = PublishDecision::Denied(permissions.on_denied_publish());
    if !permissions.may_publish(topic) {
        return denied;
    }
    if permissions.speaks_for_any_device() || ingest.name_device(topic) {
        return PublishDecision::Allowed { own_device: None };
    }
    // Who has no name has no device of its own either.
    permissions.user().map_or(denied, |user| PublishDecision::Allowed { own_device: Some(Arc::clone(user)) })
}
