//! `/metrics`: weir's own metrics.

use std::time::Duration;

use axum::extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use metrics::{counter, gauge};
use tokio::time::timeout;

use crate::core::formats::Ignored;
use crate::core::map_activity::MapOutcome;
use crate::core::reason::Reason;
use crate::core::totals::Totals;
use crate::http::exposition::CONTENT_TYPE;
use crate::http::process_status::MqttStatus;
use crate::http::state::{ApiShared, ApiState};
use crate::log::Log;
use crate::pipeline::handle::PipelineStatus;
use crate::telemetry::names;
use crate::telemetry::process;

pub(in crate::http) async fn page(extract::State(state): extract::State<ApiState>) -> Response {
    refresh(&state);
    maps(&state).await;
    sparkplug(&state).await;
    let cpu_time = process::record();
    let page = state.resources.metrics.render() + &cpu_time;
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response()
}

/// Sets the metrics that are not counted where they happen.
fn refresh(state: &ApiShared) {
    let resources = &state.resources;
    let status = resources.pipeline.status();
    let labels = [("version", env!("CARGO_PKG_VERSION").to_owned()), ("node", resources.config.node.name.clone())];
    gauge!(names::BUILD_INFO, &labels).set(1.0);
    gauge!(names::START_TIME).set(state.started_ms as f64 / 1_000.0);
    gauge!(names::READY).set(f64::from(resources.process.readiness().iter().all(|check| check.ok)));
    mqtt(state);
    for (name, log) in state.logs() {
        log_gauges(name, log);
    }
    if let Some(bytes) = resources.process.disk_available_bytes() {
        gauge!(names::DISK_AVAILABLE_BYTES).set(bytes as f64);
    }
    if let Some(bytes) = resources.process.state_disk_bytes() {
        gauge!(names::STATE_DISK_BYTES).set(bytes as f64);
    }
    for (directory, call) in resources.process.pending_disk_calls() {
        gauge!(names::DISK_OLDEST_CALL_SECONDS, "directory" => directory).set(call.map_or(0.0, |call| call.seconds));
    }
    totals(&status.totals);
    pipeline(state, &status);
    checkpoints(state, &status);
}

/// Time that the page waits for the pipeline. One that stands still must not hide the other metrics.
const MAPS_PATIENCE: Duration = Duration::from_secs(1);

/// Sets the counts of maps.
async fn maps(state: &ApiShared) {
    let Ok(Ok(activities)) = timeout(MAPS_PATIENCE, state.resources.pipeline.map_activities()).await else { return };
    let on_topics =
        state.resources.mqtt_admission.as_ref().map(|admission| admission.ignored_by_maps()).unwrap_or_default();
    for activity in &activities {
        let on_topics: u64 = on_topics.iter().filter(|(map, _)| *map == activity.name).map(|(_, count)| count).sum();
        for (outcome, count) in MapOutcome::ALL.into_iter().zip(activity.messages) {
            let count = if outcome == MapOutcome::Ignored { count + on_topics } else { count };
            counter!(names::MAP_MESSAGES, "map" => activity.name.clone(), "outcome" => outcome.as_str())
                .absolute(count);
        }
        for (reason, count) in Ignored::ALL.into_iter().zip(activity.ignored).filter(|(_, count)| *count > 0) {
            counter!(names::MAP_VALUES_IGNORED, "map" => activity.name.clone(), "reason" => reason.as_str())
                .absolute(count);
        }
    }
}

/// Sets the counts of edge nodes of Sparkplug B.
async fn sparkplug(state: &ApiShared) {
    let Ok(Ok((sizes, totals))) = timeout(MAPS_PATIENCE, state.resources.pipeline.map_memory()).await else { return };
    gauge!(names::SPARKPLUG_NODES).set(sizes.nodes as f64);
    gauge!(names::SPARKPLUG_DEVICES).set(sizes.devices as f64);
    gauge!(names::SPARKPLUG_METRICS).set(sizes.metrics as f64);
    counter!(names::SPARKPLUG_GAPS).absolute(totals.gaps);
    counter!(names::SPARKPLUG_MISSED).absolute(totals.missed);
    counter!(names::SPARKPLUG_REBIRTHS).absolute(totals.rebirths);
}

