//! Commands of the program beside `weir run`.

mod maps;
mod repair;
mod replay;
mod savepoints;
mod simulate;
