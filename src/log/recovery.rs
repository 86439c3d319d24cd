//! Opening a log: what is there, what is a torn tail, what is damage.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::active::{self, ActiveSegment};
use super::batch::{FORMAT_VERSION, Header};
use super::error::{Damage, LogError};
use super::scan::{Fault, FaultKind, Scanner, Survey, survey};
use super::segment::{self, HEADER_BYTES, Predecessor, Segment, SegmentFault, SegmentHeader};
use super::{LogOptions, Lsn};
use crate::disk::{Disk, DiskFile, directory_of};

/// What recovery leaves for the writer: everything in it is synced.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) segments: VecDeque<Segment>,
    pub(super) active: ActiveSegment,
    pub(super) end: Lsn,
    pub(super) arrival_ms: Option<i64>,
    pub(super) torn_bytes: u64,
}

/// One segment file of a directory.
#[derive(Debug, Clone)]
pub(super) struct SegmentFile {
    pub(super) first: Lsn,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// The segment files of a directory, oldest first. Other files are not the log's and are left alone.
pub(super) fn list_segments(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<SegmentFile>> {
    let entries = disk.list(dir)?;
    let files = entries.into_iter().filter(|entry| !entry.is_dir).filter_map(|entry| {
        let first = segment::parse_name(&entry.name)?;
        Some(SegmentFile { first, path: dir.join(&entry.name), bytes: entry.len })
    });
    Ok(files.collect())
}

/// Reads the header of a segment file.
pub(super) fn read_header(file: &dyn DiskFile) -> io::Result<Result<SegmentHeader, SegmentFault>> {
    let mut bytes = [0; HEADER_BYTES];
    if file.read_at(&mut bytes, 0)? < HEADER_BYTES {
        return Ok(Err(SegmentFault::Unreadable));
    }
    Ok(SegmentHeader::decode(&bytes))
}

/// A segment is created with its header alone, so a file that holds no more was never used.
pub(super) fn is_unfinished(file: &SegmentFile) -> bool {
    file.bytes <= HEADER_BYTES as u64
}

pub(super) fn damaged_header(file: &SegmentFile) -> Damage {
    Damage {
        file: file.path.clone(),
        offset: 0,
        expected: file.first,
        what: "the segment's header cannot be read".to_owned(),
        proof: "a segment's header is synced before anything else in it is written".to_owned(),
        lost_until: None,
    }
}

pub(super) fn newer(file: &Path, version: u16) -> LogError {
    LogError::NewerFormat { file: file.to_path_buf(), version, supported: FORMAT_VERSION }
}

/// Compares a segment with the file before it. `None`: they fit.
pub(super) fn check_link(file: &SegmentFile, header: &SegmentHeader, before: Option<&SegmentFile>) -> Option<Damage> {
    let damage = |what: String, expected| Damage {
        file: file.path.clone(),
        offset: 0,
        expected,
        what,
        proof: "a segment is synced before its successor is created".to_owned(),
        lost_until: Some(file.first),
    };
    if header.first != file.first {
        return Some(damage(format!("its header says that it begins with record {}", header.first), file.first));
    }
    let before = before?;
    match header.predecessor {
        Some(predecessor) if predecessor.first != before.first => Some(damage(
            format!("the segment before it, {}, is missing", segment::file_name(predecessor.first)),
            predecessor.first,
        )),
        Some(predecessor) if predecessor.bytes != before.bytes => Some(Damage {
            file: before.path.clone(),
            offset: before.bytes.min(predecessor.bytes),
            expected: before.first,
            what: format!("the file has {} bytes and had {} when it was closed", before.bytes, predecessor.bytes),
            proof: "a segment is synced before its successor is created".to_owned(),
            lost_until: None,
        }),
        Some(_) => None,
        None => Some(damage("its header says that nothing was before it".to_owned(), before.first)),
    }
}

/// What a fault at the end of a scan means.
pub(super) enum Verdict {
    /// An interrupted write of something that was never synced.
    Torn,
    Damage(Damage),
    Newer(u16),
}

/// Tells a torn tail from damage. `successor`: the next segment begins there; `known_synced`: a checkpoint's position.
pub(super) fn judge(
    path: &Path,
    fault: &Fault,
    proof: Option<&Header>,
    successor: Option<Lsn>,
    known_synced: Lsn,
) -> Verdict {
    let (proof, lost_until) = match (fault.kind, successor, proof) {
        (FaultKind::Newer(version), ..) => return Verdict::Newer(version),
        (_, Some(next), _) => {
            (format!("the next segment, which begins with record {next}, proves that it was synced"), {
                Some(proof.map_or(next, |later| later.first))
            })
        }
        (_, None, Some(later)) => {
            (format!("the batch of record {} proves that it was synced", later.first), Some(later.first))
        }
        (_, None, None) if known_synced > fault.expected => {
            (format!("a checkpoint proves that everything below record {known_synced} was synced"), Some(known_synced))
        }
        (FaultKind::Impossible, ..) => ("its checksum holds, so it was not an interrupted write".to_owned(), None),
        (FaultKind::Unreadable, None, None) => return Verdict::Torn,
    };
    let Fault { offset, expected, what, .. } = *fault;
    Verdict::Damage(Damage { file: path.to_path_buf(), offset, expected, what: what.to_owned(), proof, lost_until })
}

/// Recovers the log of `options.dir`. `first`: where an empty log begins.
pub(super) fn recover(
    disk: &dyn Disk,
    options: &LogOptions,
    known_synced: Lsn,
    first: Lsn,
) -> Result<Recovered, LogError> {
    let io = |action| LogError::io(options.name, action);
    disk.create_dir_all(&options.dir).map_err(io("create its directory"))?;
    disk.sync_dir(directory_of(&options.dir)).map_err(io("sync the directory above it"))?;
    let files = list_segments(disk, &options.dir).map_err(io("list its segments"))?;
    let Some(oldest) = files.first() else {
        return begin(disk, options, known_synced, first);
    };
    if known_synced < oldest.first {
        // The checkpoint lies before what is kept. Whether its reader can do without the rest is for it to say.
        tracing::debug!(log = options.name, %known_synced, first = %oldest.first, "the log begins after the checkpoint");
    }
    Recovery { disk, options, known_synced, files }.run()
}

/// Begins a log in an empty directory.
fn begin(disk: &dyn Disk, options: &LogOptions, known_synced: Lsn, first: Lsn) -> Result<Recovered, LogError> {
    if known_synced > first {
        return Err(nothing_left(&options.dir, first, known_synced).into());
    }
    let header = SegmentHeader { first, salt: active::new_salt(), predecessor: None, arrival_before_ms: None };
    let active =
        active::create(disk, &options.dir, &header).map_err(LogError::io(options.name, "create its first segment"))?;
    let segments = VecDeque::from([Segment::empty(first, active.seed)]);
    Ok(Recovered { segments, active, end: first, arrival_ms: None, torn_bytes: 0 })
}

fn nothing_left(dir: &Path, first: Lsn, known_synced: Lsn) -> Damage {
    Damage {
        file: dir.to_path_buf(),
        offset: 0,
        expected: first,
        what: "there is no segment file".to_owned(),
        proof: format!("a checkpoint proves that everything below record {known_synced} was synced"),
        lost_until: Some(known_synced),
    }
}

/// A segment file with its header; the header is `None` for a last segment whose creation was interrupted.
struct OpenSegment {
    file: Arc<dyn DiskFile>,
    header: Option<SegmentHeader>,
}

struct Recovery<'a> {
    disk: &'a dyn Disk,
    options: &'a LogOptions,
    known_synced: Lsn,
    files: Vec<SegmentFile>,
}

impl Recovery<'_> {
    fn run(&self) -> Result<Recovered, LogError> {
        let opened = self.open_all()?;
        let mut segments = VecDeque::with_capacity(opened.len());
        // What lies in segments wholly below the checkpoint was checked before, and is checked again when it is read.
        let checked_from = self.files.partition_point(|file| file.first <= self.known_synced).saturating_sub(1);
        let mut torn_bytes = 0;
        for (index, open) in opened.iter().enumerate() {
            let Some(header) = open.header else { continue };
            match opened.get(index + 1).and_then(|next| next.header) {
                Some(next) if index < checked_from => segments.push_back(self.unread(index, open, &header, &next)?),
                // Without a successor's word for its end and its newest arrival time it is read.
                _ => {
                    let (segment, torn) = self.check(index, open, &header)?;
                    segments.push_back(segment);
                    torn_bytes += torn;
                }
            }
        }
        self.finish(&opened, segments, torn_bytes)
    }

