//! Crashes, failing disks, damaged stores and clocks that jump.

mod box_clock;
mod clock;
mod disk;
mod durability;
mod hang;
mod load;
mod pause;
mod small_disk;
mod starts;
mod state;
mod stores;
mod takeover;
