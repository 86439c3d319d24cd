//! `weir replay`: processes recorded messages with the operator that a running weir uses, and writes windows and errors
//! to files.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;

use weir::config::Config;
use weir::core::operator::Operator;
use weir::core::output::{Collector, ErrorEntry, WindowResult};
use weir::core::record::{self, PublishRecord, RecordDecoder};
use weir::core::recorded::RecordedTimesReader;
use weir::core::replayed::ReplayOrigins;
use weir::core::settings::Settings;
use weir::disk::RealDisk;
use weir::log::verify::DirectoryReader;
use weir::telemetry;

use crate::cli::ReplayArguments;
use crate::commands::journal::journal_directory;

/// Topic of the lines of a file. It names no device, so every line must name its own.
const FILE_TOPIC: &str = "replay";

/// Names of the files that are written.
const WINDOWS_FILE: &str = "windows.jsonl";
const ERRORS_FILE: &str = "errors.jsonl";

/// Longest line of a file, as long as the longest MQTT packet.
const MAX_LINE_BYTES: u64 = 256 * 1024 * 1024;

/// Counts of a finished replay.
#[derive(Debug, Default)]
struct ReplaySummary {
    messages: u64,
    readings: u64,
    windows: u64,
    errors: u64,
}

struct ReplayOutput {
    windows: BufWriter<File>,
    errors: BufWriter<File>,
    line: Vec<u8>,
    failure: Option<std::io::Error>,
    summary: ReplaySummary,
}

impl ReplayOutput {
    fn create(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let create = |name: &str| {
            let path = directory.join(name);
            let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
            anyhow::Ok(BufWriter::with_capacity(1 << 20, file))
        };
        Ok(Self {
            windows: create(WINDOWS_FILE)?,
            errors: create(ERRORS_FILE)?,
            line: Vec::new(),
            failure: None,
            summary: ReplaySummary::default(),
        })
    }

    /// Writes what is buffered and returns the counts, or the first write error.
    fn finish(mut self, operator: &Operator) -> anyhow::Result<ReplaySummary> {
        if let Some(error) = self.failure {
            return Err(error).context("cannot write the results");
        }
        for mut file in [self.windows, self.errors] {
            file.flush().context("cannot write the results")?;
        }
        self.summary.messages = operator.totals().messages;
        self.summary.readings = operator.totals().received;
        Ok(self.summary)
    }
}

fn put(file: &mut BufWriter<File>, line: &mut Vec<u8>, failure: &mut Option<std::io::Error>) {
    line.push(b'\n');
    if failure.is_none() {
        *failure = file.write_all(line).err();
    }
    line.clear();
}

impl Collector for ReplayOutput {
    fn window(&mut self, seq: u64, window: &WindowResult<'_>) {
        window.write_json(seq, &mut self.line);
        put(&mut self.windows, &mut self.line, &mut self.failure);
        self.summary.windows += 1;
    }

    fn error(&mut self, seq: u64, entry: &ErrorEntry<'_>) {
        entry.write_json(seq, &mut self.line);
        put(&mut self.errors, &mut self.line, &mut self.failure);
        self.summary.errors += 1;
    }
}

/// Runs `weir replay` and prints its counts.
///
/// # Errors
/// The input cannot be read, or the results cannot be written.
pub fn run(arguments: &ReplayArguments, config: &Config) -> anyhow::Result<ExitCode> {
    telemetry::logging::init(&config.log.level, config.log.format)?;
    let ReplayArguments { input, out } = arguments;
    let ReplaySummary { messages, readings, windows, errors } = replay(input, out, config.settings())?;
    println!(
        "{messages} messages, {readings} readings: {windows} windows in {}, {errors} errors in {}",
        out.join(WINDOWS_FILE).display(),
        out.join(ERRORS_FILE).display(),
    );
    Ok(ExitCode::SUCCESS)
}

