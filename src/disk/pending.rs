//! Writing calls of the file system that have not returned yet.
//!
//! A frozen file system, a dead disk or a lost server lets a call hang without an error. The thread that made the call cannot
//! report it, so each call is noted here, and others look how old the oldest is.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::stall;
use crate::sync::lock;

/// A call that has not returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingCall {
    /// The call, such as `sync`.
    pub call: &'static str,
    /// The file or directory that the call is about.
    pub path: PathBuf,
    /// How long the call has taken so far, without the time before the process stood still last.
    pub age: Duration,
}

/// A noted call. Dropping this removes the note.
#[derive(Debug)]
pub struct CallNote {
    number: u64,
}

#[derive(Debug)]
struct NotedCall {
    number: u64,
    call: &'static str,
    path: Arc<Path>,
    since: Instant,
}

/// Calls of the process; at most one per thread.
#[derive(Debug)]
struct NotedCalls {
    next: u64,
    calls: Vec<NotedCall>,
}

static CALLS: Mutex<NotedCalls> = Mutex::new(NotedCalls { next: 0, calls: Vec::new() });

/// Notes that `call` begins on `path`.
pub fn begin(call: &'static str, path: &Arc<Path>) -> CallNote {
    let mut noted = lock(&CALLS);
    noted.next += 1;
    let number = noted.next;
    noted.calls.push(NotedCall { number, call, path: Arc::clone(path), since: Instant::now() });
    CallNote { number }
}

impl Drop for CallNote {
    fn drop(&mut self) {
        lock(&CALLS).calls.retain(|noted| noted.number != self.number);
    }
}

/// The oldest call below `directory` that has not returned.
pub fn oldest(directory: &Path) -> Option<PendingCall> {
    let now = Instant::now();
    let noted = lock(&CALLS);
    let oldest =
        noted.calls.iter().filter(|noted| noted.path.starts_with(directory)).min_by_key(|noted| noted.since)?;
    let since = stall::last_end(now).map_or(oldest.since, |end| end.max(oldest.since));
    Some(PendingCall { call: oldest.call, path: oldest.path.to_path_buf(), age: now.saturating_duration_since(since) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_call_of_a_directory_is_found_until_it_returns() {
        let directory = Path::new("/nowhere/the_oldest_call");
        assert_eq!(oldest(directory), None);
        let first = begin("sync", &directory.join("a").into());
        let second = begin("write", &directory.join("b").into());
        let found = oldest(directory).expect("a call");
        assert_eq!((found.call, found.path), ("sync", directory.join("a")));
        assert_eq!(oldest(Path::new("/nowhere/the_oldest")), None, "another directory");
        drop(first);
        assert_eq!(oldest(directory).expect("a call").call, "write");
        drop(second);
        assert_eq!(oldest(directory), None);
    }
}
