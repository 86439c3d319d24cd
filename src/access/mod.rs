//! Who may enter, and what they may do there.

pub mod http_access;
mod identity;
pub mod secret_file;
pub mod tokens;

pub use identity::Identity;
