//! Finds in the error log what was sent and rejected.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{DeviceVerification, ErrorSeen, Expectations};
use crate::simulator::ledger::{DeviceLedger, LedgerEntry};
use crate::simulator::message::{MessageContent, MessageEncoder};

/// Readings of one device that the error log holds.
#[derive(Debug, Default)]
pub(super) struct RejectedReadings {
    /// (sequence number, index of the metric) of readings reported as late.
    pub late: BTreeSet<(u64, usize)>,
}

/// Goes through the error log of one device: each entry must belong to something that was sent, and each
/// acknowledged fault and malformed message must be there.
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

/// Payloads of malformed messages, which cannot be parsed, by their text.
fn unreadable(ledger: &DeviceLedger, encoder: &MessageEncoder) -> BTreeMap<String, u64> {
    let malformed = ledger.entries.iter().filter(|entry| matches!(entry.message.content, MessageContent::Malformed(_)));
    malformed.map(|entry| (encoder.text(&entry.message), entry.message.seq)).collect()
}

/// End of the newest window that a reading of this device belongs to.
fn newest_end_ms(ledger: &DeviceLedger, expectations: &Expectations) -> Option<i64> {
    let readings = ledger.entries.iter().filter(|entry| matches!(entry.message.content, MessageContent::Readings(_)));
    readings
        .map(|entry| super::windows::start_ms(entry.message.event_ms, expectations.window_ms))
        .max()
        .map(|start| start.saturating_add(expectations.window_ms))
}

struct Examination<'a> {
    ledger: &'a DeviceLedger,
    expectations: &'a Expectations,
    unreadable: BTreeMap<String, u64>,
    newest_end_ms: Option<i64>,
    rejections: RejectedReadings,
    /// Entries for faults and malformed messages, by sequence number.
    entries: BTreeMap<u64, u32>,
}

impl Examination<'_> {
    fn entry(&mut self, error: &ErrorSeen) -> Result<(), String> {
        match error.reason.as_str() {
            // Stored only on request; that a duplicate is not counted shows in the windows.
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

    /// However much was redelivered or idle, a device's watermark never passes the end of its newest window.
    fn plausible(&self, seq: u64, event_ms: i64) -> Result<(), String> {
        let Expectations { window_ms, allowed_lateness_ms, own_watermarks, .. } = self.expectations;
        let closed_at = super::windows::start_ms(event_ms, *window_ms) + window_ms - 1 + allowed_lateness_ms;
        match self.newest_end_ms {
            Some(newest_end_ms) if *own_watermarks && closed_at > newest_end_ms - 1 => Err(format!(
                "reading with seq {seq} is reported as late, but its window is open until the watermark is {closed_at} and \
                 the newest window ends at {newest_end_ms}"
            )),
            _ => Ok(()),
        }
    }

    /// Whether a fault or malformed message lacks its entry, or has too many.
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

/// The sequence number and metric of the reading that an entry is about. An entry's index counts the readings of
/// its whole message.
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