/// Replays a file or a journal into `out`.
fn replay(input: &Path, out: &Path, settings: Settings) -> anyhow::Result<ReplaySummary> {
    let mut files = ReplayOutput::create(out)?;
    let operator = if input.is_dir() {
        replay_journal(&journal_directory(input), settings, &mut files)?
    } else {
        replay_file(input, settings, &mut files)?
    };
    files.finish(&operator)
}

fn journal(directory: &Path) -> anyhow::Result<DirectoryReader> {
    DirectoryReader::open(Arc::new(RealDisk), directory).with_context(|| format!("cannot read {}", directory.display()))
}

/// Reads the journal for replays of errors. With other settings than at first, a reading may not be rejected this time;
/// its replay, later in the journal, must then not count it a second time.
fn origins(directory: &Path) -> anyhow::Result<ReplayOrigins> {
    let mut origins = ReplayOrigins::default();
    for batch in journal(directory)? {
        let batch = batch?;
        let mut decoder = RecordDecoder::default();
        for record in batch.records() {
            let record = decoder.decode(record);
            origins.note(&record.with_context(|| format!("batch at journal position {}", batch.first().0))?);
        }
    }
    Ok(origins)
}

fn replay_journal(directory: &Path, settings: Settings, files: &mut ReplayOutput) -> anyhow::Result<Operator> {
    let mut operator = Operator::with_fixed_settings(settings);
    operator.expect_replays(origins(directory)?);
    let mut first = true;
    for batch in journal(directory)? {
        let batch = batch?;
        if std::mem::take(&mut first) && batch.first().0 > 0 {
            tracing::warn!(
                first = batch.first().0,
                "the journal does not reach back to its beginning: windows count only what is kept \
                 (journal.retention keeps more)"
            );
        }
        if batch.is_hole() {
            tracing::warn!(first = batch.first().0, end = batch.end().0, "these records are lost");
        }
        if batch.sets_clock_back() {
            operator.set_clock_back(batch.arrival_ms(), files);
        }
        operator
            .apply(batch.first().0, batch.arrival_ms(), batch.records(), files)
            .with_context(|| format!("batch at journal position {}", batch.first().0))?;
    }
    Ok(operator)
}

fn replay_file(path: &Path, settings: Settings, files: &mut ReplayOutput) -> anyhow::Result<Operator> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let recorded = RecordedTimesReader::new(&settings);
    let mut operator = Operator::new(Settings {
        telemetry_topics: vec![FILE_TOPIC.into()],
        error_topics: Vec::new(),
        // Without arrival times the only clock is event time, which does not advance while a device is silent.
        idle_timeout_ms: None,
        device_ttl_ms: None,
        ..settings.clone()
    });
    let mut has_arrivals = false;
    let mut arrival_ms = 0;
    let mut line = Vec::new();
    let mut bytes = Vec::new();
    for number in 0u64.. {
        line.clear();
        let read = std::io::Read::take(&mut reader, MAX_LINE_BYTES).read_until(b'\n', &mut line);
        if read.with_context(|| format!("{}, line {}", path.display(), number + 1))? == 0 {
            break;
        }
        let payload = line.trim_ascii();
        if payload.is_empty() {
            continue;
        }
        let times = recorded.times(payload);
        if times.arrival_ms.is_some() && !has_arrivals {
            has_arrivals = true;
            let Settings { idle_timeout_ms, device_ttl_ms, .. } = settings;
            operator.reconfigure(Settings { idle_timeout_ms, device_ttl_ms, ..operator.settings().clone() }, files);
        }
        arrival_ms = times.arrival_ms.or(times.newest_event_ms).unwrap_or(arrival_ms);
        bytes.clear();
        let publish = PublishRecord {
            client_id: "replay",
            topic: FILE_TOPIC,
            own_device: None,
            user: None,
            packet_id: 0,
            qos: 0,
            dup: false,
            retain: false,
            repeats_retained: false,
            payload,
        };
        record::encode_publish(&publish, false, &mut bytes);
        operator
            .apply(number, arrival_ms, std::iter::once(bytes.as_slice()), files)
            .with_context(|| format!("{}, line {}", path.display(), number + 1))?;
    }
    operator.close_all(files);
    Ok(operator)
}
