//! Who may enter, and what they may do there.

mod identity;
pub mod secret_file;

pub use identity::Identity;
