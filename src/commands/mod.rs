//! The commands besides `run`.

pub mod errors;
pub mod journal;
pub mod passwd;
pub mod repair;
pub mod replay;
pub mod savepoint;
pub mod token;
