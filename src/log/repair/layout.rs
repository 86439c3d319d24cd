//! Decides what a segment looks like once its damage is cut out: which batches stay, and where holes are.

use std::io;
use std::path::Path;

use crate::disk::directory_of;
use crate::log::batch::{BatchHeader, HEADER_BYTES};
use crate::log::inspect::newer;
use crate::log::scan::{FaultKind, ScanFault, SegmentScanner};
use crate::log::{LogError, Lsn};

/// Most bytes of a file that one hole covers: a batch stores the length of its body in 32 bits.
const LARGEST_HOLE_BYTES: u64 = HEADER_BYTES as u64 + u32::MAX as u64;

/// A boundary between batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Byte offset in the file.
    pub(super) offset: u64,
    /// First record behind the boundary.
    pub(super) first: Lsn,
    /// Arrival time of the newest batch before the boundary.
    pub(super) arrival_ms: Option<i64>,
}

/// Bytes that are cut out, and the records that were in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) begin: Place,
    /// End of the bytes; it lies behind the end of a file that is too short.
    pub(super) end_offset: u64,
    /// One past the last record that is lost.
    pub(super) end: Lsn,
    /// Arrival time of the first batch behind the gap.
    pub(super) before_ms: Option<i64>,
    /// What is wrong with the bytes.
    pub(super) what: &'static str,
    /// Whether more records may have been lost than are known.
    pub(super) may_be_more: bool,
}

/// The segment as it will be. Everything outside of the gaps stays where it is.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) gaps: Vec<Gap>,
    /// Offsets and headers of the holes.
    pub(super) holes: Vec<(u64, BatchHeader)>,
    /// Length of the file.
    pub(super) bytes: u64,
    /// One past the last record.
    pub(super) end: Lsn,
    /// Arrival time of the newest batch or hole.
    pub(super) arrival_ms: Option<i64>,
}

/// What is known of a segment from outside of its batches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// First record of the next segment; `None` for the last one.
    pub(super) until: Option<Lsn>,
    /// Length of the segment according to the next one.
    pub(super) bytes: Option<u64>,
    /// Arrival time of the last batch according to the next segment.
    pub(super) arrival_ms: Option<i64>,
    /// Position below which a checkpoint says that everything was synced.
    pub(super) known_synced: Lsn,
    /// Current length of the file.
    pub(super) file_bytes: u64,
}

/// What follows at the scanner's place.
enum NextBatch {
    Batch(BatchHeader),
    End,
    Fault(ScanFault),
}

/// Lays out a segment. The scanner stands at the first batch and may read the bytes of the segment; it is `None` where no
/// batch can be read, since the segment's header is lost.
pub(super) fn lay_out(
    path: &Path,
    scanner: Option<&mut SegmentScanner>,
    start: Place,
    bounds: Bounds,
) -> Result<Layout, LogError> {
    let io = LogError::io(&directory_of(path).display().to_string(), "read a segment");
    let mut layout = Layout::default();
    let Some(scanner) = scanner else {
        layout.close(start, None, bounds, Some("the segment's header cannot be read"), bounds.known_synced);
        if let Some(gap) = layout.gaps.last_mut() {
            gap.may_be_more = bounds.until.is_none();
        }
        return Ok(layout);
    };
    let mut place = start;
    let mut last = None;
    let (fault, proven) = loop {
        match next(scanner, bounds.until).map_err(&io)? {
            NextBatch::Batch(header) => {
                last = Some(place);
                scanner.skip(&header);
                place = Place { offset: scanner.offset(), first: header.end(), arrival_ms: scanner.arrival_ms() };
            }
            NextBatch::End => break (None, bounds.known_synced),
            NextBatch::Fault(ScanFault { kind: FaultKind::Newer(version), .. }) => return Err(newer(path, version)),
            NextBatch::Fault(fault) => {
                let proven = proven_end(scanner, &fault, bounds).map_err(&io)?;
                if proven.is_none() && bounds.until.is_none() {
                    // An interrupted write that was never synced: the next start cuts it.
                    (layout.bytes, layout.end, layout.arrival_ms) = (bounds.file_bytes, place.first, place.arrival_ms);
                    return Ok(layout);
                }
                let Some((offset, header)) = next_sound(scanner, place, bounds.until).map_err(&io)? else {
                    break (Some(fault.what), proven.unwrap_or(Lsn(0)));
                };
                layout.fill(place, offset, header.first, Some(header.arrival_ms), fault.what, None);
                last = Some(place);
                scanner.jump((header.first, offset), layout.arrival_ms);
                place = Place { offset, first: header.first, arrival_ms: layout.arrival_ms };
            }
        }
    };
    layout.close(place, last, bounds, fault, proven);
    Ok(layout)
}

fn next(scanner: &mut SegmentScanner, until: Option<Lsn>) -> io::Result<NextBatch> {
    let header = match scanner.header()? {
        Ok(Some(header)) => header,
        Ok(None) => return Ok(NextBatch::End),
        Err(fault) => return Ok(NextBatch::Fault(fault)),
    };
    if until.is_some_and(|until| header.end() > until) {
        return Ok(NextBatch::Fault(scanner.fault("the segment holds records of the next", FaultKind::Impossible)));
    }
    Ok(match scanner.check_body(&header)? {
        Ok(()) => NextBatch::Batch(header),
        Err(fault) => NextBatch::Fault(fault),
    })
}

