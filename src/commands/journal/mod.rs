//! `weir journal`: `verify`, `repair` and `dump`, one file each.

mod dump;
mod repair;
mod verify;

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use weir::config::Config;

use crate::cli::JournalCommand;
pub use verify::journal_directory;
use verify::{Soundness, verify};

/// Runs `weir journal verify`, `repair` or `dump`.
///
/// # Errors
/// A log cannot be read or repaired, or standard output fails.
pub fn run(command: JournalCommand, config: &Config) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let directory = |named: Option<PathBuf>| named.unwrap_or_else(|| config.node.data_dir.clone());
    let result = match command {
        JournalCommand::Verify { directory: named } => verify(&directory(named), &mut out),
        JournalCommand::Repair { directory: named, yes } => {
            repair::repair(&directory(named), yes, &config.settings(), &mut out)
        }
        JournalCommand::Dump { directory: named, from, limit } => {
            dump::dump(&directory(named), from, limit, &mut out).map(|()| Soundness::Sound)
        }
    };
    // The lines before an error say how far the command came.
    out.flush()?;
    Ok(result?.into())
}
