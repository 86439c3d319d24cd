//! The life of the daemon: start, signals, reload, end.

mod lifecycle;
mod reload;
