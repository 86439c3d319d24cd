//! The Prometheus pages.

use std::collections::BTreeSet;

use super::*;

/// What `promtool check metrics` asks of a page: every sample belongs to a family that has help and a type before it,
/// and no series stands twice.
#[track_caller]
fn is_clean(page: &str) {
    let (mut helped, mut typed, mut series) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect("a help text");
            assert!(!text.is_empty() && helped.insert(name), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert!(typed.insert(name), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (key, value) = line.rsplit_once(' ').expect("a value");
            assert!(series.insert(key), "{line} stands twice");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = key.split('{').next().expect("a name");
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(helped.contains(family) && typed.contains(family), "{line} has no help or type");
        }
    }
    assert!(!series.is_empty());
}

#[tokio::test]
async fn weirs_own_metrics() {
    let api = TestApi::new();
    api.pipeline.update(|status| {
        status.totals.received = 12;
        status.totals.in_windows = 10;
        status.totals.rejected[Reason::Late as usize] = 2;
        status.totals.windows_corrected = 4;
        status.sizes.open_windows = 3;
        status.checkpoint_failures = 1;
    });
    api.get("/nowhere").await;
    let answer = api.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    is_clean(&answer.body);
    let lines: BTreeSet<&str> = answer.body.lines().collect();
    for line in [
        "weir_ready 1",
        "weir_readings_received_total 12",
        "weir_readings_accepted_total 10",
        "weir_readings_rejected_total{reason=\"late\"} 2",
        "weir_readings_rejected_total{reason=\"malformed\"} 0",
        "weir_readings_unaccounted 0",
        "weir_windows_emitted_total{kind=\"correction\"} 4",
        "weir_windows_open 3",
        "weir_devices_limit 100000",
        "weir_mqtt_connections 3",
        "weir_recovery_seconds 0.25",
        "weir_recovery_replayed_records 17",
        "weir_checkpoint_failures_total 1",
        "weir_log_disk_full{log=\"journal\"} 0",
    ] {
        assert!(lines.contains(line), "{line} is not in\n{}", answer.body);
    }
    for start in [
        "weir_build_info{",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "weir_http_requests_total{path=\"other\",status=\"404\"} ",
    ] {
        assert!(answer.body.lines().any(|line| line.starts_with(start)), "{start} is not in\n{}", answer.body);
    }
}

#[tokio::test]
async fn last_windows_as_gauges() {
    let mut config = Config::default();
    config.http.metrics_max_series = 2;
    let api = TestApi::with(config);
    let fill = |device, start_ms| {
        let values = [reading(device, "t", 1.0, start_ms, 0), reading(device, "t", 2.0, start_ms, 1)];
        api.pipeline.apply(start_ms, &values);
    };
    fill("stale", NOW_MS - 305_000);
    for device in ["a\"b\\c", "x", "y"] {
        fill(device, NOW_MS - 5_000);
    }
    // Readings of a minute later close all these windows.
    let later = NOW_MS + 55_000;
    for device in ["stale", "a\"b\\c", "x", "y"] {
        api.pipeline.apply(later, &[reading(device, "t", 3.0, later, 2)]);
    }
    let page = api.get("/metrics/devices").await.body;
    is_clean(&page);
    let lines: BTreeSet<&str> = page.lines().collect();
    for line in [
        "weir_window_mean{device=\"a\\\"b\\\\c\",metric=\"t\"} 1.5",
        "weir_window_min{device=\"x\",metric=\"t\"} 1.0",
        "weir_window_max{device=\"x\",metric=\"t\"} 2.0",
        "weir_window_last{device=\"x\",metric=\"t\"} 2.0",
        "weir_window_readings{device=\"x\",metric=\"t\"} 2.0",
        "weir_window_end_seconds{device=\"x\",metric=\"t\"} 1732098765.0",
        "weir_device_last_seen_seconds{device=\"stale\"} 1732098820.0",
        "weir_series_dropped 3",
    ] {
        assert!(lines.contains(line), "{line} is not in\n{page}");
    }
    assert!(!page.contains("{device=\"stale\",metric") && !page.contains("\"y\""), "{page}");
}
