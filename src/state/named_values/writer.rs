//! The writer of a store: writes what changed, and opens the store again after a failure.

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use metrics::counter;

use super::pending::{ChangedValues, StoreWork};
use super::slots::{LoadedSlots, Slots};
use super::{NamedValue, NamedValuesOptions, NamedValuesState, opening};
use crate::disk::Disk;
use crate::state::StateError;
use crate::sync::{lock, wait, wait_timeout};

/// First pause before a failed store is opened again. It doubles with each failure, up to [`MAX_PAUSE`]: opening sled costs
/// memory and file space that it does not give back.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// File that is written before the store is opened again.
pub(super) const PROBE: &str = "write-test";

/// Bytes of [`PROBE`]: more than sled needs for its next segment.
const PROBE_BYTES: usize = 1024 * 1024;

/// The store's own side, used by one thread.
#[derive(Debug)]
pub(super) struct StoreWriter<V> {
    /// `None` while the store is closed after an attempt to open it failed.
    slots: Option<Slots>,
    directory: PathBuf,
    options: NamedValuesOptions,
    /// Pause after the next failure.
    pause: Duration,
    values: PhantomData<fn() -> V>,
}

impl<V: NamedValue> StoreWriter<V> {
    pub fn new(slots: Slots, directory: PathBuf, options: NamedValuesOptions) -> Self {
        Self { slots: Some(slots), directory, options, pause: FIRST_PAUSE, values: PhantomData }
    }

    /// The store's thread. It does not end.
    pub fn run(&mut self, state: &NamedValuesState<V>) {
        loop {
            let work = self.wait_work(state);
            self.work(work, state);
        }
    }

    /// Does one piece of work; returns whether there was one.
    pub fn step(&mut self, state: &NamedValuesState<V>) -> bool {
        let work = lock(&state.pending).next_work(state.clock.monotonic());
        match work {
            StoreWork::None | StoreWork::Wait(_) => false,
            work => {
                self.work(work, state);
                true
            }
        }
    }

    fn wait_work(&self, state: &NamedValuesState<V>) -> StoreWork<V> {
        let mut pending = lock(&state.pending);
        loop {
            let now = state.clock.monotonic();
            pending = match pending.next_work(now) {
                StoreWork::None => wait(&state.changed, pending),
                StoreWork::Wait(until) => wait_timeout(&state.changed, pending, until.saturating_sub(now)).0,
                work => return work,
            }
        }
    }

    fn work(&mut self, work: StoreWork<V>, state: &NamedValuesState<V>) {
        match work {
            StoreWork::None | StoreWork::Wait(_) => {}
            StoreWork::Write(batch) => self.write(batch, state),
            StoreWork::Reopen => self.reopen(state),
        }
        state.changed.notify_all();
    }

    fn write(&mut self, batch: ChangedValues<V>, state: &NamedValuesState<V>) {
        // After a panic the store is opened again: nothing that it left half done is used.
        let written = catch_unwind(AssertUnwindSafe(|| match &mut self.slots {
            Some(slots) => slots.write(batch),
            None => Err(StateError::Panicked { directory: self.directory.clone() }),
        }));
        let written = written.unwrap_or_else(|_| Err(StateError::Panicked { directory: self.directory.clone() }));
        if let Err(error) = written {
            return self.fail(&error, state);
        }
        let ended = lock(&state.pending).write_done();
        if let Some(outage) = ended {
            self.pause = FIRST_PAUSE;
            let lasted_s = state.clock.monotonic().saturating_sub(outage.since).as_secs();
            tracing::info!(lasted_s, "{} are stored again: all of them are on disk", V::LABELS.what);
        }
    }

    fn reopen(&mut self, state: &NamedValuesState<V>) {
        let before = self.slots.take().map(Slots::into_store);
        let opened = probe(&*self.options.disk, &self.directory)
            .map_err(|source| StateError::Io { directory: self.directory.clone(), source })
            .and_then(|()| opening::reopen::<V>(&self.directory, &self.options, before));
        match opened {
            Ok(LoadedSlots { slots, .. }) => {
                counter!(V::LABELS.reopened).increment(1);
                tracing::debug!("the store of {} was opened again: everything is written anew", V::LABELS.what);
                lock(&state.pending).opened(slots.names());
                self.slots = Some(slots);
            }
            Err(error) => self.fail(&error, state),
        }
    }

    /// Closes the store until the next attempt. sled remembers a failed write for ever, and what it left behind is known only
    /// by opening the store again.
    fn fail(&mut self, error: &StateError, state: &NamedValuesState<V>) {
        let now = state.clock.monotonic();
        let begins = lock(&state.pending).fail(error.to_string(), now, now + self.pause);
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        counter!(V::LABELS.failures).increment(1);
        let what = V::LABELS.what;
        if begins {
            tracing::error!(%error, "{what} cannot be stored: weir goes on, tries again, and writes all of them when it can");
        } else {
            tracing::debug!(%error, "{what} still cannot be stored");
        }
    }
}

/// Writes and removes a file in the directory of the store, so that sled is opened only where it can write.
fn probe(disk: &dyn Disk, directory: &Path) -> std::io::Result<()> {
    disk.create_dir_all(directory)?;
    let path = directory.join(PROBE);
    remove_probe(disk, directory);
    let file = disk.create(&path)?;
    let written = file.write_all_at(&vec![0; PROBE_BYTES], 0).and_then(|()| file.sync());
    drop(file);
    let removed = disk.remove(&path);
    written.and(removed)
}

/// Removes the file that a crash left behind. Where that fails the file takes space and does no other harm.
pub(super) fn remove_probe(disk: &dyn Disk, directory: &Path) {
    let _ = disk.remove(&directory.join(PROBE));
}
