//! `/api/v1/maps`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract;
use axum::http::Uri;
use serde::Serialize;

use crate::core::formats::{EdgeNodeView, Ignored, MapSettings};
use crate::core::map_activity::{MapActivity, MapOutcome};
use crate::http::parameters::Parameters;
use crate::http::problem::ApiProblem;
use crate::http::state::ApiState;

/// Edge nodes of Sparkplug B that are listed, at most.
const MAX_EDGE_NODES: usize = 100;

/// Body of the list.
#[derive(Serialize)]
pub(in crate::http) struct MapList {
    maps: Vec<MapBody>,
    /// Edge nodes of Sparkplug B, those first of which most messages were missing.
    edge_nodes: Vec<EdgeNodeBody>,
    /// Number of all edge nodes.
    edge_node_count: usize,
}

/// One edge node of Sparkplug B.
#[derive(Serialize)]
struct EdgeNodeBody {
    /// Tenant, group and node, as in `acme/Plant1/Edge1`.
    node: String,
    online: bool,
    /// Arrival of its last birth, Unix milliseconds.
    born: Option<i64>,
    /// Devices that were born, the node itself included.
    devices: usize,
    devices_online: usize,
    /// Metrics that its births and those of its devices define.
    metrics: usize,
    /// Times that messages of the node were missing.
    sequence_gaps: u64,
    messages_missed: u64,
}

impl From<EdgeNodeView> for EdgeNodeBody {
    fn from(view: EdgeNodeView) -> Self {
        let EdgeNodeView { node, online, born_ms, devices, devices_online, metrics, gaps, missed } = view;
        let (sequence_gaps, messages_missed) = (gaps, missed);
        Self { node, online, born: born_ms, devices, devices_online, metrics, sequence_gaps, messages_missed }
    }
}

/// One map, and what became of the messages that it took.
#[derive(Serialize)]
struct MapBody {
    name: String,
    topics: Vec<String>,
    status_topics: Vec<String>,
    ignored_topics: Vec<String>,
    /// Arrival of its last message, Unix milliseconds.
    last_message: Option<i64>,
    last_topic: Option<String>,
    /// The first message that gave readings; `null`: none did.
    first: Option<FirstBody>,
    /// Numbers of messages by what they gave.
    messages: BTreeMap<&'static str, u64>,
    /// Messages on ignored topics since the start.
    on_ignored_topics: u64,
    /// Numbers of values that were left out on purpose, by reason, without zeros.
    values_ignored: BTreeMap<&'static str, u64>,
    /// The most frequent keys that were left out.
    ignored_keys: Vec<IgnoredKey>,
}

/// What a map recognised first.
#[derive(Serialize)]
struct FirstBody {
    topic: String,
    device: String,
    /// Arrival, Unix milliseconds.
    at: i64,
}

#[derive(Serialize)]
struct IgnoredKey {
    key: String,
    count: u64,
}

impl MapBody {
    fn new(settings: MapSettings, activity: &MapActivity, on_ignored_topics: u64) -> Self {
        let values = Ignored::ALL.into_iter().zip(activity.ignored).filter(|(_, count)| *count > 0);
        let keys = activity.top_keys().into_iter().map(|(key, count)| IgnoredKey { key: key.to_owned(), count });
        Self {
            name: settings.name,
            topics: settings.topics,
            status_topics: settings.status.map(|status| status.topics).unwrap_or_default(),
            ignored_topics: settings.ignore,
            last_message: activity.last_ms(),
            last_topic: activity.last_ms().map(|_| activity.last_topic.clone()),
            first: activity.first.as_deref().map(|first| FirstBody {
                topic: first.topic.clone(),
                device: first.device.clone(),
                at: first.arrival_ms,
            }),
            messages: MapOutcome::ALL.iter().map(|outcome| outcome.as_str()).zip(activity.messages).collect(),
            on_ignored_topics,
            values_ignored: values.map(|(reason, count)| (reason.as_str(), count)).collect(),
            ignored_keys: keys.collect(),
        }
    }
}

/// Lists the maps in the order in which they are asked.
pub(in crate::http) async fn list(
    extract::State(state): extract::State<ApiState>,
    uri: Uri,
) -> Result<Json<MapList>, ApiProblem> {
    Parameters::read(&uri, &[])?;
    let maps = state.resources.pipeline.maps().await?;
    let admission = state.resources.mqtt_admission.as_ref();
    let on_topics = admission.map(|admission| admission.ignored_by_maps()).unwrap_or_default();
    let body = |(settings, activity): (MapSettings, MapActivity)| {
        let ignored = on_topics.iter().find(|(map, _)| *map == activity.name).map_or(0, |(_, count)| *count);
        MapBody::new(settings, &activity, ignored)
    };
    let (nodes, edge_node_count) = state.resources.pipeline.edge_nodes(MAX_EDGE_NODES).await?;
    let edge_nodes = nodes.into_iter().map(EdgeNodeBody::from).collect();
    Ok(Json(MapList { maps: maps.into_iter().map(body).collect(), edge_nodes, edge_node_count }))
}
