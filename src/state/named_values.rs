//! Durable values by name: the broker keeps retained messages, sessions and wills in them over a restart.
//!
//! A store is a sled directory of its own. A change is taken in memory at once and written a moment later by the store's
//! thread, the newest state of each name only. Callers never wait for the disk, and the changes that wait are bounded by
//! the number of names. [`Mark`] tells whether everything up to a moment is on disk, for callers that must write in an order.
//!
//! The promise of the journal does not cover these values: a crash may lose the changes of the last moment.
//!
//! # After a failure
//!
//! A store that cannot be written does not stop weir. Until it is whole again, this is its outage ([`pending`]):
//!
//! 1. The store is closed. Changes are dropped, so that they take no memory: their owner holds the values anyway.
//! 2. After a pause that grows, the store's thread opens the store again ([`writer`]).
//! 3. The owner puts all its values once more ([`NamedValues::rewrite_wanted`], [`NamedValues::end_rewrite`]). What the
//!    store holds and the owner did not put is removed.
//! 4. When all of that is on disk the outage is over.
//!
//! This module does not know what the values are ([`NamedValue`] encodes them), nor how they lie in sled ([`slots`]).

mod opening;
mod pending;
mod slots;
mod writer;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use self::pending::PendingChanges;
pub(crate) use self::pending::{Mark, OutageReport, RewriteId};
use self::slots::LoadedSlots;
use self::writer::StoreWriter;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::state::StateError;
use crate::state::open::StoreOptions;
use crate::sync::{lock, wait_timeout_while};

/// Longest wait of [`NamedValues::sync`].
const SYNC_LIMIT: Duration = Duration::from_secs(5);

/// Longest wait of [`NamedValues::retry`].
const RETRY_LIMIT: Duration = Duration::from_secs(3);

/// The names under which a store appears on disk, in log lines and in metrics.
#[derive(Debug)]
pub(crate) struct StoreLabels {
    /// Name of the store's directory below the data directory, and of its thread.
    pub directory: &'static str,
    /// What the store holds, in the plural, for log lines.
    pub what: &'static str,
    /// Metric that counts stores that were moved aside.
    pub moved_aside: &'static str,
    /// Metric that counts failed writes, and failed attempts to open the store again.
    pub failures: &'static str,
    /// Metric that counts how often the store was opened again after a failure.
    pub reopened: &'static str,
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

/// What a store is opened with.
#[derive(Debug, Clone)]
pub struct NamedValuesOptions {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// Measures pauses and ages; its time is part of the name of a store that is moved aside.
    pub clock: Arc<dyn Clock>,
    /// How the key-value store is opened.
    pub store: StoreOptions,
    /// Whether the store has a thread. Without one it works only in [`NamedValues::step`] and [`NamedValues::sync`]: the
    /// simulation runs all parts in one thread.
    pub threads: bool,
}

impl NamedValuesOptions {
    /// A sled store with a thread of its own that must open and load within `limit`.
    pub fn sled(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, limit: Duration) -> Self {
        Self { store: StoreOptions::sled(Arc::clone(&disk), limit), disk, clock, threads: true }
    }
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
    /// Signals a change to the thread, and its progress to callers that wait.
    changed: Condvar,
    /// Values found at the open, until [`NamedValues::load`] takes them.
    loaded: Mutex<Vec<V>>,
    clock: Arc<dyn Clock>,
    /// The writer of a store without a thread.
    inline: Option<Mutex<StoreWriter<V>>>,
}

impl<V: NamedValue> NamedValues<V> {
    /// Opens the store below `data_dir` and starts its thread. Only a store that is proven to be damaged is moved aside, logged
    /// and counted; a new one is begun then.
    ///
    /// # Errors
    /// The file system refused a call, the store did not open in time, or it is locked. The store is left as it is: it may be
    /// sound.
    pub fn open(data_dir: &Path, options: NamedValuesOptions) -> Result<Self, StateError> {
        let directory = data_dir.join(V::LABELS.directory);
        let LoadedSlots { slots, loaded } = opening::open::<V>(&directory, &options)?;
        let (clock, threads) = (Arc::clone(&options.clock), options.threads);
        let writer = StoreWriter::new(slots, directory.clone(), options);
        let (writer, inline) = if threads { (Some(writer), None) } else { (None, Some(Mutex::new(writer))) };
        let state = Arc::new(NamedValuesState {
            pending: Mutex::default(),
            changed: Condvar::new(),
            loaded: Mutex::new(loaded),
            clock,
            inline,
        });
        if let Some(mut writer) = writer {
            let of_thread = Arc::clone(&state);
            let thread = std::thread::Builder::new().name(V::LABELS.directory.into());
            let started = thread.spawn(move || writer.run(&of_thread));
            started.map_err(|source| StateError::Io { directory, source })?;
        }
        Ok(Self(state))
    }

    /// Takes the values that the open found. A second call returns none.
    pub fn load(&self) -> Vec<V> {
        std::mem::take(&mut *lock(&self.0.loaded))
    }

    /// Stores a value a moment later.
    pub fn put(&self, value: V) {
        self.put_since(value, self.now());
    }

