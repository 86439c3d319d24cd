//! Who may enter, and what they may do there.

mod acl;
mod identity;

pub use acl::{Acl, Permissions};
pub use identity::Identity;