fn mqtt(state: &ApiShared) {
    let mqtt = state.resources.process.mqtt();
    gauge!(names::MQTT_CONNECTIONS).set(mqtt.connections as f64);
    if let Some(admission) = &state.resources.mqtt_admission {
        let (listed, replaced) = admission.unmatched_counts();
        gauge!(names::MQTT_UNMATCHED_TOPICS).set(listed as f64);
        counter!(names::MQTT_UNMATCHED_TOPICS_REPLACED).absolute(replaced);
    }
    gauge!(names::STREAM_CLIENTS).set(state.open_streams() as f64);
    // Zeros in place of what is not read from disk yet would be taken for a loss.
    if mqtt.restored {
        kept(&mqtt);
    }
}

/// Sets the gauges of what outlives a restart.
fn kept(mqtt: &MqttStatus) {
    gauge!(names::MQTT_SESSIONS).set(mqtt.sessions as f64);
    gauge!(names::MQTT_SUBSCRIPTIONS).set(mqtt.subscriptions as f64);
    gauge!(names::MQTT_RETAINED).set(mqtt.retained_messages as f64);
    gauge!(names::MQTT_QUEUED).set(mqtt.queued_messages as f64);
    gauge!(names::MQTT_QUEUED_BYTES).set(mqtt.queued_bytes as f64);
    gauge!(names::MQTT_SESSION_BYTES).set(mqtt.session_bytes as f64);
    gauge!(names::MQTT_WILLS).set(mqtt.wills as f64);
    gauge!(names::MQTT_SESSIONS_UNSTORED).set(mqtt.unstored_sessions as f64);
    gauge!(names::MQTT_SESSIONS_UNSTORED_SECONDS).set(mqtt.unstored_sessions_age_seconds as f64);
    gauge!(names::MQTT_RETAINED_UNSTORED).set(mqtt.unstored_retained_messages as f64);
    gauge!(names::MQTT_RETAINED_UNSTORED_SECONDS).set(mqtt.unstored_retained_age_seconds as f64);
}

fn log_gauges(name: &'static str, log: &Log) {
    let stats = log.stats();
    gauge!(names::LOG_DISK_BYTES, "log" => name).set(stats.disk_bytes as f64);
    gauge!(names::LOG_SEGMENTS, "log" => name).set(stats.segments as f64);
    gauge!(names::LOG_QUEUE_BYTES, "log" => name).set(stats.queued_bytes as f64);
    gauge!(names::LOG_OLDEST_APPEND_SECONDS, "log" => name)
        .set(stats.oldest_append_age.unwrap_or_default().as_secs_f64());
    gauge!(names::LOG_DISK_FULL, "log" => name).set(f64::from(stats.disk_full));
}

