//! Record of the messages that a device sent, and of their acknowledgements.

use std::ops::RangeInclusive;

use crate::simulator::message::DeviceMessage;

/// One message and its delivery state.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerEntry {
    /// The message.
    pub message: DeviceMessage,
    /// How often the message was handed to a connection.
    pub publishes: u32,
    /// How many of these publishes were acknowledged, by PUBACK or by PUBREC for QoS 2.
    pub acknowledgements: u32,
}

impl LedgerEntry {
    /// Whether the message was acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        self.acknowledgements > 0
    }
}

/// All messages of one device. The index of an entry is the sequence number of its message.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeviceLedger {
    /// Device id.
    pub device_id: String,
    /// The messages in order of sequence number.
    pub entries: Vec<LedgerEntry>,
}

impl DeviceLedger {
    /// An empty ledger.
    pub fn new(device_id: &str) -> Self {
        Self { device_id: device_id.to_owned(), entries: Vec::new() }
    }

    /// Adds a produced message. Messages come in the order of sequence numbers, from 0.
    pub fn produced(&mut self, message: &DeviceMessage) {
        debug_assert_eq!(message.seq, self.entries.len() as u64);
        self.entries.push(LedgerEntry { message: message.clone(), publishes: 0, acknowledgements: 0 });
    }

    /// Counts a publish of the messages `seqs` that was handed to a connection.
    pub fn published(&mut self, seqs: &RangeInclusive<u64>) {
        self.range(seqs).iter_mut().for_each(|entry| entry.publishes += 1);
    }

    /// Counts an acknowledgement of the messages `seqs`.
    pub fn acknowledged(&mut self, seqs: &RangeInclusive<u64>) {
        self.range(seqs).iter_mut().for_each(|entry| entry.acknowledgements += 1);
    }

    /// The entry of the message `seq`.
    pub fn get(&self, seq: u64) -> Option<&LedgerEntry> {
        self.entries.get(usize::try_from(seq).ok()?)
    }

    fn range(&mut self, seqs: &RangeInclusive<u64>) -> &mut [LedgerEntry] {
        self.entries.get_mut(*seqs.start() as usize..=*seqs.end() as usize).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::message::MessageContent;

    #[test]
    fn keeps_count_of_every_message() {
        let mut ledger = DeviceLedger::new("d");
        for seq in 0..4 {
            ledger.produced(&DeviceMessage { seq, event_ms: 0, content: MessageContent::Fault });
        }
        ledger.published(&(0..=2));
        ledger.published(&(2..=2));
        ledger.acknowledged(&(1..=2));
        let fates: Vec<(u32, u32)> = ledger.entries.iter().map(|one| (one.publishes, one.acknowledgements)).collect();
        assert_eq!(fates, [(1, 0), (1, 1), (2, 1), (0, 0)]);
        assert_eq!(ledger.get(3).map(|entry| entry.message.seq), Some(3));
        assert_eq!(ledger.get(4), None);
    }

    #[test]
    fn a_range_that_was_never_produced_changes_nothing() {
        let mut ledger = DeviceLedger::new("d");
        ledger.acknowledged(&(0..=5));
        assert!(ledger.entries.is_empty());
    }
}
