//! Cuts damage out of a log's files, on request only (`weir journal repair`). Records that cannot be read become a hole, so
//! all other records keep their positions.
//!
//! A [`RepairPlan`] says what would be done and changes nothing. Applying it first copies the damaged bytes to side files;
//! then each segment that changes is written anew beside the old one, synced and renamed, oldest first. A crash leaves
//! each segment as it was or as it will be, and a new plan completes the repair. The log must not be open.
//!
//! `layout` decides what of one segment stays, `seed` recovers the checksum seed of a segment whose header is lost,
//! `salvage` guesses what was in the damaged bytes, `cut_back` removes the end of a log, and `apply` writes.

mod apply;
mod cut_back;
mod layout;
mod salvage;
mod seed;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::active;
use super::batch::{BatchHeader, HEADER_BYTES as BATCH_HEADER_BYTES};
use super::inspect::{self, SegmentFile, check_link, is_unfinished, newer, read_header};
use super::scan::SegmentScanner;
use super::segment::{self, HEADER_BYTES, Predecessor, SegmentFault, SegmentHeader};
use super::{LogError, Lsn};
use crate::disk::{Disk, DiskFile};
use layout::{Bounds, Gap, Layout, Place, lay_out};

/// A range of a file that is cut out, and the records that are lost with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment file.
    pub file: PathBuf,
    /// Byte offset of the first damaged byte.
    pub offset: u64,
    /// One past the last byte that is cut out; at most the length of the file.
    pub end_offset: u64,
    /// What is wrong.
    pub what: String,
    /// First record that is lost.
    pub first: Lsn,
    /// One past the last record that is lost; equal to `first` where no record is known to be lost.
    pub end: Lsn,
    /// Whether more records may be lost than are known, since nothing says how far the log went.
    pub may_be_more: bool,
    /// Arrival time of the newest batch before the cut, Unix milliseconds: the lost records arrived no earlier.
    pub after_ms: Option<i64>,
    /// Arrival time of a batch behind the cut or of the last lost batch, Unix milliseconds: the lost records arrived no
    /// later.
    pub before_ms: Option<i64>,
    /// First record of the segment that the cut is in.
    segment: Lsn,
}

impl Cut {
    /// Number of records that are known to be lost.
    pub fn lost(&self) -> u64 {
        self.end.0 - self.first.0
    }

    /// Name of the file that keeps the damaged bytes; `None` where there are none, since a file is missing or too short.
    pub fn side_file(&self, log: &str) -> Option<String> {
        let stem = segment::file_name(self.segment);
        let stem = stem.trim_end_matches(".log");
        (self.end_offset > self.offset).then(|| format!("{log}-{stem}-{}.bin", self.offset))
    }
}

/// A segment file that is written anew.
#[derive(Debug)]
struct Rewrite {
    path: PathBuf,
    /// The file from which the sound batches are copied; they keep their offsets.
    source: Option<Arc<dyn DiskFile>>,
    header: SegmentHeader,
    /// Offsets and headers of the holes.
    holes: Vec<(u64, BatchHeader)>,
    /// Offset and bytes of a batch that is written behind the copied ones.
    end: Option<(u64, Vec<u8>)>,
    /// Begin and end of the ranges that are not copied.
    left_out: Vec<(u64, u64)>,
    bytes: u64,
}

/// What a repair of one log would do.
#[derive(Debug)]
pub struct RepairPlan {
    dir: PathBuf,
    cuts: Vec<Cut>,
    /// Segment files that are removed, newest first, before any segment is written anew.
    removals: Vec<PathBuf>,
    rewrites: Vec<Rewrite>,
}

