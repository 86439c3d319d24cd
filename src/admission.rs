//! Bounds on those who have not yet said who they are: how many wait, and how many come from one address.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use crate::sync::lock;

/// Connections that the system keeps until they are accepted; it may allow fewer (net.core.somaxconn). With the usual 128 a
/// fleet that comes back at once overflows them, and each client beyond tries again after a second, then three, then seven.
const BACKLOG: u32 = 4096;

/// Nobody is shown out before that: an honest client on a slow link takes as long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Listens on `address`. Call it inside a tokio runtime.
///
/// # Errors
/// The address is taken or not one of this machine.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait until the system has forgotten the connections of the process before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Those who wait, oldest first.
///
/// Where there is no room, the one that has waited longest goes, if it has waited a second: whoever opens connections and
/// says nothing pushes out its own, and an honest client gets in.
#[derive(Debug)]
pub struct WaitingRoom {
    limit: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    guests: BTreeMap<u64, Guest>,
}

#[derive(Debug)]
struct Guest {
    since: Instant,
    shown_out: CancellationToken,
}

/// A place in a [`WaitingRoom`]; free again when it is dropped.
#[derive(Debug)]
pub struct Ticket {
    room: Arc<WaitingRoom>,
    number: u64,
    shown_out: CancellationToken,
}

impl WaitingRoom {
    /// A room for `limit` guests.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, waiting: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }

    /// Takes a place; `None` where all are taken by guests that came just now.
    pub fn enter(self: &Arc<Self>, now: Instant) -> Option<Ticket> {
        self.enter_as(now, CancellationToken::new())
    }

    /// Takes a place for a guest that comes and goes: `shown_out` is cancelled when a place of its is needed for another.
    pub fn enter_as(self: &Arc<Self>, now: Instant, shown_out: CancellationToken) -> Option<Ticket> {
        let mut waiting = self.lock();
        if waiting.guests.len() >= self.limit && !waiting.show_out_oldest(now) {
            return None;
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.guests.insert(number, Guest { since: now, shown_out: shown_out.clone() });
        Some(Ticket { room: Arc::clone(self), number, shown_out })
    }

    /// Shows out the one that has waited longest; `false` where nobody has waited long enough.
    pub fn make_room(&self, now: Instant) -> bool {
        self.lock().show_out_oldest(now)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.lock().guests.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Waiting {
    fn show_out_oldest(&mut self, now: Instant) -> bool {
        let Some(oldest) = self.guests.first_entry() else { return false };
        if now.saturating_duration_since(oldest.get().since) < PATIENCE {
            return false;
        }
        oldest.remove().shown_out.cancel();
        true
    }
}

impl Ticket {
    /// Completes when the place is needed for another.
    pub async fn shown_out(&self) {
        self.shown_out.cancelled().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.room.lock().guests.remove(&self.number);
    }
}

/// Connections by address. Those from this machine itself are not counted: a proxy or a gateway on it speaks for many.
#[derive(Debug)]
pub struct PerAddress {
    limit: Option<usize>,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of an address; counted until it is dropped.
#[derive(Debug)]
pub struct FromAddress {
    counted: Option<(Arc<PerAddress>, IpAddr)>,
}

impl PerAddress {
    /// At most `limit` connections from one address; `None`: any number.
    pub fn new(limit: Option<usize>) -> Arc<Self> {
        Arc::new(Self { limit, open: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        lock(&self.open)
    }

    /// Counts one more; `None` where the address has as many as it may.
    pub fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Option<FromAddress> {
        let counted = address.map(|address| address.to_canonical()).filter(|address| !address.is_loopback());
        let (Some(limit), Some(address)) = (self.limit, counted) else {
            return Some(FromAddress { counted: None });
        };
        let network = network(address);
        let mut open = self.lock();
        let count = open.entry(network).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(FromAddress { counted: Some((Arc::clone(self), network)) })
    }
}

/// What counts as one address: whoever has one IPv6 address has its whole /64 network.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address @ IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

impl Drop for FromAddress {
    fn drop(&mut self) {
        let Some((addresses, network)) = self.counted.take() else { return };
        let mut open = addresses.lock();
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
    use super::*;

    #[tokio::test]
    async fn a_fleet_connects_at_once() {
        const FLEET: usize = 300;
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        // None is accepted: where they do not fit, the last ones never connect.
        let patience = Duration::from_secs(10);
        let connect = || std::net::TcpStream::connect_timeout(&address, patience);
        let fleet: Vec<_> = (0..FLEET).map_while(|_| connect().ok()).collect();
        assert_eq!(fleet.len(), FLEET);
    }

    #[test]
    fn the_oldest_is_shown_out_once_it_has_waited() {
        let room = WaitingRoom::new(2);
        let start = Instant::now();
        let first = room.enter(start).expect("room");
        let second = room.enter(start + PATIENCE / 2).expect("room");
        assert!(room.enter(start + PATIENCE / 2).is_none(), "nobody has waited long enough");
        let third = room.enter(start + PATIENCE).expect("the first has to go");
        assert!(first.shown_out.is_cancelled() && !second.shown_out.is_cancelled() && !third.shown_out.is_cancelled());
        drop(first);
        assert_eq!(room.len(), 2, "a place is given back once");
        drop((second, third));
        assert!(room.is_empty());
    }

    #[test]
    fn an_address_has_a_limit_and_gets_its_places_back() {
        let addresses = PerAddress::new(Some(1));
        let address = |text: &str| Some(text.parse().expect("an address"));
        let one = addresses.enter(address("192.0.2.1")).expect("the first");
        assert!(addresses.enter(address("192.0.2.1")).is_none());
        assert!(addresses.enter(address("::ffff:192.0.2.1")).is_none(), "the same address in IPv6's clothes");
        assert!(addresses.enter(address("192.0.2.2")).is_some());
        drop(one);
        assert!(addresses.enter(address("192.0.2.1")).is_some());
        assert!(addresses.lock().is_empty(), "nothing is remembered of those who left");
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_this_machine_not_at_all() {
        let addresses = PerAddress::new(Some(1));
        let enter = |text: &str| addresses.enter(Some(text.parse().expect("an address")));
        let _one = enter("2001:db8::1").expect("the first");
        assert!(enter("2001:db8::ffff:2").is_none());
        assert!(enter("2001:db8:0:1::1").is_some());
        let local: Vec<_> = (0..10).filter_map(|_| enter("127.0.0.1")).collect();
        assert_eq!(local.len(), 10);
        assert!(PerAddress::new(None).enter(Some(IpAddr::from([192, 0, 2, 1]))).is_some());
    }
}
