//! Recovery: opens the files of a log, cuts a torn tail, refuses damage, and makes certain that all it keeps is synced.
//!
//! # Steps
//!
//! 1. List and open the segments. Each header must fit the file's name and the segment before it: a missing or shortened
//!    file is found without reading it.
//! 2. Check every batch from the segment that holds `known_synced`, the position of the last checkpoint, to the end.
//!    Batches of earlier segments are not read: the header of the following segment says where they end. They were checked
//!    when they were last read, and are checked again when they are next read.
//! 3. At the first batch that cannot be read, decide between torn tail and damage (`inspect`). A torn tail is cut off.
//!    Damage ends the start with a message that names file, offset, loss and proof; no byte is changed.
//! 4. Write the part of the last segment that may never have been synced once more, and sync file and directory. Only then
//!    does the log count what it found as durable. A process that crashed after a write and before its sync leaves pages
//!    that read well and are on no disk.
//!
//! A log that ends below `known_synced` is damaged, whatever its last bytes look like.
//!
//! Recovery does not decide whether a checkpoint can do without records that retention freed, and it repairs nothing:
//! that is done on request only (`repair`).

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::active::{self, ActiveSegment};
use super::error::{Damage, LogError};
use super::inspect::{
    FaultClass, SegmentFile, check_link, classify, damaged_header, is_unfinished, list_segments, newer, read_header,
    short_of,
};
use super::scan::{SegmentScanner, Survey, survey};
use super::segment::{HEADER_BYTES, Predecessor, Segment, SegmentFault, SegmentHeader};
use super::{LogOptions, Lsn};
use crate::defects::{self, Defect};
use crate::disk::{Disk, DiskFile, directory_of, is_full};

/// Bytes that recovery writes again at once.
const REWRITE_BYTES: usize = 1024 * 1024;

/// A recovered log, ready for the writer. Everything in it is synced.
#[derive(Debug)]
pub(super) struct RecoveredLog {
    pub(super) segments: VecDeque<Segment>,
    pub(super) active: ActiveSegment,
    /// One past the last record.
    pub(super) end: Lsn,
    /// Arrival time of the newest batch ever written.
    pub(super) arrival_ms: Option<i64>,
    /// Bytes of the torn tail that was cut.
    pub(super) torn_bytes: u64,
    /// One past the last record that a hole stands for, in the segments that were checked.
    pub(super) lost_until: Option<Lsn>,
}

/// Recovers the log in `options.dir`. A log whose directory is empty begins with record `first`.
pub(super) fn recover(
    disk: &dyn Disk,
    options: &LogOptions,
    known_synced: Lsn,
    first: Lsn,
) -> Result<RecoveredLog, LogError> {
    let io = |action| LogError::io(options.name, action);
    disk.create_dir_all(&options.dir).map_err(io("create its directory"))?;
    disk.sync_dir(directory_of(&options.dir)).map_err(io("sync the directory above it"))?;
    let files = list_segments(disk, &options.dir).map_err(io("list its segments"))?;
    let Some(oldest) = files.first() else {
        return begin(disk, options, known_synced, first);
    };
    if known_synced < oldest.first {
        // Retention freed records behind the checkpoint. Whether the log's user can do without them is for the user to say.
        tracing::debug!(log = options.name, %known_synced, first = %oldest.first, "the log begins after the checkpoint");
    }
    LogRecovery { disk, options, known_synced, files }.run()
}

/// Begins a log in an empty directory.
fn begin(disk: &dyn Disk, options: &LogOptions, known_synced: Lsn, first: Lsn) -> Result<RecoveredLog, LogError> {
    if known_synced > first {
        return Err(nothing_left(&options.dir, first, known_synced).into());
    }
    let header = SegmentHeader { first, salt: active::new_salt(), predecessor: None, arrival_before_ms: None };
    let active =
        active::create(disk, &options.dir, &header).map_err(LogError::io(options.name, "create its first segment"))?;
    let segments = VecDeque::from([Segment::empty(first, active.seed)]);
    Ok(RecoveredLog { segments, active, end: first, arrival_ms: None, torn_bytes: 0, lost_until: None })
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

/// A segment file that recovery found. Its header is `None` for a last segment whose creation was interrupted.
struct FoundSegment {
    file: Arc<dyn DiskFile>,
    header: Option<SegmentHeader>,
}

/// One recovery.
struct LogRecovery<'a> {
    disk: &'a dyn Disk,
    options: &'a LogOptions,
    known_synced: Lsn,
    files: Vec<SegmentFile>,
}

