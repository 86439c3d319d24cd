//! Traffic counts since the start, for `$SYS`. The metrics recorder cannot be read back.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::mqtt::session::delivery::WriteOutcome;

/// Traffic counts since the start. They are added to once per read and once per write, not per packet.
#[derive(Debug, Default)]
pub(crate) struct TrafficCounters {
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
    packets_received: AtomicU64,
    packets_sent: AtomicU64,
    publishes_received: AtomicU64,
    publishes_sent: AtomicU64,
    publishes_dropped: AtomicU64,
}

/// Packets and publishes that one connection received since these counts were last taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ReceivedCounts {
    /// Publishes on ingest topics by QoS.
    pub ingest: [u64; 3],
    /// Other publishes by QoS.
    pub other: [u64; 3],
    /// Publishes that neither an ingest topic nor a subscriber takes.
    pub unmatched: u64,
    /// Payload bytes of publishes on ingest topics.
    pub ingest_bytes: u64,
    /// Repeated QoS 2 publishes.
    pub repeated: u64,
    /// Publishes on reserved topics.
    pub refused: u64,
    /// Publishes that the access rules deny.
    pub denied: u64,
    /// Publishes whose payload format indicator says UTF-8 and whose payload is not UTF-8.
    pub misformatted: u64,
    /// Packets of all types.
    pub packets: u64,
    /// Packets that answer the client, other than acknowledgements of publishes.
    pub answers: u64,
}

/// A copy of the counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TrafficCounts {
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub packets_received: u64,
    pub packets_sent: u64,
    pub publishes_received: u64,
    pub publishes_sent: u64,
    /// Messages that subscribers missed because they were too large or had expired.
    pub publishes_dropped: u64,
}

impl TrafficCounters {
    /// Counts bytes that were read.
    pub fn read(&self, bytes: usize) {
        add(&self.bytes_received, bytes as u64);
    }

    /// Counts bytes that were written.
    pub fn sent(&self, bytes: usize) {
        add(&self.bytes_sent, bytes as u64);
    }

    /// Counts PUBACK and PUBREC packets that were written.
    pub fn acknowledged(&self, count: usize) {
        add(&self.packets_sent, count as u64);
    }

    /// Counts the packets of one read.
    pub fn received(&self, received: &ReceivedCounts) {
        add(&self.packets_received, received.packets);
        add(&self.packets_sent, received.answers);
        add(&self.publishes_received, received.ingest.iter().chain(&received.other).sum());
    }

    /// Counts the packets of one delivery.
    pub fn delivered(&self, written: &WriteOutcome) {
        let sent = written.sent.iter().sum();
        add(&self.publishes_sent, sent);
        add(&self.packets_sent, sent);
        add(&self.publishes_dropped, written.too_large + written.expired);
    }

    /// Copies the counts.
    pub fn counts(&self) -> TrafficCounts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TrafficCounts {
            bytes_received: get(&self.bytes_received),
            bytes_sent: get(&self.bytes_sent),
            packets_received: get(&self.packets_received),
            packets_sent: get(&self.packets_sent),
            publishes_received: get(&self.publishes_received),
            publishes_sent: get(&self.publishes_sent),
            publishes_dropped: get(&self.publishes_dropped),
        }
    }
}

fn add(count: &AtomicU64, more: u64) {
    if more > 0 {
        count.fetch_add(more, Ordering::Relaxed);
    }
}
