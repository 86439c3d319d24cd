//! `/api/v1/maps/watch`: server-sent events of what maps make of messages.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use axum::extract::{self, Extension};
use axum::http::Uri;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::access::tokens::TokenRole;
use crate::http::auth::Requester;
use crate::http::handlers::stream::{KEEP_ALIVE, MissedEvent, stream_permit};
use crate::http::parameters::Parameters;
use crate::http::problem::ApiProblem;
use crate::http::state::ApiState;
use crate::mqtt::is_filter;
use crate::pipeline::map_watch::{MAX_WATCHERS, MapWatch, WatchedMessage};
use crate::telemetry::names;

/// Time after which a silent stream tells how many messages it missed.
const MISSED_INTERVAL: Duration = Duration::from_secs(1);

/// An open view.
struct WatchStream {
    watch: MapWatch,
    /// A message that waits until the reader is told what it missed before.
    next: Option<WatchedMessage>,
    closing: CancellationToken,
    /// Completes when the reader's token no longer allows reading.
    access_ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    _permit: OwnedSemaphorePermit,
}

/// Opens a view of the messages that maps take or ignore, and of those that no map takes.
pub(in crate::http) async fn open(
    extract::State(state): extract::State<ApiState>,
    Extension(requester): Extension<Requester>,
    uri: Uri,
) -> Result<Response, ApiProblem> {
    let parameters = Parameters::read(&uri, &["map", "topic"])?;
    let topic = parameters.get("topic").map(str::to_owned);
    if let Some(filter) = topic.as_ref().filter(|filter| !is_filter(filter)) {
        return Err(ApiProblem::bad_request(format!(
            "topic={filter} is no topic filter such as tele/desk/SENSOR or tele/#"
        )));
    }
    let resources = &state.resources;
    let map = parameters.get("map").map(str::to_owned);
    if let Some(name) = &map {
        let maps = resources.pipeline.maps().await?;
        if !maps.iter().any(|(settings, _)| settings.name == *name) {
            let detail = format!("there is no map {name:?} that is on; GET /api/v1/maps lists those that are");
            return Err(ApiProblem::not_found(detail));
        }
    }
    let permit = stream_permit(&state)?;
    let admission = resources.mqtt_admission.as_ref();
    let admission = admission.ok_or_else(|| ApiProblem::unavailable("MQTT is not served yet; try again"))?;
    let Some(watch) = admission.watch_maps(topic, map, &resources.journal, &resources.pipeline) else {
        metrics::counter!(names::LIMITS_HIT, "limit" => "map_watchers").increment(1);
        let detail =
            format!("{MAX_WATCHERS} views of maps are open, which is the limit; close one, or try again later");
        return Err(ApiProblem::unavailable(detail));
    };
    let access_ended = Box::pin(resources.access.clone().ended(requester.caller, TokenRole::Read));
    let opened = WatchStream { watch, next: None, closing: state.closing.clone(), access_ended, _permit: permit };
    let events = stream::unfold(opened, |mut opened| async {
        let event = opened.next().await?;
        Some((Ok::<_, Infallible>(event), opened))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

impl WatchStream {
    /// The next event to send; `None` when the server stops, or the reader's token no longer allows reading.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if self.next.is_none() {
                let received = tokio::select! {
                    biased;
                    () = self.closing.cancelled() => return None,
                    () = &mut self.access_ended => return None,
                    received = timeout(MISSED_INTERVAL, self.watch.next()) => received,
                };
                if let Ok(message) = received {
                    self.next = Some(message?);
                }
            }
            let missed = self.watch.take_missed();
            if missed > 0 {
                metrics::counter!(names::STREAM_MISSED).increment(missed);
                return sse::Event::default().event("missed").json_data(MissedEvent { missed }).ok();
            }
            if let Some(message) = self.next.take() {
                return sse::Event::default().event("message").json_data(message).ok();
            }
        }
    }
}
