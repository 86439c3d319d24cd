//! Influx line protocol: `measurement,tag=value field=1i,other="text" 1465839830100400200`, one point a line.

use std::borrow::Cow;
use std::rc::Rc;

use crate::core::formats::{MAX_SAMPLES, Sample, SampleNames, SampleTime, SampleValue, TimeUnit};

/// A sample for each field, in the order of the text. A line that cannot be read is one sample with the fault, and the other
/// lines count. `unit` is that of the timestamps; [`TimeUnit::Auto`] means nanoseconds, as the protocol does.
///
/// # Errors
/// Text of which no line can be read, with the fault of the first, or with too many fields.
pub(in crate::core) fn decode(text: &str, unit: TimeUnit) -> Result<Vec<Sample<'_>>, String> {
    let text = text.trim_end_matches('\0');
    let mut lines = LineScanner { text, at: 0, line: 1, line_start: 0 };
    let mut samples = Vec::new();
    let mut faults = 0_usize;
    while lines.skip_to_point() {
        let before = samples.len();
        let (at, line, line_start) = (lines.at, lines.line, lines.line_start);
        if let Err(what) = lines.point(unit, &mut samples) {
            let fault = format!("line {}, byte {}: {what}", lines.line, lines.at - lines.line_start + 1);
            samples.truncate(before);
            samples.push(Sample::new(Rc::default(), "".into(), SampleValue::Malformed(fault)));
            faults += 1;
            // A text that never ends has swallowed the lines after it: the next line is the one after the start.
            lines = LineScanner { text, at, line, line_start };
            lines.skip_line();
        }
        if samples.len() > MAX_SAMPLES {
            return Err(format!("line {}: the message has more than {MAX_SAMPLES} fields", lines.line));
        }
    }
    match samples.first() {
        Some(Sample { value: SampleValue::Malformed(fault), .. }) if faults == samples.len() => Err(match faults {
            1 => fault.clone(),
            lines => format!("{fault} (no line of {lines} can be read)"),
        }),
        _ => Ok(samples),
    }
}

/// Reads the text from front to back.
struct LineScanner<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    line_start: usize,
}

/// What a name ends at, besides blanks and the end of the line.
#[derive(Clone, Copy)]
enum Name {
    Measurement,
    Key,
}