    /// Stores a value that changed at `since` in the store's own time, see [`NamedValues::now`].
    pub fn put_since(&self, value: V, since: Duration) {
        self.change(value.name().into(), Some(value), since);
    }

    /// Removes the value of this name a moment later.
    pub fn remove(&self, name: &str) {
        self.change(name.into(), None, self.now());
    }

    fn change(&self, name: Box<str>, value: Option<V>, since: Duration) {
        lock(&self.0.pending).change(name, value, since);
        self.0.changed.notify_all();
    }

    /// The monotonic time of the store's clock.
    pub fn now(&self) -> Duration {
        self.0.clock.monotonic()
    }

    /// Number of changes that wait to be written or are being written; those dropped during an outage are not among them.
    pub fn unwritten(&self) -> usize {
        lock(&self.0.pending).unwritten()
    }

    /// Time since the oldest change that is not on disk; `None` where all are.
    pub fn unwritten_for(&self) -> Option<Duration> {
        let oldest = lock(&self.0.pending).oldest()?;
        Some(self.now().saturating_sub(oldest))
    }

    /// The outage of the store; `None` while it can be written and holds all that it should.
    pub fn outage(&self) -> Option<OutageReport> {
        lock(&self.0.pending).outage()
    }

    /// Whether the owner has yet to put all its values once more: the store failed, and is closed or was opened again since.
    /// Nothing that the store held before the failure counts as stored.
    pub fn is_to_rewrite(&self) -> bool {
        lock(&self.0.pending).is_to_rewrite()
    }

    /// Asks the owner to put all its values once more, after the store was opened again; see [`NamedValues::end_rewrite`].
    pub fn rewrite_wanted(&self) -> Option<RewriteId> {
        lock(&self.0.pending).rewrite_wanted()
    }

    /// Tells the store that its owner has put all its values since [`NamedValues::rewrite_wanted`] returned `rewrite`. Other
    /// values that it holds are removed. Without effect where the store failed again meanwhile.
    pub fn end_rewrite(&self, rewrite: RewriteId) {
        lock(&self.0.pending).end_rewrite(rewrite, self.now());
        self.0.changed.notify_all();
    }

    /// All changes made so far, to ask [`NamedValues::is_written`] about later.
    pub fn mark(&self) -> Mark {
        lock(&self.0.pending).changed()
    }

    /// Whether all changes up to `mark` are on disk. During an outage no further ones are.
    pub fn is_written(&self, mark: Mark) -> bool {
        lock(&self.0.pending).is_written(mark)
    }

    /// Whether the store is open and no change up to `mark` waits any more.
    pub fn has_taken(&self, mark: Mark) -> bool {
        lock(&self.0.pending).has_taken(mark)
    }

    /// Waits until [`NamedValues::has_taken`] holds for `mark` or the store fails, at most 5 s. Returns the answer.
    pub fn wait_taken(&self, mark: Mark) -> bool {
        self.settle();
        let pending = lock(&self.0.pending);
        let waits = |pending: &mut PendingChanges<V>| !pending.has_taken(mark) && !pending.is_closed();
        let (pending, _) = wait_timeout_while(&self.0.changed, pending, SYNC_LIMIT, waits);
        pending.has_taken(mark)
    }

    /// Opens a failed store again at once, and waits for the outcome, at most 3 s.
    pub fn retry(&self) {
        if !lock(&self.0.pending).retry_now() {
            return;
        }
        self.0.changed.notify_all();
        self.settle();
        let pending = lock(&self.0.pending);
        let waits = |pending: &mut PendingChanges<V>| pending.is_retrying();
        drop(wait_timeout_while(&self.0.changed, pending, RETRY_LIMIT, waits));
    }

    /// Waits until all changes made so far are on disk, at most 5 s. Returns whether the store has failed.
    pub fn sync(&self) -> bool {
        self.settle();
        let pending = lock(&self.0.pending);
        let waits = |pending: &mut PendingChanges<V>| !pending.is_closed() && !pending.is_whole();
        let (pending, _) = wait_timeout_while(&self.0.changed, pending, SYNC_LIMIT, waits);
        pending.is_closed()
    }

    /// Says in the log what is lost when the process ends at this moment.
    pub fn report_loss(&self) {
        let pending = lock(&self.0.pending);
        let what = V::LABELS.what;
        if let Some(outage) = pending.outage() {
            let failing_s = self.now().saturating_sub(outage.since).as_secs();
            tracing::error!(
                error = outage.error,
                failing_s,
                "{what} could not be stored before the end: the next start finds them as they were before the failure"
            );
        } else if !pending.is_whole() {
            tracing::warn!(changes = pending.unwritten(), "{what} were not written in time; the newest may be lost");
        }
    }

    /// Does the work that is due in a store without a thread: at most one write, or one attempt to open the store again.
    /// Returns whether there was work.
    pub fn step(&self) -> bool {
        self.0.inline.as_ref().is_some_and(|writer| lock(writer).step(&self.0))
    }

    /// Does all work that is due in a store without a thread.
    fn settle(&self) {
        while self.step() {}
    }
}
