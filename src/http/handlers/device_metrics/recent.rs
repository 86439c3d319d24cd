//! Windows that ended lately, summed up by device and metric. They are read from the windows log: nothing is kept for a page that
//! nobody asks for.

use std::collections::HashMap;

use crate::config::parse_duration;
use crate::core::query::LastWindow;
use crate::http::parameters::Parameters;
use crate::http::problem::ApiProblem;
use crate::http::scans::run_scan;
use crate::http::state::ApiShared;
use crate::results::record::DecodedResult;
use crate::results::scan::{ResultQuery, ResultWriter, ScanOrder};

/// Longest time that is summed up, in milliseconds.
const MAX_MS: i64 = 3_600_000;
/// Steps of the scan, of a quarter of a million results each.
const MAX_STEPS: usize = 8;

/// Windows of one key, summed up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RecentWindows {
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    sum: f64,
    count: u64,
}

impl RecentWindows {
    const NONE: Self = Self { min: f64::INFINITY, max: f64::NEG_INFINITY, sum: 0.0, count: 0 };

    /// Mean of the readings.
    pub fn mean(self) -> f64 {
        self.sum / self.count as f64
    }
}

/// Collects windows that end after a time.
struct RecentCollector {
    since_ms: i64,
    /// By device and metric, those that the page has.
    keys: HashMap<String, HashMap<String, RecentWindows>>,
}

impl ResultWriter for RecentCollector {
    fn write(&mut self, _: u64, result: &DecodedResult<'_>) {
        let DecodedResult::Window(window) = result else { return };
        // A backlog is of the past, and a window of a wrong time of no time.
        if window.window_end_ms <= self.since_ms || window.flags != Default::default() {
            return;
        }
        let key = self.keys.get_mut(window.device_id).and_then(|metrics| metrics.get_mut(window.metric));
        if let Some(recent) = key {
            recent.min = recent.min.min(window.min);
            recent.max = recent.max.max(window.max);
            recent.sum += window.sum;
            recent.count += window.count;
        }
    }

    fn bytes(&self) -> usize {
        0
    }
}

/// The parameter `recent`: how far back windows are summed up, in milliseconds.
pub(super) fn parameter(parameters: &Parameters) -> Result<Option<i64>, ApiProblem> {
    let Some(text) = parameters.get("recent") else { return Ok(None) };
    let ms = parse_duration(text).ok().and_then(|time| i64::try_from(time.as_millis()).ok());
    let ms = ms.filter(|ms| (1_000..=MAX_MS).contains(ms)).ok_or_else(|| {
        ApiProblem::bad_request(format!("recent={text} is not a time; give one from 1s to 1h, such as 1m"))
    })?;
    Ok(Some(ms))
}

/// Sums up the windows that ended within the last `recent_ms`, for each of `windows`; `None` for a key without such a window.
///
/// # Errors
/// There are too many of them, or the windows log cannot be read.
pub(super) async fn recent(
    state: &ApiShared,
    recent_ms: i64,
    windows: &[LastWindow],
) -> Result<Vec<Option<RecentWindows>>, ApiProblem> {
    let since_ms = state.resources.clock.now_ms().saturating_sub(recent_ms);
    let mut keys: HashMap<String, HashMap<String, RecentWindows>> = HashMap::new();
    for window in windows {
        keys.entry(window.device_id.clone()).or_default().insert(window.metric.clone(), RecentWindows::NONE);
    }
    let mut query = ResultQuery {
        order: ScanOrder::Descending,
        cursor: None,
        limit: usize::MAX,
        // A window is selected by its start.
        from_ms: since_ms.saturating_sub(state.resources.config.window.size_ms),
        to_ms: i64::MAX,
        newest_only: true,
        device: None,
        metric: None,
        reason: None,
    };
    let results = state.resources.results.clone();
    let (collector, more) = run_scan(state, move || {
        let mut collector = RecentCollector { since_ms, keys };
        for _ in 0..MAX_STEPS {
            query.cursor = results.windows.scan(&query, &mut collector)?;
            if query.cursor.is_none() {
                break;
            }
        }
        Ok((collector, query.cursor.is_some()))
    })
    .await?;
    if more {
        let detail = "more than two million windows are of this time; ask for a shorter one with recent";
        return Err(ApiProblem::unavailable(detail));
    }
    let of = |window: &LastWindow| collector.keys.get(&window.device_id)?.get(&window.metric).copied();
    Ok(windows.iter().map(|window| of(window).filter(|recent| recent.count > 0)).collect())
}
