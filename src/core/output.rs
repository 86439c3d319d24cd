//! What leaves the operator: window results and error entries, their stored form and their JSON.

use crate::core::reason::Reason;

/// One firing of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowResult<'a> {
    /// Device id.
    pub device_id: &'a str,
    /// Metric name.
    pub metric: &'a str,
    /// First millisecond of the window, Unix time.
    pub window_start_ms: i64,
    /// First millisecond after the window.
    pub window_end_ms: i64,
    /// 0 for the first firing; one more for each correction.
    pub revision: u32,
    /// Sequence number of the firing that this one corrects; `None` for revision 0.
    pub supersedes: Option<u64>,
    /// Number of readings.
    pub count: u64,
    /// Neumaier-compensated sum.
    pub sum: f64,
    /// Mean.
    pub mean: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Value with the oldest event time; the first in the journal among equals.
    pub first: f64,
    /// Value with the newest event time; the last in the journal among equals.
    pub last: f64,
    /// Population standard deviation.
    pub stddev: f64,
}

impl<'a> WindowResult<'a> {
    /// Appends the stored form.
    pub fn encode(&self, _out: &mut Vec<u8>) {
        todo!()
    }
    /// Reads the stored form.
    pub fn decode(_bytes: &'a [u8]) -> Result<Self, InvalidOutput> {
        todo!()
    }
    /// Appends the JSON object that the API, MQTT and files show.
    pub fn write_json(&self, _seq: u64, _out: &mut Vec<u8>) {
        todo!()
    }
}

/// One entry of the error log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorEntry<'a> {
    /// Position of the publish in the journal.
    pub journal_position: u64,
    /// Index of the reading in its message.
    pub index: u32,
    /// Arrival time, Unix milliseconds.
    pub arrival_ms: i64,
    /// Why.
    pub reason: Reason,
    /// A sentence that a person can act on.
    pub message: &'a str,
    /// Device, where it is known.
    pub device_id: Option<&'a str>,
    /// Metric, where it is known.
    pub metric: Option<&'a str>,
    /// MQTT client that published it.
    pub client_id: &'a str,
    /// Topic it was published on.
    pub topic: &'a str,
    /// The first 4 KiB of the payload.
    pub payload: &'a [u8],
    /// Full length of the payload in bytes.
    pub payload_bytes: u64,
}

impl<'a> ErrorEntry<'a> {
    /// Appends the stored form.
    pub fn encode(&self, _out: &mut Vec<u8>) {
        todo!()
    }
    /// Reads the stored form.
    pub fn decode(_bytes: &'a [u8]) -> Result<Self, InvalidOutput> {
        todo!()
    }
    /// Appends the JSON object that the API, MQTT and files show.
    pub fn write_json(&self, _seq: u64, _out: &mut Vec<u8>) {
        todo!()
    }
}

/// A record of the windows or errors log that no writer of this format produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a stored result of this format: {0}")]
pub struct InvalidOutput(pub &'static str);

/// Takes the operator's effects in order.
pub trait Collector {
    /// A window fired. `seq` grows by one per firing.
    fn window(&mut self, seq: u64, window: &WindowResult<'_>);
    /// A reading was rejected, or a device reported a fault. `seq` grows by one per stored entry.
    fn error(&mut self, seq: u64, entry: &ErrorEntry<'_>);
}