/// Sets the counts of the operator. Reasons at 0 are included: an alert on a rate needs the series before the first
/// rejection.
fn totals(totals: &Totals) {
    counter!(names::MESSAGES).absolute(totals.messages);
    counter!(names::READINGS_RECEIVED).absolute(totals.received);
    counter!(names::READINGS_ACCEPTED).absolute(totals.in_windows);
    for (reason, count) in Reason::ALL.into_iter().zip(totals.rejected) {
        counter!(names::READINGS_REJECTED, "reason" => reason.as_str()).absolute(count);
    }
    counter!(names::VALUES_ABSENT).absolute(totals.values_absent);
    counter!(names::READINGS_ARRIVAL_TIME).absolute(totals.arrival_times);
    counter!(names::TOPICS_CLEARED).absolute(totals.topics_cleared);
    gauge!(names::READINGS_UNACCOUNTED).set(totals.unaccounted() as f64);
    counter!(names::WINDOWS_EMITTED, "kind" => "first").absolute(totals.windows_first);
    counter!(names::WINDOWS_EMITTED, "kind" => "correction").absolute(totals.windows_corrected);
    counter!(names::WINDOWS_BACKLOG).absolute(totals.windows_backlog);
    counter!(names::BACKLOG_WINDOWS_FORCED).absolute(totals.backlog_windows_forced);
    counter!(names::FIRED_RUNS_MERGED).absolute(totals.fired_runs_merged);
    counter!(names::SEQUENCE_RANGES_MERGED).absolute(totals.sequence_ranges_merged);
    counter!(names::SEQUENCE_RESTARTS).absolute(totals.sequence_restarts);
    counter!(names::SEQUENCE_WRAPS).absolute(totals.sequence_wraps);
    counter!(names::SEQUENCE_INVALID).absolute(totals.sequence_invalid);
    counter!(names::WINDOW_SIZES_DROPPED).absolute(totals.window_sizes_dropped);
    counter!(names::RETAINED_REPEATS).absolute(totals.retained_repeats);
    counter!(names::RETAINED_TOPICS_FORGOTTEN).absolute(totals.retained_topics_forgotten);
    counter!(names::ERRORS_NOT_STORED).absolute(totals.errors_not_stored);
    counter!(names::DEVICES_EXPIRED).absolute(totals.devices_expired);
    counter!(names::DEVICES_FORGOTTEN).absolute(totals.devices_forgotten);
    counter!(names::ERROR_REPLAYS).absolute(totals.replays);
    counter!(names::ERROR_REPLAYS_IGNORED).absolute(totals.replays_ignored);
    counter!(names::ERROR_REPLAY_ELEMENTS_FORGOTTEN).absolute(totals.replay_elements_forgotten);
    counter!(names::ERROR_REPLAY_RANGES_MERGED).absolute(totals.replay_ranges_merged);
}

fn pipeline(state: &ApiShared, status: &PipelineStatus) {
    let seconds_since = |ms: i64| state.resources.clock.now_ms().saturating_sub(ms) as f64 / 1_000.0;
    gauge!(names::WINDOWS_OPEN).set(status.sizes.open_windows as f64);
    gauge!(names::WINDOWS_HELD).set(status.sizes.windows as f64);
    gauge!(names::BACKLOG_WINDOWS).set(status.sizes.backlog_windows as f64);
    gauge!(names::BACKLOG_DEVICES).set(status.sizes.backlog_devices as f64);
    gauge!(names::DEVICES).set(status.sizes.devices as f64);
    gauge!(names::KNOWN_TOPICS).set(status.sizes.known_topics as f64);
    gauge!(names::DISCOVERED_TOPICS).set(status.sizes.discovered_topics as f64);
    counter!(names::DISCOVERED_TOPICS_REPLACED).absolute(status.sizes.discoveries_replaced);
    gauge!(names::DEVICES_OFFLINE).set(status.sizes.offline as f64);
    gauge!(names::DEVICES_LIMIT).set(state.resources.config.limits.devices as f64);
    gauge!(names::SERIES).set(status.sizes.series as f64);
    gauge!(names::SEQUENCE_DIGESTS_EXTRA).set(status.sizes.extra_digests as f64);
    gauge!(names::PIPELINE_POSITION).set(status.position as f64);
    gauge!(names::PIPELINE_BACKLOG).set(state.backlog(status) as f64);
    counter!(names::REPLAY_MISMATCHES).absolute(status.replay_mismatches);
    // Without open windows nothing lags; a gauge that kept its last value would say otherwise.
    gauge!(names::WINDOW_LAG_SECONDS).set(status.lowest_watermark_ms.map_or(0.0, seconds_since));
    if let Some(newest) = status.newest_event_ms {
        gauge!(names::EVENT_TIME_LAG_SECONDS).set(seconds_since(newest));
    }
    if let Some(recovered) = state.resources.process.recovered() {
        gauge!(names::RECOVERY_SECONDS).set(recovered.seconds);
        gauge!(names::RECOVERY_RECORDS).set(recovered.records as f64);
    }
}

fn checkpoints(state: &ApiShared, status: &PipelineStatus) {
    counter!(names::CHECKPOINT_FAILURES).absolute(status.checkpoint_failures);
    if let Some(checkpoint) = &status.checkpoint {
        gauge!(names::CHECKPOINT_BYTES).set(checkpoint.bytes as f64);
        gauge!(names::CHECKPOINT_AGE_SECONDS).set(state.checkpoint_age_seconds(checkpoint));
    }
}
