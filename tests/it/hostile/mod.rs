//! Clients that break the rules, beside a device that they must not disturb.

mod clients;
mod connections;
mod memory;
mod packets;
mod steady;
