//! Decides whether a client may publish on a topic.

use std::sync::Arc;

use crate::access::Permissions;
use crate::config::OnDeniedPublish;
use crate::mqtt::wire::topic::IngestTopics;

/// Decision of the access rules about a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublishDecision {
    /// The publish is taken. `own_device` is set where the topic carries readings and does not name the device, and the
    /// client may speak for one device only: the readings are then of this device.
    Allowed { own_device: Option<Arc<str>> },
    /// The publish is not taken. The value says what happens to it under MQTT 3.1.1.
    Denied(OnDeniedPublish),
}

/// Decides whether a client with these permissions may publish on `topic`.
pub(crate) fn decide_publish(permissions: &Permissions, topic: &str, ingest: &IngestTopics) -> PublishDecision {
    // Devices announce themselves on topics that are not theirs. Where nothing of it counts, they are not cut off for that.
    let on_denied =
        if ingest.carries_no_readings(topic) { OnDeniedPublish::Ignore } else { permissions.on_denied_publish() };
    let denied = PublishDecision::Denied(on_denied);
    if !permissions.may_publish(topic) {
        return denied;
    }
    if permissions.speaks_for_any_device() || ingest.name_device(topic) {
        return PublishDecision::Allowed { own_device: None };
    }
    // The own device of a client has the client's user name. An anonymous client has no user name, so its publish is
    // denied.
    permissions.user().map_or(denied, |user| PublishDecision::Allowed { own_device: Some(Arc::clone(user)) })
}
