//! Window results and error entries as the JSON objects that the API, MQTT and files show.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use crate::core::output::{ErrorEntry, WindowResult};

/// A window result. Fields are written in this order.
#[derive(Serialize)]
struct WindowJson<'a> {
    seq: u64,
    device_id: &'a str,
    metric: &'a str,
    window_start: i64,
    window_end: i64,
    revision: u32,
    count: u64,
    sum: f64,
    mean: f64,
    min: f64,
    max: f64,
    first: f64,
    last: f64,
    stddev: f64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    backlog: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    wrong_clock: bool,
}

/// An error entry. Fields are written in this order.
#[derive(Serialize)]
struct ErrorJson<'a> {
    seq: u64,
    journal_position: u64,
    index: u32,
    arrival_time: i64,
    reason: &'static str,
    message: &'a str,
    device_id: Option<&'a str>,
    metric: Option<&'a str>,
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    payload_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_of: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_arrival_time: Option<i64>,
}

impl WindowResult<'_> {
    /// Appends the JSON object of this result. Floats are in the shortest form that reads back to the same value; a float
    /// that is not finite is `null`. `backlog` and `wrong_clock` are there only where they are true.
    pub fn write_json(&self, seq: u64, out: &mut Vec<u8>) {
        let json = WindowJson {
            seq,
            device_id: self.device_id,
            metric: self.metric,
            window_start: self.window_start_ms,
            window_end: self.window_end_ms,
            revision: self.revision,
            count: self.count,
            sum: self.sum,
            mean: self.mean,
            min: self.min,
            max: self.max,
            first: self.first,
            last: self.last,
            stddev: self.stddev,
            backlog: self.flags.backlog,
            wrong_clock: self.flags.wrong_clock,
        };
        write(&json, out);
    }
}

impl ErrorEntry<'_> {
    /// Appends the JSON object of this entry. The payload is `payload` where it is UTF-8, else `payload_base64`;
    /// `device_id` and `metric` are `null` where they are not known; `user` is there unless the client is anonymous,
    /// `replay_of` and `first_arrival_time` where a replay was rejected.
    pub fn write_json(&self, seq: u64, out: &mut Vec<u8>) {
        let text = std::str::from_utf8(self.payload).ok();
        let json = ErrorJson {
            seq,
            journal_position: self.journal_position,
            index: self.index,
            arrival_time: self.arrival_ms,
            reason: self.reason.as_str(),
            message: self.message,
            device_id: self.device_id,
            metric: self.metric,
            client_id: self.client_id,
            user: self.user,
            topic: self.topic,
            payload: text,
            payload_base64: text.is_none().then(|| BASE64.encode(self.payload)),
            payload_bytes: self.payload_bytes,
            replay_of: self.origin.map(|origin| origin.replay_of),
            first_arrival_time: self.origin.map(|origin| origin.first_arrival_ms),
        };
        write(&json, out);
    }
}

/// Writing numbers and strings into a vector cannot fail; were it ever to, nothing would be left in `out`.
fn write(json: &impl Serialize, out: &mut Vec<u8>) {
    let before = out.len();
    if serde_json::to_writer(&mut *out, json).is_err() {
        out.truncate(before);
    }
}
