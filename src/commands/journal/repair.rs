//! `weir journal repair`: cuts damaged bytes out of the logs of a data directory, and reports which records, devices
//! and results that affects.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;

use weir::core::operator::Operator;
use weir::core::output::{Collector, ErrorEntry, WindowResult};
use weir::core::record::{Record, RecordDecoder};
use weir::core::settings::Settings;
use weir::disk::lock::DirectoryLock;
use weir::disk::{Disk, RealDisk};
use weir::log::repair::{Cut, RepairPlan};
use weir::log::{DirectoryReader, Lsn, RecordIter};
use weir::state::checkpoint_store::{CheckpointStore, OPEN_LIMIT};
use weir::state::manifest::Positions;
use weir::state::open::StoreOptions;
use weir::state::savepoint;

use super::verify::Soundness;

/// The logs of a data directory.
const LOGS: [&str; 3] = ["journal", "windows", "errors"];
/// Directory below the data directory in which the damaged bytes are kept.
const SIDE_DIRECTORY: &str = "damaged";
/// Largest number of devices and of topics that are shown.
const MAX_NAMES: usize = 20;

/// The logs to repair.
struct RepairTarget {
    data_dir: Option<PathBuf>,
    /// Name and directory of each log.
    logs: Vec<(String, PathBuf)>,
    side_dir: PathBuf,
}

impl RepairTarget {
    fn of(directory: &Path) -> RepairTarget {
        let side_dir = directory.join(SIDE_DIRECTORY);
        if LOGS.iter().any(|name| directory.join(name).is_dir()) {
            let logs = LOGS.iter().map(|name| ((*name).to_owned(), directory.join(name))).collect();
            return RepairTarget { data_dir: Some(directory.to_owned()), logs, side_dir };
        }
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // `directory` is one log: of a data directory, which has a lock file, or a copy elsewhere.
        let parent = directory.parent().filter(|parent| LOGS.contains(&name.as_str()) && parent.join("lock").is_file());
        RepairTarget { data_dir: parent.map(Path::to_owned), logs: vec![(name, directory.to_owned())], side_dir }
    }
}

/// Reports the damage that is to be cut out, and cuts it out if `yes`.
///
/// # Errors
/// A running weir holds the data directory, a file cannot be read or written, or `out` fails.
pub fn repair(directory: &Path, yes: bool, settings: &Settings, out: &mut impl Write) -> anyhow::Result<Soundness> {
    let absolute = directory.canonicalize().with_context(|| format!("cannot read {}", directory.display()))?;
    let target = RepairTarget::of(&absolute);
    // A running weir writes to the logs.
    let _lock = target.data_dir.as_deref().map(DirectoryLock::acquire).transpose()?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let known = match &target.data_dir {
        Some(data_dir) => SyncedPositions::of(data_dir, &disk, out)?,
        None => SyncedPositions::Nothing,
    };
    let mut report = RepairReport { disk: disk.clone(), settings, target: &target, yes, out };
    let mut damaged = false;
    for (name, directory) in &target.logs {
        damaged |= report.log(name, directory, known)?;
    }
    report.end(directory, damaged)?;
    Ok(if damaged && !yes { Soundness::Damaged } else { Soundness::Sound })
}

/// Positions up to which the logs are known to have been synced.
#[derive(Clone, Copy)]
enum SyncedPositions {
    /// Positions of the checkpoint that the next start continues from. The journal must hold everything after them.
    Checkpoint(Positions),
    /// Positions of a savepoint. Segments behind them may have been freed since.
    Savepoint(Positions),
    /// There is no readable checkpoint or savepoint.
    Nothing,
}

impl SyncedPositions {
    fn of(data_dir: &Path, disk: &Arc<dyn Disk>, out: &mut impl Write) -> anyhow::Result<SyncedPositions> {
        let directory = data_dir.join("state");
        if directory.is_dir() {
            let store = StoreOptions::sled(disk.clone(), OPEN_LIMIT);
            let opened = CheckpointStore::open(store, &directory);
            match opened {
                Ok((_, Some(checkpoint))) => return Ok(SyncedPositions::Checkpoint(checkpoint.manifest.positions)),
                Ok((_, None)) => {}
                Err(error) => writeln!(out, "The last checkpoint cannot be read: {error}.")?,
            }
        }
        for (path, info) in savepoint::list(&**disk, &data_dir.join(savepoint::DIRECTORY))? {
            if let Ok(info) = info
                && let Ok(checkpoint) = savepoint::read(&**disk, &path)
            {
                writeln!(out, "The least extent of the logs is taken from {}.", info.file)?;
                return Ok(SyncedPositions::Savepoint(checkpoint.manifest.positions));
            }
        }
        writeln!(
            out,
            "There is no checkpoint to tell how far the logs reached: records missing at the very end of a log do not show, \
             and a log is cut at the end of its readable part."
        )?;
        Ok(SyncedPositions::Nothing)
    }