    fn open_all(&self) -> Result<Vec<OpenSegment>, LogError> {
        let mut opened = Vec::with_capacity(self.files.len());
        for (index, segment_file) in self.files.iter().enumerate() {
            let is_last = index + 1 == self.files.len();
            let open =
                if is_last { self.disk.open(&segment_file.path) } else { self.disk.open_read(&segment_file.path) };
            let file = open.map_err(self.io("open a segment"))?;
            let header = match read_header(&*file).map_err(self.io("read a segment"))? {
                Ok(header) => Some(header),
                Err(SegmentFault::Version(version)) => return Err(newer(&segment_file.path, version)),
                Err(SegmentFault::Unreadable) if is_last && is_unfinished(segment_file) => None,
                Err(SegmentFault::Unreadable) => return Err(damaged_header(segment_file).into()),
            };
            let before = index.checked_sub(1).and_then(|before| self.files.get(before));
            if let Some(damage) = header.and_then(|header| check_link(segment_file, &header, before)) {
                return Err(damage.into());
            }
            opened.push(OpenSegment { file, header });
        }
        Ok(opened)
    }

    /// A closed segment whose records are taken on the word of its successor.
    fn unread(
        &self,
        index: usize,
        open: &OpenSegment,
        header: &SegmentHeader,
        next: &SegmentHeader,
    ) -> Result<Segment, LogError> {
        let file = &self.files[index];
        let mut scanner = self.scanner(open, header, file.bytes);
        let first_batch = scanner.header().map_err(self.io("read a segment"))?;
        let mut segment = Segment::empty(file.first, header.seed());
        segment.end = next.first;
        segment.bytes = file.bytes;
        segment.first_arrival_ms = first_batch.ok().flatten().map(|batch| batch.arrival_ms);
        segment.last_arrival_ms = next.arrival_before_ms;
        Ok(segment)
    }

