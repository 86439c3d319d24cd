//! Opens a store, and replaces it where it is proven to be damaged.

use std::path::Path;

use metrics::counter;

use super::slots::{LoadedSlots, Slots};
use super::{NamedValue, NamedValuesOptions, writer};
use crate::state::StateError;
use crate::state::key_value::KeyValue;
use crate::state::open::{aside_of, move_aside};

/// Opens a store at a start, with its values.
pub(super) fn open<V: NamedValue>(
    directory: &Path,
    options: &NamedValuesOptions,
) -> Result<LoadedSlots<V>, StateError> {
    writer::remove_probe(&*options.disk, directory);
    open_or_replace::<V, V>(directory, options, None, |value| value)
}

/// Opens a store again whose earlier handle is `before`. Its owner holds the values, so they are read and compared with their
/// checksums, and dropped.
pub(super) fn reopen<V: NamedValue>(
    directory: &Path,
    options: &NamedValuesOptions,
    before: Option<Box<dyn KeyValue>>,
) -> Result<LoadedSlots<()>, StateError> {
    open_or_replace::<V, ()>(directory, options, before, drop)
}

fn open_or_replace<V: NamedValue, T: Send + 'static>(
    directory: &Path,
    options: &NamedValuesOptions,
    before: Option<Box<dyn KeyValue>>,
    keep: fn(V) -> T,
) -> Result<LoadedSlots<T>, StateError> {
    let load = |before| options.store.load(directory, before, move |store| Slots::load(store, keep));
    match load(before) {
        Err(error) if error.is_damage() => tracing::debug!(%error, "opening it a second time"),
        opened => return opened,
    }
    // Damage is found again. A passing failure in the middle of sled's open, which can look like damage, is not.
    let error = match load(None) {
        Err(error) if error.is_damage() => error,
        opened => return opened,
    };
    let aside = aside_of(directory, &*options.clock);
    move_aside(&*options.disk, directory, &aside)
        .map_err(|source| StateError::Io { directory: directory.to_owned(), source })?;
    counter!(V::LABELS.moved_aside).increment(1);
    tracing::error!(
        reason = %error,
        moved_to = %aside.display(),
        "the store of {} is damaged: weir goes on without those that only the store held",
        V::LABELS.what
    );
    load(None)
}
