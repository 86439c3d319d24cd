//! Window results and error entries as the JSON objects that the API, MQTT and files show.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use crate::core::output::{ErrorEntry, FoldedReadings, FoldedRun, Sentence, WindowResult};

/// A window result. Fields are written in this order.
#[derive(Serialize)]
struct WindowJson<'a> {
    seq: u64,
    device_id: &'a str,
    metric: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
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
    message: Sentence<'a>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<bool>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    folded: Option<FoldedJson>,
}

/// The sentence of an entry that stands for several readings and has no room for theirs.
const FOLDED_SENTENCE: &str = "further readings of the message were rejected, see `reasons`; send fewer readings in one message \
                               to have a sentence for each";

/// The readings that an entry stands for, if it stands for several.
#[derive(Serialize)]
struct FoldedJson {
    readings: u64,
    reasons: BTreeMap<&'static str, u64>,
    /// First and last index of each run of readings.
    indexes: Vec<[u32; 2]>,
}

impl FoldedJson {
    fn of(folded: FoldedReadings<'_>) -> Self {
        let mut indexes: Vec<[u32; 2]> = Vec::new();
        for FoldedRun { first, last, .. } in folded.runs() {
            match indexes.last_mut() {
                Some([_, end]) if end.checked_add(1) == Some(first) => *end = last,
                _ => indexes.push([first, last]),
            }
        }
        let reasons = folded.reasons().into_iter().map(|(reason, count)| (reason.as_str(), count)).collect();
        Self { readings: folded.readings(), reasons, indexes }
    }
}

impl WindowResult<'_> {
    /// Appends the JSON object of this result. Floats are in the shortest form that reads back to the same value; a float
    /// that is not finite is `null`. `unit` is there where it is known, `backlog` and `wrong_clock` only where they are true.
    pub fn write_json(&self, seq: u64, out: &mut Vec<u8>) {
        let json = WindowJson {
            seq,
            device_id: self.device_id,
            metric: self.metric,
            unit: self.unit,
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
    /// `replay_of` and `first_arrival_time` where a replay was rejected; `cut` where client, topic or user are; `readings`,
    /// `reasons` and `indexes` where the entry stands for several readings.
    pub fn write_json(&self, seq: u64, out: &mut Vec<u8>) {
        let text = std::str::from_utf8(self.payload).ok();
        let json = ErrorJson {
            seq,
            journal_position: self.journal_position,
            index: self.index,
            arrival_time: self.arrival_ms,
            reason: self.reason.as_str(),
            message: if self.message.is_empty() && self.folded.is_some() {
                FOLDED_SENTENCE.into()
            } else {
                self.message
            },
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
            cut: self.is_cut.then_some(true),
            folded: self.folded.map(FoldedJson::of),
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
