//! Compares the error log of a device with the messages that the device sent.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{DeviceVerification, ErrorSeen, Expectations, window_start_ms};
use crate::simulator::ledger::{DeviceLedger, LedgerEntry};
use crate::simulator::message::{MalformedPayload, MessageContent, MessageEncoder};

/// Rejected readings of one device.
#[derive(Debug, Default)]
pub(super) struct RejectedReadings {
    /// How often readings are reported as late: sequence number of the message, and index of the metric.
    pub late: BTreeMap<(u64, usize), u32>,
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
        by_identity: by_identity(ledger, encoder),
        encoder,
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

/// Sequence numbers of messages by what tells them.
type SeqsByIdentity = BTreeMap<Vec<u8>, Vec<u64>>;

/// Messages whose payload alone tells them in the error log: in weir's own form those that cannot be parsed, in the forms of families all.
fn by_identity(ledger: &DeviceLedger, encoder: &MessageEncoder) -> SeqsByIdentity {
    let mut seqs = SeqsByIdentity::new();
    for entry in &ledger.entries {
        if encoder.is_of_family() || matches!(entry.message.content, MessageContent::Malformed(_)) {
            seqs.entry(encoder.identity(&entry.message)).or_default().push(entry.message.seq);
        }
    }
    seqs
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
    encoder: &'a MessageEncoder,
    by_identity: SeqsByIdentity,
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
                let seq = self.told_by_payload(error, |examination, entry| {
                    let found = examination.entries.get(&entry.message.seq).copied().unwrap_or(0);
                    matches!(entry.message.content, MessageContent::Malformed(_)) && found < entry.publishes
                });
                let seq = seq.ok_or_else(|| {
                    format!("the error log has a {} message that was not sent: {}", error.reason, error.shown())
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

    /// The message that the payload of an entry tells: of several, the first that `fits`.
    fn told_by_payload(&self, error: &ErrorSeen, fits: impl Fn(&Self, &LedgerEntry) -> bool) -> Option<u64> {
        let seqs = self.by_identity.get(&self.encoder.identity_of(&error.bytes()))?;
        let fitting = seqs.iter().find(|seq| self.ledger.get(**seq).is_some_and(|entry| fits(self, entry)));
        fitting.or(seqs.first()).copied()
    }

    /// Sequence number and metric of a rejected reading.
    fn locate(&self, error: &ErrorSeen) -> Result<(u64, String), String> {
        if !self.encoder.is_of_family() {
            return locate(error);
        }
        let metric = error.metric.clone().unwrap_or_default();
        let index = self.metric_index(&metric);
        let seq = self.told_by_payload(error, |examination, entry| {
            let late = index.and_then(|index| examination.rejections.late.get(&(entry.message.seq, index)));
            late.is_none_or(|late| *late < entry.acknowledgements.max(1))
        });
        let unknown = || format!("the error log has a {} entry for what was not sent: {}", error.reason, error.shown());
        Ok((seq.ok_or_else(unknown)?, metric))
    }

    /// Index of the fleet's metric that weir shows under this name.
    fn metric_index(&self, shown: &str) -> Option<usize> {
        let options = &self.expectations.options;
        options.metrics.iter().position(|name| options.format.metric(name) == shown)
    }

    fn late(&mut self, error: &ErrorSeen) -> Result<(), String> {
        let (seq, metric) = self.locate(error)?;
        let sent = self.ledger.get(seq).filter(|entry| matches!(entry.message.content, MessageContent::Readings(_)));
        let event_ms = sent.map(|entry| entry.message.event_ms);
        let event_ms = event_ms.ok_or_else(|| format!("late reading with seq {seq} was not sent as a reading"))?;
        let index = self.metric_index(&metric);
        let index = index.ok_or_else(|| format!("late reading with seq {seq} of {metric:?}, which was not sent"))?;
        let times = self.rejections.late.entry((seq, index)).or_default();
        *times += 1;
        let at_most = match self.expectations.options.format.tells_repeats() {
            true => 1,
            false => sent.map_or(0, |entry| entry.publishes),
        };
        if *times > at_most {
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
            // Text in the place of a number is no reading for a map, and no error.
            MessageContent::Malformed(MalformedPayload::WrongType) if self.encoder.is_of_family() => return None,
            MessageContent::Fault => "fault",
            MessageContent::Malformed(_) => "malformed message",
        };
        let found = self.entries.get(&seq).copied().unwrap_or(0);
        if found == 0 && entry.is_acknowledged() {
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
