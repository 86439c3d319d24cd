//! Compares the error log of a device with the messages that the device sent.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{DeviceVerification, ErrorSeen, Expectations, window_start_ms};
use crate::simulator::ledger::{DeviceLedger, LedgerEntry};
use crate::simulator::message::{MessageContent, MessageEncoder};

/// Rejected readings of one device.
#[derive(Debug, Default)]
pub(super) struct RejectedReadings {
    /// Late readings: sequence number of the message, and index of the metric.
    pub late: BTreeSet<(u64, usize)>,
}

/// Checks that each error log entry of a device belongs to a message that was sent, and that each acknowledged fault
/// and each acknowledged malformed message has its entry.
pub(super) fn examine(
    ledger: &DeviceLedger,
    expectations: &Expectations,
    encoder: &MessageEncoder,
    errors: &[ErrorSeen],
    outcome: &mut DeviceVerification,
) -> RejectedReadings {
    let mut examination = Examination {
        ledger,
        expectations,
        unreadable: unreadable(ledger, encoder),
        newest_end_ms: newest_end_ms(ledger, expectations),
        rejections: RejectedReadings::default(),
        entries: BTreeMap::new(),
    };
    for error in errors {
        match examination.entry(error) {
            Ok(()) => outcome.errors += 1,
            Err(why) => {
                outcome.settled = true;
                outcome.differences.push(format!("{}: {why}", ledger.device_id));
            }
        }
    }
    for entry in &ledger.entries {
        if let Some(why) = examination.missing(entry) {
            outcome.differences.push(format!("{}: {why}", ledger.device_id));
        }
    }
    examination.rejections
}

/// Sequence numbers of malformed messages by their payload: such payloads cannot be parsed.
fn unreadable(ledger: &DeviceLedger, encoder: &MessageEncoder) -> BTreeMap<String, u64> {
    let malformed = ledger.entries.iter().filter(|entry| matches!(entry.message.content, MessageContent::Malformed(_)));
    malformed.map(|entry| (encoder.text(&entry.message), entry.message.seq)).collect()
}

/// End of the newest window with a reading of this device.
fn newest_end_ms(ledger: &DeviceLedger, expectations: &Expectations) -> Option<i64> {
    let readings = ledger.entries.iter().filter(|entry| matches!(entry.message.content, MessageContent::Readings(_)));
    readings
        .map(|entry| window_start_ms(entry.message.event_ms, expectations.window_ms))
        .max()
        .map(|start| start.saturating_add(expectations.window_ms))
}

struct Examination<'a> {
    ledger: &'a DeviceLedger,
    expectations: &'a Expectations,
    unreadable: BTreeMap<String, u64>,
    newest_end_ms: Option<i64>,
    rejections: RejectedReadings,
    /// Number of entries for each fault and malformed message, by sequence number.
    entries: BTreeMap<u64, u32>,
}

impl Examination<'_> {
    fn entry(&mut self, error: &ErrorSeen) -> Result<(), String> {
        match error.reason.as_str() {
            // Duplicates are stored only on request. A duplicate that was counted would show in the windows.
            "duplicate" => Ok(()),
            "malformed" | "wrong_type" => {
                let payload = error.payload.as_deref().unwrap_or_default();
                let seq = self.unreadable.get(payload).copied();
                let seq = seq.ok_or_else(|| {
                    format!("the error log has a {} message that was not sent: {payload}", error.reason)
                })?;
                *self.entries.entry(seq).or_default() += 1;
                Ok(())
            }
            "device_error" => {
                let seq = locate(error)?.0;
                let sent = self.ledger.get(seq).filter(|entry| entry.message.content == MessageContent::Fault);
                sent.ok_or_else(|| format!("the error log has a fault with seq {seq} that was not sent"))?;
                *self.entries.entry(seq).or_default() += 1;
                Ok(())
            }
            "late" => self.late(error),
            reason => Err(format!(
                "rejected as {reason} at index {}: {}",
                error.index,
                error.payload.as_deref().unwrap_or("")
            )),
        }
    }

    fn late(&mut self, error: &ErrorSeen) -> Result<(), String> {
        let (seq, metric) = locate(error)?;
        let sent = self.ledger.get(seq).filter(|entry| matches!(entry.message.content, MessageContent::Readings(_)));
        let event_ms = sent.map(|entry| entry.message.event_ms);
        let event_ms = event_ms.ok_or_else(|| format!("late reading with seq {seq} was not sent as a reading"))?;
        let metrics = &self.expectations.options.metrics;
        let index = metrics.iter().position(|name| *name == metric);
        let index = index.ok_or_else(|| format!("late reading with seq {seq} of {metric:?}, which was not sent"))?;
        if !self.rejections.late.insert((seq, index)) {
            return Err(format!("reading with seq {seq} of {metric} is reported as late twice"));
        }
        self.plausible(seq, event_ms)
    }

    /// Checks that a late reading can be late: even with redelivery and idle times, the watermark of a device never
    /// passes the end of its newest window.
    fn plausible(&self, seq: u64, event_ms: i64) -> Result<(), String> {
        let Expectations { window_ms, allowed_lateness_ms, own_watermarks, .. } = self.expectations;
        let closed_at = window_start_ms(event_ms, *window_ms) + window_ms - 1 + allowed_lateness_ms;
        match self.newest_end_ms {
            Some(newest_end_ms) if *own_watermarks && closed_at > newest_end_ms - 1 => Err(format!(
                "reading with seq {seq} is reported as late, but its window is open until the watermark is {closed_at} and \
                 the newest window ends at {newest_end_ms}"
            )),
            _ => Ok(()),
        }
    }

    /// The difference when a fault or malformed message has no entry, or too many.
    fn missing(&self, entry: &LedgerEntry) -> Option<String> {
        let seq = entry.message.seq;
        let kind = match entry.message.content {
            MessageContent::Readings(_) => return None,
            MessageContent::Fault => "fault",
            MessageContent::Malformed(_) => "malformed message",
        };
        let found = self.entries.get(&seq).copied().unwrap_or(0);
        if found == 0 && entry.acknowledged {
            return Some(format!("the error log lacks the acknowledged {kind} with seq {seq}"));
        }
        (found > entry.publishes).then(|| {
            format!("the error log has the {kind} with seq {seq} {found} times; it was sent {} times", entry.publishes)
        })
    }
}

/// Sequence number and metric of the rejected reading. The index of an entry counts the readings of the whole payload.
fn locate(error: &ErrorSeen) -> Result<(u64, String), String> {
    let payload = error.payload.as_deref().unwrap_or_default();
    let unknown = || format!("the error log has a {} entry for what was not sent: {payload}", error.reason);
    let message: Value = serde_json::from_str(payload).map_err(|_| unknown())?;
    let elements = match &message {
        Value::Array(elements) => elements.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut first = 0;
    for element in elements {
        let readings = element.get("metrics").and_then(Value::as_object).map_or(1, serde_json::Map::len);
        if error.index < first + readings {
            let seq = element.get("seq").and_then(Value::as_u64).ok_or_else(unknown)?;
            return Ok((seq, error.metric.clone().unwrap_or_default()));
        }
        first += readings;
    }
    Err(unknown())
}
