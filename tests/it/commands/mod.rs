//! Commands of the program beside `weir run`.

mod maps;
mod maps_live;
mod repair;
mod replay;
mod savepoints;
mod simulate;
