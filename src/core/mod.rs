//! The pure core: journal records in, windows and errors out.
//!
//! Nothing here performs I/O, reads a clock, draws random numbers that matter, logs or awaits. Given the same records and
//! settings the effects are the same, byte for byte.

pub mod carried;
pub mod description;
pub mod formats;
pub mod group;
pub mod liveness;
pub mod map_activity;
pub mod map_view;
pub mod notes;
pub mod operator;
pub mod output;
pub mod owners;
pub mod proportion;
pub mod query;
pub mod reason;
pub mod rebirth;
pub mod record;
pub mod recorded;
pub mod replay_effects;
pub mod replayed;
pub mod selection;
pub mod settings;
pub mod snapshot;
pub mod timezone;
pub mod totals;
pub mod user;

mod absent;
mod added_fields;
mod aggregate;
mod apply;
mod assign;
mod backlog;
mod batch;
mod catching_up;
mod client;
mod clocks;
pub mod codec;
mod counter;
mod decode;
mod dedup;
mod deduplication;
mod device;
pub mod device_clock;
mod digest;
mod error_share;
mod event_time;
mod fired_runs;
mod firing;
mod hash;
mod idle;
mod ingest;
mod json;
mod known_topics;
mod lifetime;
mod mapped;
mod problem;
mod rare_list;
mod rare_state;
mod recent_digests;
mod reconfigure;
mod reconfigure_rules_0;
mod registry;
mod replay;
mod retained;
mod sequences;
mod series_units;
mod set_back;
mod side_output;
mod timestamp;
mod topic;
mod validate;
mod watermark;
mod window;

pub use set_back::FIRST_PLAUSIBLE_MS;

#[cfg(test)]
pub(crate) mod tests;
