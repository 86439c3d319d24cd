//! Devices, checkpoints, status, and what holds for all paths.

use super::*;

/// Three devices. Of each, metric t has a closed window and u an open one; two readings were too old and one message
/// is missing.
fn api_with_devices() -> TestApi {
    let api = TestApi::new();
    for id in DEVICES {
        api.pipeline.apply(NOW_MS, &[reading(id, "t", 1.0, NOW_MS, 0), reading(id, "t", 2.0, NOW_MS, 1)]);
    }
    let later = NOW_MS + 60_000;
    for id in DEVICES {
        let old = |seq| reading(id, "t", 3.0, NOW_MS - 8 * 86_400_000, seq);
        api.pipeline.apply(later, &[reading(id, "u", 1.0, later, 3), old(4), old(5)]);
    }
    api
}

const DEVICES: [&str; 3] = ["a", "b c", "z"];

#[tokio::test]
async fn devices_come_in_pages() {
    let api = api_with_devices();
    let first = api.get("/api/v1/devices?limit=2").await.json();
    assert_eq!(first["devices"][1]["device_id"], "b c");
    assert_eq!(first["devices"][0]["rejected"]["timestamp_too_old"], 2);
    let cursor = first["next_cursor"].as_str().expect("a third device");
    let second = api.get(&format!("/api/v1/devices?limit=2&cursor={cursor}")).await.json();
    assert_eq!((&second["devices"][0]["device_id"], &second["next_cursor"]), (&"z".into(), &serde_json::Value::Null));
}

#[tokio::test]
async fn one_device_whole() {
    let api = api_with_devices();
    let answer = api.get("/api/v1/devices/b%20c").await;
    let json = answer.json();
    assert_eq!(json["device_id"], "b c");
    assert_eq!(json["watermark"], NOW_MS + 57_999);
    assert_eq!(
        (&json["accepted"], &json["sequence_missing"], &json["metric_count"]),
        (&3.into(), &1.into(), &2.into())
    );
    assert_eq!(json["sequence_ranges"], serde_json::json!([[0, 1], [3, 5]]));
    // The members stand in this order, and the last window is as everywhere.
    let mut window = Vec::new();
    let fired = WindowResult { sum: 3.0, ..window_of("b c", NOW_MS) };
    fired.write_json(1, &mut window);
    let window = String::from_utf8(window).expect("UTF-8");
    let tail = format!(
        r#""metric_count":2,"online":null,"online_since":null,"online_topic":null,"notes":[],"sequence_ranges":[[0,1],[3,5]],"metrics":[{{"metric":"t","unit":null,"last_window":{window}}},{{"metric":"u","unit":null,"last_window":null}}]}}"#
    );
    assert!(answer.body.ends_with(&tail), "{}", answer.body);
    api.get("/api/v1/devices/nobody").await.is_problem(404, "/api/v1/devices lists");
}

/// The window of [`api_with_devices`].
fn window_of(device: &str, start_ms: i64) -> WindowResult<'_> {
    WindowResult { metric: "t", ..window(device, start_ms) }
}

#[tokio::test]
async fn a_busy_pipeline_is_a_503() {
    let api = TestApi::new();
    let busy = api.pipeline.busy();
    let answer = api.get("/api/v1/devices").await;
    answer.is_problem(503, "too many questions wait");
    assert_eq!(answer.header("retry-after"), "1");
    drop(busy);
}

