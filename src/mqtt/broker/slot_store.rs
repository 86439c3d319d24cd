//! What the door keeps over restarts beside the journal: values by name in a sled directory of their own, written by a
//! thread a moment after they change.

mod slots;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use metrics::counter;

use self::slots::{Opened, Slots};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::state::key_value::SledStore;
use crate::sync::{lock, wait};

/// How long [`SlotStore::sync`] waits.
const SYNC_LIMIT: Duration = Duration::from_secs(5);

/// What a store is for.
#[derive(Debug)]
pub(super) struct Kind {
    /// Name of its directory below the data directory.
    pub directory: &'static str,
    /// What it holds, in the plural, for log lines.
    pub what: &'static str,
    /// Counts stores that were moved aside.
    pub moved_aside: &'static str,
    /// Counts the times that it could no longer be written.
    pub failures: &'static str,
}

/// A value that is stored.
pub(super) trait Value: std::fmt::Debug + Send + Sized + 'static {
    /// What the store is for.
    const KIND: Kind;
    /// What it is found by; a later value of the same name replaces it.
    fn name(&self) -> &str;
    /// Its bytes.
    fn encode(&self) -> Vec<u8>;
    /// The value of these bytes; `None` where they are of no value.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// Values that are kept over restarts. Clones share it.
#[derive(Debug)]
pub(super) struct SlotStore<V>(Arc<Shared<V>>);

impl<V> Clone for SlotStore<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Shared<V> {
    pending: Mutex<Pending<V>>,
    changed: Condvar,
    loaded: Mutex<Vec<V>>,
}

/// Everything that was changed in a store up to some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(u64);

/// What the thread has yet to write: the newest state of each changed name, so no more than there are names.
#[derive(Debug)]
struct Pending<V> {
    values: BTreeMap<Box<str>, Option<V>>,
    /// Values that are being written.
    writing: usize,
    /// All changes up to now.
    changed: Mark,
    /// Those that are being written, or were at last.
    begun: Mark,
    /// Those that are on disk.
    written: Mark,
    failed: bool,
}

impl<V> Default for Pending<V> {
    fn default() -> Self {
        let [changed, begun, written] = [Mark::default(); 3];
        Self { values: BTreeMap::new(), writing: 0, changed, begun, written, failed: false }
    }
}

impl<V: Value> SlotStore<V> {
    /// Opens the store below `data_dir` and starts its thread. One that cannot be used is moved aside, loudly and
    /// counted, and a new one begun; where that does not work either, there is none: weir goes on without.
    pub fn open(data_dir: &Path, disk: &Arc<dyn Disk>, clock: &dyn Clock, limit: Duration) -> Option<Self> {
        let Kind { directory: name, what, moved_aside, .. } = V::KIND;
        let directory = data_dir.join(name);
        let error = match open_within(&directory, disk, limit) {
            Ok(opened) => return Some(Self::start(opened)),
            Err(error) => error,
        };
        counter!(moved_aside).increment(1);
        let aside = data_dir.join(format!("{name}.damaged-{}", clock.now_ms()));
        let moved = disk.rename(&directory, &aside).and_then(|()| disk.sync_dir(data_dir));
        tracing::error!(reason = error, moved_to = %aside.display(), "{what} cannot be read: weir goes on without those it had");
        match moved.map_err(|error| error.to_string()).and_then(|()| open_within(&directory, disk, limit)) {
            Ok(opened) => Some(Self::start(opened)),
            Err(error) => {
                tracing::error!(error, "{what} cannot be stored; they will not survive a restart");
                None
            }
        }
    }

    fn start(opened: Opened<V>) -> Self {
        let Opened { slots, loaded } = opened;
        let shared =
            Arc::new(Shared { pending: Mutex::default(), changed: Condvar::new(), loaded: Mutex::new(loaded) });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(V::KIND.directory.into());
        if let Err(error) = thread.spawn(move || of_thread.run(slots)) {
            shared.fail(&error.to_string());
        }
        Self(shared)
    }

