//! `/metrics/devices`: the last closed window of each key as gauges, and what is known of devices.
//!
//! The page does not come from the recorder: series come and go with devices, and there are as many as keys.

use std::fmt::Write;

use axum::extract;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};

use crate::core::query::{DeviceFacts, LastWindow};
use crate::http::exposition::{CONTENT_TYPE, escape_label, sample_value};
use crate::http::parameters::Parameters;
use crate::http::problem::ApiProblem;
use crate::http::state::ApiState;
use crate::telemetry::names;

mod recent;

use recent::RecentWindows;

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

/// One gauge of the windows that ended lately.
struct RecentGauge {
    name: &'static str,
    help: &'static str,
    value: fn(RecentWindows) -> f64,
}

const RECENT_GAUGES: &[RecentGauge] = &[
    RecentGauge {
        name: "weir_window_mean_recent",
        help: "Mean of the readings in the windows that ended within the last time that the parameter recent says.",
        value: RecentWindows::mean,
    },
    RecentGauge { name: "weir_window_min_recent", help: "Smallest value in these windows.", value: |w| w.min },
    RecentGauge { name: "weir_window_max_recent", help: "Largest value in these windows.", value: |w| w.max },
];

/// What the page shows.
#[derive(Default)]
struct DevicePage {
    windows: Vec<LastWindow>,
    /// For each of the windows those that ended lately; empty unless the request asks for them.
    recent: Vec<Option<RecentWindows>>,
    devices: Vec<DeviceFacts>,
    /// Series that the cap left out.
    dropped: usize,
}

pub(in crate::http) async fn page(
    extract::State(state): extract::State<ApiState>,
    uri: Uri,
) -> Result<Response, ApiProblem> {
    let parameters = Parameters::read(&uri, &["recent"])?;
    let recent_ms = recent::parameter(&parameters)?;
    let http = &state.resources.config.http;
    let since_ms = state.resources.clock.now_ms().saturating_sub(http.metrics_series_ttl_ms);
    let pipeline = &state.resources.pipeline;
    let (windows, dropped_windows) = pipeline.last_windows(since_ms, http.metrics_max_series).await?;
    let (devices, dropped_devices) = pipeline.device_facts(http.metrics_max_series).await?;
    let recent = match recent_ms {
        Some(recent_ms) => recent::recent(&state, recent_ms, &windows).await?,
        None => Vec::new(),
    };
    let page = DevicePage { windows, recent, devices, dropped: dropped_windows + dropped_devices };
    metrics::gauge!(names::SERIES_DROPPED).set(page.dropped as f64);
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], page.render()).into_response())
}

// Writing to a String does not fail.
impl DevicePage {
    fn render(&self) -> String {
        let labels: Vec<String> = self.windows.iter().map(labels).collect();
        let lines = self.windows.len() * (GAUGES.len() + 1) + self.devices.len() * 2 + 4;
        let mut out = String::with_capacity(lines * 64);
        for gauge in GAUGES {
            header(&mut out, gauge.name, gauge.help);
            for (window, labels) in self.windows.iter().zip(&labels) {
                let _ = writeln!(out, "{}{{{labels}}} {}", gauge.name, sample_value((gauge.value)(window)));
            }
        }
        for gauge in RECENT_GAUGES.iter().filter(|_| !self.recent.is_empty()) {
            header(&mut out, gauge.name, gauge.help);
            for (recent, labels) in self.recent.iter().zip(&labels) {
                let Some(recent) = recent else { continue };
                let _ = writeln!(out, "{}{{{labels}}} {}", gauge.name, sample_value((gauge.value)(*recent)));
            }
        }
        header(
            &mut out,
            "weir_device_metric_info",
            "Always 1; the label unit is the unit of the metric, where it is known.",
        );
        for (window, labels) in self.windows.iter().zip(&labels) {
            if let Some(unit) = &window.unit {
                let _ = writeln!(out, "weir_device_metric_info{{{labels},unit=\"{}\"}} 1", escape_label(unit));
            }
        }
        self.render_devices(&mut out);
        header(&mut out, names::SERIES_DROPPED, "Series left out of this page by its cap.");
        let _ = writeln!(out, "{} {}", names::SERIES_DROPPED, self.dropped);
        out
    }

    fn render_devices(&self, out: &mut String) {
        header(out, "weir_device_last_seen_seconds", "Unix time at which the last message of the device arrived.");
        for device in &self.devices {
            let id = escape_label(&device.device_id);
            let seconds = sample_value(device.last_seen_ms as f64 / 1_000.0);
            let _ = writeln!(out, "weir_device_last_seen_seconds{{device=\"{id}\"}} {seconds}");
        }
        header(
            out,
            "weir_device_info",
            "Always 1; labels with what the device says of itself, where it says anything.",
        );
        for device in self.devices.iter().filter(|device| !device.about.is_empty()) {
            let text = |text: &Option<Box<str>>| escape_label(text.as_deref().unwrap_or(""));
            let (id, about) = (escape_label(&device.device_id), &device.about);
            let (name, model, maker) = (text(&about.name), text(&about.model), text(&about.manufacturer));
            let _ = writeln!(
                out,
                "weir_device_info{{device=\"{id}\",name=\"{name}\",model=\"{model}\",manufacturer=\"{maker}\"}} 1"
            );
        }
    }
}

fn header(out: &mut String, name: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
}

fn labels(window: &LastWindow) -> String {
    format!("device=\"{}\",metric=\"{}\"", escape_label(&window.device_id), escape_label(&window.metric))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_page_still_says_how_many_were_dropped() {
        let page = DevicePage { dropped: 7, ..DevicePage::default() }.render();
        assert!(page.ends_with("\nweir_series_dropped 7\n"), "{page}");
    }
}
