//! The body of a request on its way to a handler: bounded in time, and in the number of connections that wait for one.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio_util::sync::CancellationToken;

use crate::admission::PendingPermit;
use crate::http::places::RequestPlaces;
use crate::stall;

/// Time for a whole body. Bodies have at most 64 KiB.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Why a body has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    /// Too many connections wait for bodies.
    #[error("too many requests send their body slowly; try again in a second")]
    NoPlace,
    /// The client sent it too slowly.
    #[error("the body did not come within {} s", BODY_TIME.as_secs())]
    TooSlow,
    /// The connection ended, or what came is not HTTP.
    #[error("the body ended early, or is not of the form that HTTP has")]
    Broken,
}

type BodyDeadline = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The body of a request. Where it has not come whole with the head of the request, its connection takes a place among those
/// that wait, from the moment when somebody reads it.
pub(super) struct ReceivedBody<B> {
    body: B,
    places: RequestPlaces,
    evicted: CancellationToken,
    limit: Duration,
    waiting: Option<(PendingPermit, BodyDeadline)>,
}

impl<B> ReceivedBody<B> {
    /// Wraps the body of a request whose connection ends when `evicted` is cancelled.
    pub fn new(body: B, places: RequestPlaces, evicted: CancellationToken) -> Self {
        Self { body, places, evicted, limit: BODY_TIME, waiting: None }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReceivedBody<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if frame.is_none() || self.body.is_end_stream() {
                self.waiting = None;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(|_| BodyError::Broken)));
        }
        if self.waiting.is_none() {
            let Some(place) = self.places.for_body(&self.evicted) else {
                return Poll::Ready(Some(Err(BodyError::NoPlace)));
            };
            self.waiting = Some((place, Box::pin(stall::sleep(self.limit))));
        }
        match &mut self.waiting {
            Some((_, deadline)) => deadline.as_mut().poll(context).map(|()| Some(Err(BodyError::TooSlow))),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::sync::mpsc;

    use super::*;

    fn body() -> (mpsc::UnboundedSender<Bytes>, impl Body<Data = Bytes, Error = Infallible> + Unpin) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let frames = stream::unfold(receiver, async |mut receiver: mpsc::UnboundedReceiver<Bytes>| {
            let frame = Ok(Frame::data(receiver.recv().await?));
            Some((frame, receiver))
        });
        (sender, StreamBody::new(Box::pin(frames)))
    }

    #[tokio::test]
    async fn a_body_that_does_not_end_in_time_is_given_up() {
        let (sender, body) = body();
        let mut body = ReceivedBody::new(body, RequestPlaces::new(), CancellationToken::new());
        body.limit = Duration::from_millis(1);
        sender.send(Bytes::from_static(b"{")).expect("it is read");
        assert!(body.frame().await.expect("a frame").is_ok());
        assert_eq!(body.frame().await.expect("an error").err(), Some(BodyError::TooSlow));
    }

    #[tokio::test]
    async fn a_body_takes_a_place_while_it_waits_only() {
        let (places, evicted) = (RequestPlaces::new(), CancellationToken::new());
        let mut held: Vec<_> = std::iter::from_fn(|| places.for_body(&evicted)).collect();
        let (sender, body) = body();
        let mut body = ReceivedBody::new(body, places.clone(), evicted.clone());
        sender.send(Bytes::from_static(b"{}")).expect("it is read");
        assert!(body.frame().await.expect("a frame").is_ok(), "what is there needs no place");
        assert_eq!(body.frame().await.expect("an error").err(), Some(BodyError::NoPlace));
        held.pop();
        drop(sender);
        assert!(body.frame().await.is_none());
    }
}