    /// Checks every batch of a segment; returns the bytes of a torn tail, which is cut.
    fn check(&self, index: usize, open: &OpenSegment, header: &SegmentHeader) -> Result<(Segment, u64), LogError> {
        let file = &self.files[index];
        let successor = self.files.get(index + 1).map(|next| next.first);
        let mut segment = Segment::empty(file.first, header.seed());
        let mut scanner = self.scanner(open, header, file.bytes);
        let Survey { fault, proof, .. } = survey(&mut scanner, &mut segment).map_err(self.io("read a segment"))?;
        let Some(fault) = fault.or_else(|| short_of(&segment, successor)) else { return Ok((segment, 0)) };
        match judge(&file.path, &fault, proof.as_ref(), successor, self.known_synced) {
            Verdict::Newer(version) => Err(newer(&file.path, version)),
            Verdict::Damage(damage) => Err(damage.into()),
            Verdict::Torn => {
                open.file.set_len(segment.bytes).map_err(self.io("cut a torn tail"))?;
                let torn = file.bytes.saturating_sub(segment.bytes);
                tracing::info!(
                    log = self.options.name, file = %file.path.display(), offset = segment.bytes, bytes = torn,
                    "cut a tail that was never acknowledged"
                );
                Ok((segment, torn))
            }
        }
    }

    fn finish(
        &self,
        opened: &[OpenSegment],
        mut segments: VecDeque<Segment>,
        mut torn_bytes: u64,
    ) -> Result<Recovered, LogError> {
        let (Some(last), Some(last_file)) = (opened.last(), self.files.last()) else {
            return begin(self.disk, self.options, self.known_synced, Lsn(0));
        };
        let arrival_ms = segments
            .back()
            .and_then(|segment| segment.last_arrival_ms)
            .or_else(|| opened.iter().rev().find_map(|open| open.header)?.arrival_before_ms);
        let end = segments.back().map_or(last_file.first, |segment| segment.end);
        if end < self.known_synced {
            let offset = segments.back().map_or(0, |segment| segment.bytes);
            return Err(self.ends_early(last_file, offset, end).into());
        }
        let active = match last.header {
            Some(header) => {
                last.file.sync().map_err(self.io("sync what it found"))?;
                self.disk.sync_dir(&self.options.dir).map_err(self.io("sync its directory"))?;
                let offset = segments.back().map_or(HEADER_BYTES as u64, |segment| segment.bytes);
                ActiveSegment { file: Arc::clone(&last.file), first: last_file.first, seed: header.seed(), offset }
            }
            None => {
                torn_bytes += last_file.bytes;
                let active = self.create_again(last_file, segments.back(), arrival_ms)?;
                segments.push_back(Segment::empty(active.first, active.seed));
                active
            }
        };
        Ok(Recovered { segments, active, end, arrival_ms, torn_bytes })
    }

    /// Finishes the creation of the last segment.
    fn create_again(
        &self,
        file: &SegmentFile,
        before: Option<&Segment>,
        arrival_before_ms: Option<i64>,
    ) -> Result<ActiveSegment, LogError> {
        let predecessor = before.map(|segment| Predecessor { first: segment.first, bytes: segment.bytes });
        let header = SegmentHeader { first: file.first, salt: active::new_salt(), predecessor, arrival_before_ms };
        active::create(self.disk, &self.options.dir, &header).map_err(self.io("create a segment"))
    }

    fn ends_early(&self, file: &SegmentFile, offset: u64, end: Lsn) -> Damage {
        Damage {
            file: file.path.clone(),
            offset,
            expected: end,
            what: "the log ends".to_owned(),
            proof: format!("a checkpoint proves that everything below record {} was synced", self.known_synced),
            lost_until: Some(self.known_synced),
        }
    }

    fn scanner(&self, open: &OpenSegment, header: &SegmentHeader, limit: u64) -> Scanner {
        let start = (header.first, HEADER_BYTES as u64);
        Scanner::new(Arc::clone(&open.file), header.seed(), start, header.arrival_before_ms, limit)
    }

    fn io(&self, action: &'static str) -> impl Fn(io::Error) -> LogError {
        LogError::io(self.options.name, action)
    }
}

/// A segment that ends before its successor begins, although every batch in it is whole.
pub(super) fn short_of(segment: &Segment, successor: Option<Lsn>) -> Option<Fault> {
    let successor = successor.filter(|next| *next != segment.end)?;
    let what = if successor > segment.end { "the segment ends" } else { "the segment holds records of the next" };
    Some(Fault { offset: segment.bytes, expected: segment.end, what, kind: FaultKind::Impossible })
}
