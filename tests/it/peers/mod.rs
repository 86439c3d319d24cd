//! Programs of other projects that talk to weir or check what it ships.

mod families;
mod mosquitto_bridge;
pub mod programs;
mod sparkplug;
