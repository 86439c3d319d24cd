//! What is wrong with a configuration, said so that a person can put it right.

use std::fmt;

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigOrigin {
    /// The file as a whole, or a default that nothing set.
    File(String),
    /// A line of the file, counted from 1.
    Line(String, usize),
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for ConfigOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigOrigin::File(file) => write!(f, "{file}"),
            ConfigOrigin::Line(file, line) => write!(f, "{file}:{line}"),
            ConfigOrigin::Variable(name) => write!(f, "{name}"),
        }
    }
}

/// What does not fit about one value, without its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// What is wrong.
    pub wrong: String,
    /// What would be right; empty where `wrong` says it all.
    pub expected: String,
}

impl ConfigProblem {
    /// A problem of these two sentences.
    pub fn new(wrong: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { wrong: wrong.into(), expected: expected.into() }
    }
}

/// One fault of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// Where it stands.
    pub origin: ConfigOrigin,
    /// The key as `section.key`; empty for the file as a whole and for syntax errors.
    pub key: String,
    /// What is wrong with it.
    pub problem: ConfigProblem,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.problem.wrong)?;
        if self.problem.expected.is_empty() { Ok(()) } else { write!(f, "; expected {}", self.problem.expected) }
    }
}

/// Every fault of a configuration, in the order of the file, then of the environment. Displays one line per fault.
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
