//! The bytes that one connection holds before its login, as part of the bound of all such connections.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::{NoRoom, PendingConnections, PendingPermit};
use crate::sync::lock;

/// Estimated memory of a connection that has sent nothing: its task, its permits and the runtime's part of its socket.
pub const CONNECTION_BYTES: usize = 5 << 9;
/// Estimated memory of a TLS connection besides the bytes that came in its handshake: keys, transcript and buffers of rustls.
pub const TLS_BYTES: usize = 14 << 10;

/// The bytes that one connection holds: those of its transport, such as the state of TLS, and those of its input that is not
/// used yet. Dropping it gives them back.
#[derive(Debug)]
pub struct PendingMemory {
    permit: PendingPermit,
    parts: Mutex<HeldParts>,
}

#[derive(Debug)]
struct HeldParts {
    transport: usize,
    input: usize,
}

impl PendingMemory {
    /// Holds the memory of a new connection from `from`. `None`: there is no room, and no other connection gives way.
    /// `evicted` is cancelled when the connection must give way.
    pub fn hold(
        budget: &Arc<PendingConnections>,
        from: Option<IpAddr>,
        transport: usize,
        evicted: CancellationToken,
    ) -> Option<Arc<Self>> {
        let permit = budget.admit_with(from, transport, Instant::now(), evicted)?;
        let parts = Mutex::new(HeldParts { transport, input: 0 });
        Some(Arc::new(Self { permit, parts }))
    }

    /// Bytes of a connection that no bound applies to.
    pub fn unlimited() -> Option<Arc<Self>> {
        Self::hold(&PendingConnections::new("bytes", usize::MAX), None, CONNECTION_BYTES, CancellationToken::new())
    }

    /// Sets the bytes of the transport.
    ///
    /// # Errors
    /// The connection was evicted, or there is no room.
    pub fn set_transport(&self, bytes: usize) -> Result<(), NoRoom> {
        self.change(|parts| parts.transport = bytes)
    }

    /// Sets the bytes of the input.
    ///
    /// # Errors
    /// The connection was evicted, or there is no room.
    pub fn set_input(&self, bytes: usize) -> Result<(), NoRoom> {
        self.change(|parts| parts.input = bytes)
    }

    fn change(&self, change: impl FnOnce(&mut HeldParts)) -> Result<(), NoRoom> {
        let mut parts = lock(&self.parts);
        change(&mut parts);
        self.permit.resize(parts.transport + parts.input, Instant::now())
    }

    /// All bytes of the connection.
    pub fn bytes(&self) -> usize {
        let parts = lock(&self.parts);
        parts.transport + parts.input
    }

    /// The connection waits for weir from now on, and is not evicted meanwhile.
    ///
    /// # Errors
    /// The connection was evicted.
    pub fn settle(&self) -> Result<(), NoRoom> {
        self.permit.settle()
    }

    /// The connection is refused: its input is dropped, and it may be evicted while its answer waits.
    pub fn refused(&self) {
        // Less than before always fits. An eviction is seen by whoever waits for it.
        let _ = self.set_input(0);
        self.permit.unsettle();
    }

    /// Completes when the connection is evicted.
    pub async fn evicted(&self) {
        self.permit.evicted().await;
    }
}
