//! Crashes, failing disks, damaged stores and clocks that jump.

mod clock;
mod disk;
mod durability;
mod load;
mod small_disk;
mod starts;
mod state;
mod stores;
mod takeover;