impl<'a> LineScanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_blanks(&mut self) {
        while self.eat(b' ') || self.eat(b'\t') {}
    }

    /// Skips the rest of the line.
    fn skip_line(&mut self) {
        match self.rest().find('\n') {
            Some(len) => {
                self.at += len + 1;
                self.line += 1;
                self.line_start = self.at;
            }
            None => self.at = self.text.len(),
        }
    }

    /// Skips blank lines and comments. Returns whether a point follows.
    fn skip_to_point(&mut self) -> bool {
        loop {
            self.skip_blanks();
            match self.peek() {
                None => return false,
                Some(b'\n' | b'#') => self.skip_line(),
                Some(b'\r') => self.at += 1,
                Some(_) => return true,
            }
        }
    }

    fn is_line_end(&self) -> bool {
        matches!(self.peek(), None | Some(b'\n')) || self.rest().starts_with("\r\n") || self.rest() == "\r"
    }

    /// Reads one point with the end of its line.
    fn point(&mut self, unit: TimeUnit, samples: &mut Vec<Sample<'a>>) -> Result<(), String> {
        let names = Rc::new(self.names()?);
        self.skip_blanks();
        if self.is_line_end() {
            return Err("the line ends before any field".into());
        }
        let first = samples.len();
        loop {
            let key = self.name(Name::Key);
            if key.is_empty() {
                return Err("expected the key of a field".into());
            }
            if !self.eat(b'=') {
                return Err(format!("expected `=` after the key `{}`", shown(&key)));
            }
            let value = self.value()?;
            samples.push(Sample::new(Rc::clone(&names), key, value));
            if !self.eat(b',') {
                break;
            }
        }
        let time = self.timestamp(unit)?;
        for sample in samples.iter_mut().skip(first) {
            sample.time = time;
        }
        Ok(())
    }

    /// The measurement and the tags.
    fn names(&mut self) -> Result<SampleNames<'a>, String> {
        let measurement = self.name(Name::Measurement);
        if measurement.is_empty() {
            return Err("expected the name of a measurement".into());
        }
        let mut names = SampleNames { measurement: Some(measurement), ..SampleNames::default() };
        while self.eat(b',') {
            let key = self.name(Name::Key);
            if key.is_empty() {
                return Err("expected the key of a tag".into());
            }
            if !self.eat(b'=') {
                return Err(format!("expected `=` after the tag `{}`", shown(&key)));
            }
            let value = self.name(Name::Key);
            if value.is_empty() {
                return Err(format!("the tag `{}` has no value", shown(&key)));
            }
            names.tags.push((key, value));
        }
        Ok(names)
    }

    /// A measurement, or a key or value of a tag, or the key of a field. A backslash before a character that would end it, or
    /// before an equals sign, means that character; before any other it is itself.
    fn name(&mut self, kind: Name) -> Cow<'a, str> {
        let start = self.at;
        let mut has_escapes = false;
        while let Some(byte) = self.peek() {
            match (byte, kind) {
                (b'\\', _) if matches!(self.rest().as_bytes().get(1), Some(b',' | b'=' | b' ')) => {
                    has_escapes = true;
                    self.at += 2;
                }
                (b',' | b' ' | b'\t' | b'\n', _) | (b'=', Name::Key) => break,
                (b'\r', _) if self.is_line_end() => break,
                _ => self.at += 1,
            }
        }
        let text = self.since(start);
        if has_escapes { unescaped(text, &[',', '=', ' ']).into() } else { text.into() }
    }

    fn value(&mut self) -> Result<SampleValue<'a>, String> {
        if self.eat(b'"') {
            return self.text();
        }
        let start = self.at;
        while !matches!(self.peek(), None | Some(b',' | b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        let word = self.since(start);
        let value = scalar(word);
        value.ok_or_else(|| {
            self.at = start;
            match word {
                "" => "a field without a value".into(),
                _ => format!("`{}` is no number, boolean or text in double quotes", shown(word)),
            }
        })
    }

    /// The rest of a text after its first double quote. It may have several lines.
    fn text(&mut self) -> Result<SampleValue<'a>, String> {
        let start = self.at;
        let mut has_escapes = false;
        loop {
            match self.peek() {
                None => {
                    self.at = start - 1;
                    return Err("a text without the double quote at its end".into());
                }
                Some(b'"') => break,
                Some(b'\\') if matches!(self.rest().as_bytes().get(1), Some(b'"' | b'\\')) => {
                    has_escapes = true;
                    self.at += 2;
                }
                Some(_) => self.at += 1,
            }
        }
        let text = self.since(start);
        self.at += 1;
        if let Some(last) = text.rfind('\n') {
            self.line += text.bytes().filter(|byte| *byte == b'\n').count();
            self.line_start = start + last + 1;
        }
        Ok(SampleValue::Text(if has_escapes { unescaped(text, &['"', '\\']).into() } else { text.into() }))
    }

    /// The timestamp, if there is one, and the end of the line.
    fn timestamp(&mut self, unit: TimeUnit) -> Result<SampleTime, String> {
        self.skip_blanks();
        let start = self.at;
        while matches!(self.peek(), Some(b'-' | b'+' | b'0'..=b'9')) {
            self.at += 1;
        }
        let digits = self.since(start);
        self.skip_blanks();
        if !self.is_line_end() {
            return Err(match digits {
                "" => "expected a comma and a field, a timestamp, or the end of the line".into(),
                _ => format!("something follows the timestamp `{}`", shown(digits)),
            });
        }
        if digits.is_empty() {
            return Ok(SampleTime::None);
        }
        let Ok(stamp) = digits.parse::<i64>() else {
            self.at = start;
            return Err(format!("`{}` is no timestamp: it should be an integer of 64 bits", shown(digits)));
        };
        milliseconds(stamp, unit).map(SampleTime::At).ok_or_else(|| {
            self.at = start;
            format!("the timestamp `{}` is too far from 1970 for the unit of the map", shown(digits))
        })
    }
}

fn milliseconds(stamp: i64, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::Auto | TimeUnit::Ns => Some(stamp.div_euclid(1_000_000)),
        TimeUnit::Us => Some(stamp.div_euclid(1_000)),
        TimeUnit::Ms => Some(stamp),
        TimeUnit::S => stamp.checked_mul(1_000),
    }
}

