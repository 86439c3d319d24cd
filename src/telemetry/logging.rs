//! weir's own log: level, form and destination of its lines.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use tracing::subscriber::set_global_default;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;

use super::log_records;
use super::text_fields::{JsonOutput, TextFields};

/// Form and destination of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Lines for people, on standard output; coloured only on a terminal.
    #[default]
    Text,
    /// One JSON object per line, on standard output.
    Json,
    /// The systemd journal, with fields.
    Journald,
}

/// All log levels.
pub const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

/// Why a level or filter directives are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogFilterError {
    /// A directive would enable log lines of sled, which hold payloads.
    #[error("{directive:?}: the lines of sled hold payloads, which weir never logs")]
    Sled {
        /// The refused directive.
        directive: String,
    },
    /// A bare word is not a level.
    #[error("{word:?} is not a level")]
    NotALevel {
        /// The word.
        word: String,
    },
    /// A directive is not in the syntax of filters.
    #[error("{level:?}: {wrong}")]
    Directive {
        /// The whole text.
        level: String,
        /// Error of the parser.
        wrong: String,
    },
    /// The filter of the running log cannot be replaced.
    #[error("{0}")]
    Reload(String),
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level or filter is wrong.
    #[error("log.level: {0}")]
    Level(#[from] LogFilterError),
    /// The socket of the systemd journal is missing.
    #[error("log.format = \"journald\", but the systemd journal cannot be reached: {0}; use \"text\" or \"json\" here")]
    Journald(std::io::Error),
    /// Logging was set up before in this process.
    #[error("logging was set up before")]
    Twice,
}

/// Changes the filter of the running log.
#[derive(Debug, Clone)]
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

impl LogFilter {
    /// Uses `level`, a level or filter directives, from now on.
    ///
    /// # Errors
    /// The level or a directive is wrong, or logging has ended. The filter stays unchanged then.
    pub fn set(&self, level: &str) -> Result<(), LogFilterError> {
        self.0.reload(filter(level)?).map_err(|error| LogFilterError::Reload(error.to_string()))
    }
}

/// Starts logging for the whole process. `level` is a level or filter directives.
///
/// # Errors
/// The level or a directive is wrong, the systemd journal cannot be reached, or logging was started before.
pub fn init(level: &str, format: LogFormat) -> Result<LogFilter, LoggingError> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => {
            let ansi = std::io::stdout().is_terminal();
            let layer = tracing_subscriber::fmt::layer().with_ansi(ansi).with_target(false).fmt_fields(TextFields);
            set_global_default(registry.with(layer))
        }
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(|| JsonOutput);
            set_global_default(registry.with(layer))
        }
        LogFormat::Journald => {
            let journal = tracing_journald::layer().map_err(LoggingError::Journald)?;
            set_global_default(registry.with(journal.with_syslog_identifier("weir".into())))
        }
    };
    started.map_err(|_| LoggingError::Twice)?;
    log_records::install();
    std::panic::set_hook(Box::new(log_panic));
    Ok(LogFilter(handle))
}

/// Logs a panic as one line: its text may hold what a client sent.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let reason =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        thread = std::thread::current().name(),
        location = panic.location().map(tracing::field::display),
        reason,
        backtrace,
        "a thread panicked"
    );
}

/// Checks a level or filter directives without using them.
///
/// # Errors
/// The level or a directive is wrong.
pub fn check_filter(level: &str) -> Result<(), LogFilterError> {
    filter(level).map(drop)
}

/// Directive that silences sled. At its debug and trace levels sled logs what it stores: payloads of retained and queued
/// messages, and states of devices.
const QUIET_SLED: &str = "sled=info";

/// The filter for a level or filter directives.
///
/// Bare words are checked here, because `EnvFilter` takes any bare word for the name of a module: "inof" would switch all
/// logging off.
fn filter(level: &str) -> Result<EnvFilter, LogFilterError> {
    let directives: Vec<&str> = level.split(',').map(str::trim).collect();
    for directive in &directives {
        if directive.starts_with("sled") {
            return Err(LogFilterError::Sled { directive: (*directive).to_owned() });
        }
        let word = !directive.contains(['=', '[', ':']);
        if word && !LEVELS.contains(&directive.to_ascii_lowercase().as_str()) {
            return Err(LogFilterError::NotALevel { word: (*directive).to_owned() });
        }
    }
    // A more specific directive wins, wherever it is in the list.
    EnvFilter::try_new(format!("{},{QUIET_SLED}", directives.join(",")))
        .map_err(|error| LogFilterError::Directive { level: level.to_owned(), wrong: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives() {
        for good in ["info", "WARN", "off", "info,weir::mqtt=debug", "warn, weir=trace", "weir::log=info"] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for bad in
            ["", "inof", "info,", "verbose", "weir=loud", "info;debug", "sled=trace", "info,sled::pagecache=debug"]
        {
            assert!(check_filter(bad).is_err(), "{bad}");
        }
    }

    /// Payloads are in no log line, at no level.
    #[test]
    fn stored_payloads_are_not_logged() {
        for level in ["trace", "debug,weir=trace", "TRACE"] {
            assert!(
                filter(level).expect("a filter").to_string().split(',').any(|directive| directive == QUIET_SLED),
                "{level}"
            );
        }
    }

    #[test]
    fn every_level_is_accepted() {
        for level in LEVELS {
            assert_eq!(check_filter(level), Ok(()));
        }
    }
}
