//! Whether an HTTP connection has a request, and the memory that it holds while it has none.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::admission::{PendingConnections, PendingMemory, PendingPermit};
use crate::sync::lock;

/// The bounds of connections without a request.
#[derive(Clone)]
pub(super) struct IdleLimits {
    /// Connections without a request at the moment; bounded by the number of all connections.
    pub idle: Arc<PendingConnections>,
    /// Memory of all connections that have not logged in; MQTT counts its own there too.
    pub bytes: Arc<PendingConnections>,
}

/// Whether a connection is idle: while it is, it may be evicted for another one. The head of a request that is not complete
/// counts as idle.
pub(super) struct Idleness {
    limits: IdleLimits,
    from: IpAddr,
    /// Memory of the connection besides its input.
    transport_bytes: usize,
    state: Mutex<IdleState>,
    /// Cancelled when the connection is evicted.
    pub evicted: CancellationToken,
}

#[derive(Default)]
struct IdleState {
    /// `None` while a request is served.
    permit: Option<PendingPermit>,
    held: Option<Arc<PendingMemory>>,
    /// Bytes that came since the connection is idle.
    input: usize,
}

impl Idleness {
    /// A connection of a test, which `idle` counts.
    #[cfg(test)]
    pub fn counted_by(idle: &Arc<PendingConnections>) -> Arc<Self> {
        let (idle, bytes) = (Arc::clone(idle), PendingConnections::new("test", usize::MAX));
        Self::new(&IdleLimits { idle, bytes }, [127, 0, 0, 1].into(), 1, Instant::now()).expect("there is room")
    }

    /// A connection that was just accepted. `None`: there is no memory for it.
    pub fn new(limits: &IdleLimits, from: IpAddr, transport_bytes: usize, now: Instant) -> Option<Arc<Self>> {
        let evicted = CancellationToken::new();
        let held = PendingMemory::hold(&limits.bytes, Some(from), transport_bytes, evicted.clone())?;
        let permit = limits.idle.admit_with(Some(from), 1, now, evicted.clone());
        let state = Mutex::new(IdleState { permit, held: Some(held), input: 0 });
        Some(Arc::new(Self { limits: limits.clone(), from, transport_bytes, state, evicted }))
    }

    /// The memory that the connection holds; `None` while a request is served.
    pub fn held(&self) -> Option<Arc<PendingMemory>> {
        lock(&self.state).held.clone()
    }

    /// Bytes came from the client. They are counted if they belong to the head of a request.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn received(&self, bytes: usize) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.permit.is_none() {
            return Ok(());
        }
        state.input += bytes;
        if state.held.is_none() {
            let (from, evicted) = (Some(self.from), self.evicted.clone());
            state.held = PendingMemory::hold(&self.limits.bytes, from, self.transport_bytes, evicted);
        }
        let fits = state.held.as_ref().is_some_and(|held| held.set_input(state.input).is_ok());
        if fits { Ok(()) } else { Err(io::Error::other("limits.pending_bytes is reached")) }
    }

    /// A request has come.
    pub fn end(&self) {
        *lock(&self.state) = IdleState::default();
    }

    /// The connection has handed on the whole answer to its request.
    pub fn begin(&self) {
        let (from, evicted) = (Some(self.from), self.evicted.clone());
        let permit = self.limits.idle.admit_with(from, 1, Instant::now(), evicted.clone());
        // Where there is no memory, the connection ends with its next input: the answer must reach the client.
        let held = PendingMemory::hold(&self.limits.bytes, from, self.transport_bytes, evicted);
        *lock(&self.state) = IdleState { permit, held, input: 0 };
    }
}
