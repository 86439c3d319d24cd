//! Reads a log's directory without opening the log: for `weir journal verify`, for replays and for recovery of the state.
//! Writes nothing, and works beside a running weir.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::inspect::{
    self, FaultClass, SegmentFile, check_link, classify, damaged_header, is_unfinished, newer, short_of,
};
use super::scan::{SegmentScanner, Survey, survey};
use super::segment::{HEADER_BYTES, Segment, SegmentFault, SegmentHeader};
use super::{Batch, LogError, Lsn, SegmentSummary};
use crate::disk::{Disk, DiskFile};

/// What verification found in a directory.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// Segments, oldest first, as far as each can be read.
    pub segments: Vec<SegmentReport>,
    /// Everything that is wrong, in the order of the files.
    pub problems: Vec<LogProblem>,
}

impl VerifyReport {
    /// Whether weir would refuse to start: synced records are lost, or the files are of a newer format.
    pub fn is_damaged(&self) -> bool {
        self.problems.iter().any(|problem| problem.kind != LogProblemKind::TornTail)
    }
}

/// One segment file of a [`VerifyReport`].
#[derive(Debug, Clone)]
pub struct SegmentReport {
    /// The file.
    pub file: PathBuf,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// Number of whole batches that can be read from the beginning of the file.
    pub batches: u64,
    /// Number of records that are lost in these batches: `weir journal repair` left holes in their place.
    pub lost: u64,
    /// Positions, bytes and times of the batches that can be read from the beginning of the file.
    pub readable: SegmentSummary,
}

impl SegmentReport {
    /// Number of records that can be read from the beginning of the file.
    pub fn records(&self) -> u64 {
        self.readable.end.0 - self.readable.first.0 - self.lost
    }
}

/// A problem in a log's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogProblem {
    /// The file.
    pub file: PathBuf,
    /// Byte offset of the problem in the file.
    pub offset: u64,
    /// What the problem means.
    pub kind: LogProblemKind,
    /// The problem in a sentence for a person.
    pub text: String,
}

/// What a problem means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogProblemKind {
    /// An interrupted write that was never acknowledged. The next start cuts it, and nothing is lost.
    TornTail,
    /// Synced records are lost. weir refuses to start.
    Damage,
    /// A newer weir wrote the file.
    NewerFormat,
}

impl fmt::Display for LogProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn name_of(dir: &Path) -> String {
    dir.display().to_string()
}

/// Checks every batch of the log in `dir`. If a weir writes to the log meanwhile, its newest batch may look like a torn
/// tail.
///
/// # Errors
/// The file system refused a call, or a running weir freed a segment while the log was read. Damage is no error: it is in
/// the report.
pub fn verify_dir(disk: &dyn Disk, dir: &Path) -> Result<VerifyReport, LogError> {
    let files = inspect::list_segments(disk, dir).map_err(LogError::io(&name_of(dir), "list its segments"))?;
    let mut report = VerifyReport::default();
    let mut before = None;
    for (index, listed) in files.iter().enumerate() {
        let Some((file, handle)) = open_listed(disk, listed, before.is_some(), &name_of(dir))? else { continue };
        verify_segment(dir, &file, &handle, before.as_ref(), files.get(index + 1), &mut report)?;
        before = Some(file);
    }
    Ok(report)
}

/// A segment file with its current length, opened.
type ListedSegment = (SegmentFile, Arc<dyn DiskFile>);

/// Opens a segment of a listing. A weir may run meanwhile: a segment may have grown since the listing, and segments at the
/// front may have been freed. The result is `None` for a freed segment as long as no segment was read; afterwards a freed
/// segment is an error.
fn open_listed(
    disk: &dyn Disk,
    listed: &SegmentFile,
    has_begun: bool,
    name: &str,
) -> Result<Option<ListedSegment>, LogError> {
    let io = LogError::io(name, "read a segment");
    let handle = match disk.open_read(&listed.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && has_begun => {
            return Err(LogError::Freed { file: listed.path.clone() });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::warn!(file = %listed.path.display(), "a segment was freed before it was read");
            return Ok(None);
        }
        opened => opened.map_err(&io)?,
    };
    // The length in the listing may be older than the successor that the listing shows.
    let bytes = handle.len().map_err(&io)?;
    Ok(Some((SegmentFile { bytes, ..listed.clone() }, handle)))
}