    /// The position up to which `log` is known to have been synced.
    fn position(self, log: &str, disk: &Arc<dyn Disk>, directory: &Path) -> Option<Lsn> {
        let (SyncedPositions::Checkpoint(positions) | SyncedPositions::Savepoint(positions)) = self else {
            return None;
        };
        let position = match log {
            "journal" => positions.replay_from,
            "windows" => positions.windows,
            "errors" => positions.errors,
            _ => return None,
        };
        let first = DirectoryReader::open(disk.clone(), directory).ok().and_then(|reader| reader.first());
        let is_covered = first.is_none_or(|first| first.0 <= position);
        (is_covered || matches!(self, SyncedPositions::Checkpoint(_))).then_some(Lsn(position))
    }
}

struct RepairReport<'a, W> {
    disk: Arc<dyn Disk>,
    settings: &'a Settings,
    target: &'a RepairTarget,
    yes: bool,
    out: &'a mut W,
}

impl<W: Write> RepairReport<'_, W> {
    /// Repairs one log, or reports the repair. Returns whether the log is damaged.
    fn log(&mut self, name: &str, directory: &Path, known: SyncedPositions) -> anyhow::Result<bool> {
        let synced = known.position(name, &self.disk, directory);
        let plan = RepairPlan::new(&*self.disk, directory, synced)?;
        if plan.is_empty() {
            return Ok(false);
        }
        writeln!(self.out, "{}", directory.display())?;
        // The damaged bytes are read before they are cut out.
        let affected: Vec<AffectedNames> =
            plan.cuts().iter().map(|cut| AffectedNames::of(cut, name, &*self.disk, self.settings)).collect();
        let kept = if self.yes { plan.apply(&*self.disk, name, &self.target.side_dir)? } else { Vec::new() };
        for (index, (cut, affected)) in plan.cuts().iter().zip(affected).enumerate() {
            self.cut(cut)?;
            affected.write(name, self.out)?;
            match (kept.get(index), cut.side_file(name)) {
                (Some(Some(path)), _) => writeln!(self.out, "    its bytes are kept in {}", path.display())?,
                (None, Some(file)) => {
                    writeln!(self.out, "    its bytes would be kept in {}", self.target.side_dir.join(file).display())?;
                }
                _ => {}
            }
        }
        if name == "journal" {
            self.reach(&plan, known)?;
        }
        Ok(true)
    }

    fn cut(&mut self, cut: &Cut) -> anyhow::Result<()> {
        let file = cut.file.file_name().unwrap_or_default().to_string_lossy();
        let place = match cut.end_offset.checked_sub(cut.offset + 1) {
            Some(_) => format!("bytes {} to {}", cut.offset, cut.end_offset - 1),
            None => format!("from byte {} on", cut.offset),
        };
        writeln!(self.out, "  {file}  {place}: {}", cut.what)?;
        let more = if cut.may_be_more { ", and there may have been more after them" } else { "" };
        match cut.lost() {
            0 if cut.may_be_more => writeln!(self.out, "    how many records are lost is not known")?,
            0 => writeln!(self.out, "    no record is lost")?,
            lost => {
                let last = cut.end.0 - 1;
                writeln!(self.out, "    records {} to {last} are lost ({lost}){more}", cut.first)?;
            }
        }
        if cut.lost() > 0 || cut.may_be_more {
            writeln!(self.out, "    arrived {}", between(cut.after_ms, cut.before_ms))?;
        }
        Ok(())
    }

    /// Reports the effect of the lost journal records on windows.
    fn reach(&mut self, plan: &RepairPlan, known: SyncedPositions) -> anyhow::Result<()> {
        let SyncedPositions::Checkpoint(Positions { replay_from: synced, .. }) = known else { return Ok(()) };
        let lost = |from: u64, to: u64| -> u64 {
            plan.cuts().iter().map(|cut| cut.end.0.min(to).saturating_sub(cut.first.0.max(from))).sum()
        };
        let (counted, missing) = (lost(0, synced), lost(synced, u64::MAX));
        if counted > 0 {
            writeln!(
                self.out,
                "  {counted} of the lost records are in the last checkpoint: their readings stay counted"
            )?;
        }
        if missing > 0 {
            writeln!(
                self.out,
                "  {missing} of the lost records are in no checkpoint: the next start computes the windows since then again, \
                 without them"
            )?;
        }
        Ok(())
    }

    fn end(&mut self, directory: &Path, damaged: bool) -> anyhow::Result<()> {
        let directory = directory.display();
        match (damaged, self.yes) {
            (false, _) => writeln!(self.out, "There is nothing to repair.")?,
            (true, false) => writeln!(
                self.out,
                "Nothing was changed. Copy the data directory away, then repair it with `weir journal repair {directory} --yes`"
            )?,
            (true, true) => writeln!(
                self.out,
                "Repaired. Check with `weir journal verify {directory}`, then start weir. Check the disk too: it returned other \
                 bytes than were written"
            )?,
        }
        Ok(())
    }
}

