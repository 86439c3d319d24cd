//! A line of a file of messages: a message as a device publishes it, and what is expected of it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Opens a file of messages; `-` is the standard input.
///
/// # Errors
/// The file cannot be opened.
pub fn open(file: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    if file == Path::new("-") {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let opened = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    Ok(Box::new(BufReader::new(opened)))
}

/// One line. The members `note` and `source` are for people.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialMessage {
    /// Topic of the message.
    pub topic: String,
    payload: Option<Box<RawValue>>,
    payload_base64: Option<String>,
    /// Readings that the message must give, in any order; `None`: nothing is expected.
    pub expect: Option<Vec<ExpectedReading>>,
    /// What the message must say about the liveness of a device.
    pub status: Option<ExpectedStatus>,
    /// Reasons of errors that the message must give.
    #[serde(default)]
    pub error: Vec<String>,
    /// Keys of the map that have other values for this line.
    #[serde(default)]
    pub options: Map<String, Value>,
    /// The map that takes the message, whether it is on or not.
    pub map: Option<String>,
    #[serde(default, rename = "note")]
    _note: Value,
    #[serde(default, rename = "source")]
    _source: Value,
}

/// A reading that is expected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedReading {
    /// Device id.
    pub device_id: String,
    /// Metric name.
    pub metric: String,
    /// The value.
    pub value: f64,
    /// Event time; `None`: the arrival.
    #[serde(default)]
    pub timestamp_ms: Option<i64>,
    /// Event time from the arrival on.
    #[serde(default)]
    pub relative_ms: i64,
    /// Sequence number.
    #[serde(default)]
    pub seq: Option<u64>,
    /// Unit; `None`: any.
    #[serde(default)]
    pub unit: Option<String>,
}

/// The liveness that is expected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedStatus {
    /// Device id.
    pub device_id: String,
    /// Whether the device is online.
    pub online: bool,
}

impl TrialMessage {
    /// Reads a line.
    ///
    /// # Errors
    /// It is not such an object.
    pub fn read(line: &str) -> anyhow::Result<Self> {
        serde_json::from_str(line).context("this is not a message: {\"topic\": …, \"payload\": …}")
    }

    /// The payload: the text of `payload`, other JSON as it stands, or the bytes of `payload_base64`.
    ///
    /// # Errors
    /// There is none, or it is not base64.
    pub fn payload(&self) -> anyhow::Result<Vec<u8>> {
        match (&self.payload, &self.payload_base64) {
            (Some(raw), None) => match serde_json::from_str::<String>(raw.get()) {
                Ok(text) => Ok(text.into_bytes()),
                Err(_) => Ok(raw.get().as_bytes().to_vec()),
            },
            (None, Some(base64)) => BASE64_STANDARD.decode(base64).context("payload_base64 is not base64"),
            _ => bail!("a message has payload or payload_base64"),
        }
    }
}
