//! Log lines that nobody can forge: message and fields of the text format, and the characters of the JSON format.
//!
//! Clients choose client ids, user names, topics and parts of errors. In a text line, a value with anything but plain characters
//! stands in quotes, with escapes as in Rust and JSON: line breaks, control characters, separators of lines (U+2028) and characters
//! that change the direction of text (U+202E). So a line can be taken apart into what was logged.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io;

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Writes `message name=value name="value"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = TextVisitor { writer, is_first: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct TextVisitor<'writer> {
    writer: Writer<'writer>,
    is_first: bool,
    result: fmt::Result,
}

impl TextVisitor<'_> {
    fn put(&mut self, field: &Field, value: &str, is_plain: bool) {
        if self.result.is_err() {
            return;
        }
        let space = if std::mem::replace(&mut self.is_first, false) { "" } else { " " };
        self.result = match (field.name(), is_plain) {
            ("message", true) => write!(self.writer, "{space}{value}"),
            ("message", false) => write!(self.writer, "{space}{value:?}"),
            (name, true) => write!(self.writer, "{space}{name}={value}"),
            (name, false) => write!(self.writer, "{space}{name}={value:?}"),
        };
    }
}

impl Visit for TextVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_plain = field.name() == "message" && is_plain_message(value);
        self.put(field, value, is_plain);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        let is_plain = if field.name() == "message" { is_plain_message(&value) } else { is_plain_value(&value) };
        self.put(field, &value, is_plain);
    }
}

/// Whether a value needs no quotes: it is one word without quotes, escapes and equals signs.
fn is_plain_value(value: &str) -> bool {
    let is_plain = |c: char| {
        c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '=')
            || !c.is_ascii() && c.is_alphanumeric() && is_printable(c)
    };
    !value.is_empty() && value.chars().all(is_plain)
}

/// Whether a message needs no quotes: it has no special characters, and nothing in it looks like a field.
fn is_plain_message(message: &str) -> bool {
    let has_field = message.char_indices().any(|(at, c)| c == '=' && !message[..at].ends_with(' '));
    !message.is_empty() && !has_field && !message.starts_with('"') && message.chars().all(is_printable)
}

fn is_printable(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1
}

/// Standard output for lines of JSON. Within JSON text, characters that are not printable only occur in strings, so they are
/// replaced by their escapes.
#[derive(Debug, Clone, Copy)]
pub(super) struct JsonOutput;

impl io::Write for JsonOutput {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stdout().write_all(&escape_json(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

fn escape_json(line: &[u8]) -> Cow<'_, [u8]> {
    let Ok(text) = std::str::from_utf8(line) else { return Cow::Borrowed(line) };
    let is_safe = |c: char| c == '\n' || is_printable(c);
    if text.is_ascii() || text.chars().all(is_safe) {
        return Cow::Borrowed(line);
    }
    let mut escaped = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        if is_safe(c) {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    Cow::Owned(escaped.into_bytes())
}

#[cfg(test)]
mod tests;
