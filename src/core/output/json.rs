//! Results and errors as the JSON objects that the API, MQTT and files show.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::core::output::{ErrorEntry, WindowResult};

impl WindowResult<'_> {
    /// Appends the JSON object that the API, MQTT and files show. Floats are in the shortest form that reads back to
    /// the same value; what is not finite is `null`.
    pub fn write_json(&self, seq: u64, out: &mut Vec<u8>) {
        let mut object = JsonObject::new(out);
        object.integer("seq", seq);
        object.string("device_id", self.device_id);
        object.string("metric", self.metric);
        object.integer("window_start", self.window_start_ms);
        object.integer("window_end", self.window_end_ms);
        object.integer("revision", self.revision);
        object.integer("count", self.count);
        object.float("sum", self.sum);
        object.float("mean", self.mean);
        object.float("min", self.min);
        object.float("max", self.max);
        object.float("first", self.first);
        object.float("last", self.last);
        object.float("stddev", self.stddev);
        object.end();
    }
}

impl ErrorEntry<'_> {
    /// Appends the JSON object that the API, MQTT and files show. The payload is `payload` where it is UTF-8, else
    /// `payload_base64`; `device_id` and `metric` are `null` where they are not known; `replay_of` and
    /// `first_arrival_time` are there where a replay was rejected.
    pub fn write_json(&self, seq: u64, out: &mut Vec<u8>) {
        let mut object = JsonObject::new(out);
        object.integer("seq", seq);
        object.integer("journal_position", self.journal_position);
        object.integer("index", self.index);
        object.integer("arrival_time", self.arrival_ms);
        object.string("reason", self.reason.as_str());
        object.string("message", self.message);
        object.optional_string("device_id", self.device_id);
        object.optional_string("metric", self.metric);
        object.string("client_id", self.client_id);
        object.string("topic", self.topic);
        match std::str::from_utf8(self.payload) {
            Ok(text) => object.string("payload", text),
            Err(_) => object.string("payload_base64", &BASE64.encode(self.payload)),
        }
        object.integer("payload_bytes", self.payload_bytes);
        if let Some(origin) = self.origin {
            object.integer("replay_of", origin.replay_of);
            object.integer("first_arrival_time", origin.first_arrival_ms);
        }
        object.end();
    }
}

/// Writes a JSON object field by field.
struct JsonObject<'o> {
    out: &'o mut Vec<u8>,
    next: u8,
}

impl<'o> JsonObject<'o> {
    fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out, next: b'{' }
    }

    fn key(&mut self, key: &str) {
        self.out.extend_from_slice(&[self.next, b'"']);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.next = b',';
    }

    fn value(&mut self, value: &impl serde::Serialize) {
        // Writing numbers and strings into a vector cannot fail; were it ever to, the field would be `null`.
        let before = self.out.len();
        if serde_json::to_writer(&mut *self.out, value).is_err() {
            self.out.truncate(before);
            self.out.extend_from_slice(b"null");
        }
    }

    fn integer(&mut self, key: &str, integer: impl serde::Serialize) {
        self.key(key);
        self.value(&integer);
    }

    fn float(&mut self, key: &str, float: f64) {
        self.key(key);
        self.value(&float);
    }

    fn string(&mut self, key: &str, string: &str) {
        self.key(key);
        self.value(&string);
    }

    fn optional_string(&mut self, key: &str, string: Option<&str>) {
        self.key(key);
        self.value(&string);
    }

    fn end(self) {
        self.out.push(b'}');
    }
}
