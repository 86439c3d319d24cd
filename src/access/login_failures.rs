//! Failed logins by address: the answer to each further failure of an address is delayed longer.
//!
//! Only refusals are delayed. A client with the right password is accepted at once, even from an address with failures,
//! because a gateway connects many devices from one address. Nothing is locked out: an attacker could use a lockout to keep
//! honest clients away.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};

use crate::admission::{PendingConnections, PendingPermit, network_of};
use crate::sync::lock;
use crate::telemetry::names;

/// Largest number of remembered addresses. Beyond it, the address whose last failure is longest ago is forgotten.
const MAX_ADDRESSES: usize = 10_000;
/// The failures of an address are forgotten after this time without another one.
const FORGET_AFTER: Duration = Duration::from_secs(300);
/// Delay after the first failure. It doubles with each further failure.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// Number of doublings. The longest delay is 4 s, which is less than clients wait for a CONNACK.
const DOUBLINGS: u32 = 4;
/// Largest number of refused clients whose answer is delayed. Beyond it, a client of the network with most of them gets its
/// answer early, or the one that has waited longest, if it has waited for a second; else the new client gets its answer at once.
const MAX_DELAYED: usize = 1_000;
/// Shortest time between two audit events about one address.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// An address with at least this many failures is suspect: checks of its passwords give way to others.
const SUSPECT_AFTER: u32 = 3;

/// The addresses with recent failures, and the refused clients that wait for their answer.
#[derive(Debug)]
pub(super) struct LoginFailures {
    addresses: Mutex<FailingAddresses>,
    delayed: Arc<PendingConnections>,
}

#[derive(Debug, Default)]
struct FailingAddresses {
    by_address: HashMap<IpAddr, FailingAddress>,
    /// Addresses by the number of their last failure, oldest first.
    order: BTreeMap<u64, IpAddr>,
    last_number: u64,
}

#[derive(Debug)]
struct FailingAddress {
    count: u32,
    last: Instant,
    /// Number of the last failure: the key in `order`.
    number: u64,
    reported: Option<Instant>,
    /// Failures since the last report.
    unreported: u64,
}

/// How a failed login is answered and reported.
#[derive(Debug)]
pub(super) struct RefusalDelay {
    /// Time until the answer is sent.
    pub delay: Duration,
    /// `Some`: an audit event is due. The number is how many earlier failures had none.
    pub report: Option<u64>,
}

impl Default for LoginFailures {
    fn default() -> Self {
        Self { addresses: Mutex::default(), delayed: PendingConnections::new("delayed_refusals", MAX_DELAYED) }
    }
}

impl LoginFailures {
    fn lock(&self) -> MutexGuard<'_, FailingAddresses> {
        lock(&self.addresses)
    }

    /// Whether this address has so many failures that checks of its passwords give way to others.
    pub fn is_suspect(&self, address: Option<IpAddr>, now: Instant) -> bool {
        let addresses = self.lock();
        addresses
            .by_address
            .get(&network_of(address))
            .is_some_and(|failed| failed.count >= SUSPECT_AFTER && !failed.is_forgotten(now))
    }

    /// Counts a failed login from `address`.
    pub fn add(&self, address: Option<IpAddr>, now: Instant) -> RefusalDelay {
        let address = network_of(address);
        let mut addresses = self.lock();
        addresses.make_room_for(address);
        let number = addresses.last_number + 1;
        addresses.last_number = number;
        let FailingAddresses { by_address, order, .. } = &mut *addresses;
        let new = || FailingAddress { count: 0, last: now, number, reported: None, unreported: 0 };
        let failed = by_address.entry(address).or_insert_with(new);
        if failed.is_forgotten(now) {
            failed.count = 0;
        }
        order.remove(&failed.number);
        order.insert(number, address);
        (failed.number, failed.last) = (number, now);
        failed.count = failed.count.saturating_add(1);
        let delay = FIRST_DELAY * 2_u32.pow((failed.count - 1).min(DOUBLINGS));
        let due = failed.reported.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_INTERVAL);
        if due {
            failed.reported = Some(now);
            return RefusalDelay { delay, report: Some(std::mem::take(&mut failed.unreported)) };
        }
        failed.unreported += 1;
        RefusalDelay { delay, report: None }
    }

    /// Admits a refused client to those whose answer is delayed. `None`: too many are delayed, answer at once.
    pub fn wait(&self, address: Option<IpAddr>, now: Instant) -> Option<PendingPermit> {
        let permit = self.delayed.admit(address, now);
        if permit.is_none() {
            counter!(names::LIMITS_HIT, "limit" => "mqtt_refusals_delayed").increment(1);
        }
        permit
    }

    /// Forgets addresses without recent failures. Returns the addresses whose report interval ended with unreported
    /// failures, and how many. Called once per second.
    pub fn tidy(&self, now: Instant) -> Vec<(IpAddr, u64)> {
        let mut addresses = self.lock();
        let FailingAddresses { by_address, order, .. } = &mut *addresses;
        while let Some(oldest) = order.first_entry()
            && by_address.get(oldest.get()).is_none_or(|failed| failed.is_forgotten(now))
        {
            by_address.remove(&oldest.remove());
        }
        let mut due = Vec::new();
        for (address, failed) in by_address.iter_mut().filter(|(_, failed)| failed.unreported > 0) {
            if failed.reported.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_INTERVAL) {
                failed.reported = Some(now);
                due.push((*address, std::mem::take(&mut failed.unreported)));
            }
        }
        gauge!(names::MQTT_FAILING_ADDRESSES).set(by_address.len() as f64);
        gauge!(names::MQTT_REFUSALS_DELAYED).set(self.delayed.len() as f64);
        due
    }
}

