//! `/api/v1/stream`: server-sent events.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{self, Extension};
use axum::http::Uri;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::access::tokens::TokenRole;
use crate::http::auth::Requester;
use crate::http::limits::MAX_STREAMS;
use crate::http::parameters::Parameters;
use crate::http::problem::ApiProblem;
use crate::http::state::ApiState;
use crate::results::feed::ResultEvent;
use crate::results::record::ResultKind;
use crate::telemetry::names;

/// Time between comments on a silent stream: proxies cut connections that are silent for a minute.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which results a stream sends.
#[derive(Debug)]
struct StreamFilter {
    windows: bool,
    errors: bool,
    device: Option<String>,
}

/// Data of the event that tells a reader how many results it missed.
#[derive(Serialize)]
pub(super) struct MissedEvent {
    pub missed: u64,
}

/// An open stream.
struct ResultStream {
    receiver: Receiver<Arc<ResultEvent>>,
    filter: StreamFilter,
    closing: CancellationToken,
    /// Completes when the reader's token no longer allows reading.
    access_ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    _permit: OwnedSemaphorePermit,
}

pub(in crate::http) async fn open(
    extract::State(state): extract::State<ApiState>,
    Extension(requester): Extension<Requester>,
    uri: Uri,
) -> Result<Response, ApiProblem> {
    let filter = StreamFilter::read(&Parameters::read(&uri, &["windows", "errors", "device"])?)?;
    let permit = stream_permit(&state)?;
    let receiver = state.resources.feed.subscribe();
    let access_ended = Box::pin(state.resources.access.clone().ended(requester.caller, TokenRole::Read));
    let opened = ResultStream { receiver, filter, closing: state.closing.clone(), access_ended, _permit: permit };
    let events = stream::unfold(opened, |mut opened| async {
        let event = opened.next().await?;
        Some((Ok::<_, Infallible>(event), opened))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// Permission for one more event stream.
///
/// # Errors
/// As many are open as may be.
pub(super) fn stream_permit(state: &ApiState) -> Result<OwnedSemaphorePermit, ApiProblem> {
    state.streams.clone().try_acquire_owned().map_err(|_| {
        metrics::counter!(names::LIMITS_HIT, "limit" => "http_streams").increment(1);
        let detail = format!("{MAX_STREAMS} streams are open, which is the limit; close one, or try again later");
        ApiProblem::unavailable(detail)
    })
}

impl StreamFilter {
    /// Without `windows` and `errors` both kinds are sent; with one of them switched on, only that kind.
    fn read(parameters: &Parameters) -> Result<Self, ApiProblem> {
        let (windows, errors) = (parameters.switch("windows")?, parameters.switch("errors")?);
        let (windows, errors) = match (windows, errors) {
            (None, None) => (true, true),
            (Some(windows), None) => (windows, !windows),
            (None, Some(errors)) => (!errors, errors),
            (Some(windows), Some(errors)) => (windows, errors),
        };
        if !windows && !errors {
            return Err(ApiProblem::bad_request("windows=0 and errors=0 leave nothing to send; leave one of them out"));
        }
        Ok(Self { windows, errors, device: parameters.get("device").map(str::to_owned) })
    }

    fn passes(&self, event: &ResultEvent) -> bool {
        let kind = match event.kind {
            ResultKind::Window => self.windows,
            ResultKind::Error => self.errors,
        };
        kind && (self.device.is_none() || self.device == event.device_id)
    }
}

impl ResultStream {
    /// The next event to send; `None` when the server stops, or the reader's token no longer allows reading.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            let received = tokio::select! {
                biased;
                () = self.closing.cancelled() => return None,
                () = &mut self.access_ended => return None,
                received = self.receiver.recv() => received,
            };
            match received {
                Ok(event) if self.filter.passes(&event) => return Some(sent(&event)),
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    metrics::counter!(names::STREAM_MISSED).increment(missed);
                    return sse::Event::default().event("missed").json_data(MissedEvent { missed }).ok();
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// The result as an event. Each log counts its own sequence numbers, so an id begins with the log's letter.
fn sent(event: &ResultEvent) -> sse::Event {
    let (name, letter) = match event.kind {
        ResultKind::Window => ("window", 'w'),
        ResultKind::Error => ("error", 'e'),
    };
    // serde wrote it: it is UTF-8.
    let json = std::str::from_utf8(&event.json).unwrap_or_default();
    sse::Event::default().event(name).id(format!("{letter}{}", event.seq)).data(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(query: &str) -> Result<(bool, bool), String> {
        let uri = format!("/x?{query}").parse().expect("a URI");
        let parameters = Parameters::read(&uri, &["windows", "errors", "device"]).expect("known parameters");
        StreamFilter::read(&parameters).map(|filter| (filter.windows, filter.errors)).map_err(|problem| problem.detail)
    }

    #[test]
    fn what_is_sent() {
        for (query, expected) in [
            ("", (true, true)),
            ("windows=1", (true, false)),
            ("errors=1", (false, true)),
            ("windows=0", (false, true)),
            ("windows=1&errors=1", (true, true)),
            ("device=a", (true, true)),
        ] {
            assert_eq!(filter(query), Ok(expected), "{query}");
        }
        assert!(filter("windows=0&errors=0").is_err());
    }
}
