//! The commands besides `run`.

pub mod check;
mod dump;
pub mod errors;
pub mod health;
pub mod journal;
pub mod passwd;
pub mod repair;
pub mod replay;
pub mod savepoint;
pub mod simulate;
pub mod token;
