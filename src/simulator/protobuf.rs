//! A writer of protocol buffers, for payloads of Sparkplug B. It shares nothing with weir's reader: that must not be checked with its
//! own definitions.

/// Kind of a field that is an integer.
const VARINT: u64 = 0;
/// Kind of a field that has eight bytes.
const FIXED64: u64 = 1;
/// Kind of a field that says its length.
pub(super) const BYTES: u64 = 2;

/// The fields of a protocol buffer, in the order in which they are added.
#[derive(Debug, Default)]
pub struct ProtobufFields(pub Vec<u8>);

impl ProtobufFields {
    /// Adds an integer that is no field of its own: the tag of a field, or a length.
    pub fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    /// Adds an integer.
    pub fn integer(self, number: u64, value: u64) -> Self {
        self.varint(number << 3 | VARINT).varint(value)
    }

    /// Adds a double.
    pub fn double(self, number: u64, value: f64) -> Self {
        let mut fields = self.varint(number << 3 | FIXED64);
        fields.0.extend(value.to_le_bytes());
        fields
    }

    /// Adds bytes, a text, or a message.
    pub fn bytes(self, number: u64, bytes: &[u8]) -> Self {
        let mut fields = self.varint(number << 3 | BYTES).varint(bytes.len() as u64);
        fields.0.extend(bytes);
        fields
    }
}