fn verify_segment(
    dir: &Path,
    file: &SegmentFile,
    handle: &Arc<dyn DiskFile>,
    before: Option<&SegmentFile>,
    next: Option<&SegmentFile>,
    report: &mut VerifyReport,
) -> Result<(), LogError> {
    let io = LogError::io(&name_of(dir), "read a segment");
    let mut segment = Segment::empty(file.first, 0);
    let (mut batches, mut lost) = (0, 0);
    match inspect::read_header(&**handle).map_err(&io)? {
        Ok(header) => {
            if let Some(damage) = check_link(file, &header, before) {
                report.problems.push(problem_of(&damage.into()));
            }
            let mut scanner = scanner(handle, file, &header);
            let found = survey(&mut scanner, &mut segment).map_err(&io)?;
            (batches, lost) = (found.batches, found.lost);
            report.problems.extend(problem_in(file, &segment, &found, next));
        }
        Err(fault) => {
            segment.bytes = 0;
            report.problems.push(header_problem(file, fault, next.is_none()));
        }
    }
    let readable = segment.summary();
    report.segments.push(SegmentReport { file: file.path.clone(), file_bytes: file.bytes, batches, lost, readable });
    Ok(())
}

fn scanner(handle: &Arc<dyn DiskFile>, file: &SegmentFile, header: &SegmentHeader) -> SegmentScanner {
    let start = (file.first, HEADER_BYTES as u64);
    SegmentScanner::new(Arc::clone(handle), header.seed(), start, header.arrival_before_ms, file.bytes)
}

fn header_problem(file: &SegmentFile, fault: SegmentFault, is_last: bool) -> LogProblem {
    match fault {
        SegmentFault::Version(version) => problem_of(&newer(&file.path, version)),
        SegmentFault::Unreadable if is_last && is_unfinished(file) => torn(file, 0),
        SegmentFault::Unreadable => problem_of(&damaged_header(file).into()),
    }
}

fn problem_in(file: &SegmentFile, segment: &Segment, found: &Survey, next: Option<&SegmentFile>) -> Option<LogProblem> {
    let successor = next.map(|next| next.first);
    let fault = found.fault.clone().or_else(|| short_of(segment, successor))?;
    Some(match classify(&file.path, &fault, found.proof.as_ref(), successor, Lsn(0)) {
        FaultClass::Torn => torn(file, fault.offset),
        FaultClass::Damage(damage) => problem_of(&damage.into()),
        FaultClass::Newer(version) => problem_of(&newer(&file.path, version)),
    })
}

fn torn(file: &SegmentFile, offset: u64) -> LogProblem {
    let text = format!(
        "{}: {} bytes from byte {offset} on are an interrupted write that was never acknowledged; the next start cuts them",
        file.path.display(),
        file.bytes.saturating_sub(offset),
    );
    LogProblem { file: file.path.clone(), offset, kind: LogProblemKind::TornTail, text }
}

fn problem_of(error: &LogError) -> LogProblem {
    let text = error.to_string();
    match error {
        LogError::Damaged(damage) => {
            LogProblem { file: damage.file.clone(), offset: damage.offset, kind: LogProblemKind::Damage, text }
        }
        LogError::NewerFormat { file, .. } => {
            LogProblem { file: file.clone(), offset: 0, kind: LogProblemKind::NewerFormat, text }
        }
        _ => LogProblem { file: PathBuf::new(), offset: 0, kind: LogProblemKind::Damage, text },
    }
}

