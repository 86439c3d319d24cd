//! State that outlives a restart beside the logs: checkpoints of the operator and values by name, both in sled.
//!
//! - Checkpoints: the operator's state and the positions it belongs to ([`checkpoint_store`], [`manifest`]). A checkpoint is
//!   a manifest and one blob per key group. A group that changed is written to the one of its two slots that the last
//!   complete checkpoint does not use; then the slots are synced; then the manifest is written, to the one of two keys that
//!   the last complete one does not use, and synced. A crash anywhere leaves the last complete checkpoint whole.
//! - Savepoints: a checkpoint in one portable file ([`savepoint`]).
//! - Named values: retained messages, MQTT sessions and wills (`named_values`).
//!
//! Each store is a sled directory of its own below the data directory. All are opened in one way ([`open`]) and used
//! through one trait ([`key_value`]), which holds the rules for using sled. [`recovery`] finds the state to start from.

pub mod checkpoint_store;
mod error;
pub mod key_value;
pub mod manifest;
pub(crate) mod named_values;
pub mod open;
pub mod recovery;
pub mod savepoint;
#[cfg(test)]
pub(crate) mod testing;

pub use error::StateError;
