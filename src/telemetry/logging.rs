//! weir's own log: where its lines go and in which form.

use std::io::IsTerminal;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Form of log lines.
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

/// The words that are a level by themselves.
pub const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level cannot be read.
    #[error("log.level: {0}")]
    Level(String),
    /// The journal's socket is not there.
    #[error("log.format = \"journald\", but the systemd journal cannot be reached: {0}; use \"text\" or \"json\" here")]
    Journald(std::io::Error),
    /// Something in this process logs already.
    #[error("logging was set up before")]
    Twice,
}

/// What is logged by a process that logs.
#[derive(Debug, Clone)]
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

impl LogFilter {
    /// Logs what `level` says from now on: a level or filter directives.
    ///
    /// # Errors
    /// What is wrong with it; nothing changes then.
    pub fn set(&self, level: &str) -> Result<(), String> {
        self.0.reload(filter(level)?).map_err(|error| error.to_string())
    }
}

/// Starts logging for the whole process. `level` is a level or filter directives.
///
/// # Errors
/// An unreadable level, an unreachable journal, or a second call.
pub fn init(level: &str, format: LogFormat) -> Result<LogFilter, LoggingError> {
    let (filter, handle) = reload::Layer::new(filter(level).map_err(LoggingError::Level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => {
            let ansi = std::io::stdout().is_terminal();
            registry.with(tracing_subscriber::fmt::layer().with_ansi(ansi).with_target(false)).try_init()
        }
        LogFormat::Json => registry.with(tracing_subscriber::fmt::layer().json().flatten_event(true)).try_init(),
        LogFormat::Journald => {
            let journal = tracing_journald::layer().map_err(LoggingError::Journald)?;
            registry.with(journal.with_syslog_identifier("weir".into())).try_init()
        }
    };
    started.map_err(|_| LoggingError::Twice)?;
    Ok(LogFilter(handle))
}

/// Whether [`init`] will take this level.
///
/// # Errors
/// What is wrong with it, without the key.
pub fn check_filter(level: &str) -> Result<(), String> {
    filter(level).map(drop)
}

/// At its levels below this sled writes what it stores: payloads of retained and of queued messages, and states of devices.
const QUIET: &str = "sled=info";

/// `EnvFilter` takes any bare word for the name of a module: "inof" would switch all logging off.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let directives: Vec<&str> = level.split(',').map(str::trim).collect();
    for directive in &directives {
        if directive.starts_with("sled") {
            return Err(format!("{directive:?}: the lines of sled hold payloads, which weir never logs"));
        }
        let word = !directive.contains(['=', '[', ':']);
        if word && !LEVELS.contains(&directive.to_ascii_lowercase().as_str()) {
            return Err(format!("{directive:?} is not a level"));
        }
    }
    // The more special directive wins, wherever it stands.
    EnvFilter::try_new(format!("{},{QUIET}", directives.join(","))).map_err(|error| format!("{level:?}: {error}"))
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

    /// Payloads stand in no log, at no level.
    #[test]
    fn what_is_stored_is_not_logged() {
        for level in ["trace", "debug,weir=trace", "TRACE"] {
            assert!(
                filter(level).expect("a filter").to_string().split(',').any(|directive| directive == QUIET),
                "{level}"
            );
        }
    }

    #[test]
    fn every_named_level_is_one() {
        for level in LEVELS {
            assert_eq!(check_filter(level), Ok(()));
        }
    }
}
