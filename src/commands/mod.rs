//! The commands besides `run`.

pub mod errors;
pub mod journal;
pub mod replay;
pub mod savepoint;