impl RepairPlan {
    /// Looks for damage in the log in `dir` and writes nothing. `known_synced` is a position that a checkpoint says was
    /// synced; without one, records that are missing at the very end cannot be told from records that never existed.
    ///
    /// # Errors
    /// The file system refused a call, or a file has a newer format.
    pub fn new(disk: &dyn Disk, dir: &Path, known_synced: Option<Lsn>) -> Result<RepairPlan, LogError> {
        let name = dir.display().to_string();
        let files = match inspect::list_segments(disk, dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            listed => listed.map_err(LogError::io(&name, "list its segments"))?,
        };
        let planner = Planner { disk, dir, name, known_synced, files: &files };
        let (mut cuts, mut rewrites) = (Vec::new(), Vec::new());
        planner.plan(&mut cuts, &mut rewrites)?;
        Ok(RepairPlan { dir: dir.to_path_buf(), cuts, removals: Vec::new(), rewrites })
    }

    /// Whether there is nothing to repair. A torn tail needs no repair: the next start cuts it.
    pub fn is_empty(&self) -> bool {
        self.rewrites.is_empty() && self.removals.is_empty()
    }

    /// The cuts, in the order of the files.
    pub fn cuts(&self) -> &[Cut] {
        &self.cuts
    }
}

/// What the plan of the next segment must know of a segment as it will be.
#[derive(Debug, Clone, Copy)]
struct Placed {
    first: Lsn,
    bytes: u64,
    arrival_ms: Option<i64>,
}

impl Placed {
    fn predecessor(&self) -> Predecessor {
        Predecessor { first: self.first, bytes: self.bytes }
    }
}

/// A segment file with its header; the header is `None` where it cannot be believed.
#[derive(Debug)]
struct OpenedSegment {
    handle: Arc<dyn DiskFile>,
    header: Option<SegmentHeader>,
}

/// The header of a segment as it will be.
#[derive(Debug, Clone, Copy)]
struct PlannedHeader {
    header: SegmentHeader,
    /// Whether the header differs from the one in the file.
    is_new: bool,
    /// Whether the salt is known. Without it no batch of the segment can be read.
    is_salt_known: bool,
}

struct Planner<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    name: String,
    known_synced: Option<Lsn>,
    files: &'a [SegmentFile],
}

