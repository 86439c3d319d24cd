//! Compares the scanner with serde_json, and checks single cases.

use proptest::prelude::*;

use super::number::eight_digits;
use super::*;

fn scan(text: &str) -> Result<JsonToken<'_>, JsonSyntaxError> {
    let mut scanner = JsonScanner::new(text);
    let token = scanner.value(0)?;
    scanner.end()?;
    Ok(token)
}

/// Compares with `serde_json`: both accept or reject the text, and scalars have the same values.
fn agrees_with_serde_json(text: &str) {
    let ours = scan(text);
    let theirs: Result<serde_json::Value, _> = serde_json::from_str(text);
    match (&ours, &theirs) {
        (Ok(JsonToken::Number(number)), Ok(value)) => {
            assert_eq!(number.to_f64().to_bits(), value.as_f64().unwrap().to_bits(), "{text}");
        }
        (Ok(JsonToken::Text(string)), Ok(value)) => assert_eq!(Some(string.as_ref()), value.as_str(), "{text}"),
        (Ok(_), Ok(_)) | (Err(_), Err(_)) => {}
        // Numbers that serde_json calls out of range are JSON all the same. The check of the value rejects them.
        (Ok(_), Err(error)) if error.to_string().contains("out of range") => {}
        (Err(syntax), Ok(_)) if syntax.what.contains("deeper") => {}
        _ => panic!("{text:?}: {ours:?} but {theirs:?}"),
    }
}

#[test]
fn scalars_and_shapes() {
    for text in [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-0.0",
        "1e5",
        "1E+5",
        "1e-5",
        "0.1",
        "123456789012345678901234567890",
        "1e400",
        "-1e400",
        "5e-324",
        "2.2250738585072014e-308",
        "1e23",
        "9007199254740993",
        "\"\"",
        "\"a\\u00e9\\ud83d\\ude00\\n\\/\"",
        "\"ä\u{2028}\"",
        "[]",
        "{}",
        "[1,2]",
        "{\"a\":[{}]}",
        " [ 1 , 2 ] \r\n\t",
        "",
        " ",
        "tru",
        "nul",
        "truex",
        "01",
        "-",
        "+1",
        ".5",
        "5.",
        "1e",
        "1e+",
        "0x1",
        "NaN",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\\u12\"",
        "\"a\u{1}\"",
        "\"tab\tinside the string\"",
        "[1,]",
        "[,1]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "1 2",
        "[1]]",
        "\u{feff}1",
        "'a'",
        "[1;2]",
        "\"0123456\\\\89\"",
        "\"01234567\"",
        "\"0123456789abcdef\u{1f}\"",
    ] {
        agrees_with_serde_json(text);
    }
}

#[test]
fn eight_digits_at_once() {
    let check = |text: &[u8; 8], expected| assert_eq!(eight_digits(u64::from_le_bytes(*text)), expected);
    check(b"12345678", Some(12_345_678));
    check(b"00000000", Some(0));
    check(b"99999999", Some(99_999_999));
    for index in 0..8 {
        for byte in (0..=255u8).filter(|byte| !byte.is_ascii_digit()) {
            let mut text = *b"09182736";
            text[index] = byte;
            check(&text, None);
        }
    }
}

#[test]
fn depth_is_bounded() {
    assert!(scan(&format!("{}{}", "[".repeat(8), "]".repeat(8))).is_ok());
    let error = scan(&format!("{}{}", "[".repeat(9), "]".repeat(9))).unwrap_err();
    assert_eq!(error, JsonSyntaxError { what: "nested deeper than 8 levels", at: 8 });
    assert!(scan(&"[".repeat(1_000_000)).is_err());
}

#[test]
fn strings_are_borrowed_unless_escaped() {
    assert!(matches!(scan("\"plain text, long enough\""), Ok(JsonToken::Text(Cow::Borrowed(_)))));
    assert!(matches!(scan("\"a\\tb\""), Ok(JsonToken::Text(Cow::Owned(_)))));
}

#[test]
fn integers_keep_all_digits() {
    let integer = |text| JsonScanner::new(text).number().unwrap().as_integer();
    assert_eq!(integer("18446744073709551615"), Some((false, u64::MAX)));
    assert_eq!(integer("-18446744073709551615"), Some((true, u64::MAX)));
    assert_eq!(integer("18446744073709551616"), None);
    assert_eq!(integer("1.0"), None);
    assert_eq!(integer("1e3"), None);
}

proptest! {
    #[test]
    fn any_text(text in "\\PC{0,30}") {
        agrees_with_serde_json(&text);
    }

    #[test]
    fn text_of_json_characters(text in "[\\[\\]{}:,\"\\\\0-9.eE+\\- tfnu]{0,24}") {
        agrees_with_serde_json(&text);
    }

    #[test]
    fn strings(text in any::<String>()) {
        agrees_with_serde_json(&serde_json::to_string(&text).unwrap());
    }

    #[test]
    fn printed_floats(value in any::<f64>()) {
        agrees_with_serde_json(&serde_json::to_string(&value).unwrap());
    }

    #[test]
    fn decimal_texts(text in "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?") {
        agrees_with_serde_json(&text);
    }
}
