//! Programs of other projects that talk to weir or check what it ships.

pub mod programs;