/// A number or a boolean. NaN and infinity, which Influx refuses, say that there is no value.
fn scalar(word: &str) -> Option<SampleValue<'static>> {
    match word {
        "t" | "T" | "true" | "True" | "TRUE" => return Some(SampleValue::Bool(true)),
        "f" | "F" | "false" | "False" | "FALSE" => return Some(SampleValue::Bool(false)),
        _ => {}
    }
    if let Some(integer) = word.strip_suffix('i') {
        return integer.parse::<i64>().ok().map(|integer| SampleValue::Number(integer as f64));
    }
    if let Some(integer) = word.strip_suffix('u') {
        return integer.parse::<u64>().ok().map(|integer| SampleValue::Number(integer as f64));
    }
    let number: f64 = word.parse().ok()?;
    let is_written = word.contains(|c: char| c.is_ascii_digit());
    Some(if is_written { SampleValue::Number(number) } else { SampleValue::Absent })
}

/// `text` with the backslashes left out that stand before one of `escaped`.
fn unescaped(text: &str, escaped: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(match chars.peek() {
            Some(next) if c == '\\' && escaped.contains(next) => chars.next().unwrap_or(c),
            _ => c,
        });
    }
    out
}

/// The first characters of a text that may be long.
fn shown(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Measurement, tags, field, value and time of each sample, as text.
    fn read(text: &str) -> Vec<String> {
        let samples = decode(text, TimeUnit::Auto).unwrap();
        samples.iter().map(shown_sample).collect()
    }

    fn shown_sample(sample: &Sample<'_>) -> String {
        let tags = sample.names.tags.iter().map(|(key, value)| format!("[{key}:{value}]")).collect::<String>();
        let measurement = sample.name("measurement").unwrap_or("?");
        format!("{measurement}{tags} {} {:?} {:?}", sample.key, sample.value, sample.time)
    }

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(read(text), expected, "{text}");
    }

    #[test]
    fn points_of_the_documentation() {
        check(
            "weather,location=us-midwest temperature=82 1465839830100400200",
            &["weather[location:us-midwest] temperature Number(82.0) At(1465839830100)"],
        );
        check(
            "cpu,host=edge-1 usage_idle=98.2,usage_user=1i,active=t,model=\"x y\" 1653579140440951943\nmem free=123456u",
            &[
                "cpu[host:edge-1] usage_idle Number(98.2) At(1653579140440)",
                "cpu[host:edge-1] usage_user Number(1.0) At(1653579140440)",
                "cpu[host:edge-1] active Bool(true) At(1653579140440)",
                "cpu[host:edge-1] model Text(\"x y\") At(1653579140440)",
                "mem free Number(123456.0) None",
            ],
        );
    }

    #[test]
    fn escapes() {
        check(
            r#"my\ room\,2,tag\ key=a\,b\=c,w=C:\dir\ x f\=1=-1.5e3,s="say \"hi\" \\ \n, = x" 1000000"#,
            &[
                r"my room,2[tag key:a,b=c][w:C:\dir x] f=1 Number(-1500.0) At(1)",
                r#"my room,2[tag key:a,b=c][w:C:\dir x] s Text("say \"hi\" \\ \\n, = x") At(1)"#,
            ],
        );
        check("a=b v=1", &["a=b v Number(1.0) None"]);
        check("m v=\"two\nlines\" 5000000\nm w=1", &["m v Text(\"two\\nlines\") At(5)", "m w Number(1.0) None"]);
    }

    #[test]
    fn values() {
        for word in ["f", "F", "false", "False", "FALSE"] {
            check(&format!("m v={word}"), &["m v Bool(false) None"]);
        }
        check(
            "m a=-5i,b=.5,c=1.,d=NaN,e=-inf,f=18446744073709551615u",
            &[
                "m a Number(-5.0) None",
                "m b Number(0.5) None",
                "m c Number(1.0) None",
                "m d Absent None",
                "m e Absent None",
                "m f Number(1.8446744073709552e19) None",
            ],
        );
    }

    #[test]
    fn comments_blank_lines_and_line_ends() {
        check(
            "# comment, with = and \"\r\n\r\n  m v=1 -1 \r\n\n\t\nm w=2\r\n\0",
            &["m v Number(1.0) At(-1)", "m w Number(2.0) None"],
        );
        check("# nothing\n", &[]);
        check("m v=1\0\0", &["m v Number(1.0) None"]);
    }

    #[test]
    fn units_of_time() {
        let time = |unit| decode("m v=1 1500", unit).unwrap()[0].time;
        assert_eq!(
            [TimeUnit::S, TimeUnit::Ms, TimeUnit::Us, TimeUnit::Ns].map(time),
            [1_500_000, 1_500, 1, 0].map(SampleTime::At)
        );
        assert!(decode("m v=1 9223372036854775807", TimeUnit::S).unwrap_err().contains("too far from 1970"));
    }

    #[test]
    fn one_bad_line_does_not_lose_the_others() {
        check(
            "m v=1\nm v=\nm,x=1 w=2\nm s=\"open\nm z=3",
            &[
                "m v Number(1.0) None",
                "?  Malformed(\"line 2, byte 5: a field without a value\") None",
                "m[x:1] w Number(2.0) None",
                "?  Malformed(\"line 4, byte 5: a text without the double quote at its end\") None",
                "m z Number(3.0) None",
            ],
        );
    }

    #[test]
    fn faults_are_told() {
        let refused = |text: &str| decode(text, TimeUnit::Auto).unwrap_err();
        assert_eq!(refused("weather temperature="), "line 1, byte 21: a field without a value");
        assert_eq!(refused("m"), "line 1, byte 2: the line ends before any field");
        assert_eq!(refused("\n\nm,host v=1"), "line 3, byte 7: expected `=` after the tag `host`");
        assert_eq!(refused("m,host= v=1"), "line 1, byte 8: the tag `host` has no value");
        assert_eq!(refused("m v"), "line 1, byte 4: expected `=` after the key `v`");
        assert_eq!(refused("m v=1 5 6"), "line 1, byte 9: something follows the timestamp `5`");
        assert_eq!(
            refused("m v=1 x"),
            "line 1, byte 7: expected a comma and a field, a timestamp, or the end of the line"
        );
        assert_eq!(
            refused("m v=\"a\nb\" x"),
            "line 2, byte 4: expected a comma and a field, a timestamp, or the end of the line (no line of 2 can be read)"
        );
        assert_eq!(refused("m v=1.5i"), "line 1, byte 5: `1.5i` is no number, boolean or text in double quotes");
        assert_eq!(refused("a\nb\nc"), "line 1, byte 2: the line ends before any field (no line of 3 can be read)");
        assert_eq!(
            refused("m v=1 99999999999999999999"),
            "line 1, byte 7: `99999999999999999999` is no timestamp: it should be an integer of 64 bits"
        );
    }

    #[test]
    fn too_many_fields_are_refused() {
        let text = "m a=1\n".repeat(MAX_SAMPLES + 1);
        assert!(decode(&text, TimeUnit::Auto).unwrap_err().contains("more than 65536 fields"));
    }

    /// Reads faster than a square of the length, also where each line has a text that never ends.
    #[test]
    fn open_texts_are_bounded() {
        let text = "m a=\"\\\"\n".repeat(2_000);
        assert!(decode(&text, TimeUnit::Auto).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text: String, lines in proptest::collection::vec("[a,= \\\\\"0-9iu.#tf\\n\\r-]{0,20}", 0..8)) {
            let _ = decode(&text, TimeUnit::Auto);
            let _ = decode(&lines.join("\n"), TimeUnit::S);
        }

        #[test]
        fn names_are_read_as_they_were_written(name in "[a-z,= é]{1,12}", number: i64) {
            let escaped = name.replace(',', "\\,").replace('=', "\\=").replace(' ', "\\ ");
            let text = format!("{escaped},{escaped}={escaped} {escaped}={number}i");
            let samples = decode(&text, TimeUnit::Auto).unwrap();
            prop_assert_eq!(samples.len(), 1);
            prop_assert_eq!(samples[0].name("measurement"), Some(&*name));
            prop_assert_eq!(samples[0].name("field"), Some(&*name));
            prop_assert_eq!(samples[0].name(&format!("tag:{name}")), Some(&*name));
            prop_assert_eq!(&samples[0].value, &SampleValue::Number(number as f64));
        }
    }
}
