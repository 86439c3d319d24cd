//! Who may enter, and what they may do there.

mod identity;

pub use identity::Identity;
