//! The events of a simulation: a hash of all, and the last lines.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::Write as _;

/// Lines kept for a failure's report.
const KEPT_LINES: usize = 120;

/// The events of one simulation.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    last: VecDeque<String>,
    print: bool,
}

impl Trace {
    /// `print`: each event is also written to standard error.
    pub fn new(print: bool) -> Self {
        Self { hash: 0xCBF2_9CE4_8422_2325, events: 0, last: VecDeque::new(), print }
    }

    pub fn event(&mut self, now_ms: i64, what: fmt::Arguments<'_>) {
        let mut line =
            if self.last.len() == KEPT_LINES { self.last.pop_front().unwrap_or_default() } else { String::new() };
        line.clear();
        let seconds = (now_ms - super::clock::T0_MS) as f64 / 1000.0;
        write!(line, "{:>6} {seconds:>8.3}s {what}", self.events).expect("writing to a string cannot fail");
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        if self.print {
            // Not `eprintln!`: the test harness would swallow it.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
        self.events += 1;
        self.last.push_back(line);
    }

    /// FNV-1a of all lines.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn last_lines(&self) -> String {
        self.last.iter().fold(String::new(), |all, line| all + line + "\n")
    }
}
