//! `weir journal verify` and `weir journal dump`.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};

use weir::config::Config;
use weir::core::record::{PublishRecord, Record, RecordDecoder, ReplayItem, ReplayRecord};
use weir::disk::RealDisk;
use weir::log::verify::{DirectoryReader, LogProblemKind, verify_dir};

use crate::cli::JournalCommand;
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

/// Runs one of the commands.
pub fn run(command: JournalCommand, config: &Config) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let directory = |named: Option<PathBuf>| named.unwrap_or_else(|| config.node.data_dir.clone());
    let result = match command {
        JournalCommand::Verify { directory: named } => verify(&directory(named), &mut out),
        JournalCommand::Repair { directory: named, yes } => {
            super::repair::repair(&directory(named), yes, &config.settings(), &mut out)
        }
        JournalCommand::Dump { directory: named, from, limit } => {
            dump(&directory(named), from, limit, &mut out).map(|()| Soundness::Sound)
        }
    };
    // The lines before an error say how far the command came.
    out.flush()?;
    Ok(result?.into())
}

/// The logs below `directory`: itself, or those of a data directory.
fn log_directories(directory: &Path) -> Vec<PathBuf> {
    let parts: Vec<_> = ["journal", "windows", "errors"].iter().map(|name| directory.join(name)).collect();
    if parts.iter().any(|part| part.is_dir()) {
        parts.into_iter().filter(|part| part.is_dir()).collect()
    } else {
        vec![directory.to_owned()]
    }
}

/// The journal of a data directory, or `directory` itself.
pub fn journal_directory(directory: &Path) -> PathBuf {
    let journal = directory.join("journal");
    if journal.is_dir() { journal } else { directory.to_owned() }
}

/// Prints what every segment holds.
fn verify(directory: &Path, out: &mut impl Write) -> anyhow::Result<Soundness> {
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

/// Prints records as JSON lines.
fn dump(directory: &Path, from: u64, limit: Option<u64>, out: &mut impl Write) -> anyhow::Result<()> {
    let directory = journal_directory(directory);
    let reader = DirectoryReader::open(Arc::new(RealDisk), &directory)
        .with_context(|| format!("cannot read {}", directory.display()))?;
    let mut left = limit.unwrap_or(u64::MAX);
    for batch in reader {
        let batch = batch?;
        if batch.end().0 <= from {
            continue;
        }
        if batch.is_hole() {
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            let lost = json!({ "lsn": batch.first().0, "kind": "lost", "count": batch.count() });
            writeln!(out, "{lost}")?;
        }
        let mut decoder = RecordDecoder::default();
        for (lsn, bytes) in (batch.first().0..).zip(batch.records()) {
            let record = decoder.decode(bytes)?;
            if lsn < from {
                continue;
            }
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            let mut line = json!({ "lsn": lsn, "batch": batch.first().0, "arrival_time": batch.arrival_ms() });
            describe(&record, &mut line);
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

fn describe(record: &Record<'_>, line: &mut Value) {
    match record {
        Record::Tick => line["kind"] = json!("tick"),
        Record::Resumed => line["kind"] = json!("resumed"),
        Record::Settings(settings) => {
            line["kind"] = json!("settings");
            line["settings"] = serde_json::from_slice(settings).unwrap_or_default();
        }
        Record::Publish(publish, _) => describe_publish(publish, line),
        Record::Replay(replay) => describe_replay(replay, line),
    }
}

fn describe_replay(replay: &ReplayRecord<'_>, line: &mut Value) {
    line["kind"] = json!("replay");
    line["journal_position"] = json!(replay.position);
    // Without an index the message as a whole was rejected.
    let item = |item: ReplayItem| json!({"replay_of": item.error_seq, "index": (!replay.whole).then_some(item.index)});
    line["errors"] = replay.items.iter().map(item).collect();
    line["first_arrival_time"] = json!(replay.arrival_ms);
    line["client_id"] = json!(replay.client_id);
    line["topic"] = json!(replay.topic);
    describe_own_device(replay.own_device, line);
    describe_payload(replay.payload, line);
}

fn describe_publish(publish: &PublishRecord<'_>, line: &mut Value) {
    line["kind"] = json!("publish");
    line["client_id"] = json!(publish.client_id);
    line["topic"] = json!(publish.topic);
    describe_own_device(publish.own_device, line);
    line["qos"] = json!(publish.qos);
    line["packet_id"] = json!(publish.packet_id);
    line["dup"] = json!(publish.dup);
    line["retain"] = json!(publish.retain);
    describe_payload(publish.payload, line);
}

fn describe_own_device(device: Option<&str>, line: &mut Value) {
    if let Some(device) = device {
        line["own_device"] = json!(device);
    }
}

fn describe_payload(payload: &[u8], line: &mut Value) {
    match std::str::from_utf8(payload) {
        Ok(text) => line["payload"] = json!(text),
        Err(_) => {
            use base64::Engine as _;
            line["payload_base64"] = json!(base64::engine::general_purpose::STANDARD.encode(payload));
        }
    }
}
