//! One decoded result, and its JSON for all who send it.

use std::cell::OnceCell;

use bytes::Bytes;

use crate::core::output::{ErrorEntry, ErrorReader, InvalidOutput, WindowResult};
use crate::core::reason::Reason;
use crate::log::Batch;

/// Bytes that are reserved for the JSON of a result; most windows fit.
const JSON_BYTES: usize = 512;

/// Which output log a result belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultKind {
    /// A firing of a window.
    Window,
    /// An entry of the errors log.
    Error,
}

impl ResultKind {
    /// Name of the log in log lines.
    pub fn log_name(self) -> &'static str {
        match self {
            ResultKind::Window => "windows",
            ResultKind::Error => "errors",
        }
    }

    /// Reads the results of a batch in order, each with its sequence number. An error may refer to another one of its batch, so
    /// that a batch is read from its beginning.
    pub fn decode(self, batch: &Batch) -> impl Iterator<Item = (u64, Result<DecodedResult<'_>, InvalidOutput>)> {
        let mut errors = ErrorReader::default();
        (batch.first().0..).zip(batch.records()).map(move |(seq, bytes)| {
            let result = match self {
                ResultKind::Window => WindowResult::decode(bytes).map(DecodedResult::Window),
                ResultKind::Error => errors.read(seq, bytes).map(DecodedResult::Error),
            };
            (seq, result)
        })
    }
}

/// A result of either log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DecodedResult<'a> {
    /// A firing of a window.
    Window(WindowResult<'a>),
    /// An entry of the errors log.
    Error(ErrorEntry<'a>),
}

impl<'a> DecodedResult<'a> {
    /// Which log the result belongs to.
    pub fn kind(&self) -> ResultKind {
        match self {
            DecodedResult::Window(_) => ResultKind::Window,
            DecodedResult::Error(_) => ResultKind::Error,
        }
    }

    /// The time by which queries select, Unix milliseconds: the start of a window, the arrival of an error.
    pub fn time_ms(&self) -> i64 {
        match self {
            DecodedResult::Window(window) => window.window_start_ms,
            DecodedResult::Error(entry) => entry.arrival_ms,
        }
    }

    /// Sequence number of the window firing that this one corrects.
    pub fn supersedes(&self) -> Option<u64> {
        match self {
            DecodedResult::Window(window) => window.supersedes,
            DecodedResult::Error(_) => None,
        }
    }

    /// The device, where it is known.
    pub fn device_id(&self) -> Option<&'a str> {
        match self {
            DecodedResult::Window(window) => Some(window.device_id),
            DecodedResult::Error(entry) => entry.device_id,
        }
    }

    /// The metric, where it is known.
    pub fn metric(&self) -> Option<&'a str> {
        match self {
            DecodedResult::Window(window) => Some(window.metric),
            DecodedResult::Error(entry) => entry.metric,
        }
    }

    /// Whether this is an error, and a reading was rejected for this reason.
    pub fn has_reason(&self, reason: Reason) -> bool {
        match self {
            DecodedResult::Window(_) => false,
            DecodedResult::Error(entry) => entry.has_reason(reason),
        }
    }

    /// Appends the JSON object that the API, MQTT and event streams show. `seq` is the result's sequence number.
    pub fn write_json(&self, seq: u64, out: &mut Vec<u8>) {
        match self {
            DecodedResult::Window(window) => window.write_json(seq, out),
            DecodedResult::Error(entry) => entry.write_json(seq, out),
        }
    }
}

/// A decoded result with its position in the log. Its JSON is encoded when the first subscriber asks for it, and shared
/// with the others.
#[derive(Debug)]
pub struct ResultRecord<'a> {
    /// Sequence number: the position in the log.
    pub seq: u64,
    /// The result.
    pub result: DecodedResult<'a>,
    json: OnceCell<Bytes>,
}

impl<'a> ResultRecord<'a> {
    /// The result at position `seq`.
    pub fn new(seq: u64, result: DecodedResult<'a>) -> Self {
        Self { seq, result, json: OnceCell::new() }
    }

    /// The JSON object that the API, MQTT and event streams show.
    pub fn json(&self) -> Bytes {
        let encode = || {
            let mut json = Vec::with_capacity(JSON_BYTES);
            self.result.write_json(self.seq, &mut json);
            // Results wait in queues that are bounded by their length: no spare capacity waits with them.
            Bytes::from(json.into_boxed_slice())
        };
        self.json.get_or_init(encode).clone()
    }
}