#[tokio::test]
async fn a_panic_is_a_500_of_its_request_alone() {
    let api = TestApi::new();
    *api.process.failed.lock().unwrap() = Some("defect");
    api.get("/readyz").await.is_problem(500, "its log says why");
    // A panic poisons the lock of the test, not one of weir's.
    api.process.failed.clear_poison();
    *api.process.failed.lock().unwrap() = None;
    assert_eq!(api.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn checkpoints_newest_first() {
    let checkpoint = |id| CheckpointInfo {
        id,
        started_ms: NOW_MS - 2_000,
        duration_ms: 500,
        stall_us: 80,
        bytes: 4_096,
        groups: 3,
        replay_from: 100,
        windows_position: 50,
        errors_position: 5,
    };
    let api = TestApi::new();
    api.pipeline.completed(checkpoint(1));
    api.pipeline.completed(checkpoint(2));
    let json = api.get("/api/v1/checkpoints").await.json();
    assert_eq!((&json["checkpoints"][0]["id"], &json["checkpoints"][1]["id"]), (&2.into(), &1.into()));
    let json = api.get("/api/v1/status").await.json();
    assert_eq!(json["checkpoint"]["age_seconds"], 1.5);
    assert_eq!(json["checkpoint"]["last"]["replay_from"], 100);
}

#[tokio::test]
async fn status_at_a_glance() {
    let mut config = Config::default();
    config.node.name = "box-7".into();
    let api = TestApi::with(config);
    api.add_windows([window("a", 0)]);
    api.pipeline.update(|status| {
        status.totals.messages = 100;
        status.totals.received = 300;
        status.totals.in_windows = 299;
        status.totals.rejected[Reason::Late as usize] = 1;
        status.lowest_watermark_ms = Some(NOW_MS - 7_000);
        status.sizes.devices = 20;
    });
    let json = api.get("/api/v1/status").await.json();
    for (pointer, expected) in [
        ("/version", env!("CARGO_PKG_VERSION").into()),
        ("/node", "box-7".into()),
        ("/ready", true.into()),
        ("/readings/received", 300.into()),
        ("/readings/rejected", serde_json::json!({"late": 1})),
        ("/readings/unaccounted", 0.into()),
        ("/event_time/watermark_lag_ms", 7_000.into()),
        ("/backlog/records", 0.into()),
        ("/checkpoint/last", serde_json::Value::Null),
        ("/recovery/records", 17.into()),
        ("/mqtt/connections", 3.into()),
        ("/disk/available_bytes", (1u64 << 30).into()),
        ("/disk/logs/windows/appended", 1.into()),
        ("/limits/devices", serde_json::json!({"current": 20, "limit": 100_000})),
        ("/simulator", serde_json::Value::Null),
    ] {
        assert_eq!(json.pointer(pointer), Some(&expected), "{pointer} in {json}");
    }
}

#[test]
fn rates_are_over_the_samples() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let api = runtime.block_on(async { TestApi::new() });
    let start = std::time::Instant::now();
    for second in 0..30 {
        api.pipeline.update(|status| {
            status.totals.messages = second * second;
            status.totals.received = second * 10;
        });
        api.state.sample(start + std::time::Duration::from_secs(second));
    }
    let rates = api.state.rates();
    // Samples 19 to 29: (29² − 19²) / 10.
    assert_eq!((rates.messages_per_second, rates.readings_per_second), (48.0, 10.0));
}

#[tokio::test]
async fn health_and_readiness() {
    let api = TestApi::new();
    for path in ["/healthz", "/readyz"] {
        let answer = api.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "{\"status\":\"ok\"}"));
    }
    *api.process.failed.lock().unwrap() = Some("pipeline");
    let answer = api.get("/readyz").await;
    assert_eq!(answer.status, 503);
    let json = answer.json();
    assert_eq!(json["status"], "unavailable");
    assert_eq!(
        json["checks"][0],
        serde_json::json!({"name": "pipeline", "ok": false, "message": "the pipeline was looked at"})
    );
    assert_eq!(json["checks"][1]["ok"], true);
}

#[tokio::test]
async fn what_is_not_there_or_not_possible() {
    let api = TestApi::new();
    api.get("/api/v2/windows").await.is_problem(404, "GET / lists the paths");
    let post = Request::post("/api/v1/windows").body(Body::empty()).expect("a request");
    let answer = api.ask(post).await;
    answer.is_problem(405, "POST");
    assert!(answer.header("allow").contains("GET"), "{answer:?}");
    let large = Request::get("/healthz").header("content-length", "65537").body(Body::empty()).expect("a request");
    api.ask(large).await.is_problem(413, "65536");
}

#[tokio::test]
async fn the_index_names_every_path() {
    let index = TestApi::new().get("/").await.body;
    let documented = include_str!("../../../docs/http-api.md");
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/metrics/devices",
        "/api/v1/status",
        "/api/v1/devices",
        "/api/v1/devices/{id}",
        "/api/v1/windows",
        "/api/v1/errors",
        "/api/v1/checkpoints",
        "/api/v1/savepoints",
        "/api/v1/mqtt/users",
        "/api/v1/stream",
    ] {
        assert!(index.contains(path), "{path} is not in the index");
        assert!(documented.contains(&format!("`GET {path}`")), "{path} is not in docs/http-api.md");
    }
}

#[tokio::test]
async fn savepoints_are_listed_and_taken() {
    let info = SavepointInfo {
        file: "savepoint-7.weir".into(),
        id: 3,
        kind: SavepointKind::Manual,
        created_ms: NOW_MS,
        replay_from: 7,
        windows_position: 5,
        errors_position: 1,
        bytes: 1_000,
        weir: "0.1.0".into(),
    };
    let api = TestApi::new();
    api.pipeline.has_savepoint(info);
    let listed = api.get("/api/v1/savepoints").await.json();
    assert_eq!(
        (&listed["savepoints"][0]["kind"], &listed["next_cursor"]),
        (&"manual".into(), &serde_json::Value::Null)
    );
    let post = || Request::post("/api/v1/savepoints").body(Body::empty()).expect("a request");
    let taken = api.ask(post()).await;
    assert_eq!(taken.status, 201);
    assert_eq!(taken.json()["replay_from"], 7);
    api.ask(post()).await.is_problem(507, "savepoints that were asked for");
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let api = TestApi::new();
    let post = |name: &str, value: &str| {
        let request = Request::post("/api/v1/savepoints").header("host", "127.0.0.1:8080").header(name, value);
        request.body(Body::empty()).expect("a request")
    };
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "http://evil.example"),
        ("origin", "null"),
    ] {
        api.ask(post(name, value)).await.is_problem(403, "another site");
    }
    for (name, value) in [("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:8080")] {
        api.ask(post(name, value)).await.is_problem(507, "");
    }
}
