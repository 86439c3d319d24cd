//! Plans the removal of the end of a log.

use std::path::Path;
use std::sync::Arc;

use super::{Cut, RepairPlan, Rewrite, missing};
use crate::disk::Disk;
use crate::log::batch::BatchHeader;
use crate::log::checksum::crc32c;
use crate::log::inspect::{self, SegmentFile, read_header};
use crate::log::scan::SegmentScanner;
use crate::log::segment::{HEADER_BYTES, SegmentHeader};
use crate::log::{LogError, Lsn, Records};

/// The place at which a segment is cut.
struct End {
    offset: u64,
    /// The records of the cut batch that stay, as a batch of their own.
    batch: Option<Vec<u8>>,
}

impl RepairPlan {
    /// Plans the removal of every record at or behind `position` from the log in `dir`, and writes nothing. For results
    /// that are computed again from the journal, and differently, since records of the journal were lost. A log that begins
    /// behind `position` is emptied and goes on from its first record. A log that cannot be read up to `position` is left
    /// alone: opening it says what is wrong.
    ///
    /// # Errors
    /// The file system refused a call.
    pub fn cut_back(disk: &dyn Disk, dir: &Path, position: Lsn) -> Result<RepairPlan, LogError> {
        let name = dir.display().to_string();
        let mut plan =
            RepairPlan { dir: dir.to_path_buf(), cuts: Vec::new(), removals: Vec::new(), rewrites: Vec::new() };
        let files = match inspect::list_segments(disk, dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(plan),
            listed => listed.map_err(LogError::io(&name, "list its segments"))?,
        };
        let Some(oldest) = files.first() else { return Ok(plan) };
        let position = position.max(oldest.first);
        let kept = files.partition_point(|file| file.first < position).max(1);
        let Some(last) = files.get(kept - 1) else { return Ok(plan) };
        let Some((header, end)) = find_end(disk, last, position).map_err(LogError::io(&name, "read a segment"))? else {
            return Ok(plan);
        };
        let end_bytes = end.offset + end.batch.as_ref().map_or(0, Vec::len) as u64;
        if end_bytes < last.bytes {
            plan.cuts.push(cut(last, end.offset, position));
            plan.rewrites.push(Rewrite {
                path: last.path.clone(),
                source: Some(disk.open_read(&last.path).map_err(LogError::io(&name, "read a segment"))?),
                header,
                holes: Vec::new(),
                end: end.batch.map(|batch| (end.offset, batch)),
                left_out: vec![(end.offset, u64::MAX)],
                bytes: end_bytes,
            });
        }
        for file in &files[kept..] {
            plan.cuts.push(cut(file, 0, file.first));
            // Newest first, so that a crash leaves no gap.
            plan.removals.insert(0, file.path.clone());
        }
        Ok(plan)
    }
}

fn cut(file: &SegmentFile, offset: u64, position: Lsn) -> Cut {
    let what = "it depends on records that are lost";
    let segment = file.first;
    Cut { offset, end_offset: file.bytes, may_be_more: true, segment, ..missing(&file.path, position, position, what) }
}

/// The segment's header and the place at which it is cut; `None` where the segment ends before `position` or cannot be read
/// up to it.
fn find_end(disk: &dyn Disk, file: &SegmentFile, position: Lsn) -> std::io::Result<Option<(SegmentHeader, End)>> {
    let handle = disk.open_read(&file.path)?;
    let Ok(segment) = read_header(&*handle)? else { return Ok(None) };
    let start = (file.first, HEADER_BYTES as u64);
    let mut scanner = SegmentScanner::new(Arc::clone(&handle), segment.seed(), start, None, file.bytes);
    loop {
        if scanner.expected() == position {
            return Ok(Some((segment, End { offset: scanner.offset(), batch: None })));
        }
        let Ok(Some(header)) = scanner.header()? else { return Ok(None) };
        if header.end() <= position {
            scanner.skip(&header);
            continue;
        }
        let offset = scanner.offset();
        let Ok(Some(batch)) = scanner.batch()? else { return Ok(None) };
        let count = (position.0 - header.first.0) as u32;
        let mut records = Records::default();
        batch.records().take(count as usize).for_each(|record| records.push(record));
        let body = records.body();
        let header = BatchHeader { count, body_bytes: body.len() as u32, body_crc: crc32c(body), ..header };
        let mut bytes = header.encode(segment.seed()).to_vec();
        bytes.extend_from_slice(body);
        return Ok(Some((segment, End { offset, batch: Some(bytes) })));
    }
}
