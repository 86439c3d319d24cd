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
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::access::tokens::TokenRole;
use crate::http::auth::Sender;
use crate::http::parameters::Parameters;
use crate::http::problem::Problem;
use crate::http::state::{MAX_STREAMS, State};
use crate::results::feed::ResultEvent;
use crate::results::record::ResultKind;
use crate::telemetry::names;

/// Proxies cut connections that are silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which events a stream wants.
#[derive(Debug)]
struct Filter {
    windows: bool,
    errors: bool,
    device: Option<String>,
}

struct Subscription {
    receiver: Receiver<Arc<ResultEvent>>,
    filter: Filter,
    closing: CancellationToken,
    /// Ends when its reader may no longer read.
    shut_out: Pin<Box<dyn Future<Output = ()> + Send>>,
    _permit: OwnedSemaphorePermit,
}

pub(super) async fn open(
    extract::State(state): extract::State<State>,
    Extension(sender): Extension<Sender>,
    uri: Uri,
) -> Result<Response, Problem> {
    let filter = Filter::read(&Parameters::read(&uri, &["windows", "errors", "device"])?)?;
    let Ok(permit) = state.streams.clone().try_acquire_owned() else {
        metrics::counter!(names::LIMITS_HIT, "limit" => "http_streams").increment(1);
        let detail = format!("{MAX_STREAMS} streams are open, which is the limit; close one, or try again later");
        return Err(Problem::unavailable(detail));
    };
    let receiver = state.parts.feed.subscribe();
    let shut_out = Box::pin(state.parts.access.clone().ended(sender.caller, TokenRole::Read));
    let subscription = Subscription { receiver, filter, closing: state.closing.clone(), shut_out, _permit: permit };
    let events = stream::unfold(subscription, |mut subscription| async {
        let event = subscription.next().await?;
        Some((Ok::<_, Infallible>(event), subscription))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

impl Filter {
    /// Without `windows` and `errors` both are sent; with one of them on, only what is on.
    fn read(parameters: &Parameters) -> Result<Self, Problem> {
        let (windows, errors) = (parameters.switch("windows")?, parameters.switch("errors")?);
        let (windows, errors) = match (windows, errors) {
            (None, None) => (true, true),
            (Some(windows), None) => (windows, !windows),
            (None, Some(errors)) => (!errors, errors),
            (Some(windows), Some(errors)) => (windows, errors),
        };
        if !windows && !errors {
            return Err(Problem::bad_request("windows=0 and errors=0 leave nothing to send; leave one of them out"));
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

impl Subscription {
    /// The next event to send; `None` when the server ends, or the reader's token does.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            let received = tokio::select! {
                biased;
                () = self.closing.cancelled() => return None,
                () = &mut self.shut_out => return None,
                received = self.receiver.recv() => received,
            };
            match received {
                Ok(event) if self.filter.passes(&event) => return Some(shown(&event)),
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    metrics::counter!(names::STREAM_MISSED).increment(missed);
                    return Some(sse::Event::default().event("missed").data(format!("{{\"missed\":{missed}}}")));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// Sequence numbers are those of a log, so that an id needs the log's letter.
fn shown(event: &ResultEvent) -> sse::Event {
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
        Filter::read(&parameters).map(|filter| (filter.windows, filter.errors)).map_err(|problem| problem.detail)
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
