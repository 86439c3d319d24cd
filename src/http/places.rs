//! Bounds on connections whose client is slow in the middle of a request.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::admission::{PendingConnections, PendingPermit};
use crate::sync::lock;
use crate::telemetry::names;

/// Connections at a time that wait for the rest of a request's body.
const MAX_BODIES: usize = 64;
/// Connections at a time whose large answer waits for its reader.
const MAX_LARGE_ANSWERS: usize = 16;
/// Connections at a time beyond all others, for health and metrics only.
pub(super) const RESERVED_CONNECTIONS: usize = 32;

/// Places of connections whose client is slow in the middle of a request. Where places are needed, for the same or for new
/// connections, the one that has waited longest is evicted, if it has waited for a second.
#[derive(Debug, Clone)]
pub(super) struct RequestPlaces {
    bodies: Arc<PendingConnections>,
    answers: Arc<PendingConnections>,
}

impl RequestPlaces {
    pub fn new() -> Self {
        let bodies = PendingConnections::new("http_bodies", MAX_BODIES);
        Self { bodies, answers: PendingConnections::new("http_large_answers", MAX_LARGE_ANSWERS) }
    }

    /// A place for a connection that waits for the rest of a body. `None`: all are taken by others that have just come.
    pub fn for_body(&self, evicted: &CancellationToken) -> Option<PendingPermit> {
        Self::admit(&self.bodies, "http_bodies", evicted)
    }

    /// A place for a connection whose large answer is read. `None`: all are taken by others that have just come.
    pub fn for_large_answer(&self, evicted: &CancellationToken) -> Option<PendingPermit> {
        Self::admit(&self.answers, "http_large_answers", evicted)
    }

    fn admit(
        places: &Arc<PendingConnections>,
        limit: &'static str,
        evicted: &CancellationToken,
    ) -> Option<PendingPermit> {
        let place = places.admit_with(None, 1, Instant::now(), evicted.clone());
        if place.is_none() {
            metrics::counter!(names::LIMITS_HIT, "limit" => limit).increment(1);
        }
        place
    }

    /// Evicts a connection for a new one: first one that sends its body slowly, then one that reads a large answer slowly.
    /// Returns `false` if none has waited long enough.
    pub fn evict_slowest(&self, now: Instant) -> bool {
        self.bodies.evict_for(None, now) || self.answers.evict_for(None, now)
    }
}

/// Connections beyond the bound of all others. They serve health and metrics only, so that whoever takes all other places does not
/// make weir look dead. The newest stay: whoever asks for health is done long before as many others have come.
#[derive(Debug, Default)]
pub(super) struct ReservedConnections {
    newest: Mutex<VecDeque<CancellationToken>>,
}

impl ReservedConnections {
    /// Admits a connection, and evicts the oldest beyond the bound. `evicted` is cancelled when that happens to this one.
    pub fn admit(&self, evicted: CancellationToken) {
        let mut newest = lock(&self.newest);
        newest.push_back(evicted);
        if newest.len() > RESERVED_CONNECTIONS
            && let Some(oldest) = newest.pop_front()
        {
            oldest.cancel();
        }
    }

    /// Whether a reserved connection serves this path.
    pub fn serves(path: &str) -> bool {
        matches!(path, "/healthz" | "/readyz" | "/metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_reserved_connections_stay() {
        let reserved = ReservedConnections::default();
        let tokens: Vec<_> = (0..RESERVED_CONNECTIONS + 2).map(|_| CancellationToken::new()).collect();
        tokens.iter().for_each(|token| reserved.admit(token.clone()));
        let evicted: Vec<bool> = tokens.iter().map(CancellationToken::is_cancelled).collect();
        assert_eq!(evicted.iter().filter(|evicted| **evicted).count(), 2);
        assert!(evicted[0] && evicted[1]);
    }

    #[test]
    fn bodies_and_large_answers_have_a_bound() {
        let (places, evicted) = (RequestPlaces::new(), CancellationToken::new());
        let bodies: Vec<_> = (0..MAX_BODIES).map_while(|_| places.for_body(&evicted)).collect();
        let answers: Vec<_> = (0..MAX_LARGE_ANSWERS).map_while(|_| places.for_large_answer(&evicted)).collect();
        assert_eq!((bodies.len(), answers.len()), (MAX_BODIES, MAX_LARGE_ANSWERS));
        assert!(places.for_body(&evicted).is_none() && places.for_large_answer(&evicted).is_none());
        assert!(!places.evict_slowest(Instant::now()), "none has waited long enough");
        drop((bodies, answers));
        assert!(places.for_body(&evicted).is_some() && places.for_large_answer(&evicted).is_some());
    }
}
