//! Faults of a configuration and of the files that it names, with the place and the expected value, so that a person can
//! correct them.

use std::fmt;

/// Where a setting or a fault comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigOrigin {
    /// A file as a whole, or a default that nothing has set.
    File(String),
    /// A line of a file, counted from 1.
    Line(String, usize),
    /// An environment variable.
    Variable(String),
}

impl ConfigOrigin {
    /// The line of an offset in the text of a file.
    pub(super) fn line_of(file: &str, text: &str, offset: usize) -> Self {
        let before = text.as_bytes().iter().take(offset);
        Self::Line(file.to_owned(), before.filter(|byte| **byte == b'\n').count() + 1)
    }
}

impl fmt::Display for ConfigOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigOrigin::File(name) | ConfigOrigin::Variable(name) => write!(f, "{}", OneLine(name)),
            ConfigOrigin::Line(file, line) => write!(f, "{}:{line}", OneLine(file)),
        }
    }
}

/// What is wrong with one value, without its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// What is wrong, as a sentence.
    pub wrong: String,
    /// What is expected instead; empty if `wrong` says enough.
    pub expected: String,
}

impl ConfigProblem {
    /// A problem with these two sentences.
    pub fn new(wrong: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { wrong: wrong.into(), expected: expected.into() }
    }
}

/// One fault of a configuration, or of a file that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// Place of the fault.
    pub origin: ConfigOrigin,
    /// The key as `section.key`; empty for the file as a whole and for syntax errors.
    pub key: String,
    /// What is wrong at this place.
    pub problem: ConfigProblem,
}

/// Displays a text of a file or of the environment on one line: with control characters escaped.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(char::is_control) {
            match part.char_indices().next_back() {
                Some((at, last)) if last.is_control() => write!(f, "{}{}", &part[..at], last.escape_default())?,
                _ => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for ConfigFault {
    /// One line, whatever the file or the environment contains.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", OneLine(&self.key))?;
        }
        write!(f, "{}", OneLine(&self.problem.wrong))?;
        if self.problem.expected.is_empty() {
            Ok(())
        } else {
            write!(f, "; expected {}", OneLine(&self.problem.expected))
        }
    }
}

/// All faults of a configuration: those of the file in its order, then those of the environment. Displays one line per
/// fault.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigErrors(pub Vec<ConfigFault>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Result of checking the configuration's files, for `weir check`.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// Faults, one sentence each: weir would not start, or no client could use a listener.
    pub faults: Vec<String>,
    /// Warnings, one sentence each: weir works, but a person should look at this.
    pub warnings: Vec<String>,
}
