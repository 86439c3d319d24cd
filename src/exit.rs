//! Exit codes of the process, for scripts and service managers: numbers of `sysexits.h`, and the code that belongs to
//! an error.

use weir::access::tokens::TokensError;
use weir::config::ConfigErrors;
use weir::disk::lock::LockError;
use weir::log::LogError;
use weir::pipeline::run::PipelineError;
use weir::pipeline::start::StartError;
use weir::state::StateError;
use weir::state::recovery::RecoveryError;
use weir::state::savepoint::SavepointError;
use weir::tls::TlsError;

/// The command failed, or its check found something wrong.
pub const FAILURE: u8 = 1;
/// The command line cannot be understood.
pub const USAGE: u8 = 64;
/// Stored data is damaged, or was written by a newer weir.
pub const DATA: u8 = 65;
/// A directory cannot be used for what the command would write: another weir holds it, or it is not empty.
pub const CANNOT_CREATE: u8 = 73;
/// Reading or writing a file failed.
pub const IO: u8 = 74;
/// The configuration, or a file that it names, is wrong.
pub const CONFIG: u8 = 78;

/// A command refuses to write to a directory. Its exit code is [`CANNOT_CREATE`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CannotCreate(pub String);

/// Faults of the files that the configuration names. The exit code is [`CONFIG`].
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct WrongFiles(pub Vec<String>);

/// An error and its causes in one sentence. Many errors of weir end with the text of their cause, so that they can be
/// read alone; such a cause is not repeated.
pub fn sentence_of(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for text in error.chain().map(ToString::to_string) {
        if sentence.is_empty() {
            sentence = text;
        } else if !sentence.ends_with(&text) {
            sentence = format!("{sentence}: {text}");
        }
    }
    sentence
}

/// The exit code for an error that ended the process: the first error of its chain that has a code of its own decides.
pub fn code_of(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.downcast_ref::<LockError>().is_some_and(LockError::is_failed_disk) {
            return IO;
        }
        if cause.is::<LockError>() || cause.is::<CannotCreate>() {
            return CANNOT_CREATE;
        }
        if cause.is::<WrongFiles>() || cause.is::<TlsError>() || cause.is::<ConfigErrors>() || cause.is::<TokensError>()
        {
            return CONFIG;
        }
        if let Some(error) = cause.downcast_ref::<LogError>() {
            return if matches!(error, LogError::Damaged(_) | LogError::NewerFormat { .. }) { DATA } else { IO };
        }
        if let Some(error) = cause.downcast_ref::<StateError>() {
            return if error.is_damage() { DATA } else { IO };
        }
        if let Some(error) = cause.downcast_ref::<RecoveryError>() {
            return if error.is_damage() { DATA } else { IO };
        }
        if let Some(error) = cause.downcast_ref::<SavepointError>() {
            return if matches!(error, SavepointError::Io { .. }) { IO } else { DATA };
        }
        if let Some(StartError::Gap { .. } | StartError::Restore { .. }) = cause.downcast_ref::<StartError>() {
            return DATA;
        }
        // The next start can replace the store.
        if let Some(PipelineError::Store(_)) = cause.downcast_ref::<PipelineError>() {
            return IO;
        }
        if cause.is::<std::io::Error>() {
            return IO;
        }
    }
    FAILURE
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context as _;
    use weir::state::StateError;

    use super::sentence_of;

    #[test]
    fn a_cause_is_told_once() {
        let source = io::Error::other("write data/state/db: no luck");
        let error = StateError::Io { directory: "data/state".into(), source };
        let error = Err::<(), _>(error).context("cannot load the last checkpoint").unwrap_err();
        let told = "cannot load the last checkpoint: the store at data/state failed: write data/state/db: no luck";
        assert_eq!(sentence_of(&error), told);
    }
}
