//! Requests through the router, over real logs and a real pipeline handle. Only health and the clock are made up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::process_status::{HealthCheck, MqttStatus, ProcessStatus, RecoveryStatus};
use super::router::router;
use super::{ApiState, HttpResources};
use crate::access::http_access::{HttpAccess, HttpPolicy};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::core::output::{ErrorEntry, RejectedPart, WindowFlags, WindowResult};
use crate::core::reason::Reason;
use crate::core::record::{self, PublishRecord};
use crate::disk::RealDisk;
use crate::log::{Log, LogOptions, Lsn, Records, Retention, SyncPolicy};
use crate::pipeline::handle::CheckpointInfo;
use crate::pipeline::testing::TestPipeline;
use crate::results::feed::EventFeed;
use crate::results::follow::ResultFollower;
use crate::results::log::ResultLogs;
use crate::state::savepoint::{SavepointInfo, SavepointKind};
use crate::telemetry::recorder;

mod api;
mod auth;
mod hosts;
mod lists;
mod pages;
mod replay;
mod served;
mod streams;

/// The time of every test; a window begins.
const NOW_MS: i64 = 1_732_098_765_000;

#[derive(Debug)]
struct FrozenClock;

impl Clock for FrozenClock {
    fn now_ms(&self) -> i64 {
        NOW_MS
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
}

/// A process whose failing check a test sets.
#[derive(Default)]
struct FakeProcess {
    failed: Mutex<Option<&'static str>>,
}

impl FakeProcess {
    fn checks(&self) -> Vec<HealthCheck> {
        let failed = *self.failed.lock().unwrap();
        assert_ne!(failed, Some("defect"), "a panic that a test asked for");
        ["journal", "pipeline"]
            .map(|name| HealthCheck {
                name,
                ok: failed != Some(name),
                message: format!("the {name} was looked at"),
                warns: false,
            })
            .into()
    }
}

impl ProcessStatus for FakeProcess {
    fn liveness(&self) -> Vec<HealthCheck> {
        self.checks()
    }
    fn readiness(&self) -> Vec<HealthCheck> {
        self.checks()
    }
    fn mqtt(&self) -> MqttStatus {
        MqttStatus { connections: 3, ..MqttStatus::default() }
    }
    fn recovered(&self) -> Option<RecoveryStatus> {
        Some(RecoveryStatus { seconds: 0.25, records: 17 })
    }
    fn disk_available_bytes(&self) -> Option<u64> {
        Some(1 << 30)
    }
}

/// A server's state over fresh logs.
struct TestApi {
    state: ApiState,
    windows: Log,
    errors: Log,
    journal: Log,
    follower: ResultFollower,
    feed: Arc<EventFeed>,
    process: Arc<FakeProcess>,
    pipeline: TestPipeline,
    access: Arc<HttpAccess>,
    _dir: tempfile::TempDir,
}

/// An answer, whole.
#[derive(Debug)]
struct ApiAnswer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl ApiAnswer {
    #[track_caller]
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// A problem of this status whose detail has this part.
    #[track_caller]
    fn is_problem(&self, status: u16, part: &str) {
        assert_eq!(
            (self.status.as_u16(), self.header("content-type")),
            (status, "application/problem+json"),
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string(), "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{part:?} is not in {problem}");
    }
}

fn open_log(dir: &std::path::Path, name: &'static str) -> Log {
    let options = LogOptions {
        name,
        dir: dir.join(name),
        segment_bytes: 64 << 10,
        commit_max_bytes: 256 << 10,
        queue_max_bytes: 4 << 20,
        tail_max_bytes: 64 << 10,
        sync: if name == "journal" { SyncPolicy::EveryCommit } else { SyncPolicy::OnRequest },
        min_free_bytes: 0,
        retention: Retention::default(),
        clock_tolerance_ms: 60_000,
    };
    Log::open(Arc::new(RealDisk), Arc::new(FrozenClock), options, Lsn(0)).expect("a fresh log").0
}

impl TestApi {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (windows, errors) = (open_log(dir.path(), "windows"), open_log(dir.path(), "errors"));
        let (process, pipeline) = (Arc::new(FakeProcess::default()), TestPipeline::new());
        let follower = ResultFollower::new(ResultLogs::new(windows.clone(), errors.clone()));
        let feed = EventFeed::new(follower.clone());
        let journal = open_log(dir.path(), "journal");
        let access = HttpAccess::new(HttpPolicy::load(&config.http).expect("a policy"), Arc::new(FrozenClock));
        let state = ApiState::new(HttpResources {
            config: Arc::new(config),
            pipeline: pipeline.handle.clone(),
            journal: journal.clone(),
            results: follower.results().clone(),
            feed: feed.clone(),
            process: process.clone(),
            metrics: recorder::install(),
            mqtt_admission: None,
            access: access.clone(),
            certificates: Vec::new(),
            clock: Arc::new(FrozenClock),
        });
        Self { state, windows, errors, journal, follower, feed, process, pipeline, access, _dir: dir }
    }

