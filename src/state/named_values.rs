//! Durable values by name: the broker keeps retained messages, sessions and wills in them over a restart.
//!
//! A store is a sled directory of its own. A change is taken in memory at once and written a moment later by the store's
//! thread, the newest state of each name only. Callers never wait for the disk, and the changes that wait are bounded by
//! the number of names. [`Mark`] tells whether everything up to a moment is on disk, for callers that must write in an order.
//!
//! The promise of the journal does not cover these values: a crash may lose the changes of the last moment.
//! A store that cannot be opened or written does not stop weir: it goes on without, and says so.
//!
//! This module does not know what the values are ([`NamedValue`] encodes them), nor how they lie in sled ([`slots`]).

mod slots;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use metrics::counter;

use self::slots::{LoadedSlots, Slots};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::state::open::{StoreOptions, aside_of, move_aside};
use crate::sync::{lock, wait, wait_timeout_while};

/// Longest wait of [`NamedValues::sync`].
const SYNC_LIMIT: Duration = Duration::from_secs(5);

/// The names under which a store appears on disk, in log lines and in metrics.
#[derive(Debug)]
pub(crate) struct StoreLabels {
    /// Name of the store's directory below the data directory, and of its thread.
    pub directory: &'static str,
    /// What the store holds, in the plural, for log lines.
    pub what: &'static str,
    /// Metric that counts stores that were moved aside.
    pub moved_aside: &'static str,
    /// Metric that counts how often the store could no longer be written.
    pub failures: &'static str,
}

/// A value that is stored by name.
pub(crate) trait NamedValue: std::fmt::Debug + Send + Sized + 'static {
    /// The names of the store that holds these values.
    const LABELS: StoreLabels;
    /// Name of the value; a later value of the same name replaces it.
    fn name(&self) -> &str;
    /// The stored form.
    fn encode(&self) -> Vec<u8>;
    /// Reads the stored form; `None` where the bytes are no such value.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// A store of values that are kept over restarts. Clones share it.
#[derive(Debug)]
pub(crate) struct NamedValues<V>(Arc<NamedValuesState<V>>);

impl<V> Clone for NamedValues<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// State that the handles of a store and its thread share.
#[derive(Debug)]
struct NamedValuesState<V> {
    pending: Mutex<PendingChanges<V>>,
    /// Signals a change to the thread, and its progress to callers of [`NamedValues::sync`].
    changed: Condvar,
    /// Values found at the open, until [`NamedValues::load`] takes them.
    loaded: Mutex<Vec<V>>,
}

/// A position in the sequence of changes of a store. It stands for all changes before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(u64);

/// Changes that the thread has yet to write.
#[derive(Debug)]
struct PendingChanges<V> {
    /// The newest state of each changed name, so never more entries than there are names; `None` removes the value.
    values: BTreeMap<Box<str>, Option<V>>,
    /// Number of values that are being written.
    writing: usize,
    /// All changes made so far.
    changed: Mark,
    /// Changes that are being written, or were written last.
    begun: Mark,
    /// Changes that are on disk.
    written: Mark,
    /// Whether the store failed: further changes are dropped.
    failed: bool,
}

impl<V> Default for PendingChanges<V> {
    fn default() -> Self {
        let [changed, begun, written] = [Mark::default(); 3];
        Self { values: BTreeMap::new(), writing: 0, changed, begun, written, failed: false }
    }
}

