//! Clients that break the rules, beside a device that must not notice.

mod clients;
mod connections;
mod packets;
mod steady;
