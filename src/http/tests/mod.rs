//! The paths, asked through the router over real logs; the parts beside are made up.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use futures_util::future::{self, BoxFuture};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::router::router;
use super::source::{Check, Door, Queries, Recovered, Source};
use super::{Parts, State};
use crate::access::http_access::{HttpAccess, HttpPolicy};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::core::output::{ErrorEntry, RejectedPart, WindowResult};
use crate::core::query::{DeviceDetail, DeviceSummary, LastWindow};
use crate::core::reason::Reason;
use crate::disk::RealDisk;
use crate::log::{Log, LogOptions, Lsn, Records, Retention, SyncPolicy};
use crate::pipeline::error::SavepointFailure;
use crate::pipeline::handle::SavepointRefused;
use crate::pipeline::handle::{CheckpointInfo, PipelineStatus, Unavailable};
use crate::results::feed::EventFeed;
use crate::results::follow::ResultFollower;
use crate::results::log::ResultLogs;
use crate::state::savepoint::{SavepointInfo, SavepointKind};
use crate::telemetry::recorder;

mod api;
mod auth;
mod lists;
mod pages;
mod replay;
mod served;
mod streams;

/// The time of every test.
const NOW_MS: i64 = 1_000_000_000;

#[derive(Debug)]
struct Noon;

impl Clock for Noon {
    fn now_ms(&self) -> i64 {
        NOW_MS
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
}

/// A source whose readiness a test sets.
#[derive(Default)]
struct Made {
    failed: Mutex<Option<&'static str>>,
}

impl Made {
    fn checks(&self) -> Vec<Check> {
        let failed = *self.failed.lock().unwrap();
        ["journal", "pipeline"]
            .map(|name| Check { name, ok: failed != Some(name), message: format!("the {name} was looked at") })
            .into()
    }
}

impl Source for Made {
    fn liveness(&self) -> Vec<Check> {
        self.checks()
    }
    fn readiness(&self) -> Vec<Check> {
        self.checks()
    }
    fn door(&self) -> Door {
        Door { connections: 3, ..Door::default() }
    }
    fn recovered(&self) -> Option<Recovered> {
        Some(Recovered { seconds: 0.25, records: 17 })
    }
    fn disk_available_bytes(&self) -> Option<u64> {
        Some(1 << 30)
    }
}

/// A pipeline that holds these devices.
#[derive(Default)]
struct Held {
    devices: Vec<DeviceDetail>,
    windows: Vec<LastWindow>,
    checkpoints: Vec<CheckpointInfo>,
    status: Mutex<PipelineStatus>,
    replayed: Mutex<Vec<u64>>,
    /// A question about this error is answered with "busy".
    busy_with: Mutex<Option<u64>>,
    /// What the next request for a savepoint gets.
    savepoint: Mutex<Option<SavepointInfo>>,
}

impl Queries for Held {
    fn devices(&self, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Vec<DeviceSummary>, Unavailable>> {
        let summaries = self.devices.iter().map(|device| device.summary.clone());
        let found = summaries.filter(|device| after.as_ref().is_none_or(|after| device.device_id > *after));
        Box::pin(future::ready(Ok(found.take(limit).collect())))
    }
    fn device(&self, device_id: String) -> BoxFuture<'_, Result<Option<DeviceDetail>, Unavailable>> {
        assert_ne!(device_id, "defect", "a panic that a test asked for");
        if device_id == "busy" {
            return Box::pin(future::ready(Err(Unavailable("its queue is full"))));
        }
        let found = self.devices.iter().find(|device| device.summary.device_id == device_id).cloned();
        Box::pin(future::ready(Ok(found)))
    }
    fn last_windows(
        &self,
        since_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<(Vec<LastWindow>, usize), Unavailable>> {
        let fresh: Vec<_> = self.windows.iter().filter(|window| window.window_end_ms > since_ms).cloned().collect();
        let dropped = fresh.len().saturating_sub(limit);
        Box::pin(future::ready(Ok((fresh.into_iter().take(limit).collect(), dropped))))
    }
    fn are_replayed(&self, error_seqs: Vec<u64>) -> BoxFuture<'_, Result<Vec<bool>, Unavailable>> {
        if self.busy_with.lock().unwrap().is_some_and(|busy| error_seqs.contains(&busy)) {
            return Box::pin(future::ready(Err(Unavailable("its queue is full"))));
        }
        let replayed = self.replayed.lock().unwrap();
        Box::pin(future::ready(Ok(error_seqs.iter().map(|seq| replayed.contains(seq)).collect())))
    }
    fn checkpoints(&self) -> Vec<CheckpointInfo> {
        self.checkpoints.clone()
    }
    fn savepoint(&self) -> BoxFuture<'_, Result<SavepointInfo, SavepointRefused>> {
        let written = self.savepoint.lock().unwrap().take();
        let directory = PathBuf::from("savepoints");
        let refused = || SavepointRefused::Failed(SavepointFailure::TooMany { directory, count: 100 }.into());
        Box::pin(future::ready(written.ok_or_else(refused)))
    }
    fn savepoints(&self) -> Vec<SavepointInfo> {
        self.savepoint.lock().unwrap().iter().cloned().collect()
    }
    fn status(&self) -> PipelineStatus {
        self.status.lock().unwrap().clone()
    }
}

