//! Bare words in the place of a number. They are no JSON, but printers of numbers write them: `NaN` and `Infinity`
//! (Python, JavaScript), `nan`, `-nan`, `inf` and `nan(ind)` (C), `+Inf` (Go), `1.#QNAN` (older C libraries on Windows),
//! `ovf` (Arduino), `None` and `undefined` (text put together by hand).

use super::{JsonScanner, JsonToken};

/// Bare words, in lower case, without a sign.
const BARE_WORDS: [&str; 7] = ["nan", "inf", "infinity", "ovf", "none", "null", "undefined"];

impl<'a> JsonScanner<'a> {
    /// Reads the bare word that begins at `start`; `None` where there is none, or the scanner is strict.
    #[cold]
    pub(super) fn bare_word(&mut self, start: usize) -> Option<JsonToken<'a>> {
        if !self.lenient {
            return None;
        }
        let text = self.text.get(start..)?;
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let len = bare_word_len(unsigned)?;
        self.at = start + (text.len() - unsigned.len()) + len;
        Some(JsonToken::BareWord)
    }
}

/// Length of the bare word at the start of `text`.
fn bare_word_len(text: &str) -> Option<usize> {
    let run = |text: &str| text.bytes().take_while(u8::is_ascii_alphanumeric).count();
    if let Some(code) = text.strip_prefix("1.#") {
        return Some("1.#".len() + run(code)).filter(|_| run(code) > 0);
    }
    let len = run(text);
    let (word, rest) = text.split_at_checked(len)?;
    BARE_WORDS.iter().find(|known| known.eq_ignore_ascii_case(word))?;
    // C prints the bits of a NaN in parentheses: nan(ind), nan(0x8000000000000).
    let bits = rest.strip_prefix('(').filter(|_| word.eq_ignore_ascii_case("nan"));
    match bits.map(|bits| (run(bits), bits)) {
        Some((bits_len, bits)) if bits.get(bits_len..)?.starts_with(')') => Some(len + 2 + bits_len),
        _ => Some(len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<usize>) {
        let mut scanner = JsonScanner::with_leniency(text, true);
        let found = scanner.value(0).ok().filter(|token| *token == JsonToken::BareWord).map(|_| scanner.position());
        assert_eq!(found, expected, "{text}");
        let strict = JsonScanner::new(text).value(0);
        assert!(strict.is_err() || expected.is_none(), "{text} is no JSON");
    }

    #[test]
    fn words_of_printers() {
        for word in
            ["NaN", "nan", "-nan", "NAN", "Infinity", "-Infinity", "inf", "+Inf", "-INF", "ovf", "None", "undefined"]
        {
            check(word, Some(word.len()));
            check(&format!("{word},"), Some(word.len()));
        }
        for word in ["nan(ind)", "-nan(ind)", "nan(0x8)", "nan()", "1.#QNAN", "-1.#IND", "1.#INF00", "Null", "NULL"] {
            check(&format!("{word}}}"), Some(word.len()));
        }
    }

    #[test]
    fn other_words_are_none() {
        for word in ["nano", "infinite", "ON", "-", "--inf", "+1", "1.#", "null", "nan1", "True", "-x", ""] {
            check(word, None);
        }
    }
}
