//! One device of the soak. It resends unacknowledged messages after a lost connection.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use weir::random::Random;
use weir_test_kit::mqtt::{MqttVersion, PUBACK, PUBCOMP, PUBREC, PUBREL, TestClient, acknowledgement, publish_packet};
use weir_test_kit::wait::now_ms;

/// How a device behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoakDeviceKind {
    /// QoS 1 with `seq`.
    Numbered,
    /// QoS 1 without `seq`: weir recognises a redelivery by client and packet identifier.
    Plain,
    /// QoS 2 with `seq`.
    ExactlyOnce,
    /// Long silence, then many readings in few messages.
    Backlog,
    /// Every fifth message is not a valid reading.
    Faulty,
    /// Single messages with long pauses.
    Idle,
}

/// What a device has sent so far.
#[derive(Debug, Clone, Default)]
pub struct SentTotals {
    pub device: String,
    /// Valid readings, and the sum of their values.
    pub readings: u64,
    pub sum: u64,
    /// Valid readings since the round began, and the sum of their values.
    pub round_readings: u64,
    pub round_sum: u64,
    /// Readings without a number and messages that are no JSON.
    pub faulty: u64,
    /// Faulty messages that were resent. weir checks for duplicates last, so a resent message may be rejected twice for
    /// its fault.
    pub faulty_resent: u64,
    /// Event time of the newest reading, Unix milliseconds.
    pub newest_ms: i64,
    /// Event time at which the round began.
    pub round_from_ms: i64,
}

#[derive(Debug)]
struct PendingMessage {
    id: u16,
    payload: String,
    faulty: bool,
}

/// One device.
pub struct SoakDevice {
    pub kind: SoakDeviceKind,
    pub sent: SentTotals,
    /// Messages acknowledged.
    pub acknowledged: u64,
    random: Random,
    pending: VecDeque<PendingMessage>,
    next_id: u16,
    next_seq: u64,
    topic: String,
}

/// How the sending of a burst ended.
pub enum Burst {
    /// Everything pending is acknowledged.
    Acknowledged(TestClient),
    /// The device went away without waiting for acknowledgements.
    Abandoned,
}

impl SoakDevice {
    pub fn new(kind: SoakDeviceKind, index: usize, random: Random) -> Self {
        let device = format!("{kind:?}-{index}").to_lowercase();
        let topic = format!("devices/{device}/telemetry");
        let sent = SentTotals { device, ..SentTotals::default() };
        Self { kind, sent, acknowledged: 0, random, pending: VecDeque::new(), next_id: 1, next_seq: 0, topic }
    }

    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Messages in a burst. At most 32 in flight: weir remembers the last 64 of a client without `seq`.
    fn burst_len(&mut self) -> u64 {
        match self.kind {
            SoakDeviceKind::Idle => 1,
            SoakDeviceKind::Backlog => 2,
            _ => 1 + self.random.below(32),
        }
    }

    /// The pause after a burst of `messages`, for a device that sends `rate` messages per second on average.
    pub fn pause(&mut self, messages: u64, rate: u64) -> Duration {
        match self.kind {
            SoakDeviceKind::Idle => Duration::from_millis(3_000 + self.random.below(12_000)),
            SoakDeviceKind::Backlog => Duration::from_millis(2_000 + self.random.below(10_000)),
            _ => Duration::from_micros(messages * 1_000_000 / rate.max(1)),
        }
    }

    /// Makes new messages; returns how many.
    pub fn make_burst(&mut self) -> u64 {
        let count = self.burst_len();
        for _ in 0..count {
            self.make_message();
        }
        count
    }

    fn make_message(&mut self) {
        // A malformed message does not make a device known, so the first one is good.
        let faulty = self.kind == SoakDeviceKind::Faulty && self.sent.readings > 0 && self.random.below(5) == 0;
        self.sent.faulty += u64::from(faulty);
        let payload = if faulty && self.random.below(2) == 0 {
            format!("{{not json {}", self.random.next_u64())
        } else if faulty {
            let (timestamp, unique) = (self.event_time(), self.random.next_u64());
            format!(r#"{{"metric":"m","value":"text {unique}","timestamp":{timestamp}}}"#)
        } else if self.kind == SoakDeviceKind::Backlog {
            let readings: Vec<String> = (0..1 + self.random.below(100)).map(|_| self.reading()).collect();
            format!("[{}]", readings.join(","))
        } else {
            self.reading()
        };
        self.pending.push_back(PendingMessage { id: self.next_id, payload, faulty });
        self.next_id = self.next_id % 65_535 + 1;
    }

    /// The next event time: at least a millisecond after the last one, and not before the start of the round.
    fn event_time(&mut self) -> i64 {
        self.sent.newest_ms = (self.sent.newest_ms + 1).max(now_ms()).max(self.sent.round_from_ms);
        self.sent.newest_ms
    }

    fn reading(&mut self) -> String {
        let timestamp = self.event_time();
        let value = self.random.below(1_000_000);
        self.sent.readings += 1;
        self.sent.sum += value;
        self.sent.round_readings += 1;
        self.sent.round_sum += value;
        if matches!(self.kind, SoakDeviceKind::Plain | SoakDeviceKind::Faulty) {
            return format!(r#"{{"metric":"m","value":{value},"timestamp":{timestamp}}}"#);
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        format!(r#"{{"metric":"m","value":{value},"timestamp":{timestamp},"seq":{seq}}}"#)
    }

    /// Sends pending messages and waits for their acknowledgements. `again`: they were sent before.
    pub fn send(&mut self, mut client: TestClient, again: bool) -> io::Result<Burst> {
        let qos = if self.kind == SoakDeviceKind::ExactlyOnce { 2 } else { 1 };
        let mut bytes = Vec::new();
        for message in &self.pending {
            bytes.extend(publish_packet(
                MqttVersion::V4,
                &self.topic,
                message.payload.as_bytes(),
                qos,
                again,
                message.id,
            ));
            self.sent.faulty_resent += u64::from(again && message.faulty);
        }
        client.send(&bytes)?;
        if self.random.below(50) == 0 {
            return Ok(Burst::Abandoned);
        }
        let mut completions = 0;
        while !self.pending.is_empty() || completions > 0 {
            let answer = client.read()?;
            match answer.kind {
                PUBACK => self.acknowledged(answer.id()),
                PUBREC => {
                    self.acknowledged(answer.id());
                    client.send(&acknowledgement(PUBREL, answer.id()))?;
                    completions += 1;
                }
                PUBCOMP => completions -= 1,
                other => panic!("{}: packet type {other} instead of an acknowledgement", self.sent.device),
            }
        }
        Ok(Burst::Acknowledged(client))
    }

    fn acknowledged(&mut self, id: u16) {
        let first = self.pending.pop_front().expect("an acknowledgement of something pending");
        self.acknowledged += 1;
        assert_eq!(first.id, id, "{}: acknowledgements come in the order of publishes", self.sent.device);
    }
}