    /// Sends a request; names the host localhost where it names none.
    async fn ask(&self, mut request: Request<Body>) -> ApiAnswer {
        request.headers_mut().entry("host").or_insert(HeaderValue::from_static("localhost:8080"));
        self.ask_as_it_is(request).await
    }

    async fn ask_as_it_is(&self, request: Request<Body>) -> ApiAnswer {
        let response = TowerToHyperService::new(router(self.state.clone())).call(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let body = String::from_utf8(body.to_vec()).expect("UTF-8");
        ApiAnswer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> ApiAnswer {
        self.ask(Request::get(path).body(Body::empty()).expect("a request")).await
    }

    fn add_windows<'a>(&self, windows: impl IntoIterator<Item = WindowResult<'a>>) {
        append(&self.windows, windows.into_iter().map(|window| move |out: &mut Vec<u8>| window.encode(out)));
    }

    fn add_errors<'a>(&self, errors: impl IntoIterator<Item = ErrorEntry<'a>>) {
        append(&self.errors, errors.into_iter().map(|entry| move |out: &mut Vec<u8>| entry.encode(out)));
    }
}

/// A QoS 1 publish. `same_origin`: client and topic are those of the publish before.
fn publish(client_id: &str, topic: &str, payload: &[u8], same_origin: bool) -> Vec<u8> {
    let publish = PublishRecord {
        client_id,
        topic,
        own_device: None,
        user: None,
        packet_id: 1,
        qos: 1,
        dup: false,
        retain: false,
        repeats_retained: false,
        payload,
    };
    let mut bytes = Vec::new();
    record::encode_publish(&publish, same_origin, &mut bytes);
    bytes
}

/// The journal record of one reading of `device`.
fn reading(device: &str, metric: &str, value: f64, timestamp: i64, seq: u64) -> Vec<u8> {
    let payload = format!(r#"{{"metric":"{metric}","value":{value},"timestamp":{timestamp},"seq":{seq}}}"#);
    publish("client", &format!("devices/{device}/telemetry"), payload.as_bytes(), false)
}

/// Appends in batches of 100 and waits until all can be read.
fn append(log: &Log, items: impl Iterator<Item = impl FnOnce(&mut Vec<u8>)>) {
    let mut records = Records::default();
    for item in items {
        records.push_with(item);
        if records.count() == 100 {
            log.append_wait(&records).expect("an open log");
            // Else the writer might put several appends into one batch.
            log.sync().expect("an open log");
            records.clear();
        }
    }
    if !records.is_empty() {
        log.append_wait(&records).expect("an open log");
    }
    log.sync().expect("a disk");
}

/// The window of `device` that starts at `start_ms`.
fn window(device: &str, start_ms: i64) -> WindowResult<'_> {
    WindowResult {
        device_id: device,
        metric: "temperature",
        unit: None,
        window_start_ms: start_ms,
        window_end_ms: start_ms + 5_000,
        revision: 0,
        supersedes: None,
        count: 2,
        sum: 3.0,
        mean: 1.5,
        min: 1.0,
        max: 2.0,
        first: 1.0,
        last: 2.0,
        stddev: 0.5,
        flags: WindowFlags::default(),
    }
}

/// An error of `device` that arrived at `arrival_ms`.
fn error(device: Option<&str>, reason: Reason, arrival_ms: i64) -> ErrorEntry<'_> {
    ErrorEntry {
        journal_position: 7,
        index: 0,
        arrival_ms,
        reason,
        part: RejectedPart::Reading,
        message: "the value is above 125".into(),
        device_id: device,
        metric: None,
        client_id: "client",
        topic: "devices/a/telemetry",
        own_device: None,
        user: None,
        payload: b"{}",
        payload_bytes: 2,
        is_unseen: false,
        origin: None,
        is_cut: false,
        follows: None,
        folded: None,
    }
}