    /// The values that were stored, once.
    pub fn load(&self) -> Vec<V> {
        std::mem::take(&mut *lock(&self.0.loaded))
    }

    /// Stores a value a moment later.
    pub fn put(&self, value: V) {
        self.0.change(value.name().into(), Some(value));
    }

    /// Removes the value of this name a moment later.
    pub fn remove(&self, name: &str) {
        self.0.change(name.into(), None);
    }

    /// Values that wait to be written, or are being written.
    pub fn unwritten(&self) -> usize {
        lock(&self.0.pending).unwritten()
    }

    /// What was changed up to now.
    pub fn mark(&self) -> Mark {
        lock(&self.0.pending).changed
    }

    /// Whether everything up to `mark` is on disk; also where it will not get there any more, since the store failed.
    pub fn is_written(&self, mark: Mark) -> bool {
        let pending = lock(&self.0.pending);
        pending.failed || pending.written >= mark
    }

    /// Returns when everything up to now is on disk, or after 5 s.
    pub fn sync(&self) {
        let pending = lock(&self.0.pending);
        let waited = self.0.changed.wait_timeout_while(pending, SYNC_LIMIT, |pending| pending.unwritten() > 0);
        if waited.is_ok_and(|(_, timed_out)| timed_out.timed_out()) {
            tracing::warn!("{} were not written in time; the newest may be lost", V::KIND.what);
        }
    }
}

impl<V> Pending<V> {
    fn unwritten(&self) -> usize {
        self.writing + self.values.len()
    }
}

impl<V: Value> Shared<V> {
    fn change(&self, name: Box<str>, value: Option<V>) {
        let mut pending = lock(&self.pending);
        if !pending.failed {
            pending.values.insert(name, value);
            pending.changed.0 += 1;
            self.changed.notify_all();
        }
    }

    fn fail(&self, error: &str) {
        tracing::error!(error, "{} can no longer be stored until weir is restarted", V::KIND.what);
        counter!(V::KIND.failures).increment(1);
        let mut pending = lock(&self.pending);
        *pending = Pending { failed: true, ..Pending::default() };
        self.changed.notify_all();
    }

    fn run(&self, mut slots: Slots) {
        loop {
            let batch = self.next_batch();
            let written = catch_unwind(AssertUnwindSafe(|| slots.write(batch)));
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return self.fail(&error.to_string()),
                Err(_) => return self.fail("sled panicked"),
            }
            let mut pending = lock(&self.pending);
            pending.writing = 0;
            pending.written = pending.begun;
            self.changed.notify_all();
        }
    }

    fn next_batch(&self) -> Vec<(Box<str>, Option<V>)> {
        let mut pending = lock(&self.pending);
        while pending.values.is_empty() {
            pending = wait(&self.changed, pending);
        }
        pending.writing = pending.values.len();
        pending.begun = pending.changed;
        std::mem::take(&mut pending.values).into_iter().collect()
    }
}

/// Opens and loads in a thread of its own: a damaged file can make sled panic or spin.
fn open_within<V: Value>(directory: &Path, disk: &Arc<dyn Disk>, limit: Duration) -> Result<Opened<V>, String> {
    let (sender, receiver) = channel();
    let (directory, disk): (PathBuf, _) = (directory.to_owned(), Arc::clone(disk));
    let opening = move || {
        let opened = SledStore::open(&directory, disk).and_then(|store| Slots::load(Box::new(store)));
        // Nobody waits any more when the time is over.
        let _ = sender.send(opened);
    };
    std::thread::Builder::new()
        .name(format!("{}-open", V::KIND.directory))
        .spawn(opening)
        .map_err(|error| error.to_string())?;
    match receiver.recv_timeout(limit) {
        Ok(opened) => opened.map_err(|error| error.to_string()),
        Err(RecvTimeoutError::Disconnected) => Err("sled panicked at the open".into()),
        Err(RecvTimeoutError::Timeout) => Err(format!("the open took longer than {limit:?}")),
    }
}
