//! Journal → core → logs, checkpoints beside it.

pub mod handle;
