//! Applies a repair plan: keeps the damaged bytes in side files, then writes the segments anew.

use std::io;
use std::path::{Path, PathBuf};

use super::{Cut, RepairPlan, Rewrite};
use crate::disk::{Disk, DiskFile, directory_of};
use crate::log::LogError;
use crate::log::segment::HEADER_BYTES;

/// Bytes that are copied at once.
const PIECE_BYTES: usize = 1024 * 1024;
/// Most side files of one place. A further repair of the same bytes is refused.
const MAX_SIDE_FILES: u32 = 1000;

impl RepairPlan {
    /// Copies the damaged bytes to files in `side_dir`, named after `log`, and then writes the segments anew. Returns the
    /// side files, one entry per cut.
    ///
    /// # Errors
    /// The file system refused a call. Each segment is as it was or as it will be; a new plan completes the repair.
    pub fn apply(&self, disk: &dyn Disk, log: &str, side_dir: &Path) -> Result<Vec<Option<PathBuf>>, LogError> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let io = |action| LogError::io(log, action);
        disk.create_dir_all(side_dir)
            .and_then(|()| disk.sync_dir(directory_of(side_dir)))
            .map_err(io("create the directory of side files"))?;
        let mut kept = Vec::with_capacity(self.cuts().len());
        for cut in self.cuts() {
            kept.push(keep(disk, cut, log, side_dir).map_err(io("keep what it cuts out"))?);
        }
        disk.create_dir_all(&self.dir)
            .and_then(|()| disk.sync_dir(directory_of(&self.dir)))
            .map_err(io("create its directory"))?;
        for path in &self.removals {
            disk.remove(path).and_then(|()| disk.sync_dir(&self.dir)).map_err(io("remove a segment"))?;
        }
        for rewrite in &self.rewrites {
            rewrite.write(disk).map_err(io("write a segment anew"))?;
            disk.sync_dir(&self.dir).map_err(io("sync its directory"))?;
        }
        Ok(kept)
    }
}

/// Copies the bytes of a cut to a side file and syncs it.
fn keep(disk: &dyn Disk, cut: &Cut, log: &str, side_dir: &Path) -> io::Result<Option<PathBuf>> {
    let Some(name) = cut.side_file(log) else { return Ok(None) };
    let source = disk.open_read(&cut.file)?;
    let bytes = cut.end_offset - cut.offset;
    for attempt in 0..MAX_SIDE_FILES {
        let path = match attempt {
            0 => side_dir.join(&name),
            _ => side_dir.join(format!("{}.{attempt}.bin", name.trim_end_matches(".bin"))),
        };
        match disk.open_read(&path) {
            // An earlier attempt that did not complete kept the same bytes.
            Ok(file) if file.len()? == bytes && is_same(&*source, cut.offset, &*file)? => {
                disk.sync_dir(side_dir)?;
                return Ok(Some(path));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = Temporary::create(disk, &path)?;
                copy(&*source, cut.offset, cut.end_offset, &*file.file, 0)?;
                file.replace(disk)?;
                disk.sync_dir(side_dir)?;
                return Ok(Some(path));
            }
            Err(error) => return Err(error),
        }
    }
    let full = format!("{} and {MAX_SIDE_FILES} others of its name exist: move them away", name);
    Err(io::Error::new(io::ErrorKind::AlreadyExists, full))
}

fn is_same(one: &dyn DiskFile, mut at: u64, other: &dyn DiskFile) -> io::Result<bool> {
    let mut buffers = [vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]];
    let mut done = 0;
    loop {
        let [left, right] = &mut buffers;
        let read = other.read_at(right, done)?;
        if read == 0 {
            return Ok(true);
        }
        if one.read_at(&mut left[..read], at)? != read || left[..read] != right[..read] {
            return Ok(false);
        }
        (at, done) = (at + read as u64, done + read as u64);
    }
}

/// Copies the range `from..to` of `source` to `target` at `at`, or as much of it as the source has.
fn copy(source: &dyn DiskFile, mut from: u64, to: u64, target: &dyn DiskFile, mut at: u64) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES.min(usize::try_from(to.saturating_sub(from)).unwrap_or(PIECE_BYTES))];
    while from < to {
        let piece = usize::try_from(to - from).unwrap_or(usize::MAX).min(buffer.len());
        let read = source.read_at(&mut buffer[..piece], from)?;
        if read == 0 {
            break;
        }
        target.write_all_at(&buffer[..read], at)?;
        (from, at) = (from + read as u64, at + read as u64);
    }
    Ok(())
}

impl Rewrite {
    fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        let temporary = Temporary::create(disk, &self.path)?;
        let file = &*temporary.file;
        file.write_all_at(&self.header.encode(), 0)?;
        if let Some(source) = &self.source {
            let mut from = HEADER_BYTES as u64;
            for (offset, end) in self.left_out.iter().copied().chain([(self.bytes, self.bytes)]) {
                copy(&**source, from, offset.min(self.bytes), file, from)?;
                from = from.max(end);
            }
        }
        for (offset, hole) in &self.holes {
            file.write_all_at(&hole.encode(self.header.seed()), *offset)?;
        }
        if let Some((offset, batch)) = &self.end {
            file.write_all_at(batch, *offset)?;
        }
        // A hole's padding takes no space where the file system knows sparse files.
        file.set_len(self.bytes)?;
        temporary.replace(disk)
    }
}

/// A new file under a temporary name, which gets its final name once it is whole and synced.
struct Temporary<'a> {
    file: std::sync::Arc<dyn DiskFile>,
    path: PathBuf,
    target: &'a Path,
}

impl<'a> Temporary<'a> {
    fn create(disk: &dyn Disk, target: &'a Path) -> io::Result<Temporary<'a>> {
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(".tmp");
        let path = target.with_file_name(name);
        let file = match disk.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                disk.remove(&path)?;
                disk.create(&path)?
            }
            other => other?,
        };
        Ok(Temporary { file, path, target })
    }

    fn replace(self, disk: &dyn Disk) -> io::Result<()> {
        self.file.sync()?;
        disk.rename(&self.path, self.target)
    }
}
