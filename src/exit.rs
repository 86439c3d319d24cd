//! What an error that ended the process says to scripts and service managers.

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

use crate::commands::savepoint::offline::NotEmpty;

pub const FAILURE: u8 = 1;
pub const USAGE: u8 = 64;
pub const DATA: u8 = 65;
pub const CANNOT_CREATE: u8 = 73;
pub const IO: u8 = 74;
pub const CONFIG: u8 = 78;

/// The code of `sysexits.h` for an error that ended the process.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<LockError>() || cause.is::<NotEmpty>() {
            return CANNOT_CREATE;
        }
        if cause.is::<TlsError>() || cause.is::<ConfigErrors>() || cause.is::<TokensError>() {
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
