//! The numbers of the messages of an edge node of Sparkplug B, continued to 64 bits.
//!
//! A node counts the messages of itself and all its devices together, with 8 bits. A number is where the step from the newest one,
//! taken as a signed number of 8 bits, leads to. So a wrap is no new beginning, and a message that is sent again, up to 128 messages
//! later, has the number that it had.

use crate::core::codec::{DecodeError, FieldReader, put_u64};
use crate::defects::{self, Defect};

/// Values of the counter.
const SIZE: u64 = 256;

/// Numbers of the messages of an edge node since its last birth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct NodeSequence {
    /// The first number, and the newest one. `None`: there was no message with a number yet.
    span: Option<(u64, u64)>,
    /// How often numbers were passed over since the node is known.
    pub gaps: u64,
    /// How many numbers were passed over since the node is known. One that comes late is not taken off.
    pub missed: u64,
}

/// What the number of a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FollowedNumber {
    /// The number, continued to 64 bits.
    pub position: u64,
    /// How many numbers before it did not come.
    pub missed: u64,
}

impl NodeSequence {
    /// A birth: the numbers begin anew with that of the birth, which is 0 where it states none.
    pub fn begin(&mut self, seq: Option<u64>) -> u64 {
        let first = seq.unwrap_or(0) % SIZE;
        self.span = Some((first, first));
        first
    }

    /// The number of the birth with which the present numbers began.
    pub fn first(&self) -> Option<u64> {
        self.span.map(|(first, _)| first)
    }

    /// Follows a message. One without a number is the one with 0, if that is due: some encoders leave 0 out. Else it has none.
    pub fn follow(&mut self, seq: Option<u64>) -> Option<FollowedNumber> {
        let is_due = |(_, newest): (u64, u64)| newest % SIZE == SIZE - 1;
        let seq = seq.or_else(|| self.span.filter(|span| is_due(*span)).map(|_| 0))?;
        let Some((first, newest)) = self.span else {
            let position = self.begin(Some(seq));
            return Some(FollowedNumber { position, missed: 0 });
        };
        let ahead = (seq % SIZE).wrapping_sub(newest) % SIZE;
        let behind = (SIZE - ahead) % SIZE;
        if defects::is(Defect::IgnoreNodeWraps) {
            self.span = Some((first, seq % SIZE));
            return Some(FollowedNumber { position: seq % SIZE, missed: 0 });
        }
        // Nothing of these numbers is before the first one.
        if ahead >= SIZE / 2 && newest - first >= behind {
            return Some(FollowedNumber { position: newest - behind, missed: 0 });
        }
        let missed = ahead.saturating_sub(1);
        self.span = Some((first, newest.saturating_add(ahead)));
        self.gaps += u64::from(missed > 0);
        self.missed += missed;
        Some(FollowedNumber { position: newest.saturating_add(ahead), missed })
    }