/// A server's state over fresh logs.
struct Site {
    state: State,
    windows: Log,
    errors: Log,
    journal: Log,
    follower: ResultFollower,
    feed: Arc<EventFeed>,
    source: Arc<Made>,
    held: Arc<Held>,
    access: Arc<HttpAccess>,
    _dir: tempfile::TempDir,
}

/// An answer, whole.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
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
    };
    Log::open(Arc::new(RealDisk), Arc::new(Noon), options, Lsn(0)).expect("a fresh log").0
}

impl Site {
    fn new() -> Self {
        Self::with(Held::default(), Config::default())
    }

    fn with(held: Held, config: Config) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (windows, errors) = (open_log(dir.path(), "windows"), open_log(dir.path(), "errors"));
        let (source, held) = (Arc::new(Made::default()), Arc::new(held));
        let follower = ResultFollower::new(ResultLogs::new(windows.clone(), errors.clone()));
        let feed = EventFeed::new(follower.clone());
        let journal = open_log(dir.path(), "journal");
        let access = HttpAccess::new(HttpPolicy::load(&config.http).expect("a policy"), Arc::new(Noon));
        let state = State::new(Parts {
            config: Arc::new(config),
            pipeline: held.clone(),
            journal: journal.clone(),
            results: follower.results().clone(),
            feed: feed.clone(),
            source: source.clone(),
            metrics: recorder::install(),
            admission: None,
            access: access.clone(),
            certificates: Vec::new(),
            clock: Arc::new(Noon),
        });
        Self { state, windows, errors, journal, follower, feed, source, held, access, _dir: dir }
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        let response = TowerToHyperService::new(router(self.state.clone())).call(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let body = String::from_utf8(body.to_vec()).expect("UTF-8");
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Request::get(path).body(Body::empty()).expect("a request")).await
    }

    fn add_windows<'a>(&self, windows: impl IntoIterator<Item = WindowResult<'a>>) {
        append(&self.windows, windows.into_iter().map(|window| move |out: &mut Vec<u8>| window.encode(out)));
    }

    fn add_errors<'a>(&self, errors: impl IntoIterator<Item = ErrorEntry<'a>>) {
        append(&self.errors, errors.into_iter().map(|entry| move |out: &mut Vec<u8>| entry.encode(out)));
    }
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
        message: "the value is above 125",
        device_id: device,
        metric: None,
        client_id: "client",
        topic: "devices/a/telemetry",
        own_device: None,
        payload: b"{}",
        payload_bytes: 2,
        origin: None,
    }
}
