//! Connections that wait before their login, within one bound, and the choice of the one that gives way at the bound.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use metrics::counter;
use tokio_util::sync::CancellationToken;

use super::network_of;
use crate::sync::lock;
use crate::telemetry::names;

/// Among connections of equal weight, one that has waited for less than this is not evicted in favour of its own network:
/// an honest client on a slow link needs as long.
const EVICT_AFTER: Duration = Duration::from_secs(1);
/// A connection that holds more than this gives way at any age to a lighter one of its own network. A TLS handshake holds
/// less, and so does a CONNECT without a will.
const USUAL_BYTES: usize = 48 << 10;

/// A bounded set of connections that wait, for example for their CONNECT or for the end of a TLS handshake. Each has a
/// weight: 1 where the set is bounded by number, or the bytes that the connection holds.
///
/// When the set is full, the network that holds most pays for the connections of all others: its heaviest connection is
/// evicted, among equal ones the oldest. Where the newcomer's own network holds most, its heaviest connection is evicted if it
/// holds more than is usual. Otherwise the oldest one is evicted: at once if the network holds more than half of the set, else
/// after a second. So an attacker evicts its own connections, and an honest client gets in, also where both have one address: it
/// needs less time for its login than an attacker for filling the set anew.
#[derive(Debug)]
pub struct PendingConnections {
    /// Label `reason` of `weir_pending_evictions_total`.
    reason: &'static str,
    limit: AtomicUsize,
    queue: Mutex<PendingQueue>,
}

#[derive(Debug, Default)]
struct PendingQueue {
    next_number: u64,
    /// Weight of all connections.
    held: usize,
    /// By number of admission, so the first one has waited longest.
    connections: BTreeMap<u64, PendingConnection>,
    /// Connections that wait for weir and not for their client. They are not evicted.
    settled: HashMap<u64, PendingConnection>,
    /// Connections that may be evicted, by network.
    networks: HashMap<IpAddr, PendingNetwork>,
    /// The networks by their weight.
    by_weight: BTreeSet<(usize, IpAddr)>,
}

/// The connections of one network that may be evicted.
#[derive(Debug, Default)]
struct PendingNetwork {
    weight: usize,
    /// Weight and number; the last is the heaviest, among equal ones the oldest.
    by_weight: BTreeSet<(usize, Reverse<u64>)>,
    /// Numbers; the first is the oldest.
    by_age: BTreeSet<u64>,
}

#[derive(Debug)]
struct PendingConnection {
    since: Instant,
    network: IpAddr,
    weight: usize,
    evicted: CancellationToken,
}

/// The place of one connection in [`PendingConnections`]. Dropping it frees the place.
#[derive(Debug)]
pub struct PendingPermit {
    pending: Arc<PendingConnections>,
    number: u64,
    evicted: CancellationToken,
}

/// A connection was not given the room that it asked for: the set is full, or the connection was evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many clients that have not logged in hold memory; try again later")]
pub struct NoRoom;

