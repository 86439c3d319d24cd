//! The sentence of an error, which may have parts in common with the sentence of the error that its entry refers to.

use std::fmt;

use serde::{Serialize, Serializer};

/// A sentence of the errors log: three parts that follow one another.
///
/// Errors of one message often say the same about different values. Their entries store only the part of the sentence
/// that is not as in the first error of the message: `middle`. A sentence that shares nothing has `middle` alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sentence<'a> {
    /// The beginning that the first sentence has too.
    pub head: &'a str,
    /// The part of this sentence alone.
    pub middle: &'a str,
    /// The end that the first sentence has too.
    pub tail: &'a str,
}

impl<'a> Sentence<'a> {
    /// `text`, divided into the beginning and the end that `first` has too and the part in between.
    pub fn divided(text: &'a str, first: &str) -> Self {
        let equal = |pairs: &mut dyn Iterator<Item = (char, char)>| -> usize {
            pairs.take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
        };
        let (head, rest) = text.split_at(equal(&mut text.chars().zip(first.chars())));
        let rest_of_first = first.get(head.len()..).unwrap_or_default();
        let tail = equal(&mut rest.chars().rev().zip(rest_of_first.chars().rev()));
        let (middle, tail) = rest.split_at(rest.len() - tail);
        Self { head, middle, tail }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.head.len() + self.middle.len() + self.tail.len()
    }

    /// Whether there is no sentence.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The parts in order.
    pub fn parts(&self) -> [&'a str; 3] {
        [self.head, self.middle, self.tail]
    }
}

impl<'a> From<&'a str> for Sentence<'a> {
    fn from(text: &'a str) -> Self {
        Self { middle: text, ..Self::default() }
    }
}

impl PartialEq for Sentence<'_> {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |sentence: &Self| sentence.parts().map(str::as_bytes).concat();
        self.len() == other.len() && bytes(self) == bytes(other)
    }
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().into_iter().try_for_each(|part| f.write_str(part))
    }
}

impl Serialize for Sentence<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sentences_share_their_beginning_and_their_end() {
        let check = |text: &str, first: &str, parts: [&str; 3]| {
            assert_eq!(Sentence::divided(text, first).parts(), parts);
        };
        check("value 7 is no value", "value 81 is no value", ["value ", "7", " is no value"]);
        check("same", "same", ["same", "", ""]);
        check("aa", "aaa", ["aa", "", ""]);
        check("aaa", "aa", ["aa", "a", ""]);
        check("é1", "è1", ["", "é", "1"]);
        check("other", "", ["", "other", ""]);
    }

    proptest! {
        #[test]
        fn the_parts_are_the_sentence(text in "[aé ]{0,8}", first in "[aé ]{0,8}") {
            let divided = Sentence::divided(&text, &first);
            prop_assert_eq!(divided.to_string(), text.clone());
            prop_assert!(divided == Sentence::from(text.as_str()));
            prop_assert!(first.starts_with(divided.head) && first.ends_with(divided.tail));
            prop_assert!(divided.head.len() + divided.tail.len() <= first.len().max(text.len()));
        }
    }
}
