//! Access rules of MQTT: roles with topic patterns, and the permissions of one client.
//!
//! A client has the union of what its roles allow; a denial of any of its roles wins. A publish is judged by its topic. A
//! subscription is judged as a whole: it is granted only if a single pattern allows every topic that the filter matches,
//! and no pattern denies any of them. So messages of a granted subscription need no further check, and a subscriber never
//! misses messages without being told.

mod file;
mod pattern;
mod permissions;
mod role;
mod roles;

pub use permissions::{MapTopics, Permissions};
pub use roles::Acl;
