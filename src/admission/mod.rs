//! Limits on connections whose other end has not identified itself yet: how many wait at once, how many bytes they hold,
//! and how many come from one address.
//!
//! Every listener and the delayed refusals of logins use these limits. What a limit means for the client (an error
//! packet, an HTTP status, a closed socket) is decided by the listener. Limits of identified clients are not here: see
//! `mqtt::connection` and `http`.

mod pending;
mod pending_memory;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::{TcpListener, TcpSocket};

pub use self::pending::{NoRoom, PendingConnections, PendingPermit};
pub use self::pending_memory::{CONNECTION_BYTES, PendingMemory, TLS_BYTES};
use crate::sync::lock;

/// Length of the kernel's queue of connections that are not accepted yet. The kernel may use a shorter one
/// (net.core.somaxconn). The usual 128 is too short for a fleet that reconnects at once: clients that find the queue full
/// retry after one second, then three, then seven.
const BACKLOG: u32 = 4096;

/// Listens on `address`. Call it inside a tokio runtime.
///
/// # Errors
/// The address is in use, or it is not an address of this machine.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Without this, a restart fails until the kernel has forgotten the connections of the previous process (TIME_WAIT).
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Limits the open connections of each remote address.
///
/// Connections from this machine (loopback) are not counted, because a proxy or a gateway on it connects for many clients.
#[derive(Debug)]
pub struct AddressLimits {
    limit: Option<usize>,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One counted connection of an address. Dropping it takes the connection out of the count.
#[derive(Debug)]
pub struct AddressPermit {
    counted: Option<(Arc<AddressLimits>, IpAddr)>,
}

impl AddressLimits {
    /// At most `limit` connections from one address; `None`: no limit.
    pub fn new(limit: Option<usize>) -> Arc<Self> {
        Arc::new(Self { limit, open: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        lock(&self.open)
    }

    /// Counts one more connection of `address`. `None`: the address has reached its limit.
    pub fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Option<AddressPermit> {
        let counted = address.map(|address| address.to_canonical()).filter(|address| !address.is_loopback());
        let (Some(limit), Some(address)) = (self.limit, counted) else {
            return Some(AddressPermit { counted: None });
        };
        let network = network(address);
        let mut open = self.lock();
        let count = open.entry(network).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(AddressPermit { counted: Some((Arc::clone(self), network)) })
    }
}

/// The unit that per-address limits count: an IPv4 address, or the /64 network of an IPv6 address, because whoever has one
/// IPv6 address usually has the whole /64.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address @ IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// The unit of [`network`] for a peer; all streams without an address count as one.
pub fn network_of(address: Option<IpAddr>) -> IpAddr {
    network(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let Some((limits, network)) = self.counted.take() else { return };
        let mut open = limits.lock();
        if let Some(count) = open.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_fleet_connects_at_once() {
        const FLEET: usize = 300;
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        // The listener accepts none: those that do not fit into its backlog never connect.
        let timeout = Duration::from_secs(10);
        let connect = || std::net::TcpStream::connect_timeout(&address, timeout);
        let fleet: Vec<_> = (0..FLEET).map_while(|_| connect().ok()).collect();
        assert_eq!(fleet.len(), FLEET);
    }

    #[test]
    fn an_address_has_a_limit_and_dropped_permits_count_no_more() {
        let addresses = AddressLimits::new(Some(1));
        let address = |text: &str| Some(text.parse().expect("an address"));
        let one = addresses.admit(address("192.0.2.1")).expect("the first");
        assert!(addresses.admit(address("192.0.2.1")).is_none());
        assert!(addresses.admit(address("::ffff:192.0.2.1")).is_none(), "the same address, written as IPv6");
        assert!(addresses.admit(address("192.0.2.2")).is_some());
        drop(one);
        assert!(addresses.admit(address("192.0.2.1")).is_some());
        assert!(addresses.lock().is_empty(), "addresses without connections are forgotten");
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address_and_loopback_is_not_counted() {
        let addresses = AddressLimits::new(Some(1));
        let admit = |text: &str| addresses.admit(Some(text.parse().expect("an address")));
        let _one = admit("2001:db8::1").expect("the first");
        assert!(admit("2001:db8::ffff:2").is_none());
        assert!(admit("2001:db8:0:1::1").is_some());
        let local: Vec<_> = (0..10).filter_map(|_| admit("127.0.0.1")).collect();
        assert_eq!(local.len(), 10);
        assert!(AddressLimits::new(None).admit(Some(IpAddr::from([192, 0, 2, 1]))).is_some());
    }
}
