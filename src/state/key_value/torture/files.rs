//! Images of a store's directory: at a sync, before the next sync, and after a power cut between the two.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{Disk, DiskEntry, DiskFile, RealDisk};
use crate::random::Random;

/// Bytes of the unit in which file systems write back.
const PAGE: usize = 4096;

/// Contents by path below the directory.
pub type Image = BTreeMap<PathBuf, Vec<u8>>;

/// The seed of `WEIR_TEST_SEED`, or a new one each time.
pub fn seed() -> u64 {
    let set = std::env::var("WEIR_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let seed = set.unwrap_or_else(|| now() as u64 % 1_000_000_000);
    println!("WEIR_TEST_SEED={seed}");
    seed
}

pub fn read_image(directory: &Path) -> Image {
    let mut image = Image::new();
    collect(directory, directory, &mut image);
    image
}

fn collect(root: &Path, directory: &Path, image: &mut Image) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, image);
        } else if let Ok(bytes) = fs::read(&path) {
            let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
            image.insert(name, bytes);
        }
    }
}

pub fn write_image(directory: &Path, image: &Image) {
    fs::create_dir_all(directory).expect("a directory for the image");
    for (name, bytes) in image {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().expect("below the directory")).expect("a directory for the image");
        fs::write(path, bytes).expect("a file of the image");
    }
}

/// An image that a power cut between two images may leave: of each file the old or the new length; of each page that differs
/// the old one, the new one, or the new one up to some byte; of a file that only one of the images has, all, some or nothing.
pub fn torn(synced: &Image, unsynced: &Image, random: &mut Random) -> Image {
    let mut image = Image::new();
    let names: std::collections::BTreeSet<&PathBuf> = synced.keys().chain(unsynced.keys()).collect();
    for name in names {
        let bytes = match (synced.get(name), unsynced.get(name)) {
            (Some(old), Some(new)) => torn_file(old, new, random),
            (None, Some(new)) if random.below(4) > 0 => torn_file(&[], new, random),
            (Some(old), None) if random.below(2) > 0 => old.clone(),
            _ => continue,
        };
        image.insert(name.clone(), bytes);
    }
    image
}

fn torn_file(old: &[u8], new: &[u8], random: &mut Random) -> Vec<u8> {
    let (old_len, new_len) = (old.len() as u64, new.len() as u64);
    let len = match random.below(4) {
        0 => old_len,
        1 if old_len != new_len => old_len.min(new_len) + random.below(old_len.abs_diff(new_len)),
        _ => new_len,
    } as usize;
    // How much of the new content arrived differs from cut to cut.
    let arrived = random.below(101);
    let mut bytes = vec![0; len];
    for start in (0..len).step_by(PAGE) {
        let end = (start + PAGE).min(len);
        let mut page = vec![0; end - start];
        overlay(&mut page, old, start);
        if random.below(100) < arrived {
            overlay(&mut page, new, start);
        } else if random.below(20) == 0 {
            let mut whole = page.clone();
            overlay(&mut whole, new, start);
            let at = random.below(page.len() as u64) as usize;
            page[..at].copy_from_slice(&whole[..at]);
        }
        bytes[start..end].copy_from_slice(&page);
    }
    bytes
}

fn overlay(page: &mut [u8], from: &[u8], start: usize) {
    let from = from.get(start..).unwrap_or_default();
    let len = from.len().min(page.len());
    page[..len].copy_from_slice(&from[..len]);
}

/// The directory after a sync and before the next one.
#[derive(Debug, Clone)]
pub struct Moment {
    pub synced: Image,
    pub unsynced: Image,
    /// The last checkpoint that was complete.
    pub completed: u64,
}

#[derive(Debug, Default)]
struct Captured {
    completed: u64,
    synced: Image,
    moments: Vec<Moment>,
}

/// The real disk. It keeps images of the directory before and after each sync of the store.
#[derive(Debug, Clone)]
pub struct Capture(Arc<CaptureState>);

#[derive(Debug)]
struct CaptureState {
    directory: PathBuf,
    captured: Mutex<Captured>,
}

#[derive(Debug)]
struct CaptureFile {
    file: Arc<dyn DiskFile>,
    inner: Arc<CaptureState>,
}

impl Capture {
    pub fn new(directory: &Path) -> Self {
        Self(Arc::new(CaptureState { directory: directory.to_owned(), captured: Mutex::default() }))
    }

    /// Notes that a checkpoint is complete.
    pub fn completed(&self, id: u64) {
        self.0.lock().completed = id;
    }

    pub fn moments(&self) -> Vec<Moment> {
        self.0.lock().moments.clone()
    }
}

impl CaptureState {
    fn lock(&self) -> MutexGuard<'_, Captured> {
        self.captured.lock().expect("nobody panicked")
    }

    fn before_sync(&self) {
        let unsynced = read_image(&self.directory);
        let mut captured = self.lock();
        let (synced, completed) = (captured.synced.clone(), captured.completed);
        captured.moments.push(Moment { synced, unsynced, completed });
    }

    fn after_sync(&self) {
        self.lock().synced = read_image(&self.directory);
    }
}

impl Disk for Capture {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(CaptureFile { file: RealDisk.open(path)?, inner: self.0.clone() }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open_read(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DiskEntry>> {
        RealDisk.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    /// The last step of a sync.
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)?;
        self.0.after_sync();
        Ok(())
    }

    fn available_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.available_bytes(dir)
    }
}

impl DiskFile for CaptureFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.before_sync();
        self.file.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
