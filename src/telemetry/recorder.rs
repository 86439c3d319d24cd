//! The metrics recorder of the process, which renders metrics in the text format of Prometheus.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::telemetry::names::{self, MetricKind};

/// Upper bounds of the histogram buckets in seconds: from less than an fdatasync of a good SSD to a stalled SD card.
pub const SECONDS_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder of the process and describes all metrics. Further calls return the same handle.
///
/// Call [`upkeep`] every few seconds: histograms keep each observation in memory until then.
pub fn install() -> PrometheusHandle {
    HANDLE
        .get_or_init(|| {
            let recorder = recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::error!("another metrics recorder is installed, so /metrics stays empty");
            }
            handle
        })
        .clone()
}

/// Folds the observations of histograms into buckets, which bounds the memory of the recorder.
pub fn upkeep() {
    if let Some(handle) = HANDLE.get() {
        handle.run_upkeep();
    }
}

fn recorder() -> PrometheusRecorder {
    // All histograms are in seconds. `set_buckets` fails only for an empty list.
    let builder = PrometheusBuilder::new().set_buckets(SECONDS_BUCKETS).unwrap_or_else(|_| PrometheusBuilder::new());
    let recorder = builder.build_recorder();
    metrics::with_local_recorder(&recorder, describe);
    recorder
}

fn describe() {
    for metric in names::ALL {
        match metric.kind {
            MetricKind::Counter => metrics::describe_counter!(metric.name, metric.help),
            MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            MetricKind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_have_buckets_and_everything_has_help() {
        let recorder = recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!(names::LOG_SYNC_SECONDS, "log" => "journal").record(0.003);
            metrics::counter!(names::CHECKPOINTS).increment(2);
            metrics::gauge!(names::READY).set(1.0);
        });
        let text = recorder.handle().render();
        for line in [
            "# TYPE weir_log_sync_seconds histogram",
            "weir_log_sync_seconds_bucket{log=\"journal\",le=\"0.0025\"} 0",
            "weir_log_sync_seconds_bucket{log=\"journal\",le=\"0.005\"} 1",
            "weir_checkpoints_total 2",
            "weir_ready 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        for name in [names::LOG_SYNC_SECONDS, names::CHECKPOINTS, names::READY] {
            assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help in\n{text}");
        }
    }

    #[test]
    fn installing_twice_is_one_recorder() {
        let (first, second) = (install(), install());
        metrics::counter!(names::STATE_MOVED_ASIDE).absolute(3);
        assert_eq!(
            first.render().contains("weir_state_moved_aside_total 3"),
            second.render().contains("weir_state_moved_aside_total 3")
        );
        assert!(first.render().contains("weir_state_moved_aside_total 3"));
        upkeep();
    }

    /// The rules of `promtool check metrics` that depend on names alone.
    #[test]
    fn names_follow_prometheus() {
        for metric in names::ALL {
            let name = metric.name;
            assert_eq!(
                metric.kind == MetricKind::Counter,
                name.ends_with("_total"),
                "{name}: counters, and only they, end in _total"
            );
            assert!(
                metric.kind != MetricKind::Histogram || name.ends_with("_seconds"),
                "{name}: the buckets are seconds"
            );
            assert!(
                !["_count", "_sum", "_bucket"].iter().any(|suffix| name.ends_with(suffix)),
                "{name}: reserved suffix"
            );
            assert!(name.starts_with("weir_") || name.starts_with("process_"), "{name}: prefix");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
                "{name}"
            );
            let abbreviated = ["ms", "us", "ns", "sec", "kb", "mb", "milliseconds", "minutes", "hours", "kilobytes"];
            assert!(!name.split('_').any(|part| abbreviated.contains(&part)), "{name}: base units only");
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}: help is sentences");
        }
    }
}
