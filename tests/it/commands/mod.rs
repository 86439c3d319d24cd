//! Commands of the program beside `weir run`.

mod repair;
mod replay;
mod savepoints;
mod simulate;
