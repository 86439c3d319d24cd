//! The body of a batch: records, each preceded by its length as an unsigned LEB128 varint.

/// Bytes that are reserved for the length of a record whose size is not known before it is written.
const RESERVED_LENGTH_BYTES: usize = 2;
/// First length that does not fit into the reserved bytes.
const RESERVED_LENGTH_LIMIT: usize = 1 << 14;

/// Records that are appended together: they stay in order and in one batch.
#[derive(Debug, Default, Clone)]
pub struct Records {
    body: Vec<u8>,
    count: u32,
}

impl Records {
    /// Adds one record whose bytes `write` appends to the buffer. `write` must not change bytes that are in the buffer
    /// already.
    #[inline]
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let length_at = self.body.len();
        self.body.extend_from_slice(&[0; RESERVED_LENGTH_BYTES]);
        let start = self.body.len();
        write(&mut self.body);
        debug_assert!(self.body.len() >= start, "the record's writer cut the buffer");
        let length = self.body.len().saturating_sub(start);
        if length < RESERVED_LENGTH_LIMIT {
            // Two bytes even where one would do: moving the record would cost more than the byte.
            self.body[length_at] = (length & 0x7F) as u8 | 0x80;
            self.body[length_at + 1] = (length >> 7) as u8;
        } else {
            let mut prefix = Vec::new();
            put_length(length, &mut prefix);
            self.body.splice(length_at..start, prefix);
        }
        self.count += 1;
    }

    /// Adds one record.
    #[inline]
    pub fn push(&mut self, record: &[u8]) {
        put_length(record.len(), &mut self.body);
        self.body.extend_from_slice(record);
        self.count += 1;
    }

    /// Number of records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Length of the encoded records in bytes.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Removes all records and keeps the allocation.
    pub fn clear(&mut self) {
        self.body.clear();
        self.count = 0;
    }

    /// The records in order.
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter::new(&self.body)
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = &'a [u8];
    type IntoIter = RecordIter<'a>;
    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

fn put_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Takes a length off the front: a varint of up to five bytes, of minimal width or not.
#[inline]
fn take_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match bytes {
        [low, rest @ ..] if *low < 0x80 => Some((usize::from(*low), rest)),
        [low, high, rest @ ..] if *high < 0x80 => Some((usize::from(low & 0x7F) | usize::from(*high) << 7, rest)),
        _ => take_long_length(bytes),
    }
}

fn take_long_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        length |= u64::from(byte & 0x7F) << (7 * index);
        if *byte < 0x80 {
            let length = u32::try_from(length).ok()?;
            return Some((length as usize, &bytes[index + 1..]));
        }
    }
    None
}

/// The records of a batch in order. The iteration ends at the first record that does not fit the body; in a batch that was
/// read from a log there is none, since the body was checked.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    rest: &'a [u8],
}

impl<'a> RecordIter<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = take_length(self.rest)?;
        let (record, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(record)
    }
}

/// Whether `body` consists of exactly `count` records.
pub(super) fn holds_exactly(body: &[u8], count: u32) -> bool {
    let mut records = RecordIter::new(body);
    let mut found = 0_u64;
    while records.next().is_some() {
        found += 1;
    }
    found == u64::from(count) && records.rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(sizes: &[usize]) {
        let expected: Vec<Vec<u8>> = sizes.iter().map(|size| vec![(*size % 251) as u8; *size]).collect();
        let (mut pushed, mut written) = (Records::default(), Records::default());
        for record in &expected {
            pushed.push(record);
            written.push_with(|out| out.extend_from_slice(record));
        }
        for records in [&pushed, &written] {
            assert_eq!(records.count() as usize, sizes.len());
            assert!(records.iter().eq(expected.iter().map(Vec::as_slice)));
            assert!(holds_exactly(records.body(), records.count()));
            assert!(!holds_exactly(records.body(), records.count() + 1));
        }
    }

    #[test]
    fn lengths_at_the_edges_read_back() {
        check(&[0, 1, 127, 128, 16_383, 16_384, 16_385, 2_097_151, 2_097_152]);
    }

    #[test]
    fn a_record_of_usual_size_costs_two_bytes() {
        let mut records = Records::default();
        records.push_with(|out| out.extend_from_slice(&[1; 110]));
        assert_eq!(records.bytes(), 112);
        records.clear();
        assert!(records.is_empty() && records.bytes() == 0);
    }

    #[test]
    fn bytes_that_are_no_records_end_the_iteration() {
        for body in [&[0x80][..], &[5, 1], &[0xFF; 9], &[0xFF, 0xFF, 0xFF, 0xFF, 0x7F]] {
            assert_eq!(RecordIter::new(body).next(), None, "{body:?}");
            assert!(!holds_exactly(body, 0), "{body:?}");
        }
        assert!(holds_exactly(&[], 0));
    }

    proptest! {
        #[test]
        fn any_records_read_back(sizes in prop::collection::vec(0_usize..40_000, 0..12)) {
            check(&sizes);
        }

        #[test]
        fn any_bytes_are_safe_to_iterate(body: Vec<u8>) {
            prop_assert!(RecordIter::new(&body).count() <= body.len());
        }
    }
}
