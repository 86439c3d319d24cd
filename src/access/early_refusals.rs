//! Clients that were refused before they said who they are: one event for each address and reason, and then how many more.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::admission::network;
use crate::sync::lock;

/// Addresses and reasons remembered at most; beyond it refusals are counted without an event.
const MAX_REMEMBERED: usize = 10_000;
/// Between two events about one address and reason.
const INTERVAL: Duration = Duration::from_secs(60);

/// What was refused within the last minute.
#[derive(Debug, Default)]
pub(super) struct EarlyRefusals(Mutex<HashMap<(IpAddr, &'static str), ReportedRefusal>>);

#[derive(Debug)]
struct ReportedRefusal {
    at: Instant,
    /// Refusals since then.
    untold: u64,
}

/// What becomes of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReportDecision {
    /// It is told, with the number of those before it that were not.
    Tell(u64),
    /// It is counted among those that are told later.
    Later,
    /// There is no room to remember it.
    Full,
}

impl EarlyRefusals {
    /// Notes a refusal. Streams without an address count as one.
    pub fn note(&self, address: Option<IpAddr>, reason: &'static str, now: Instant) -> ReportDecision {
        let address = network(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let mut remembered = lock(&self.0);
        let is_full = remembered.len() >= MAX_REMEMBERED;
        match remembered.get_mut(&(address, reason)) {
            Some(told) if now.saturating_duration_since(told.at) < INTERVAL => {
                told.untold += 1;
                ReportDecision::Later
            }
            Some(told) => {
                told.at = now;
                ReportDecision::Tell(std::mem::take(&mut told.untold))
            }
            None if is_full => ReportDecision::Full,
            None => {
                remembered.insert((address, reason), ReportedRefusal { at: now, untold: 0 });
                ReportDecision::Tell(0)
            }
        }
    }

    /// Forgets what was told a minute ago. Returns what came since then and was not, and how often. Called once per second.
    pub fn tidy(&self, now: Instant) -> Vec<(IpAddr, &'static str, u64)> {
        let mut due = Vec::new();
        let mut remembered = lock(&self.0);
        remembered.retain(|(address, reason), told| {
            if now.saturating_duration_since(told.at) < INTERVAL {
                return true;
            }
            let untold = std::mem::take(&mut told.untold);
            if untold > 0 {
                due.push((*address, *reason, untold));
                told.at = now;
            }
            untold > 0
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn one_of_an_address_and_reason_is_told_and_the_others_are_counted() {
        let (refusals, start) = (EarlyRefusals::default(), Instant::now());
        let note = |from, reason, at| refusals.note(address(from), reason, at);
        assert_eq!(note("192.0.2.1", "malformed", start), ReportDecision::Tell(0));
        for _ in 0..5_000 {
            assert_eq!(note("::ffff:192.0.2.1", "malformed", start), ReportDecision::Later);
        }
        assert_eq!(note("192.0.2.1", "connect_timeout", start), ReportDecision::Tell(0), "another reason");
        assert_eq!(note("192.0.2.2", "malformed", start), ReportDecision::Tell(0), "another address");
        assert_eq!(refusals.note(None, "malformed", start), ReportDecision::Tell(0));
        assert_eq!(note("192.0.2.1", "malformed", start + INTERVAL), ReportDecision::Tell(5_000));
    }

    #[test]
    fn what_is_left_over_is_told_and_the_rest_forgotten() {
        let (refusals, start) = (EarlyRefusals::default(), Instant::now());
        for (from, times) in [("192.0.2.1", 3), ("192.0.2.2", 1)] {
            for _ in 0..times {
                refusals.note(address(from), "malformed", start);
            }
        }
        assert_eq!(refusals.tidy(start), []);
        let left = [(address("192.0.2.1").expect("one"), "malformed", 2)];
        assert_eq!(refusals.tidy(start + INTERVAL), left);
        assert_eq!(refusals.note(address("192.0.2.2"), "malformed", start + INTERVAL), ReportDecision::Tell(0));
        assert_eq!(refusals.tidy(start + INTERVAL * 2), []);
        assert!(refusals.0.lock().expect("no panic").is_empty());
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let (refusals, start) = (EarlyRefusals::default(), Instant::now());
        let nth = |n: usize| Some(IpAddr::from(u32::try_from(n).expect("small").to_be_bytes()));
        for n in 0..MAX_REMEMBERED {
            assert_eq!(refusals.note(nth(n), "malformed", start), ReportDecision::Tell(0));
        }
        assert_eq!(refusals.note(nth(MAX_REMEMBERED), "malformed", start), ReportDecision::Full);
        assert_eq!(refusals.note(nth(0), "malformed", start), ReportDecision::Later, "a known one is counted still");
        refusals.tidy(start + INTERVAL);
        assert_eq!(refusals.note(nth(MAX_REMEMBERED), "malformed", start + INTERVAL), ReportDecision::Tell(0));
    }
}
