//! From readings to windows and errors.

mod proportion;
mod reasons;
mod redelivery;
mod retained;
mod sequences;
mod unmatched;
mod windows;