/// The position below which everything was synced, as far as this file and a checkpoint can tell; `None` where nothing
/// proves that the bytes that cannot be read here were ever synced.
fn proven_end(scanner: &mut SegmentScanner, fault: &ScanFault, bounds: Bounds) -> io::Result<Option<Lsn>> {
    let mut end = bounds.known_synced;
    let is_impossible = fault.kind == FaultKind::Impossible;
    scanner.find(fault.offset, |offset, header| {
        // An impossible header has a checksum that holds, so it was written whole, and its own records count as synced.
        let proves = if is_impossible && offset == fault.offset { header.end() } else { header.synced_below };
        end = end.max(proves);
        false
    })?;
    Ok((end > fault.expected || is_impossible).then_some(end))
}

/// Offset and header of the next whole batch behind a fault that leaves room for a hole.
fn next_sound(
    scanner: &mut SegmentScanner,
    place: Place,
    until: Option<Lsn>,
) -> io::Result<Option<(u64, BatchHeader)>> {
    let mut from = place.offset + HEADER_BYTES as u64;
    loop {
        let found = scanner
            .find(from, |_, header| header.first > place.first && until.is_none_or(|until| header.end() <= until))?;
        let Some((offset, header)) = found else { break };
        // A lost batch may have set the clock back.
        scanner.jump((header.first, offset), None);
        if let Ok(Some(header)) = scanner.header()?
            && scanner.check_body(&header)?.is_ok()
        {
            return Ok(Some((offset, header)));
        }
        from = offset + 1;
    }
    scanner.jump((place.first, place.offset), place.arrival_ms);
    Ok(None)
}

impl Layout {
    /// A closed segment of which nothing is left.
    pub(super) fn lost(start: Place, bounds: Bounds) -> Layout {
        let mut layout = Layout::default();
        layout.close(start, None, bounds, None, Lsn(0));
        layout
    }

    /// Puts holes in the place of the bytes `begin.offset..end_offset`. `arrival_ms` is the arrival time of the newest lost
    /// record, where that is known.
    fn fill(
        &mut self,
        begin: Place,
        end_offset: u64,
        end: Lsn,
        before_ms: Option<i64>,
        what: &'static str,
        arrival_ms: Option<i64>,
    ) {
        let arrival_ms = arrival_ms.or(begin.arrival_ms).or(before_ms).unwrap_or(0);
        // A lost batch may have set the clock back.
        let arrival_ms = before_ms.map_or(arrival_ms, |before_ms| arrival_ms.min(before_ms));
        let goes_back = begin.arrival_ms.is_some_and(|before| arrival_ms < before);
        self.gaps.push(Gap { begin, end_offset, end, before_ms, what, may_be_more: false });
        self.arrival_ms = Some(arrival_ms);
        let (mut offset, mut first) = (begin.offset, begin.first);
        let pieces_of =
            |bytes: u64, count: u64| bytes.div_ceil(LARGEST_HOLE_BYTES).max(count.div_ceil(u64::from(u32::MAX)));
        while first < end {
            let (bytes, count) = (end_offset - offset, end.0 - first.0);
            let others = pieces_of(bytes, count).saturating_sub(1);
            let bytes = (bytes - others * HEADER_BYTES as u64).min(LARGEST_HOLE_BYTES);
            let count = (count - others).min(u64::from(u32::MAX)) as u32;
            let header = BatchHeader {
                first,
                count,
                body_bytes: (bytes - HEADER_BYTES as u64) as u32,
                arrival_ms,
                // The new file is synced before it gets its name, so this never says too much.
                synced_below: first,
                body_crc: 0,
                is_hole: true,
                sets_clock_back: goes_back,
            };
            self.holes.push((offset, header));
            (offset, first) = (offset + bytes, header.end());
        }
    }

    /// Ends the segment at `place`, behind which nothing can be read. `last` is the batch or hole before it.
    fn close(&mut self, place: Place, last: Option<Place>, bounds: Bounds, fault: Option<&'static str>, proven: Lsn) {
        let end = bounds.until.unwrap_or(place.first.max(proven));
        let shortest = place.offset + if end > place.first { HEADER_BYTES as u64 } else { 0 };
        // A closed segment has the length that its successor states, if that is possible.
        let stated = bounds.bytes.filter(|_| bounds.until.is_some());
        let bytes = stated.filter(|stated| *stated >= shortest).unwrap_or(shortest);
        if end == place.first && bytes > place.offset {
            if let Some(last) = last {
                // A hole stands for records, and these bytes held none: the last batch goes into the hole with them.
                self.holes.retain(|(offset, _)| *offset < last.offset);
                self.gaps.retain(|gap| gap.begin.offset < last.offset);
                return self.close(last, None, bounds, fault, proven.max(place.first));
            }
            return self.finish(place, place.offset, bounds, fault);
        }
        if end > place.first {
            let what = fault.unwrap_or(if bounds.until.is_some() { "the segment ends" } else { "the log ends" });
            self.fill(place, bytes, end, bounds.arrival_ms, what, bounds.arrival_ms);
            if let Some(gap) = self.gaps.last_mut() {
                gap.end_offset = gap.end_offset.max(bounds.file_bytes);
            }
            (self.bytes, self.end) = (bytes, end);
            return;
        }
        self.finish(place, bytes, bounds, fault);
    }

    /// Ends the segment at `place` with no record known to be lost; further bytes of the file are cut out.
    fn finish(&mut self, place: Place, bytes: u64, bounds: Bounds, fault: Option<&'static str>) {
        (self.bytes, self.end, self.arrival_ms) = (bytes, place.first, place.arrival_ms);
        if bounds.file_bytes > bytes {
            let what = fault.unwrap_or("the file is longer than its segment was");
            let may_be_more = bounds.until.is_none();
            let end_offset = bounds.file_bytes;
            let gap = Gap { begin: place, end_offset, end: place.first, before_ms: None, what, may_be_more };
            self.gaps.push(gap);
        }
    }
}
