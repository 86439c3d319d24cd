//! Fields that say that there is no value.

use crate::core::json::JsonToken;

/// Strings that devices and their libraries send where there is no value, in lower case. A sign may stand before them.
const ABSENT_VALUES: [&str; 13] =
    ["", "-", "nan", "inf", "infinity", "none", "null", "nil", "undefined", "unavailable", "unknown", "n/a", "na"];

/// Whether a field says that there is no value: it is `null`, a bare word such as `NaN`, or a string that says so.
pub(super) fn is_absent_value(token: &JsonToken<'_>) -> bool {
    match token {
        JsonToken::Null | JsonToken::BareWord => true,
        JsonToken::Text(text) => is_absent_text(text),
        _ => false,
    }
}

/// Whether a string says that there is no value.
pub(super) fn is_absent_text(text: &str) -> bool {
    let text = text.trim();
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    ABSENT_VALUES.iter().any(|absent| absent.eq_ignore_ascii_case(unsigned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::json::JsonScanner;

    fn token(text: &str) -> JsonToken<'_> {
        if text.is_empty() { JsonToken::Absent } else { JsonScanner::new(text).value(0).unwrap() }
    }

    #[test]
    fn values_that_are_absent() {
        for text in
            ["null", "\"\"", "\" \"", "\"NaN\"", "\"-inf\"", "\"Unavailable\"", "\"unknown\"", "\"N/A\"", "\"--\""]
        {
            assert!(is_absent_value(&token(text)), "{text}");
        }
        for text in ["0", "\"ON\"", "\"0\"", "\"nano\"", "[]", "{}", "true", ""] {
            assert!(!is_absent_value(&token(text)), "{text}");
        }
    }
}
