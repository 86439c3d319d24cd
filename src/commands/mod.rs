//! The commands besides `run`.

pub mod journal;
pub mod replay;
pub mod savepoint;