impl<V: NamedValue> NamedValues<V> {
    /// Opens the store below `data_dir`, which must open and load within `limit`, and starts its thread. A store that
    /// cannot be used is moved aside, logged and counted, and a new one is begun. Where that fails too the result is
    /// `None`: weir goes on without a store, and the values do not survive a restart.
    pub fn open(data_dir: &Path, disk: &Arc<dyn Disk>, clock: &dyn Clock, limit: Duration) -> Option<Self> {
        let StoreLabels { directory, what, moved_aside, .. } = V::LABELS;
        let directory = data_dir.join(directory);
        let options = StoreOptions::sled(Arc::clone(disk), limit);
        let load = || options.load(&directory, None, Slots::load::<V>);
        // Every error moves the store aside, also one that `StateError::is_damage` takes for a passing one of the file
        // system.
        let error = match load() {
            Ok(loaded) => return Some(Self::start(loaded)),
            Err(error) => error,
        };
        counter!(moved_aside).increment(1);
        let aside = aside_of(&directory, clock);
        let moved = move_aside(&**disk, &directory, &aside);
        tracing::error!(reason = %error, moved_to = %aside.display(), "{what} cannot be read: weir goes on without those it had");
        let reopened = match moved {
            Ok(()) => load().map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match reopened {
            Ok(loaded) => Some(Self::start(loaded)),
            Err(error) => {
                tracing::error!(error, "{what} cannot be stored; they will not survive a restart");
                None
            }
        }
    }

    fn start(opened: LoadedSlots<V>) -> Self {
        let LoadedSlots { slots, loaded } = opened;
        let (pending, changed, loaded) = (Mutex::default(), Condvar::new(), Mutex::new(loaded));
        let state = Arc::new(NamedValuesState { pending, changed, loaded });
        let of_thread = Arc::clone(&state);
        let thread = std::thread::Builder::new().name(V::LABELS.directory.into());
        if let Err(error) = thread.spawn(move || of_thread.run(slots)) {
            state.fail(&error);
        }
        Self(state)
    }

    /// Takes the values that the open found. A second call returns none.
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

    /// Number of values that wait to be written or are being written.
    pub fn unwritten(&self) -> usize {
        lock(&self.0.pending).unwritten()
    }

    /// All changes made so far, to ask [`NamedValues::is_written`] about later.
    pub fn mark(&self) -> Mark {
        lock(&self.0.pending).changed
    }

    /// Whether all changes up to `mark` are on disk. Also `true` once the store failed: they will not get there, and
    /// nobody should wait for them.
    pub fn is_written(&self, mark: Mark) -> bool {
        let pending = lock(&self.0.pending);
        pending.failed || pending.written >= mark
    }

    /// Waits until all changes made so far are on disk, at most 5 s.
    pub fn sync(&self) {
        let pending = lock(&self.0.pending);
        let outcome = wait_timeout_while(&self.0.changed, pending, SYNC_LIMIT, |pending| pending.unwritten() > 0).1;
        if outcome.timed_out() {
            tracing::warn!("{} were not written in time; the newest may be lost", V::LABELS.what);
        }
    }
}

impl<V> PendingChanges<V> {
    fn unwritten(&self) -> usize {
        self.writing + self.values.len()
    }
}

impl<V: NamedValue> NamedValuesState<V> {
    fn change(&self, name: Box<str>, value: Option<V>) {
        let mut pending = lock(&self.pending);
        if !pending.failed {
            pending.values.insert(name, value);
            pending.changed.0 += 1;
            self.changed.notify_all();
        }
    }

    /// Gives the store up until the next start: sled remembers a failed write for ever, and what it left behind is known
    /// only by opening the store again.
    fn fail(&self, error: &dyn Display) {
        tracing::error!(%error, "{} can no longer be stored until weir is restarted", V::LABELS.what);
        counter!(V::LABELS.failures).increment(1);
        let mut pending = lock(&self.pending);
        *pending = PendingChanges { failed: true, ..PendingChanges::default() };
        self.changed.notify_all();
    }

    /// The store's thread: writes what changed until a write fails. It does not end otherwise.
    fn run(&self, mut slots: Slots) {
        loop {
            let batch = self.next_batch();
            // After a panic the store is given up: nothing that it left half done is used.
            let written = catch_unwind(AssertUnwindSafe(|| slots.write(batch)));
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return self.fail(&error),
                Err(_) => return self.fail(&"sled panicked"),
            }
            let mut pending = lock(&self.pending);
            pending.writing = 0;
            pending.written = pending.begun;
            self.changed.notify_all();
        }
    }

    /// Waits for changes and takes all of them.
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
