//! Helper: a small file system for a data directory: an ext4 image on a loop device. Needs root and loop devices.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1024 * 1024;

/// A mounted file system; unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    mount_point: PathBuf,
}

impl SmallDisk {
    /// Mounts a file system of `mib` MiB at `mount_point`; `None` where this machine does not allow that, or where
    /// `WEIR_TEST_NO_MOUNT` is set.
    pub fn mount(image: &Path, mount_point: &Path, mib: u64) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || std::env::var_os("WEIR_TEST_NO_MOUNT").is_some() {
            return None;
        }
        let file = fs::File::create(image).expect("an image file");
        file.set_len(mib * MIB).expect("room for the image");
        fs::create_dir_all(mount_point).expect("a mount point");
        let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        // No blocks reserved for root, which the tests may run as.
        let mounted = run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-O", "^has_journal"]).arg(image))
            && run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(mount_point));
        mounted.then(|| Self { mount_point: mount_point.to_owned() })
    }

    /// Bytes that can still be written.
    pub fn available_bytes(&self) -> u64 {
        let figures = rustix::fs::statvfs(&self.mount_point).expect("the free space");
        figures.f_bavail * figures.f_frsize
    }

    fn ballast(&self) -> PathBuf {
        self.mount_point.join("ballast")
    }

    /// Takes up space.
    pub fn fill(&self, bytes: u64) {
        let file = fs::File::options().create(true).append(true).open(self.ballast()).expect("a ballast file");
        let len = file.metadata().expect("its length").len();
        // Less space than asked for is enough: the disk is full then.
        let _ = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), len, bytes);
    }

    /// Frees the space that [`Self::fill`] used.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).expect("the ballast can be removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A lazy unmount: the file system goes when its last open file is closed.
        let _ = Command::new("umount").arg("--lazy").arg(&self.mount_point).status();
    }
}
