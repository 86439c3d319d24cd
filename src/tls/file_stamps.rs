//! Detects that TLS files were replaced or written, without reading them.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::config::TlsFiles;

/// Inode, length and modification time (seconds, nanoseconds) of each file of a listener; `None` for a missing file.
pub(super) type FileStamps = Vec<Option<(u64, u64, i64, i64)>>;

/// The current stamps of a listener's files. Symbolic links are followed, because tools such as certbot replace a
/// certificate by pointing a link at the new one.
pub(super) fn file_stamps(files: &TlsFiles) -> FileStamps {
    let one = |path: &Path| {
        fs::metadata(path).ok().map(|found: Metadata| (found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    };
    [&files.cert, &files.key, &files.client_ca, &files.client_crl].map(|path| one(path)).to_vec()
}