impl Planner<'_> {
    fn plan(&self, cuts: &mut Vec<Cut>, rewrites: &mut Vec<Rewrite>) -> Result<(), LogError> {
        let Some(oldest) = self.files.first() else {
            self.begin_anew(cuts, rewrites);
            return Ok(());
        };
        let opened = self.files.iter().map(|file| self.open(file)).collect::<Result<Vec<_>, _>>()?;
        let mut before = None;
        if let Some(needed) = self.known_synced.filter(|needed| *needed < oldest.first) {
            before = self.missing_at_front(needed, oldest.first, opened[0].header.as_ref(), cuts, rewrites);
        }
        for (index, (file, open)) in self.files.iter().zip(&opened).enumerate() {
            let next = self.files.get(index + 1).map(|file| file.first).zip(opened.get(index + 1));
            let (placed, missing) = self.segment(file, open, before, next, cuts, rewrites)?;
            before = Some(placed);
            if let (Some(predecessor), Some((until, next))) = (missing, next) {
                let arrival_ms = next.header.and_then(|header| header.arrival_before_ms);
                before = Some(self.rebuild(predecessor, until, before, arrival_ms, cuts, rewrites));
            }
        }
        Ok(())
    }

    fn open(&self, file: &SegmentFile) -> Result<OpenedSegment, LogError> {
        let io = LogError::io(&self.name, "read a segment");
        let handle = self.disk.open_read(&file.path).map_err(&io)?;
        let header = match read_header(&*handle).map_err(&io)? {
            Ok(header) => Some(header),
            Err(SegmentFault::Version(version)) => return Err(newer(&file.path, version)),
            Err(SegmentFault::Unreadable) => None,
        };
        Ok(OpenedSegment { handle, header: header.filter(|header| header.first == file.first) })
    }

    /// No segment file is left, and no checkpoint needs the records that were in them.
    fn begin_anew(&self, cuts: &mut Vec<Cut>, rewrites: &mut Vec<Rewrite>) {
        let Some(first) = self.known_synced.filter(|known| *known > Lsn(0)) else { return };
        let header = SegmentHeader { first, salt: active::new_salt(), predecessor: None, arrival_before_ms: None };
        let path = segment::path(self.dir, first);
        let mut cut = missing(&path, first, first, "there is no segment file");
        cut.may_be_more = true;
        cuts.push(cut);
        let bytes = HEADER_BYTES as u64;
        rewrites.push(Rewrite {
            path,
            source: None,
            header,
            holes: Vec::new(),
            end: None,
            left_out: Vec::new(),
            bytes,
        });
    }

    /// Segments that a checkpoint needs are missing at the front of the log.
    fn missing_at_front(
        &self,
        needed: Lsn,
        oldest: Lsn,
        header: Option<&SegmentHeader>,
        cuts: &mut Vec<Cut>,
        rewrites: &mut Vec<Rewrite>,
    ) -> Option<Placed> {
        let arrival_ms = header.and_then(|header| header.arrival_before_ms);
        let stated = header.and_then(|header| header.predecessor).filter(|before| before.first < oldest);
        let shortest = (HEADER_BYTES + BATCH_HEADER_BYTES) as u64;
        let until = stated.map_or(oldest, |before| before.first);
        let mut before = None;
        if needed < until {
            let gone = Predecessor { first: needed, bytes: shortest };
            before = Some(self.rebuild(gone, until, None, None, cuts, rewrites));
        }
        stated.map(|gone| self.rebuild(gone, oldest, before, arrival_ms, cuts, rewrites)).or(before)
    }

    /// A segment whose file is missing becomes a header and a hole.
    fn rebuild(
        &self,
        gone: Predecessor,
        until: Lsn,
        before: Option<Placed>,
        arrival_ms: Option<i64>,
        cuts: &mut Vec<Cut>,
        rewrites: &mut Vec<Rewrite>,
    ) -> Placed {
        let start = self.start(gone.first, before.and_then(|before| before.arrival_ms));
        let bytes = Some(gone.bytes);
        let known_synced = Lsn(0);
        let bounds = Bounds { until: Some(until), bytes, arrival_ms, known_synced, file_bytes: 0 };
        let path = segment::path(self.dir, gone.first);
        let layout = Layout::lost(start, bounds);
        let mut cut = missing(&path, gone.first, until, "the file is missing");
        (cut.after_ms, cut.before_ms) = (start.arrival_ms, arrival_ms);
        cuts.push(cut);
        let header = SegmentHeader {
            first: gone.first,
            salt: active::new_salt(),
            predecessor: before.as_ref().map(Placed::predecessor),
            arrival_before_ms: start.arrival_ms,
        };
        let placed = Placed { first: gone.first, bytes: layout.bytes, arrival_ms: layout.arrival_ms };
        let Layout { holes, bytes, .. } = layout;
        rewrites.push(Rewrite { path, source: None, header, holes, end: None, left_out: Vec::new(), bytes });
        placed
    }

    fn start(&self, first: Lsn, arrival_ms: Option<i64>) -> Place {
        Place { offset: HEADER_BYTES as u64, first, arrival_ms }
    }

    /// Plans one segment. Also returns the missing segment between this one and the next, if there is one.
    fn segment(
        &self,
        file: &SegmentFile,
        open: &OpenedSegment,
        before: Option<Placed>,
        next: Option<(Lsn, &OpenedSegment)>,
        cuts: &mut Vec<Cut>,
        rewrites: &mut Vec<Rewrite>,
    ) -> Result<(Placed, Option<Predecessor>), LogError> {
        let known_synced = if next.is_some() { Lsn(0) } else { self.known_synced.unwrap_or_default() };
        if next.is_none() && open.header.is_none() && is_unfinished(file) && known_synced <= file.first {
            // The creation of the segment was interrupted: the next start creates it again.
            return Ok((Placed { first: file.first, bytes: file.bytes, arrival_ms: None }, None));
        }
        let mut bounds = Bounds {
            until: next.map(|(first, _)| first),
            bytes: None,
            arrival_ms: next.and_then(|(_, open)| open.header?.arrival_before_ms),
            known_synced,
            file_bytes: file.bytes,
        };
        let mut gone = None;
        match next.and_then(|(_, open)| open.header?.predecessor) {
            Some(stated) if stated.first == file.first => bounds.bytes = Some(stated.bytes),
            Some(stated) if stated.first > file.first && Some(stated.first) < bounds.until => {
                (bounds.until, bounds.arrival_ms) = (Some(stated.first), None);
                gone = Some(stated);
            }
            _ => {}
        }
        let PlannedHeader { header, is_new, is_salt_known } = self.header(file, open, before)?;
        let start = self.start(file.first, header.arrival_before_ms);
        let limit = bounds.bytes.unwrap_or(u64::MAX).min(file.bytes);
        let mut scanner = is_salt_known.then(|| {
            let handle = Arc::clone(&open.handle);
            SegmentScanner::new(handle, header.seed(), (start.first, start.offset), start.arrival_ms, limit)
        });
        let layout = lay_out(&file.path, scanner.as_mut(), start, bounds)?;
        let placed = Placed { first: file.first, bytes: layout.bytes, arrival_ms: layout.arrival_ms };
        if is_new && is_salt_known {
            cuts.push(header_cut(file, open));
        }
        cuts.extend(layout.gaps.iter().map(|gap| cut_of(file, gap, !is_salt_known)));
        if is_new || !layout.gaps.is_empty() {
            let left_out = layout.gaps.iter().map(|gap| (gap.begin.offset, gap.end_offset)).collect();
            let source = Some(Arc::clone(&open.handle));
            let Layout { holes, bytes, .. } = layout;
            rewrites.push(Rewrite { path: file.path.clone(), source, header, holes, end: None, left_out, bytes });
        }
        Ok((placed, gone))
    }

    /// Plans the header of a segment.
    fn header(
        &self,
        file: &SegmentFile,
        open: &OpenedSegment,
        before: Option<Placed>,
    ) -> Result<PlannedHeader, LogError> {
        let placed = before.map(|before| SegmentFile {
            first: before.first,
            path: segment::path(self.dir, before.first),
            bytes: before.bytes,
        });
        if let Some(header) = open.header.filter(|header| check_link(file, header, placed.as_ref()).is_none()) {
            return Ok(PlannedHeader { header, is_new: false, is_salt_known: true });
        }
        let salt = match open.header {
            Some(header) => Some(header.salt),
            None => seed::recover_salt(file, &open.handle).map_err(LogError::io(&self.name, "read a segment"))?,
        };
        let header = SegmentHeader {
            first: file.first,
            salt: salt.unwrap_or_else(active::new_salt),
            predecessor: before.as_ref().map(Placed::predecessor),
            arrival_before_ms: before.and_then(|before| before.arrival_ms),
        };
        Ok(PlannedHeader { header, is_new: true, is_salt_known: salt.is_some() })
    }
}

