//! The commands besides `run`.

pub mod journal;
pub mod repair;
pub mod replay;
pub mod savepoint;