fn between(after_ms: Option<i64>, before_ms: Option<i64>) -> String {
    let time = |ms: i64| Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| time.to_string());
    match (after_ms.map(time), before_ms.map(time)) {
        (Some(after), Some(before)) => format!("between {after} and {before}"),
        (Some(after), None) => format!("at {after} or later"),
        (None, Some(before)) => format!("at {before} or earlier"),
        (None, None) => "at a time that is not known".to_owned(),
    }
}

/// Devices and topics whose names the damaged bytes still show. Others may be affected too.
#[derive(Default)]
struct AffectedNames {
    devices: BTreeSet<String>,
    topics: BTreeSet<String>,
    more: bool,
}

impl AffectedNames {
    fn of(cut: &Cut, log: &str, disk: &dyn Disk, settings: &Settings) -> AffectedNames {
        let mut affected = AffectedNames::default();
        let looked = cut.guess(disk, &mut |records| match log {
            "journal" => affected.publishes(records, settings, cut.before_ms.or(cut.after_ms).unwrap_or(0)),
            "windows" => affected.results(records.map_while(|bytes| Some(WindowResult::decode(bytes).ok()?.device_id))),
            _ => affected.results(records.map_while(|bytes| ErrorEntry::decode(bytes).ok()?.device_id)),
        });
        if let Err(error) = looked {
            tracing::warn!(%error, "the damaged bytes cannot be read");
        }
        affected
    }

    fn add(names: &mut BTreeSet<String>, more: &mut bool, name: &str) {
        if names.len() < MAX_NAMES || names.contains(name) {
            names.insert(name.to_owned());
        } else {
            *more = true;
        }
    }

    fn results<'a>(&mut self, devices: impl Iterator<Item = &'a str>) {
        for device in devices {
            Self::add(&mut self.devices, &mut self.more, device);
        }
    }

    /// Adds topics and devices of journal records. The operator decides which devices the readings belong to.
    fn publishes(&mut self, records: RecordIter<'_>, settings: &Settings, arrival_ms: i64) {
        let mut decoder = RecordDecoder::default();
        let mut sound = Vec::new();
        for bytes in records {
            match decoder.decode(bytes) {
                Ok(Record::Publish(publish, _)) => Self::add(&mut self.topics, &mut self.more, publish.topic),
                Ok(Record::Replay(replay)) => Self::add(&mut self.topics, &mut self.more, replay.topic),
                Ok(_) => {}
                Err(_) => break,
            }
            sound.push(bytes);
        }
        let mut operator = Operator::new(settings.clone());
        if operator.apply(0, arrival_ms, sound.into_iter(), self).is_ok() {
            for device in operator.devices(None, MAX_NAMES + 1) {
                Self::add(&mut self.devices, &mut self.more, &device.device_id);
            }
        }
    }

    fn write(&self, log: &str, out: &mut impl Write) -> anyhow::Result<()> {
        let dots = if self.more { ", …" } else { "" };
        for (what, names) in [("device", &self.devices), ("topic", &self.topics)] {
            if !names.is_empty() {
                let plural = if names.len() == 1 { "" } else { "s" };
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                writeln!(out, "    at least {what}{plural} {}{dots} may be affected", names.join(", "))?;
            }
        }
        if self.devices.is_empty() && self.topics.is_empty() && log == "journal" {
            writeln!(out, "    the devices of the lost readings are not known")?;
        }
        Ok(())
    }
}

/// A damaged payload is rejected as an error of its device.
impl Collector for AffectedNames {
    fn window(&mut self, _seq: u64, _window: &WindowResult<'_>) {}

    fn error(&mut self, _seq: u64, entry: &ErrorEntry<'_>) {
        if let Some(device) = entry.device_id {
            Self::add(&mut self.devices, &mut self.more, device);
        }
    }
}