fn missing(path: &Path, first: Lsn, end: Lsn, what: &str) -> Cut {
    Cut {
        file: path.to_path_buf(),
        offset: 0,
        end_offset: 0,
        what: what.to_owned(),
        first,
        end,
        may_be_more: false,
        after_ms: None,
        before_ms: None,
        segment: first,
    }
}

fn header_cut(file: &SegmentFile, open: &OpenedSegment) -> Cut {
    let what = match open.header {
        Some(_) => "its header does not name the segment before it",
        None => "its header cannot be read",
    };
    Cut { end_offset: file.bytes.min(HEADER_BYTES as u64), ..missing(&file.path, file.first, file.first, what) }
}

/// The cut of a gap. `from_start`: the segment's header is cut out with its batches.
fn cut_of(file: &SegmentFile, gap: &Gap, from_start: bool) -> Cut {
    let offset = if from_start { 0 } else { gap.begin.offset };
    Cut {
        file: file.path.clone(),
        offset,
        end_offset: gap.end_offset.min(file.bytes).max(offset),
        what: gap.what.to_owned(),
        first: gap.begin.first,
        end: gap.end,
        may_be_more: gap.may_be_more,
        after_ms: gap.begin.arrival_ms,
        before_ms: gap.before_ms,
        segment: file.first,
    }
}
