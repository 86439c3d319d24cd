//! [`RealDisk`]: the operating system's file system.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{Disk, DiskEntry, DiskFile, pending};

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile {
    file: File,
    path: Arc<Path>,
}

/// Puts the call and the path in front of the operating system's text and keeps the kind, which callers branch on.
fn named<'a>(call: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> io::Error + 'a {
    move |error| io::Error::new(error.kind(), format!("{call} {}: {error}", path.display()))
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(named("read", &self.path)(error)),
            }
        }
        Ok(filled)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let _pending = pending::begin("write", &self.path);
        self.file.write_all_at(bytes, offset).map_err(named("write", &self.path))
    }

    fn sync(&self) -> io::Result<()> {
        let _pending = pending::begin("sync", &self.path);
        self.file.sync_data().map_err(named("sync", &self.path))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let _pending = pending::begin("set the length", &self.path);
        self.file.set_len(len).map_err(named("set the length of", &self.path))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata().map_err(named("read the length of", &self.path))?.len())
    }
}

fn open_with(options: &OpenOptions, call: &'static str, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
    let path: Arc<Path> = path.into();
    let pending = pending::begin(call, &path);
    let file = options.open(&path).map_err(named(call, &path))?;
    drop(pending);
    Ok(Arc::new(RealFile { file, path }))
}

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        open_with(OpenOptions::new().read(true).write(true).create_new(true), "create", path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        open_with(OpenOptions::new().read(true).write(true), "open", path)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        open_with(OpenOptions::new().read(true), "open", path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DiskEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir).map_err(named("list", dir))? {
            let entry = entry.map_err(named("list", dir))?;
            let metadata = match entry.metadata() {
                // The entry was removed after the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(named("list", dir))?,
            };
            // weir writes only UTF-8 names; a name that is not UTF-8 cannot be one of its files.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let is_dir = metadata.is_dir();
            entries.push(DiskEntry { name, len: if is_dir { 0 } else { metadata.len() }, is_dir });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let _pending = pending::begin("create directory", &dir.into());
        fs::create_dir_all(dir).map_err(named("create directory", dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _pending = pending::begin("rename", &from.into());
        fs::rename(from, to).map_err(|error| {
            io::Error::new(error.kind(), format!("rename {} to {}: {error}", from.display(), to.display()))
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let _pending = pending::begin("remove", &path.into());
        fs::remove_file(path).map_err(named("remove", path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let _pending = pending::begin("sync directory", &dir.into());
        let directory = File::open(dir).map_err(named("open directory", dir))?;
        directory.sync_all().map_err(named("sync directory", dir))
    }

    fn available_bytes(&self, dir: &Path) -> io::Result<u64> {
        let figures = rustix::fs::statvfs(dir).map_err(|errno| named("read free space of", dir)(errno.into()))?;
        Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::replace_file;

    #[test]
    fn a_file_reads_back_and_its_end_is_told_by_a_short_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = RealDisk.create(&path).unwrap();
        file.write_all_at(b"hello", 3).unwrap();
        file.sync().unwrap();
        let mut buffer = [9; 16];
        assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 8);
        assert_eq!(&buffer[..8], b"\0\0\0hello");
        file.set_len(4).unwrap();
        assert_eq!(RealDisk.open_read(&path).unwrap().len().unwrap(), 4);
    }

    #[test]
    fn errors_name_the_path_and_keep_the_kind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("absent");
        for error in [
            RealDisk.open(&path).unwrap_err(),
            RealDisk.open_read(&path).unwrap_err(),
            RealDisk.remove(&path).unwrap_err(),
            RealDisk.rename(&path, &path).unwrap_err(),
            RealDisk.list(&path).unwrap_err(),
            RealDisk.sync_dir(&path).unwrap_err(),
            RealDisk.available_bytes(&path).unwrap_err(),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            assert!(error.to_string().contains("absent"), "{error}");
        }
        RealDisk.create(&path).unwrap();
        assert_eq!(RealDisk.create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_file_opened_for_reading_refuses_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        RealDisk.create(&path).unwrap();
        assert!(RealDisk.open_read(&path).unwrap().write_all_at(b"x", 0).is_err());
    }

    #[test]
    fn a_directory_lists_in_order_of_name() {
        let dir = tempfile::tempdir().unwrap();
        RealDisk.create(&dir.path().join("b")).unwrap().write_all_at(b"12", 0).unwrap();
        RealDisk.create_dir_all(&dir.path().join("c/d")).unwrap();
        RealDisk.create(&dir.path().join("a")).unwrap();
        let entry = |name: &str, len, is_dir| DiskEntry { name: name.to_owned(), len, is_dir };
        assert_eq!(
            RealDisk.list(dir.path()).unwrap(),
            vec![entry("a", 0, false), entry("b", 2, false), entry("c", 0, true)]
        );
    }

    #[test]
    fn replacing_leaves_the_new_content_and_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        RealDisk.create(&dir.path().join("state.tmp")).unwrap().write_all_at(b"left behind, longer", 0).unwrap();
        replace_file(&RealDisk, &path, b"one").unwrap();
        replace_file(&RealDisk, &path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(RealDisk.list(dir.path()).unwrap().len(), 1);
    }

    #[test]
    fn free_space_is_known() {
        let dir = tempfile::tempdir().unwrap();
        assert!(RealDisk.available_bytes(dir.path()).unwrap() > 0);
    }
}