    /// Appends the stored form.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.push(self.span.is_some().into());
        if let Some((first, newest)) = self.span {
            put_u64(first, out);
            put_u64(newest - first, out);
        }
        put_u64(self.gaps, out);
        put_u64(self.missed, out);
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let span = match reader.u8()? {
            0 => None,
            1 => {
                let first = reader.u64()?;
                Some((first, first.checked_add(reader.u64()?).ok_or("numbers of an edge node")?))
            }
            _ => return Err(DecodeError::Content("numbers of an edge node")),
        };
        Ok(Self { span, gaps: reader.u64()?, missed: reader.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Follows numbers behind a birth with `first`; returns their positions, the gaps, and the numbers that were passed over.
    fn followed(first: u64, seqs: &[Option<u64>]) -> (Vec<Option<u64>>, u64, u64) {
        let mut sequence = NodeSequence::default();
        sequence.begin(Some(first));
        let positions = seqs.iter().map(|seq| sequence.follow(*seq).map(|number| number.position)).collect();
        (positions, sequence.gaps, sequence.missed)
    }

    fn check(first: u64, seqs: &[u64], expected: &[u64], gaps: u64, missed: u64) {
        let seqs: Vec<_> = seqs.iter().copied().map(Some).collect();
        let expected = expected.iter().copied().map(Some).collect();
        assert_eq!(followed(first, &seqs), (expected, gaps, missed), "{first} {seqs:?}");
    }

    #[test]
    fn numbers_go_on_across_the_wrap() {
        check(254, &[255, 0, 1, 255, 2], &[255, 256, 257, 255, 258], 0, 0);
        check(0, &[1, 4, 2, 3, 5], &[1, 4, 2, 3, 5], 1, 2);
        check(0, &[100, 200, 72, 71, 71], &[100, 200, 72, 327, 327], 3, 99 + 99 + 126);
    }

    #[test]
    fn nothing_is_before_the_birth() {
        check(3, &[255, 0], &[255, 256], 1, 251);
        check(10, &[10, 9], &[10, 265], 1, 254);
    }

    #[test]
    fn a_number_that_is_left_out_is_0_where_that_is_due() {
        assert_eq!(
            followed(254, &[None, Some(255), None, None, Some(1)]).0,
            [None, Some(255), Some(256), None, Some(257)]
        );
        assert_eq!(NodeSequence::default().follow(None), None);
        assert_eq!(NodeSequence::default().begin(None), 0);
    }

    #[test]
    fn numbers_at_the_end_are_placed() {
        let mut sequence = NodeSequence { span: Some((5, u64::MAX)), ..NodeSequence::default() };
        let positions = [255, 254, 0, 7].map(|seq| sequence.follow(Some(seq)).unwrap().position);
        assert_eq!(positions, [u64::MAX, u64::MAX - 1, u64::MAX, u64::MAX]);
    }

    #[test]
    fn the_stored_form_reads_back() {
        for span in [None, Some((3, 300)), Some((0, u64::MAX))] {
            let sequence = NodeSequence { span, gaps: 4, missed: 9 };
            let mut bytes = Vec::new();
            sequence.encode(&mut bytes);
            assert_eq!(NodeSequence::decode(&mut FieldReader::new(&bytes)), Ok(sequence));
            for len in 0..bytes.len() {
                assert!(NodeSequence::decode(&mut FieldReader::new(&bytes[..len])).is_err());
            }
        }
    }

    /// What a node does next.
    #[derive(Debug, Clone, Copy)]
    enum NodeStep {
        /// It sends the next message, behind some that are lost.
        Send { lost: u64 },
        /// A message comes again, so many behind the newest one.
        Again { behind: u64 },
        /// It is born anew.
        Birth { first: u64 },
    }

    fn step() -> impl Strategy<Value = NodeStep> {
        prop_oneof![
            12 => Just(NodeStep::Send { lost: 0 }),
            3 => (1_u64..127).prop_map(|lost| NodeStep::Send { lost }),
            6 => (0_u64..=128).prop_map(|behind| NodeStep::Again { behind }),
            1 => (0_u64..256).prop_map(|first| NodeStep::Birth { first }),
        ]
    }

    proptest! {
        /// The node knows its numbers in 64 bits; 8 bits of them are enough to find them again.
        #[test]
        fn eight_bits_are_enough(first in 0_u64..256, steps in proptest::collection::vec(step(), 1..400)) {
            let mut sequence = NodeSequence::default();
            let (mut first, mut newest, mut missed) = (first, first, 0);
            sequence.begin(Some(first));
            for step in steps {
                let number = match step {
                    NodeStep::Birth { first: anew } => {
                        (first, newest) = (anew, anew);
                        prop_assert_eq!(sequence.begin(Some(anew)), anew);
                        continue;
                    }
                    NodeStep::Send { lost } => {
                        newest += 1 + lost;
                        missed += lost;
                        newest
                    }
                    NodeStep::Again { behind } => newest.saturating_sub(behind).max(first),
                };
                let found = sequence.follow(Some(number % 256)).unwrap();
                prop_assert_eq!(found.position, number);
                prop_assert_eq!(sequence.missed, missed);
            }
        }
    }
}