impl FailingAddress {
    fn is_forgotten(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= FORGET_AFTER
    }
}

impl FailingAddresses {
    fn make_room_for(&mut self, address: IpAddr) {
        if self.by_address.len() >= MAX_ADDRESSES
            && !self.by_address.contains_key(&address)
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.by_address.remove(&oldest);
            counter!(names::LIMITS_HIT, "limit" => "mqtt_failing_addresses").increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    fn delay_ms(failures: &LoginFailures, from: &str, now: Instant) -> u128 {
        failures.add(address(from), now).delay.as_millis()
    }

    #[test]
    fn the_delay_of_an_address_grows_and_is_forgotten() {
        let (failures, start) = (LoginFailures::default(), Instant::now());
        let delays: Vec<_> = (0..7).map(|_| delay_ms(&failures, "192.0.2.1", start)).collect();
        assert_eq!(delays, [250, 500, 1_000, 2_000, 4_000, 4_000, 4_000]);
        assert!(failures.is_suspect(address("::ffff:192.0.2.1"), start));
        assert!(!failures.is_suspect(address("192.0.2.2"), start));
        assert_eq!(delay_ms(&failures, "192.0.2.2", start), 250);
        let later = start + FORGET_AFTER;
        assert!(!failures.is_suspect(address("192.0.2.1"), later));
        assert_eq!(delay_ms(&failures, "192.0.2.1", later), 250);
        failures.tidy(later);
        assert_eq!(failures.lock().by_address.len(), 1, "the other address is forgotten");
        failures.tidy(later + FORGET_AFTER);
        assert!(failures.lock().by_address.is_empty() && failures.lock().order.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let (failures, start) = (LoginFailures::default(), Instant::now());
        delay_ms(&failures, "2001:db8::1", start);
        assert_eq!(delay_ms(&failures, "2001:db8::ffff:2", start), 500);
        assert_eq!(delay_ms(&failures, "2001:db8:0:1::1", start), 250);
    }

    #[test]
    fn failures_are_reported_once_per_interval_with_their_number() {
        let (failures, start) = (LoginFailures::default(), Instant::now());
        let report = |at| failures.add(address("192.0.2.1"), at).report;
        assert_eq!((report(start), report(start), report(start)), (Some(0), None, None));
        assert_eq!(report(start + REPORT_INTERVAL), Some(2));
        assert_eq!(report(start + REPORT_INTERVAL), None);
        assert_eq!(failures.tidy(start + REPORT_INTERVAL), []);
        let reported = failures.tidy(start + REPORT_INTERVAL * 2);
        assert_eq!(reported, [(address("192.0.2.1").expect("one"), 1)], "unreported failures are not lost");
        assert_eq!(failures.tidy(start + REPORT_INTERVAL * 3), []);
    }

    #[test]
    fn the_address_that_failed_longest_ago_makes_room() {
        let (failures, start) = (LoginFailures::default(), Instant::now());
        let nth = |n: usize| IpAddr::from(u32::try_from(n).expect("small").to_be_bytes());
        for n in 0..MAX_ADDRESSES {
            failures.add(Some(nth(n + 1)), start);
        }
        failures.add(Some(nth(1)), start);
        failures.add(Some(nth(MAX_ADDRESSES + 1)), start);
        let addresses = failures.lock();
        assert_eq!((addresses.by_address.len(), addresses.order.len()), (MAX_ADDRESSES, MAX_ADDRESSES));
        assert!(addresses.by_address.contains_key(&nth(1)), "it failed again");
        assert!(!addresses.by_address.contains_key(&nth(2)));
    }
}
