//! Limits the audit events of connections that are refused before a login, such as malformed CONNECT packets.
//!
//! Anybody on the network can cause such refusals at will. One event per minute is written for each address and reason;
//! the next event says how many refusals were counted in between.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::admission::network_of;
use crate::sync::lock;

/// Largest number of remembered pairs of address and reason. Refusals of further pairs have no event; they are counted as
/// suppressed.
const MAX_REMEMBERED: usize = 10_000;
/// Shortest time between two events about one address and reason.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The refusals of the last minute, by address and reason.
#[derive(Debug, Default)]
pub(super) struct EarlyRefusals(Mutex<HashMap<(IpAddr, &'static str), ReportedRefusal>>);

#[derive(Debug)]
struct ReportedRefusal {
    /// Time of the last event.
    reported: Instant,
    /// Refusals since then, which had no event.
    unreported: u64,
}

/// Whether a refusal is written to the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReportDecision {
    /// Write an event. The number is how many earlier refusals had none.
    Report(u64),
    /// Write no event: the refusal is counted, and a later event tells the number.
    Later,
    /// Write no event: too many pairs of address and reason are remembered.
    Full,
}

impl EarlyRefusals {
    /// Notes a refusal. All streams without an address count as one address.
    pub fn note(&self, address: Option<IpAddr>, reason: &'static str, now: Instant) -> ReportDecision {
        let address = network_of(address);
        let mut remembered = lock(&self.0);
        let is_full = remembered.len() >= MAX_REMEMBERED;
        match remembered.get_mut(&(address, reason)) {
            Some(found) if now.saturating_duration_since(found.reported) < REPORT_INTERVAL => {
                found.unreported += 1;
                ReportDecision::Later
            }
            Some(found) => {
                found.reported = now;
                ReportDecision::Report(std::mem::take(&mut found.unreported))
            }
            None if is_full => ReportDecision::Full,
            None => {
                remembered.insert((address, reason), ReportedRefusal { reported: now, unreported: 0 });
                ReportDecision::Report(0)
            }
        }
    }

    /// Forgets pairs of address and reason whose last event is a minute old. Returns those with refusals that had no event,
    /// and how many. Called once per second.
    pub fn tidy(&self, now: Instant) -> Vec<(IpAddr, &'static str, u64)> {
        let mut due = Vec::new();
        let mut remembered = lock(&self.0);
        remembered.retain(|(address, reason), found| {
            if now.saturating_duration_since(found.reported) < REPORT_INTERVAL {
                return true;
            }
            let unreported = std::mem::take(&mut found.unreported);
            if unreported > 0 {
                due.push((*address, *reason, unreported));
                found.reported = now;
            }
            unreported > 0
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
    fn one_refusal_of_an_address_and_reason_is_reported_and_the_others_are_counted() {
        let (refusals, start) = (EarlyRefusals::default(), Instant::now());
        let note = |from, reason, at| refusals.note(address(from), reason, at);
        assert_eq!(note("192.0.2.1", "malformed", start), ReportDecision::Report(0));
        for _ in 0..5_000 {
            assert_eq!(note("::ffff:192.0.2.1", "malformed", start), ReportDecision::Later);
        }
        assert_eq!(note("192.0.2.1", "connect_timeout", start), ReportDecision::Report(0), "another reason");
        assert_eq!(note("192.0.2.2", "malformed", start), ReportDecision::Report(0), "another address");
        assert_eq!(refusals.note(None, "malformed", start), ReportDecision::Report(0));
        assert_eq!(note("192.0.2.1", "malformed", start + REPORT_INTERVAL), ReportDecision::Report(5_000));
    }

    #[test]
    fn counted_refusals_are_reported_later_and_the_rest_is_forgotten() {
        let (refusals, start) = (EarlyRefusals::default(), Instant::now());
        for (from, times) in [("192.0.2.1", 3), ("192.0.2.2", 1)] {
            for _ in 0..times {
                refusals.note(address(from), "malformed", start);
            }
        }
        assert_eq!(refusals.tidy(start), []);
        let left = [(address("192.0.2.1").expect("one"), "malformed", 2)];
        assert_eq!(refusals.tidy(start + REPORT_INTERVAL), left);
        assert_eq!(
            refusals.note(address("192.0.2.2"), "malformed", start + REPORT_INTERVAL),
            ReportDecision::Report(0)
        );
        assert_eq!(refusals.tidy(start + REPORT_INTERVAL * 2), []);
        assert!(refusals.0.lock().expect("no panic").is_empty());
    }

    #[test]
    fn the_number_of_remembered_refusals_has_a_bound() {
        let (refusals, start) = (EarlyRefusals::default(), Instant::now());
        let nth = |n: usize| Some(IpAddr::from(u32::try_from(n).expect("small").to_be_bytes()));
        for n in 0..MAX_REMEMBERED {
            assert_eq!(refusals.note(nth(n), "malformed", start), ReportDecision::Report(0));
        }
        assert_eq!(refusals.note(nth(MAX_REMEMBERED), "malformed", start), ReportDecision::Full);
        assert_eq!(refusals.note(nth(0), "malformed", start), ReportDecision::Later, "a known pair is still counted");
        refusals.tidy(start + REPORT_INTERVAL);
        assert_eq!(refusals.note(nth(MAX_REMEMBERED), "malformed", start + REPORT_INTERVAL), ReportDecision::Report(0));
    }
}
