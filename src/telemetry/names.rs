//! All metrics: names, types and help texts. docs/metrics.md lists the same; a test compares.
//!
//! Names and labels are part of weir's interface. What a metric counts is decided where it is recorded.

/// Type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A value that only grows. The name ends in `_total`.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// A distribution, in buckets.
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Name of the metric in Prometheus.
    pub name: &'static str,
    /// Type of the metric.
    pub kind: MetricKind,
    /// Help text of the metric, with its labels.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident $kind:ident $name:literal $help:literal;)*) => {
        $(#[doc = $help] pub const $id: &str = $name;)*
        /// All metrics in the order of docs/metrics.md.
        pub const ALL: &[Metric] = &[$(Metric { name: $name, kind: MetricKind::$kind, help: $help }),*];
    };
}

metrics! {
    BUILD_INFO Gauge "weir_build_info" "Always 1; labels: version, node.";
    START_TIME Gauge "weir_start_time_seconds" "Unix time at which the process started.";
    READY Gauge "weir_ready" "1 when /readyz answers 200.";
    STALLS Counter "weir_process_stalls_total" "Times that the process stood still for more than a second: it was stopped, its machine was paused, or its threads were not scheduled.";
    STALL_SECONDS Counter "weir_process_stall_seconds_total" "Time that the process stood still.";
    CLOCK_JUMPS Counter "weir_clock_jumps_total" "Times that the wall clock was found more than an hour ahead of where it should be, at a start or later.";
    CLOCK_STEPS Counter "weir_clock_steps_total" "Steps of the wall clock of more than a second, and starts that found it behind the journal by more than node.clock_tolerance; label direction (forward, back).";
    CLOCK_SYNCHRONIZED Gauge "weir_clock_synchronized" "1 while the kernel says that its clock is synchronised, 0 while it says that it is not; absent where it does not tell, as in a container without the right to ask.";
    CLOCK_HOLD_SECONDS Gauge "weir_clock_hold_seconds" "How long nothing is deleted by age from now on, because the wall clock jumped forward.";
    CLOCK_JOURNAL_AHEAD_SECONDS Gauge "weir_clock_journal_ahead_seconds" "How far the newest arrival time of the journal is ahead of the wall clock: up to node.clock_tolerance the time in the journal stands still so long.";

    MQTT_CONNECTIONS Gauge "weir_mqtt_connections" "Open MQTT connections.";
    MQTT_CONNECTIONS_OPENED Counter "weir_mqtt_connections_opened_total" "MQTT connections accepted; label version (3.1.1, 5.0).";
    MQTT_CONNECTIONS_REFUSED Counter "weir_mqtt_connections_refused_total" "Connections refused before or at CONNECT; label reason.";
    MQTT_CONNECTIONS_CLOSED Counter "weir_mqtt_connections_closed_total" "Accepted connections that ended; label reason.";
    MQTT_PUBLISHES_RECEIVED Counter "weir_mqtt_publishes_received_total" "PUBLISH packets received; labels qos, kind (ingest, other).";
    MQTT_PUBLISHES_REFUSED Counter "weir_mqtt_publishes_refused_total" "PUBLISH packets refused; label reason.";
    MQTT_PUBLISHES_UNMATCHED Counter "weir_mqtt_publishes_unmatched_total" "PUBLISH packets on topics that are no ingest topics and have no subscriber.";
    MQTT_UNMATCHED_TOPICS Gauge "weir_mqtt_unmatched_topics" "Topics in /api/v1/topics: they are no ingest topics. At most 1000 are kept.";
    MQTT_UNMATCHED_TOPICS_REPLACED Counter "weir_mqtt_unmatched_topics_replaced_total" "Topics that left /api/v1/topics because there were too many.";
    MQTT_SUBSCRIPTIONS_DENIED Counter "weir_mqtt_subscriptions_denied_total" "Subscriptions that the access rules denied, or ended after a reload; label when.";
    MQTT_PUBLISH_BYTES Counter "weir_mqtt_publish_payload_bytes_total" "Payload bytes of received ingest publishes.";
    MQTT_PUBLISHES_REPEATED Counter "weir_mqtt_publishes_repeated_total" "QoS 2 publishes received again while their packet id was in use; they are acknowledged and not processed again.";
    MQTT_ACK_SECONDS Histogram "weir_mqtt_ack_seconds" "Time from reading a PUBLISH of QoS 1 or 2 to writing its acknowledgement; one observation per connection and commit (its oldest publish).";
    MQTT_BACKPRESSURE_SECONDS Counter "weir_mqtt_backpressure_seconds_total" "Time during which sockets were not read because the journal had no room.";
    MQTT_SESSIONS Gauge "weir_mqtt_sessions" "Sessions, connected or not.";
    MQTT_SUBSCRIPTIONS Gauge "weir_mqtt_subscriptions" "Subscriptions of all sessions.";
    MQTT_RETAINED Gauge "weir_mqtt_retained_messages" "Retained messages.";
    MQTT_QUEUED Gauge "weir_mqtt_queued_messages" "Messages waiting for subscribers.";
    MQTT_QUEUED_BYTES Gauge "weir_mqtt_queued_bytes" "Bytes of messages waiting for subscribers.";
    MQTT_SESSION_BYTES Gauge "weir_mqtt_session_bytes" "Memory of messages that wait for subscribers or are not acknowledged by them, bounded by mqtt.max_queued_bytes_total.";
    MQTT_DELIVERED Counter "weir_mqtt_messages_delivered_total" "PUBLISH packets sent to subscribers; label qos.";
    MQTT_DROPPED Counter "weir_mqtt_messages_dropped_total" "Messages that a subscriber missed; label reason.";
    MQTT_RETAINED_MOVED_ASIDE Counter "weir_mqtt_retained_moved_aside_total" "Damaged stores of retained messages moved aside at start.";
    MQTT_RETAINED_FAILURES Counter "weir_mqtt_retained_failures_total" "Failed writes of retained messages to disk, and failed attempts to open their store again.";
    MQTT_RETAINED_REOPENED Counter "weir_mqtt_retained_reopened_total" "Times that the store of retained messages was opened again after a failure.";
    MQTT_RETAINED_UNSTORED Gauge "weir_mqtt_retained_unstored" "Retained messages whose changes are not on disk yet; all of them from a failure of their store until they are written anew.";
    MQTT_RETAINED_UNSTORED_SECONDS Gauge "weir_mqtt_retained_unstored_age_seconds" "Time since the oldest change of a retained message that is not on disk; 0 where all are.";
    MQTT_WILLS Gauge "weir_mqtt_wills" "Stored wills: of connected clients, waiting for their delay, or published a moment ago.";
    MQTT_SESSIONS_UNSTORED Gauge "weir_mqtt_sessions_unstored" "Sessions and wills that changed and are not on disk yet; a crash forgets these changes. All of them from a failure of their store until they are written anew.";
    MQTT_SESSIONS_UNSTORED_SECONDS Gauge "weir_mqtt_sessions_unstored_age_seconds" "Time since the oldest change of a session or will that is not on disk; 0 where all are.";
    MQTT_SESSIONS_MOVED_ASIDE Counter "weir_mqtt_sessions_moved_aside_total" "Damaged stores of sessions moved aside at start.";
    MQTT_SESSIONS_FAILURES Counter "weir_mqtt_sessions_failures_total" "Failed writes of sessions and wills to disk, and failed attempts to open their store again.";
    MQTT_SESSIONS_REOPENED Counter "weir_mqtt_sessions_reopened_total" "Times that the store of sessions was opened again after a failure.";

    MQTT_THROTTLED Counter "weir_mqtt_throttled_total" "Times that a socket was not read for a while because its client sent faster than it may; label limit (messages, bytes, user).";
    MQTT_OVER_QUOTA Counter "weir_mqtt_over_quota_total" "Times that a quota of a user or tenant was reached and something was refused, or a session of the user ended; label quota.";
    MQTT_PUSHED_OUT Counter "weir_mqtt_pushed_out_total" "Times that the user with most lost something at a bound of all users, because another user needed the room; label what (connection, session, retained_message).";

    MQTT_PASSWORDS_CHECKED Counter "weir_mqtt_passwords_checked_total" "Passwords of MQTT clients checked; label how (argon2, generated, remembered: the same was checked before).";
    MQTT_PASSWORDS_WAITING Gauge "weir_mqtt_passwords_waiting" "Passwords that wait for Argon2.";
    MQTT_REFUSALS_DELAYED Gauge "weir_mqtt_refusals_delayed" "Refused MQTT clients whose answer is being delayed.";
    MQTT_FAILING_ADDRESSES Gauge "weir_mqtt_failing_addresses" "Addresses with failed MQTT logins within the last five minutes.";

    CONFIG_RELOAD_SUCCESSFUL Gauge "weir_config_last_reload_successful" "0 if the last reload (SIGHUP) found a fault and changed nothing, else 1.";
    CONFIG_RELOAD_SUCCESS_TIMESTAMP Gauge "weir_config_last_reload_success_timestamp_seconds" "Unix time of the last reload that took effect.";
    CONFIG_RESTART_REQUIRED Gauge "weir_config_restart_required_keys" "Keys of the configuration whose values were changed and need a restart.";

    AUDIT_SUPPRESSED Counter "weir_audit_suppressed_total" "Audit events that came too fast to be logged; label event.";

    TLS_EXPIRY Gauge "weir_tls_certificate_expiry_timestamp_seconds" "Unix time at which the certificate in use (or one of its chain) expires; label listener (mqtt, http).";
    TLS_RELOAD_FAILED Gauge "weir_tls_certificate_reload_failed" "1 while the certificate files cannot be loaded and the certificate loaded before stays in use; label listener.";
    TLS_RELOADS Counter "weir_tls_certificate_reloads_total" "Certificates read again; labels listener, result (loaded, failed).";
    TLS_CRL_NEXT_UPDATE Gauge "weir_tls_crl_next_update_timestamp_seconds" "Unix time at which the first revocation list of client certificates is due to be replaced, +Inf without lists; label listener.";
    TLS_CRL_REVOKED Gauge "weir_tls_crl_revoked_certificates" "Client certificates that the revocation lists in use revoke; label listener.";
    TLS_HANDSHAKES Counter "weir_tls_handshakes_total" "TLS handshakes; labels listener, result (ok, failed, timeout, too_many).";

    LOG_APPENDED Counter "weir_log_records_total" "Records written; label log.";
    LOG_BATCHES Counter "weir_log_batches_total" "Batches written; label log.";
    LOG_WRITTEN_BYTES Counter "weir_log_written_bytes_total" "Bytes written; label log.";
    LOG_SYNC_SECONDS Histogram "weir_log_sync_seconds" "Duration of fdatasync; label log.";
    LOG_DISK_BYTES Gauge "weir_log_disk_bytes" "Bytes of all segments; label log.";
    LOG_SEGMENTS Gauge "weir_log_segments" "Segment files; label log.";
    LOG_QUEUE_BYTES Gauge "weir_log_queue_bytes" "Bytes waiting for the writer; label log.";
    LOG_TORN_BYTES Counter "weir_log_torn_bytes_total" "Bytes of torn tails cut at recovery; label log.";
    LOG_OLDEST_APPEND_SECONDS Gauge "weir_log_oldest_append_seconds" "How long the oldest append has waited that is not written, or in the journal not synced; label log.";
    LOG_DISK_FULL Gauge "weir_log_disk_full" "1 while appends are refused because the disk is nearly full; label log.";
    DISK_AVAILABLE_BYTES Gauge "weir_disk_available_bytes" "Bytes available on the file system of the data directory.";
    DISK_OLDEST_CALL_SECONDS Gauge "weir_disk_oldest_call_seconds" "How long the oldest write, sync or other changing call of the file system has taken that has not returned; label directory.";
    DISK_HANGS Counter "weir_disk_hangs_total" "Calls of the file system that took longer than a second and were logged; label directory.";

    MESSAGES Counter "weir_messages_total" "Messages processed by the pipeline since the journal began.";
    READINGS_RECEIVED Counter "weir_readings_received_total" "Readings decoded or rejected since the journal began.";
    READINGS_ACCEPTED Counter "weir_readings_accepted_total" "Readings counted in a window since the journal began.";
    MAP_MESSAGES Counter "weir_map_messages_total" "Messages that maps took since the journal began; labels map, outcome (readings, status, ignored, malformed). Those on ignored topics count since the start.";
    MAP_VALUES_IGNORED Counter "weir_map_values_ignored_total" "Values that maps left out on purpose since the journal began; labels map, reason.";
    SPARKPLUG_NODES Gauge "weir_sparkplug_nodes" "Edge nodes of Sparkplug B that are remembered. At 4096 one that is offline makes room for another.";
    SPARKPLUG_DEVICES Gauge "weir_sparkplug_devices" "Devices of edge nodes that were born, the nodes included. At 65536 of all, or 1024 of a node, one of the node that is offline makes room for another.";
    SPARKPLUG_METRICS Gauge "weir_sparkplug_metrics" "Metrics that births of edge nodes define. Beyond 262144 of all, 16384 of a node, or limits.metrics_per_device of a device, a birth is told as malformed and its further metrics are not remembered.";
    SPARKPLUG_GAPS Counter "weir_sparkplug_sequence_gaps_total" "Times that messages of an edge node were missing, since the journal began.";
    SPARKPLUG_MISSED Counter "weir_sparkplug_messages_missed_total" "Messages of edge nodes that were missing, by their numbers, since the journal began.";
    SPARKPLUG_REBIRTHS Counter "weir_sparkplug_rebirth_requests_total" "Times that an edge node was asked for its births, since the journal began.";
    READINGS_REJECTED Counter "weir_readings_rejected_total" "Readings rejected since the journal began; label reason.";
    VALUES_ABSENT Counter "weir_values_absent_total" "Values that devices said are absent (null, NaN, \"unavailable\") since the journal began: no readings, and no errors.";
    READINGS_ARRIVAL_TIME Counter "weir_readings_arrival_time_total" "Readings counted in a window whose event time is the arrival, since the journal began.";
    TOPICS_CLEARED Counter "weir_topics_cleared_total" "Empty messages with RETAIN on ingest topics since the journal began: they clear their topic, and are no readings.";
    READINGS_UNACCOUNTED Gauge "weir_readings_unaccounted" "Readings received minus accepted minus rejected: 0 unless weir has a defect.";
    WINDOWS_EMITTED Counter "weir_windows_emitted_total" "Window firings since the journal began; label kind (first, correction).";
    WINDOWS_OPEN Gauge "weir_windows_open" "Windows that have not fired.";
    WINDOWS_HELD Gauge "weir_windows_held" "Windows in memory, fired ones included.";
    WINDOWS_BACKLOG Counter "weir_backlog_windows_fired_total" "First firings of windows that a backlog filled, since the journal began.";
    BACKLOG_WINDOWS_FORCED Counter "weir_backlog_windows_forced_total" "Windows of backlogs that fired early because a bound on their number was reached, since the journal began.";
    BACKLOG_WINDOWS Gauge "weir_backlog_windows" "Windows held for backlogs.";
    BACKLOG_DEVICES Gauge "weir_backlog_devices" "Devices with a backlog that has not ended.";
    FIRED_RUNS_MERGED Counter "weir_fired_runs_merged_total" "Gaps between fired windows that count as fired because their series had too many gaps, since the journal began.";
    WINDOW_LAG_SECONDS Gauge "weir_window_lag_seconds" "Wall clock minus the lowest watermark of devices with open windows.";
    EVENT_TIME_LAG_SECONDS Gauge "weir_event_time_lag_seconds" "Wall clock minus the newest event time accepted.";
    DEVICES Gauge "weir_devices" "Devices in the state.";
    KNOWN_TOPICS Gauge "weir_known_topics" "Topics beside those of weir's own form of which weir remembers which map takes them, if any. At 65536 all are forgotten, and those in use come back.";
    DISCOVERED_TOPICS Gauge "weir_discovered_topics" "Topics whose units and names discovery messages said. At most 4096 are kept.";
    DISCOVERED_TOPICS_REPLACED Counter "weir_discovered_topics_replaced_total" "Topics of discovery messages that were forgotten because there were too many, since the journal began. Units that devices have stay.";
    DEVICES_OFFLINE Gauge "weir_devices_offline" "Devices in the state that said that they are offline, by the status topics of maps.";
    DEVICES_LIMIT Gauge "weir_devices_limit" "Configured limits.devices.";
    DEVICES_EXPIRED Counter "weir_devices_expired_total" "Devices forgotten after state.device_ttl since the journal began.";
    DEVICES_FORGOTTEN Counter "weir_devices_forgotten_total" "Devices forgotten because an operator asked for it, since the journal began.";
    SERIES Gauge "weir_series" "(device, metric) pairs in the state.";
    SEQUENCE_RESTARTS Counter "weir_sequence_restarts_total" "Restarts of devices that their sequence numbers or boot showed, since the journal began.";
    SEQUENCE_WRAPS Counter "weir_sequence_wraps_total" "Times that a device's counter of 8, 16 or 32 bits began again at 0, since the journal began.";
    SEQUENCE_INVALID Counter "weir_sequence_invalid_total" "Objects whose seq is no number, since the journal began. Their readings count as readings without seq.";
    SEQUENCE_DIGESTS_EXTRA Gauge "weir_sequence_digests_extra" "Digests that devices remember beyond twelve each. At 1048576 no device gets more.";
    SEQUENCE_RANGES_MERGED Counter "weir_sequence_ranges_merged_total" "Merges of sequence ranges beyond 256 per device since the journal began.";
    WINDOW_SIZES_DROPPED Counter "weir_window_sizes_dropped_total" "Window sizes of earlier settings that a device dropped before their time, because it had eight others, since the journal began.";
    RETAINED_REPEATS Counter "weir_retained_repeats_total" "Messages that repeated what was retained on their topic soon after a CONNECT, and are no readings, since the journal began.";
    RETAINED_TOPICS_FORGOTTEN Counter "weir_retained_topics_forgotten_total" "Topics beyond 64 of one device whose retained message was forgotten since the journal began: the next repetition counts as readings.";
    ERRORS_NOT_STORED Counter "weir_errors_not_stored_total" "Errors that were counted and not stored, because their device had filled its share of the error log, since the journal began.";
    ERROR_REPLAYS Counter "weir_error_replays_total" "Stored errors processed again since the journal began.";
    ERROR_REPLAYS_IGNORED Counter "weir_error_replays_ignored_total" "Journal records that ask for a second replay of an error, and are ignored, since the journal began.";
    ERROR_REPLAY_ELEMENTS_FORGOTTEN Counter "weir_error_replay_elements_forgotten_total" "Objects of which a part was replayed, beyond 4096 since the journal began: a later replay of another part may be taken for a duplicate.";
    ERROR_REPLAY_RANGES_MERGED Counter "weir_error_replay_ranges_merged_total" "Merges of ranges of replayed errors beyond 16384 since the journal began: errors between them cannot be replayed.";
    PIPELINE_POSITION Gauge "weir_pipeline_position" "Journal position of the pipeline.";
    PIPELINE_BACKLOG Gauge "weir_pipeline_backlog_records" "Synced journal records not yet processed.";
    REPLAY_MISMATCHES Counter "weir_replay_mismatches_total" "Replayed results that differ from the output logs: 0 unless weir has a defect.";
    RECOVERY_SECONDS Gauge "weir_recovery_seconds" "Time from the start until the journal records found at the start were processed.";
    RECOVERY_RECORDS Gauge "weir_recovery_replayed_records" "Journal records processed again at start.";

    CHECKPOINTS Counter "weir_checkpoints_total" "Completed checkpoints.";
    CHECKPOINT_FAILURES Counter "weir_checkpoint_failures_total" "Checkpoints that could not be stored.";
    CHECKPOINT_SECONDS Histogram "weir_checkpoint_seconds" "Time from the begin of a checkpoint until it is on disk.";
    CHECKPOINT_STALL_SECONDS Histogram "weir_checkpoint_stall_seconds" "Longest time that a checkpoint held up the pipeline.";
    CHECKPOINT_BYTES Gauge "weir_checkpoint_bytes" "Bytes stored by the last checkpoint.";
    CHECKPOINT_WRITTEN_BYTES Counter "weir_checkpoint_written_bytes_total" "Bytes stored by checkpoints.";
    CHECKPOINT_AGE_SECONDS Gauge "weir_checkpoint_age_seconds" "Time since the last completed checkpoint.";
    STATE_DISK_BYTES Gauge "weir_state_disk_bytes" "Bytes of the state store on disk.";
    SAVEPOINTS Counter "weir_savepoints_total" "Savepoints written.";
    SAVEPOINT_FAILURES Counter "weir_savepoint_failures_total" "Savepoints that could not be written.";
    SAVEPOINT_SECONDS Histogram "weir_savepoint_seconds" "Time to write a savepoint.";
    SAVEPOINT_BYTES Gauge "weir_savepoint_bytes" "Bytes of all savepoints on disk.";
    STATE_MOVED_ASIDE Counter "weir_state_moved_aside_total" "Damaged state stores moved aside at start.";

    SERIES_DROPPED Gauge "weir_series_dropped" "Series left out of /metrics/devices by its cap.";
    HTTP_REQUESTS Counter "weir_http_requests_total" "HTTP requests; labels path (route), status.";
    HTTP_REFUSED Counter "weir_http_refused_total" "HTTP requests that were refused; label reason (missing, repeated, invalid, expired, scope, cross_site, foreign_host).";
    STREAM_CLIENTS Gauge "weir_http_stream_clients" "Open server-sent event streams.";
    STREAM_MISSED Counter "weir_http_stream_missed_total" "Events that slow stream readers missed.";
    PENDING_BYTES Gauge "weir_pending_bytes" "Memory of connections that have not logged in or have not sent a request, as it is counted for limits.pending_bytes.";
    PENDING_EVICTIONS Counter "weir_pending_evictions_total" "Connections that gave way to others at a bound; label reason (bytes, connections, tls_handshakes, http_connections, http_bodies, http_large_answers, delayed_refusals).";
    LIMITS_HIT Counter "weir_limits_hit_total" "Times that a limit was reached and something was refused; label limit.";

    PROCESS_RESIDENT_BYTES Gauge "process_resident_memory_bytes" "Resident memory.";
    PROCESS_CPU_SECONDS Counter "process_cpu_seconds_total" "User and system CPU time.";
    PROCESS_OPEN_FDS Gauge "process_open_fds" "Open file descriptors.";
    PROCESS_MAX_FDS Gauge "process_max_fds" "Limit of open file descriptors.";
    PROCESS_THREADS Gauge "process_threads" "Threads.";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the first table of docs/metrics.md are the metrics, in this order.
    #[test]
    fn the_documentation_lists_every_metric() {
        let text = include_str!("../../docs/metrics.md");
        let table = text.split("## `/metrics/devices`").next().unwrap_or_default();
        let documented: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<String> = ALL
            .iter()
            .map(|metric| {
                format!("| `{}` | {} | {} |", metric.name, format!("{:?}", metric.kind).to_lowercase(), metric.help)
            })
            .collect();
        assert_eq!(documented, expected);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = ALL.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
