//! How much comes in per second, for the status page.

use std::collections::VecDeque;
use std::time::Instant;

use serde::Serialize;

use crate::core::totals::Totals;

/// Samples, one per second, that rates are computed over.
const SAMPLES: usize = 11;

/// What comes in per second, over the last ten seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct IngestRates {
    /// MQTT messages processed.
    pub messages_per_second: f64,
    /// Readings received.
    pub readings_per_second: f64,
}

/// Samples of the operator's counts.
#[derive(Debug, Default)]
pub(super) struct RateSamples(VecDeque<RateSample>);

#[derive(Debug, Clone, Copy)]
struct RateSample {
    at: Instant,
    messages: u64,
    readings: u64,
}

impl RateSamples {
    /// Takes a sample; called once per second.
    pub fn add(&mut self, at: Instant, totals: &Totals) {
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(RateSample { at, messages: totals.messages, readings: totals.received });
    }

    /// Rates between the oldest and the newest sample.
    pub fn rates(&self) -> IngestRates {
        let (Some(first), Some(last)) = (self.0.front(), self.0.back()) else {
            return IngestRates::default();
        };
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        if seconds <= 0.0 {
            return IngestRates::default();
        }
        let rate = |first: u64, last: u64| last.saturating_sub(first) as f64 / seconds;
        IngestRates {
            messages_per_second: rate(first.messages, last.messages),
            readings_per_second: rate(first.readings, last.readings),
        }
    }
}
