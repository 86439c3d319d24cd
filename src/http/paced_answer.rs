//! The body of an answer on its way to the client: large ones are bounded in number.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body as AnswerBody;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::admission::PendingPermit;
use crate::http::idleness::Idleness;
use crate::http::places::RequestPlaces;
use crate::http::problem::ApiProblem;

/// Bytes that are handed to the connection at a time. An answer with more is a large one: while the client reads it, its rest is
/// in memory.
const PIECE_BYTES: usize = 64 << 10;

/// The body of an answer. When it is dropped, the connection has handed on the whole answer and is idle.
pub(super) struct PacedAnswer {
    body: AnswerBody,
    /// The rest of the frame at hand.
    rest: Bytes,
    place: Option<PendingPermit>,
    idleness: Arc<Idleness>,
}

impl PacedAnswer {
    /// Wraps an answer of the connection `idleness`. A large answer takes a place; without a free one, the answer is that
    /// weir is busy (503). `None` in place of `places`: no place is needed.
    pub fn wrap(answer: Response, idleness: Arc<Idleness>, places: Option<&RequestPlaces>) -> Response<Self> {
        let is_large = answer.body().size_hint().exact().is_some_and(|length| length > PIECE_BYTES as u64);
        let places = places.filter(|_| is_large);
        let place = places.and_then(|places| places.for_large_answer(&idleness.evicted));
        let answer = if places.is_some() && place.is_none() {
            ApiProblem::unavailable("too many clients read large answers slowly; try again in a second").into_response()
        } else {
            answer
        };
        answer.map(|body| Self { body, rest: Bytes::new(), place, idleness })
    }
}

impl Body for PacedAnswer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(piece);
        if self.is_end_stream() {
            self.place = None;
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        match hint.exact() {
            Some(length) => SizeHint::with_exact(length + rest),
            None => {
                hint.set_lower(hint.lower() + rest);
                hint
            }
        }
    }
}

impl Drop for PacedAnswer {
    fn drop(&mut self) {
        self.idleness.begin();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::admission::PendingConnections;

    #[tokio::test]
    async fn an_answer_arrives_in_pieces_and_unchanged() {
        let idle = PendingConnections::new("test", usize::MAX);
        let idleness = Idleness::counted_by(&idle);
        idleness.end();
        let places = RequestPlaces::new();
        let bytes: Vec<u8> = (0..PIECE_BYTES * 2 + 7).map(|at| at as u8).collect();
        let mut answer = PacedAnswer::wrap(bytes.clone().into_response(), idleness, Some(&places)).into_body();
        assert_eq!(answer.size_hint().exact(), Some(bytes.len() as u64));
        let first = answer.frame().await.expect("a frame").expect("no error").into_data().expect("data");
        assert_eq!((first.len(), answer.size_hint().exact()), (PIECE_BYTES, Some((PIECE_BYTES + 7) as u64)));
        assert_eq!(idle.len(), 0, "it has a request");
        let rest = (&mut answer).collect().await.expect("no error").to_bytes();
        assert_eq!([first, rest].concat(), bytes);
        drop(answer);
        assert_eq!(idle.len(), 0, "the connection has ended with it");
    }

    #[tokio::test]
    async fn large_answers_have_a_bound_and_small_ones_need_no_place() {
        let idle = PendingConnections::new("test", usize::MAX);
        let idleness = Idleness::counted_by(&idle);
        let places = RequestPlaces::new();
        let evicted = CancellationToken::new();
        let mut held: Vec<_> = std::iter::from_fn(|| places.for_large_answer(&evicted)).collect();
        let status = |bytes: usize| {
            PacedAnswer::wrap(vec![0; bytes].into_response(), idleness.clone(), Some(&places)).status().as_u16()
        };
        assert_eq!((status(PIECE_BYTES), status(PIECE_BYTES + 1)), (200, 503));
        held.pop();
        assert_eq!(
            (status(PIECE_BYTES + 1), status(PIECE_BYTES + 1)),
            (200, 200),
            "a dropped answer gives its place back"
        );
    }
}