impl PendingConnections {
    /// A set of connections whose weights are at most `limit` together. `reason` is the label of its evictions.
    pub fn new(reason: &'static str, limit: usize) -> Arc<Self> {
        Arc::new(Self { reason, limit: AtomicUsize::new(limit), queue: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, PendingQueue> {
        lock(&self.queue)
    }

    /// Sets the bound for the connections that are admitted from now on.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Admits a connection from `from` with the weight 1. `None`: the set is full, and no connection in it gives way.
    pub fn admit(self: &Arc<Self>, from: Option<IpAddr>, now: Instant) -> Option<PendingPermit> {
        self.admit_with(from, 1, now, CancellationToken::new())
    }

    /// Admits a connection of this weight. `evicted` is cancelled when the connection is evicted; several permits of one
    /// connection may share it.
    pub fn admit_with(
        self: &Arc<Self>,
        from: Option<IpAddr>,
        weight: usize,
        now: Instant,
        evicted: CancellationToken,
    ) -> Option<PendingPermit> {
        let network = network_of(from);
        let mut queue = self.lock();
        if !self.make_room(&mut queue, network, weight, weight, now) {
            return None;
        }
        let number = queue.next_number;
        queue.next_number += 1;
        queue.held += weight;
        queue.insert(number, PendingConnection { since: now, network, weight, evicted: evicted.clone() });
        Some(PendingPermit { pending: Arc::clone(self), number, evicted })
    }

    /// Evicts one connection in favour of a new one from `from`, for a bound that is counted elsewhere. Returns `false` if
    /// none gives way.
    pub fn evict_for(&self, from: Option<IpAddr>, now: Instant) -> bool {
        let mut queue = self.lock();
        let victim = queue.victim(network_of(from), 1, usize::MAX, now);
        victim.inspect(|victim| self.evict(&mut queue, *victim)).is_some()
    }

    /// Whether more than a quarter of the bound is in use.
    pub fn is_quarter_full(&self) -> bool {
        self.held() > self.limit.load(Ordering::Relaxed) / 4
    }

    /// The bound.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Weight of all connections that wait.
    pub fn held(&self) -> usize {
        self.lock().held
    }

    /// Number of connections that wait.
    pub fn len(&self) -> usize {
        let queue = self.lock();
        queue.connections.len() + queue.settled.len()
    }

    /// Whether no connection waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Evicts connections until `more` fits. `weight` is what the connection that asks for it will have then.
    fn make_room(&self, queue: &mut PendingQueue, network: IpAddr, more: usize, weight: usize, now: Instant) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        while queue.held.saturating_add(more) > limit {
            let Some(victim) = queue.victim(network, weight, limit, now) else { return false };
            self.evict(queue, victim);
        }
        true
    }

    fn evict(&self, queue: &mut PendingQueue, victim: u64) {
        if let Some(victim) = queue.remove(victim) {
            queue.held -= victim.weight;
            victim.evicted.cancel();
            counter!(names::PENDING_EVICTIONS, "reason" => self.reason).increment(1);
        }
    }
}

impl PendingQueue {
    /// The connection that gives way to one of `network` with this weight, which is not in the queue.
    fn victim(&self, network: IpAddr, weight: usize, limit: usize, now: Instant) -> Option<u64> {
        let own = self.networks.get(&network);
        let (heaviest_weight, heaviest) = self.by_weight.last()?;
        if *heaviest_weight > own.map_or(0, |own| own.weight) + weight {
            return self.networks.get(heaviest)?.heaviest().map(|(_, number)| number);
        }
        if let Some(own) = own {
            let heavy = own.heaviest().filter(|(most, _)| *most > weight.max(USUAL_BYTES));
            if let Some((_, number)) = heavy {
                return Some(number);
            }
            // Connections without an address are not known to be of one network.
            if own.weight > limit / 2 && !network.is_unspecified() {
                return own.by_age.first().copied();
            }
        }
        let (oldest, connection) = self.connections.first_key_value()?;
        (now.saturating_duration_since(connection.since) >= EVICT_AFTER).then_some(*oldest)
    }

    fn insert(&mut self, number: u64, connection: PendingConnection) {
        self.weigh(connection.network, |network| {
            network.weight += connection.weight;
            network.by_weight.insert((connection.weight, Reverse(number)));
            network.by_age.insert(number);
        });
        self.connections.insert(number, connection);
    }

    fn remove(&mut self, number: u64) -> Option<PendingConnection> {
        let connection = self.connections.remove(&number)?;
        self.weigh(connection.network, |network| {
            network.weight -= connection.weight;
            network.by_weight.remove(&(connection.weight, Reverse(number)));
            network.by_age.remove(&number);
        });
        Some(connection)
    }

    /// Changes a network and keeps the order by weight; a network without connections is forgotten.
    fn weigh(&mut self, address: IpAddr, change: impl FnOnce(&mut PendingNetwork)) {
        let network = self.networks.entry(address).or_default();
        self.by_weight.remove(&(network.weight, address));
        change(network);
        if network.by_age.is_empty() {
            self.networks.remove(&address);
        } else {
            self.by_weight.insert((network.weight, address));
        }
    }
}

impl PendingNetwork {
    fn heaviest(&self) -> Option<(usize, u64)> {
        self.by_weight.last().map(|(weight, Reverse(number))| (*weight, *number))
    }
}

impl PendingPermit {
    /// Completes when the connection is evicted: its place is needed for another one.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// Changes the weight of the connection.
    ///
    /// # Errors
    /// The connection was evicted, or no other one gives way to its growth.
    pub fn resize(&self, weight: usize, now: Instant) -> Result<(), NoRoom> {
        let mut queue = self.pending.lock();
        if let Some(settled) = queue.settled.get_mut(&self.number) {
            let before = std::mem::replace(&mut settled.weight, weight);
            queue.held = queue.held - before + weight;
            return Ok(());
        }
        // Taken out first: a connection is not evicted for its own growth.
        let mut connection = queue.remove(self.number).ok_or(NoRoom)?;
        let more = weight.saturating_sub(connection.weight);
        let fits = self.pending.make_room(&mut queue, connection.network, more, weight, now);
        if fits {
            queue.held = queue.held - connection.weight + weight;
            connection.weight = weight;
        }
        queue.insert(self.number, connection);
        if fits { Ok(()) } else { Err(NoRoom) }
    }

    /// The connection waits for weir from now on, and is not evicted meanwhile: the longer it waited, the nearer it is to
    /// its turn.
    ///
    /// # Errors
    /// The connection was evicted.
    pub fn settle(&self) -> Result<(), NoRoom> {
        let mut queue = self.pending.lock();
        let connection = queue.remove(self.number).ok_or(NoRoom)?;
        queue.settled.insert(self.number, connection);
        Ok(())
    }

    /// The connection waits for its client again, or for the end of a delay, and may be evicted.
    pub fn unsettle(&self) {
        let mut queue = self.pending.lock();
        if let Some(connection) = queue.settled.remove(&self.number) {
            queue.insert(self.number, connection);
        }
    }
}

impl Drop for PendingPermit {
    fn drop(&mut self) {
        let mut queue = self.pending.lock();
        // After an eviction there is nothing to remove: numbers are not used again.
        let connection = queue.remove(self.number).or_else(|| queue.settled.remove(&self.number));
        if let Some(connection) = connection {
            queue.held -= connection.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    fn check_evicted(permits: &[&PendingPermit], expected: &[bool]) {
        let evicted: Vec<_> = permits.iter().map(|permit| permit.evicted.is_cancelled()).collect();
        assert_eq!(evicted, expected);
    }

    #[test]
    fn a_connection_that_has_waited_long_enough_is_evicted() {
        let pending = PendingConnections::new("test", 2);
        let start = Instant::now();
        let first = pending.admit(from(1), start).expect("there is room");
        let second = pending.admit(from(2), start + EVICT_AFTER / 2).expect("there is room");
        assert!(pending.admit(from(3), start + EVICT_AFTER / 2).is_none(), "none has waited long enough");
        let third = pending.admit(from(3), start + EVICT_AFTER).expect("the first is evicted");
        check_evicted(&[&first, &second, &third], &[true, false, false]);
        drop(first);
        assert_eq!(pending.len(), 2, "a place is freed once");
        drop((second, third));
        assert!(pending.is_empty() && pending.lock().networks.is_empty() && pending.lock().by_weight.is_empty());
    }

    #[test]
    fn the_network_that_holds_most_pays_at_any_age() {
        let pending = PendingConnections::new("test", 4);
        let start = Instant::now();
        let honest = pending.admit(from(1), start).expect("there is room");
        let attack: Vec<_> = (0..3).filter_map(|_| pending.admit(from(2), start)).collect();
        let newcomer = pending.admit(from(3), start).expect("the attacker's oldest is evicted");
        check_evicted(&[&honest, &attack[0], &attack[1], &newcomer], &[false, true, false, false]);
        assert!(pending.admit(from(2), start).is_none(), "the attacker gets no more");
        assert!(pending.evict_for(from(3), start + EVICT_AFTER) && pending.len() == 3);
    }

    #[test]
    fn a_network_that_floods_gives_up_its_oldest_at_once() {
        let pending = PendingConnections::new("test", 4);
        let start = Instant::now();
        let other = pending.admit(from(1), start).expect("there is room");
        let flood: Vec<_> = (0..3).filter_map(|_| pending.admit(from(2), start)).collect();
        let newcomer = pending.admit(from(2), start).expect("its oldest is evicted");
        check_evicted(&[&other, &flood[0], &flood[1], &newcomer], &[false, true, false, false]);
    }

    #[test]
    fn the_heaviest_of_a_network_gives_way_if_it_holds_more_than_is_usual() {
        const KIB: usize = 1 << 10;
        let pending = PendingConnections::new("test", 200 * KIB);
        let start = Instant::now();
        let hold = |kib| pending.admit_with(from(1), kib * KIB, start, CancellationToken::new());
        let (light, usual, heavy) = (hold(20).expect("room"), hold(48).expect("room"), hold(130).expect("room"));
        let newcomer = hold(40).expect("the heavy one gives way");
        check_evicted(&[&light, &usual, &heavy, &newcomer], &[false, false, true, false]);
        assert_eq!(pending.held(), 108 * KIB);
        assert_eq!(heavy.resize(131 * KIB, start), Err(NoRoom), "it is gone");
        let _second = hold(100).expect("the oldest gives way");
        check_evicted(&[&light, &usual, &newcomer], &[true, false, false]);
    }

    #[test]
    fn a_connection_grows_within_the_bound_and_not_by_its_own_eviction() {
        let pending = PendingConnections::new("test", 100);
        let start = Instant::now();
        let hold = |last, weight| pending.admit_with(from(last), weight, start, CancellationToken::new());
        let (one, other) = (hold(1, 10).expect("room"), hold(2, 10).expect("room"));
        assert_eq!(one.resize(90, start), Ok(()));
        assert_eq!(one.resize(91, start), Err(NoRoom), "the lighter network does not pay");
        assert_eq!(other.resize(40, start), Ok(()));
        check_evicted(&[&one, &other], &[true, false]);
        assert_eq!((other.resize(5, start), pending.held()), (Ok(()), 5));
    }

    #[test]
    fn a_settled_connection_stays_and_counts() {
        let pending = PendingConnections::new("test", 2);
        let start = Instant::now();
        let settled = pending.admit(from(1), start).expect("room");
        settled.settle().expect("it is there");
        let other = pending.admit(from(1), start).expect("room");
        let late = start + EVICT_AFTER;
        let _newcomer = pending.admit(from(2), late).expect("the other one is evicted");
        check_evicted(&[&settled, &other], &[false, true]);
        settled.unsettle();
        let _next = pending.admit(from(2), late).expect("it may be evicted again");
        check_evicted(&[&settled], &[true]);
        drop(settled);
        assert_eq!((pending.held(), pending.len()), (2, 2));
    }
}
