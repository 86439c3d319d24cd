use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::sync::lock;

/// Collects lines.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the text format makes of an event.
fn text(log: impl FnOnce()) -> String {
    let lines = Lines::default();
    let for_layer = lines.clone();
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .fmt_fields(TextFields)
        .with_writer(move || for_layer.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
    let bytes = lock(&lines.0).clone();
    String::from_utf8(bytes).expect("UTF-8")
}

/// Takes the next quoted text off `rest`.
fn quoted(rest: &mut &str) -> String {
    let mut found = String::new();
    let mut chars = rest[1..].char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                *rest = &rest[1 + at + 1..];
                return found;
            }
            '\\' => found.push(match chars.next().expect("an escape").1 {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                '0' => '\0',
                'u' => {
                    assert_eq!(chars.next().map(|next| next.1), Some('{'));
                    let hex: String = chars.by_ref().map(|next| next.1).take_while(|c| *c != '}').collect();
                    char::from_u32(u32::from_str_radix(&hex, 16).expect("hexadecimal")).expect("a character")
                }
                other => other,
            }),
            other => found.push(other),
        }
    }
    panic!("no end of {rest:?}")
}

/// Takes a line apart into its message and fields, as a log collector does.
fn parse(line: &str) -> (String, Vec<(String, String)>) {
    let mut rest = line.trim_start().strip_prefix("WARN ").expect("a level");
    let is_field = |word: &str| word.split_once('=').is_some_and(|(name, _)| !name.is_empty());
    let message = if rest.starts_with('"') {
        quoted(&mut rest)
    } else {
        let mut end = 0;
        while end < rest.len() && !is_field(rest[end..].split(' ').next().expect("a word")) {
            end += rest[end..].find(' ').map_or(rest.len() - end, |at| at + 1);
        }
        let message = rest[..end].strip_suffix(' ').unwrap_or(&rest[..end]);
        rest = rest.get(end.saturating_sub(1)..).expect("a boundary");
        message.to_owned()
    };
    let mut fields = Vec::new();
    while let Some((name, value)) = rest.trim_start_matches(' ').split_once('=') {
        let (name, mut value) = (name.to_owned(), value);
        let found = if value.starts_with('"') {
            quoted(&mut value)
        } else {
            let (word, _) = value.split_once(' ').unwrap_or((value, ""));
            value = &value[word.len()..];
            word.to_owned()
        };
        fields.push((name, found));
        rest = value;
    }
    (message, fields)
}

/// Text that attackers send, among any other.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(" event=\"admin_action\" user=root".to_owned()),
        Just("\n2026-01-01T00:00:00Z  INFO a=b".to_owned()),
        Just("\u{1b}[2K\u{1b}[31m".to_owned()),
        Just("\u{2028}\u{2029}\u{85}".to_owned()),
        Just("\u{202e}\u{2066}\u{200b}\u{feff}".to_owned()),
        Just("\\\" x=\\".to_owned()),
        "[ -~]{0,12}",
        any::<String>(),
    ];
    proptest::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// A line gives back what was logged, whatever it was.
    #[test]
    fn a_line_is_taken_apart_into_what_was_logged(shown in hostile(), text_field in hostile(), message in hostile()) {
        let line = text(|| tracing::warn!(client_id = %shown, user = text_field.as_str(), count = 7, "{message}"));
        let line = line.strip_suffix('\n').expect("one line");
        prop_assert!(line.chars().all(is_printable), "{line:?}");
        let (parsed, fields) = parse(line);
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        prop_assert_eq!(parsed, message);
        prop_assert_eq!(fields, vec![field("client_id", &shown), field("user", &text_field), field("count", "7")]);
    }

    #[test]
    fn a_json_line_means_the_same_and_is_one_line(value in hostile()) {
        let line = serde_json::to_string(&value).expect("JSON") + "\n";
        let escaped = String::from_utf8(escape_json(line.as_bytes()).into_owned()).expect("UTF-8");
        prop_assert!(escaped.trim_end_matches('\n').chars().all(is_printable), "{escaped:?}");
        prop_assert_eq!(serde_json::from_str::<String>(&escaped).expect("JSON"), value);
    }
}

#[track_caller]
fn check(log: impl FnOnce(), expected: &str) {
    assert_eq!(text(log), format!(" {expected}\n"));
}

#[test]
fn plain_values_have_no_quotes_and_others_do() {
    check(
        || tracing::warn!(at = %"10.0.0.1:1883", path = %"/var/lib/weir", "listening"),
        "WARN listening at=10.0.0.1:1883 path=/var/lib/weir",
    );
    check(
        || tracing::warn!(client_id = %"x event=y", none = None::<u8>, "it's \"so\""),
        r#"WARN it's "so" client_id="x event=y""#,
    );
    check(|| tracing::warn!(empty = %"", text = "word"), r#"WARN empty="" text="word""#);
    check(|| tracing::warn!("log.level = \"x\": wrong"), "WARN log.level = \"x\": wrong");
    check(|| tracing::warn!(a = %"é", "looks like a=b"), r#"WARN "looks like a=b" a=é"#);
    check(|| tracing::warn!(a = %"a\u{2028}b\u{202e}", "m\nn"), r#"WARN "m\nn" a="a\u{2028}b\u{202e}""#);
}
