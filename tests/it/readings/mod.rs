//! From readings to windows and errors.

mod absent;
mod ahead;
mod backlog;
mod clocks;
mod error_share;
mod field;
mod maps;
mod payloads;
mod proportion;
mod reasons;
mod redelivery;
mod retained;
mod sequences;
mod settings;
mod times;
mod units;
mod unmatched;
mod windows;
