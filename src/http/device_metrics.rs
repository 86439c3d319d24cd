//! `/metrics/devices`: the last closed window of each key as gauges.
//!
//! Written by hand and not through the recorder: series come and go with devices, and are as many as the keys.

use std::fmt::Write;

use axum::extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::core::query::LastWindow;
use crate::http::metrics::CONTENT_TYPE;
use crate::http::problem::Problem;
use crate::http::state::State;
use crate::telemetry::names;

/// One gauge of the page.
struct Gauge {
    name: &'static str,
    help: &'static str,
    value: fn(&LastWindow) -> f64,
}

/// `weir_window_readings` and not `_count`: Prometheus keeps that suffix for histograms.
const GAUGES: &[Gauge] = &[
    Gauge { name: "weir_window_mean", help: "Mean of the readings in the last closed window.", value: |w| w.mean },
    Gauge { name: "weir_window_min", help: "Smallest value in the last closed window.", value: |w| w.min },
    Gauge { name: "weir_window_max", help: "Largest value in the last closed window.", value: |w| w.max },
    Gauge {
        name: "weir_window_last",
        help: "Value with the newest event time in the last closed window.",
        value: |w| w.last,
    },
    Gauge {
        name: "weir_window_readings",
        help: "Number of readings in the last closed window.",
        value: |w| w.count as f64,
    },
    Gauge {
        name: "weir_window_end_seconds",
        help: "Unix time at which the last closed window ended.",
        value: |w| w.window_end_ms as f64 / 1_000.0,
    },
];

pub(super) async fn page(extract::State(state): extract::State<State>) -> Result<Response, Problem> {
    let http = &state.parts.config.http;
    let since_ms = state.parts.clock.now_ms().saturating_sub(http.metrics_series_ttl_ms);
    let (windows, dropped) = state.parts.pipeline.last_windows(since_ms, http.metrics_max_series).await?;
    metrics::gauge!(names::SERIES_DROPPED).set(dropped as f64);
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], render(&windows, dropped)).into_response())
}

fn render(windows: &[LastWindow], dropped: usize) -> String {
    let labels: Vec<String> = windows.iter().map(labels).collect();
    let mut out = String::with_capacity((windows.len() * GAUGES.len() + 4) * 64);
    for gauge in GAUGES {
        header(&mut out, gauge.name, gauge.help);
        for (window, labels) in windows.iter().zip(&labels) {
            // Writing to a String does not fail.
            let _ = writeln!(out, "{}{labels} {}", gauge.name, number((gauge.value)(window)));
        }
    }
    header(&mut out, names::SERIES_DROPPED, "Series left out of this page by its cap.");
    let _ = writeln!(out, "{} {dropped}", names::SERIES_DROPPED);
    out
}

fn header(out: &mut String, name: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
}

fn labels(window: &LastWindow) -> String {
    format!("{{device=\"{}\",metric=\"{}\"}}", escape(&window.device_id), escape(&window.metric))
}

/// Label values escape backslash, quote and line feed (exposition format 0.0.4).
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Go's `ParseFloat` reads what Rust prints, but for the spelling of infinity.
fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".into() } else { "-Inf".into() }
    } else {
        format!("{value:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escape("a\\b\"c\nd"), "a\\\\b\\\"c\\nd");
    }

    #[test]
    fn numbers() {
        assert_eq!(number(f64::INFINITY), "+Inf");
        assert_eq!(number(f64::NEG_INFINITY), "-Inf");
        assert_eq!(number(f64::NAN), "NaN");
        assert_eq!(number(21.5), "21.5");
        assert_eq!(number(1e300), "1e300");
    }

    #[test]
    fn an_empty_page_still_says_how_many_were_dropped() {
        let page = render(&[], 7);
        assert!(page.ends_with("\nweir_series_dropped 7\n"), "{page}");
    }
}
