//! Windows as CSV (RFC 4180).

use axum::http::{HeaderMap, header};

use crate::core::output::WindowResult;
use crate::results::record::DecodedResult;
use crate::results::scan::ResultWriter;

/// The header row: the names of the JSON members. The unit is the last column, so that those before it keep their numbers.
const HEADER: &[u8] =
    b"seq,device_id,metric,window_start,window_end,revision,count,sum,mean,min,max,first,last,stddev,backlog,wrong_clock,unit\r\n";

/// The header and a row for each window of an answer.
#[derive(Debug)]
pub(super) struct CsvRows(Vec<u8>);

impl CsvRows {
    /// An answer without windows.
    pub fn new() -> Self {
        Self(HEADER.to_vec())
    }

    /// The body of the answer.
    pub fn into_body(self) -> Vec<u8> {
        self.0
    }
}

impl ResultWriter for CsvRows {
    fn write(&mut self, seq: u64, result: &DecodedResult<'_>) {
        if let DecodedResult::Window(window) = result {
            row(seq, window, &mut self.0);
        }
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// Appends one row. Numbers are printed as in JSON; an aggregate that overflowed is empty, and so is a flag that is not set.
fn row(seq: u64, window: &WindowResult<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(seq.to_string().as_bytes());
    for text in [window.device_id, window.metric] {
        out.push(b',');
        field(text, out);
    }
    let WindowResult { window_start_ms, window_end_ms, revision, count, .. } = window;
    out.extend_from_slice(format!(",{window_start_ms},{window_end_ms},{revision},{count}").as_bytes());
    for number in [window.sum, window.mean, window.min, window.max, window.first, window.last, window.stddev] {
        out.push(b',');
        if number.is_finite() {
            // Writing a finite number to memory does not fail.
            let _ = serde_json::to_writer(&mut *out, &number);
        }
    }
    for flag in [window.flags.backlog, window.flags.wrong_clock] {
        out.extend_from_slice(if flag { b",true" } else { b"," });
    }
    out.push(b',');
    field(window.unit.unwrap_or(""), out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a text. Spreadsheets take a text that begins with one of these characters for a formula, in quotes too, and
/// devices choose their ids: such a text gets an apostrophe in front, which spreadsheets take for "this is text". A text
/// that begins with apostrophes and then such a character gets one more, so that taking one off always gives the text.
fn field(text: &str, out: &mut Vec<u8>) {
    let is_formula =
        text.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let guard = if is_formula { "'" } else { "" };
    if text.contains(['"', ',', '\r', '\n', '\t']) || is_formula {
        out.push(b'"');
        out.extend_from_slice(guard.as_bytes());
        out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(text.as_bytes());
    }
}

/// Whether `Accept` prefers CSV to JSON. A client that accepts both alike, or anything, gets JSON.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let (mut csv, mut json) = (0.0, 0.0);
    for value in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
            match media.as_str() {
                "text/csv" => csv = quality,
                "application/json" => json = quality,
                _ => {}
            }
        }
    }
    csv > json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::output::WindowFlags;

    fn accepts(accept: &str) -> bool {
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().expect("a header"))]);
        is_wanted(&headers)
    }

    #[test]
    fn json_unless_csv_is_preferred() {
        for accept in
            ["text/csv", "Text/CSV; q=0.5", "text/html, text/csv, */*;q=0.1", "application/json;q=0.1,text/csv"]
        {
            assert!(accepts(accept), "{accept}");
        }
        for accept in ["*/*", "application/json", "text/csv, application/json", "text/csv;q=0", "text/csv;q=x", ""] {
            assert!(!accepts(accept), "{accept}");
        }
        assert!(!is_wanted(&HeaderMap::new()));
    }

    #[test]
    fn texts_that_spreadsheets_would_run_are_marked() {
        let cell = |text: &str| {
            let mut out = Vec::new();
            field(text, &mut out);
            String::from_utf8(out).expect("UTF-8")
        };
        for text in ["=1+1", "+1", "-1", "-rf", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "'=1", "''=1"] {
            assert_eq!(cell(text), format!("\"'{text}\""));
        }
        assert_eq!(cell("=HYPERLINK(\"a\",\"b\")"), "\"'=HYPERLINK(\"\"a\"\",\"\"b\"\")\"");
        for text in ["pump-7", "a=1", "'a", "'", "", "7"] {
            assert_eq!(cell(text), text);
        }
    }

    #[test]
    fn rows() {
        let window = WindowResult {
            device_id: "say \"a,b\"",
            metric: "t",
            unit: Some("°C"),
            window_start_ms: -5_000,
            window_end_ms: 0,
            revision: 1,
            supersedes: Some(3),
            count: 2,
            sum: f64::INFINITY,
            mean: 0.1,
            min: -1.5,
            max: 1e300,
            first: 0.0,
            last: 2.0,
            stddev: 1.0,
            flags: WindowFlags { backlog: true, wrong_clock: false },
        };
        let mut out = Vec::new();
        row(7, &window, &mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        assert_eq!(text, "7,\"say \"\"a,b\"\"\",t,-5000,0,1,2,,0.1,-1.5,1e+300,0.0,2.0,1.0,true,,°C\r\n");
    }
}
