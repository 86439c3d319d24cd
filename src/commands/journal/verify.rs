//! `weir journal verify`: the records and the damage of every log of a directory.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use weir::disk::RealDisk;
use weir::log::verify::{LogProblemKind, verify_dir};

use crate::exit;

/// Whether the logs of a directory are undamaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Soundness {
    Sound,
    Damaged,
}

impl From<Soundness> for ExitCode {
    fn from(soundness: Soundness) -> Self {
        match soundness {
            Soundness::Sound => ExitCode::SUCCESS,
            Soundness::Damaged => ExitCode::from(exit::DATA),
        }
    }
}

/// The log directories of a data directory. A directory that is no data directory is taken for one log.
fn log_directories(directory: &Path) -> Vec<PathBuf> {
    let logs: Vec<_> = ["journal", "windows", "errors"].iter().map(|name| directory.join(name)).collect();
    if logs.iter().any(|log| log.is_dir()) {
        logs.into_iter().filter(|log| log.is_dir()).collect()
    } else {
        vec![directory.to_owned()]
    }
}

/// The journal of a data directory. A directory without one is taken for the journal itself.
pub fn journal_directory(directory: &Path) -> PathBuf {
    let journal = directory.join("journal");
    if journal.is_dir() { journal } else { directory.to_owned() }
}

/// Prints the records and the damage of every segment.
///
/// # Errors
/// A log cannot be read, or `out` fails.
pub fn verify(directory: &Path, out: &mut impl Write) -> anyhow::Result<Soundness> {
    let mut soundness = Soundness::Sound;
    for directory in log_directories(directory) {
        let report =
            verify_dir(&RealDisk, &directory).with_context(|| format!("cannot read {}", directory.display()))?;
        writeln!(out, "{}", directory.display())?;
        for segment in &report.segments {
            let readable = &segment.readable;
            writeln!(
                out,
                "  {}  records {} to {}, {} batches, {} of {} bytes{}",
                segment.file.file_name().unwrap_or_default().to_string_lossy(),
                readable.first.0,
                readable.end.0,
                segment.batches,
                readable.bytes,
                segment.file_bytes,
                if segment.lost > 0 { format!(", {} records lost", segment.lost) } else { String::new() }
            )?;
        }
        for problem in &report.problems {
            let kind = match problem.kind {
                LogProblemKind::TornTail => "torn tail",
                LogProblemKind::Damage => "DAMAGE",
                LogProblemKind::NewerFormat => "newer format",
            };
            writeln!(out, "  {kind}: {problem}")?;
        }
        if report.is_damaged() {
            soundness = Soundness::Damaged;
        }
    }
    Ok(soundness)
}