impl LogRecovery<'_> {
    fn run(&self) -> Result<RecoveredLog, LogError> {
        let opened = self.open_all()?;
        let mut segments = VecDeque::with_capacity(opened.len());
        // Segments wholly below the checkpoint were checked before, and are checked again when they are read.
        let checked_from = self.files.partition_point(|file| file.first <= self.known_synced).saturating_sub(1);
        let (mut torn_bytes, mut lost_until) = (0, None);
        for (index, open) in opened.iter().enumerate() {
            let Some(header) = open.header else { continue };
            match opened.get(index + 1).and_then(|next| next.header) {
                Some(next) if index < checked_from => segments.push_back(self.unread(index, open, &header, &next)?),
                // Only a successor's header tells the end and the newest arrival time of a segment without reading it.
                _ => {
                    let (segment, torn, lost) = self.check(index, open, &header)?;
                    segments.push_back(segment);
                    torn_bytes += torn;
                    lost_until = lost.or(lost_until);
                }
            }
        }
        Ok(RecoveredLog { lost_until, ..self.finish(&opened, segments, torn_bytes)? })
    }

    fn open_all(&self) -> Result<Vec<FoundSegment>, LogError> {
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
            opened.push(FoundSegment { file, header });
        }
        Ok(opened)
    }

    /// A closed segment whose end and newest arrival time are taken from its successor's header.
    fn unread(
        &self,
        index: usize,
        open: &FoundSegment,
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

    /// Checks every batch of a segment and cuts a torn tail. Returns the segment, the bytes that were cut, and one past the
    /// last record that a hole stands for.
    fn check(
        &self,
        index: usize,
        open: &FoundSegment,
        header: &SegmentHeader,
    ) -> Result<(Segment, u64, Option<Lsn>), LogError> {
        let file = &self.files[index];
        let successor = self.files.get(index + 1).map(|next| next.first);
        let mut segment = Segment::empty(file.first, header.seed());
        let mut scanner = self.scanner(open, header, file.bytes);
        let found = survey(&mut scanner, &mut segment).map_err(self.io("read a segment"))?;
        let Survey { synced_below, fault, proof, lost_until, .. } = found;
        let mut torn_bytes = 0;
        if let Some(fault) = fault.or_else(|| short_of(&segment, successor)) {
            match classify(&file.path, &fault, proof.as_ref(), successor, self.known_synced) {
                FaultClass::Newer(version) => return Err(newer(&file.path, version)),
                FaultClass::Damage(damage) => return Err(damage.into()),
                FaultClass::Torn => torn_bytes = self.cut(file, open, &segment)?,
            }
        }
        if successor.is_none() && segment.end >= self.known_synced {
            self.write_again(open, header, &segment, synced_below)?;
        }
        Ok((segment, torn_bytes, lost_until))
    }

    fn cut(&self, file: &SegmentFile, open: &FoundSegment, segment: &Segment) -> Result<u64, LogError> {
        let len = if defects::is(Defect::KeepTornTail) { file.bytes } else { segment.bytes };
        open.file.set_len(len).map_err(self.io("cut a torn tail"))?;
        let bytes = file.bytes.saturating_sub(segment.bytes);
        tracing::info!(
            log = self.options.name, file = %file.path.display(), offset = segment.bytes, bytes,
            "cut a tail that was never acknowledged"
        );
        Ok(bytes)
    }

    /// Writes the end of the segment, which may never have been synced, once more. After a failed sync the operating system
    /// may hold pages that it takes for written and that are not on the disk: they read well, and a sync alone would not
    /// write them.
    fn write_again(
        &self,
        open: &FoundSegment,
        header: &SegmentHeader,
        segment: &Segment,
        synced_below: Option<Lsn>,
    ) -> Result<(), LogError> {
        let begin = match synced_below {
            None => 0,
            Some(synced) => self.offset_of(open, header, segment, synced.max(self.known_synced))?,
        };
        // The cut of a torn tail is repeated for the same reason: an earlier start whose sync failed may have made it.
        if !defects::is(Defect::KeepTornTail) {
            open.file.set_len(segment.bytes).map_err(self.io("cut a torn tail"))?;
        }
        let mut buffer = vec![0; REWRITE_BYTES.min(usize::try_from(segment.bytes).unwrap_or(REWRITE_BYTES))];
        let mut offset = if defects::is(Defect::SkipWriteAgain) { segment.bytes } else { begin };
        while offset < segment.bytes {
            let rest = usize::try_from(segment.bytes - offset).unwrap_or(usize::MAX);
            let piece = rest.min(buffer.len());
            let read = open.file.read_at(&mut buffer[..piece], offset).map_err(self.io("read a segment"))?;
            match open.file.write_all_at(&buffer[..read], offset) {
                // Some file systems need free space to overwrite. On a full one the sync that follows must do.
                Err(error) if is_full(&error) => break,
                written => written.map_err(self.io("write what it found once more"))?,
            }
            if read == 0 {
                break;
            }
            offset += read as u64;
        }
        Ok(())
    }

    /// Byte offset of the batch that holds `position`; the end of the segment where none does.
    fn offset_of(
        &self,
        open: &FoundSegment,
        header: &SegmentHeader,
        segment: &Segment,
        position: Lsn,
    ) -> Result<u64, LogError> {
        let start = segment.index.seek(position, segment.first);
        let mut scanner = SegmentScanner::new(Arc::clone(&open.file), header.seed(), start, None, segment.bytes);
        while let Ok(Some(batch)) = scanner.header().map_err(self.io("read a segment"))? {
            if batch.end() > position {
                break;
            }
            scanner.skip(&batch);
        }
        Ok(scanner.offset())
    }

    fn finish(
        &self,
        opened: &[FoundSegment],
        mut segments: VecDeque<Segment>,
        mut torn_bytes: u64,
    ) -> Result<RecoveredLog, LogError> {
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
                if !defects::is(Defect::SkipRecoverySync) {
                    last.file.sync().map_err(self.io("sync what it found"))?;
                }
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
        Ok(RecoveredLog { segments, active, end, arrival_ms, torn_bytes, lost_until: None })
    }

    /// Creates the last segment again, whose creation was interrupted.
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

    fn scanner(&self, open: &FoundSegment, header: &SegmentHeader, limit: u64) -> SegmentScanner {
        let start = (header.first, HEADER_BYTES as u64);
        SegmentScanner::new(Arc::clone(&open.file), header.seed(), start, header.arrival_before_ms, limit)
    }

    fn io(&self, action: &'static str) -> impl Fn(io::Error) -> LogError {
        LogError::io(self.options.name, action)
    }
}
