//! `/metrics/devices`: the last closed window of each key as gauges.
//!
//! The page does not come from the recorder: series come and go with devices, and there are as many as keys.

use std::fmt::Write;

use axum::extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::core::query::LastWindow;
use crate::http::exposition::{CONTENT_TYPE, escape_label, sample_value};
use crate::http::problem::ApiProblem;
use crate::http::state::ApiState;
use crate::telemetry::names;

/// One gauge of the page.
struct DeviceGauge {
    name: &'static str,
    help: &'static str,
    value: fn(&LastWindow) -> f64,
}

/// The gauge of the count is called `weir_window_readings`: Prometheus reserves the suffix `_count` for histograms.
const GAUGES: &[DeviceGauge] = &[
    DeviceGauge {
        name: "weir_window_mean",
        help: "Mean of the readings in the last closed window.",
        value: |w| w.mean,
    },
    DeviceGauge { name: "weir_window_min", help: "Smallest value in the last closed window.", value: |w| w.min },
    DeviceGauge { name: "weir_window_max", help: "Largest value in the last closed window.", value: |w| w.max },
    DeviceGauge {
        name: "weir_window_last",
        help: "Value with the newest event time in the last closed window.",
        value: |w| w.last,
    },
    DeviceGauge {
        name: "weir_window_readings",
        help: "Number of readings in the last closed window.",
        value: |w| w.count as f64,
    },
    DeviceGauge {
        name: "weir_window_end_seconds",
        help: "Unix time at which the last closed window ended.",
        value: |w| w.window_end_ms as f64 / 1_000.0,
    },
];

pub(in crate::http) async fn page(extract::State(state): extract::State<ApiState>) -> Result<Response, ApiProblem> {
    let http = &state.resources.config.http;
    let since_ms = state.resources.clock.now_ms().saturating_sub(http.metrics_series_ttl_ms);
    let (windows, dropped) = state.resources.pipeline.last_windows(since_ms, http.metrics_max_series).await?;
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
            let _ = writeln!(out, "{}{labels} {}", gauge.name, sample_value((gauge.value)(window)));
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
    format!("{{device=\"{}\",metric=\"{}\"}}", escape_label(&window.device_id), escape_label(&window.metric))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_page_still_says_how_many_were_dropped() {
        let page = render(&[], 7);
        assert!(page.ends_with("\nweir_series_dropped 7\n"), "{page}");
    }
}