/// The batches of a directory in order. The iteration ends before a torn tail; damage is one error, and then the end. A weir
/// may write to the log meanwhile: everything that was there when the directory was listed is read, and possibly some of
/// the later batches.
#[derive(Debug)]
pub struct DirectoryReader {
    disk: Arc<dyn Disk>,
    name: String,
    files: VecDeque<SegmentFile>,
    open: Option<OpenSegment>,
    before: Option<SegmentFile>,
    torn_bytes: u64,
}

#[derive(Debug)]
struct OpenSegment {
    file: SegmentFile,
    scanner: SegmentScanner,
}

impl DirectoryReader {
    /// Lists the segments in `dir`.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<DirectoryReader, LogError> {
        let name = name_of(dir);
        let files = inspect::list_segments(&*disk, dir).map_err(LogError::io(&name, "list its segments"))?;
        Ok(DirectoryReader { disk, name, files: files.into(), open: None, before: None, torn_bytes: 0 })
    }

    /// First record of the log; `None` for a directory without segments.
    pub fn first(&self) -> Option<Lsn> {
        self.open.as_ref().map(|open| &open.file).or(self.files.front()).map(|file| file.first)
    }

    /// Bytes of the torn tail; known once the iteration has ended.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    fn advance(&mut self) -> Result<Option<Batch>, LogError> {
        loop {
            if self.open.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let io = LogError::io(&self.name, "read a segment");
            let Some(open) = &mut self.open else { return Ok(None) };
            match open.scanner.batch().map_err(&io)? {
                Ok(Some(batch)) => return Ok(Some(batch)),
                Ok(None) => self.leave()?,
                Err(fault) => {
                    let successor = self.files.front().map(|next| next.first);
                    let proof = open.scanner.find_proof().map_err(&io)?;
                    match classify(&open.file.path, &fault, proof.as_ref(), successor, Lsn(0)) {
                        FaultClass::Torn => {
                            self.torn_bytes = open.file.bytes.saturating_sub(fault.offset);
                            return Ok(None);
                        }
                        FaultClass::Damage(damage) => return Err(damage.into()),
                        FaultClass::Newer(version) => return Err(newer(&open.file.path, version)),
                    }
                }
            }
        }
    }

    /// Closes a segment that was read to its end, after checking that its successor begins there.
    fn leave(&mut self) -> Result<(), LogError> {
        let Some(OpenSegment { file, scanner }) = self.open.take() else { return Ok(()) };
        let successor = self.files.front().map(|next| next.first);
        let mut segment = Segment::empty(file.first, 0);
        (segment.end, segment.bytes) = (scanner.expected(), scanner.offset());
        if let Some(fault) = short_of(&segment, successor)
            && let FaultClass::Damage(damage) = classify(&file.path, &fault, None, successor, Lsn(0))
        {
            return Err(damage.into());
        }
        self.before = Some(file);
        Ok(())
    }

    fn open_next(&mut self) -> Result<bool, LogError> {
        let io = LogError::io(&self.name, "read a segment");
        let (file, handle) = loop {
            let Some(listed) = self.files.pop_front() else { return Ok(false) };
            if let Some(opened) = open_listed(&*self.disk, &listed, self.before.is_some(), &self.name)? {
                break opened;
            }
        };
        let header = match inspect::read_header(&*handle).map_err(&io)? {
            Ok(header) => header,
            Err(SegmentFault::Version(version)) => return Err(newer(&file.path, version)),
            Err(SegmentFault::Unreadable) if self.files.is_empty() && is_unfinished(&file) => {
                self.torn_bytes = file.bytes;
                return Ok(false);
            }
            Err(SegmentFault::Unreadable) => return Err(damaged_header(&file).into()),
        };
        if let Some(damage) = check_link(&file, &header, self.before.as_ref()) {
            return Err(damage.into());
        }
        let scanner = scanner(&handle, &file, &header);
        self.open = Some(OpenSegment { file, scanner });
        Ok(true)
    }

    fn end(&mut self) {
        self.open = None;
        self.files.clear();
    }
}

impl Iterator for DirectoryReader {
    type Item = Result<Batch, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.end();
        }
        next
    }
}
