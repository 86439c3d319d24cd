//! Payloads of readings and errors for the operator.

use weir::core::operator::Operator;
use weir::core::output::{Collector, ErrorEntry, ErrorReader, WindowResult};
use weir::core::record::{self, PublishRecord};
use weir::core::settings::Settings;

/// Checks that results can be shown and stored.
#[derive(Default)]
pub(super) struct Count {
    json: Vec<u8>,
    /// The last entry that is complete.
    first: (u64, Vec<u8>),
}

impl Collector for Count {
    fn window(&mut self, seq: u64, window: &WindowResult<'_>) {
        self.json.clear();
        window.write_json(seq, &mut self.json);
        assert!(std::str::from_utf8(&self.json).is_ok(), "windows are UTF-8");
    }

    fn error(&mut self, seq: u64, entry: &ErrorEntry<'_>) {
        self.json.clear();
        entry.write_json(seq, &mut self.json);
        let text = std::str::from_utf8(&self.json).expect("entries are UTF-8");
        assert!(text.starts_with('{') && text.ends_with('}'), "an entry is an object");
        let mut encoded = Vec::new();
        entry.encode(&mut encoded);
        if entry.follows.is_none() {
            self.first = (seq, encoded.clone());
        }
        let mut errors = ErrorReader::default();
        for (seq, stored) in [(self.first.0, &self.first.1), (seq, &encoded)] {
            assert!(errors.read(seq, stored).is_ok(), "an entry reads back");
        }
    }
}

/// The input is what a device publishes, twice, once as telemetry and once as errors.
pub fn payload(data: &[u8]) {
    let field = Settings { timezone: "Europe/Berlin".into(), ..Settings::default() };
    for settings in [Settings { rules: 0, ..field.clone() }, field] {
        payload_under(settings, data);
    }
}

fn payload_under(settings: Settings, data: &[u8]) {
    const ARRIVAL_MS: i64 = 1_767_225_600_000;
    let mut operator = Operator::new(settings);
    let mut out = Count::default();
    let mut records = Vec::new();
    for (topic, retain) in [("devices/d/telemetry", false), ("devices/d/errors", false), ("devices/d/telemetry", true)]
    {
        records.push(publish(topic, retain, data));
    }
    for (lsn, arrival_ms) in [(0, ARRIVAL_MS), (3, ARRIVAL_MS + 60_000), (6, ARRIVAL_MS + 600_000)] {
        let applied = operator.apply(lsn, arrival_ms, records.iter().map(Vec::as_slice), &mut out);
        applied.expect("records of this format are applied whatever their payload is");
    }
    assert_eq!(operator.totals().unaccounted(), 0, "every reading has one outcome");
}

/// The record of a publish.
pub(super) fn publish(topic: &str, retain: bool, payload: &[u8]) -> Vec<u8> {
    let publish = PublishRecord {
        client_id: "c",
        topic,
        own_device: None,
        user: None,
        packet_id: 1,
        qos: 1,
        dup: false,
        retain,
        repeats_retained: retain,
        payload,
    };
    let mut bytes = Vec::new();
    record::encode_publish(&publish, false, &mut bytes);
    bytes
}
