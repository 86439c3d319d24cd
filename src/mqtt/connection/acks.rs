//! Acknowledgements that wait for the journal, in the order of their publishes.

use std::collections::VecDeque;
use std::time::Instant;

use crate::log::Lsn;
use crate::mqtt::ProtocolVersion;
use crate::mqtt::wire::frame;

/// Number of acknowledgements for which memory is kept while there are none.
const KEPT_ENTRIES: usize = 1_024;

/// An acknowledgement that is not written yet.
#[derive(Debug, Clone, Copy)]
struct PendingAck {
    packet_id: u16,
    kind: u8,
    reason: u8,
}

/// Acknowledgements of one append. They may be sent once the journal is durable up to `until`.
#[derive(Debug, Clone, Copy)]
struct AckRun {
    until: Lsn,
    count: usize,
    read_at: Instant,
}

/// PUBACKs and PUBRECs in the order of their publishes ([MQTT-4.6.0-2] and similar statements). The acknowledgements of
/// one append share a journal position. Those of publishes that are not journaled wait for the journaled publishes
/// before them. The connection bounds their number: it does not read its socket while there are `max_inflight` or more.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    entries: VecDeque<PendingAck>,
    runs: VecDeque<AckRun>,
    /// Number of `entries`, at the end, that have no journal position yet.
    unsealed: usize,
    /// Number of PUBACKs in `entries`.
    pubacks: usize,
    /// Highest journal position that was passed to [`Acks::seal`].
    last: Lsn,
}

impl Acks {
    /// Adds the acknowledgement of a publish that was just read. [`Acks::seal`] sets the journal position that it waits
    /// for.
    #[inline]
    pub fn push(&mut self, kind: u8, packet_id: u16, reason: u8) {
        self.entries.push_back(PendingAck { packet_id, kind, reason });
        self.unsealed += 1;
        self.pubacks += usize::from(kind == frame::PUBACK);
    }

    /// Changes the reason code of the newest acknowledgement; returns its packet identifier. `None`: there is none without a
    /// journal position.
    pub fn refuse_last(&mut self, reason: u8) -> Option<u16> {
        let newest = self.entries.back_mut().filter(|_| self.unsealed > 0)?;
        newest.reason = reason;
        Some(newest.packet_id)
    }

    /// Sets the journal position for the acknowledgements that were added since the last call. Their publishes end at
    /// `until` in the journal (`None`: none of them was journaled) and were read at `read_at`. Returns the position
    /// that the acknowledgements wait for.
    pub fn seal(&mut self, until: Option<Lsn>, read_at: Instant) -> Lsn {
        if let Some(until) = until {
            self.last = self.last.max(until);
        }
        if self.unsealed > 0 {
            self.runs.push_back(AckRun { until: self.last, count: self.unsealed, read_at });
            self.unsealed = 0;
        }
        self.last
    }

    /// Appends to `out` the acknowledgements whose position `durable` has reached. Returns when the publishes of the
    /// oldest were read; `None` if there is no such acknowledgement.
    pub fn write(&mut self, durable: Lsn, version: ProtocolVersion, out: &mut Vec<u8>) -> Option<Instant> {
        let mut oldest = None;
        let mut count = 0;
        while let Some(run) = self.runs.front()
            && run.until <= durable
        {
            oldest.get_or_insert(run.read_at);
            count += run.count;
            self.runs.pop_front();
        }
        const LONGEST_ACK_BYTES: usize = 5;
        out.reserve(count * LONGEST_ACK_BYTES);
        for ack in self.entries.drain(..count) {
            self.pubacks -= usize::from(ack.kind == frame::PUBACK);
            frame::put_ack(ack.kind, ack.packet_id, ack.reason, version, out);
        }
        // The memory of a burst is given back: otherwise ten thousand idle connections would keep what they once
        // allocated.
        if self.entries.is_empty() {
            self.entries.shrink_to(KEPT_ENTRIES);
        }
        oldest
    }

    /// Number of acknowledgements that are not written yet.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Number of PUBACKs that are not written yet.
    pub fn pubacks(&self) -> usize {
        self.pubacks
    }

    /// Whether some acknowledgements have no journal position yet.
    pub fn has_unsealed(&self) -> bool {
        self.unsealed > 0
    }

    /// Journal position that the oldest acknowledgement with a position waits for; `None` if there is none.
    pub fn waits_for(&self) -> Option<Lsn> {
        self.runs.front().map(|run| run.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(acks: &mut Acks, durable: u64) -> Vec<u8> {
        let mut out = Vec::new();
        acks.write(Lsn(durable), ProtocolVersion::V4, &mut out);
        out.chunks(4).map(|ack| ack[3]).collect()
    }

    #[test]
    fn nothing_leaves_before_it_is_durable_and_order_is_kept() {
        let now = Instant::now();
        let mut acks = Acks::default();
        acks.push(frame::PUBACK, 1, 0);
        acks.push(frame::PUBREC, 2, 0);
        assert_eq!(written(&mut acks, 100), [0_u8; 0], "not yet appended");
        acks.seal(Some(Lsn(10)), now);
        acks.push(frame::PUBACK, 3, 0);
        acks.seal(None, now);
        acks.push(frame::PUBACK, 4, 0);
        acks.seal(Some(Lsn(12)), now);
        assert_eq!(acks.waits_for(), Some(Lsn(10)));
        assert_eq!(written(&mut acks, 9), [0_u8; 0]);
        assert_eq!(written(&mut acks, 11), [1, 2, 3], "one that is not journaled waits for those before it");
        assert_eq!(acks.len(), 1);
        assert_eq!(written(&mut acks, 12), [4]);
        assert_eq!(acks.waits_for(), None);
    }

    #[test]
    fn the_oldest_time_is_reported() {
        let first = Instant::now();
        let second = first + std::time::Duration::from_secs(1);
        let mut acks = Acks::default();
        for at in [first, second] {
            acks.push(frame::PUBACK, 1, 0);
            acks.seal(Some(Lsn(1)), at);
        }
        let mut out = Vec::new();
        assert_eq!(acks.write(Lsn(0), ProtocolVersion::V5, &mut out), None);
        assert_eq!(acks.write(Lsn(1), ProtocolVersion::V5, &mut out), Some(first));
        assert_eq!(out.len(), 8);
    }
}
