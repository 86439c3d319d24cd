//! Tokens of the HTTP API: the file that lists them, and the commands that change it.
//!
//! A secret is 256 random bits that weir made. The file holds only its SHA-256, which is enough to recognise a secret and
//! useless to anybody who reads the file. What a request needs a token for is decided in `http_access`.

mod edit;
mod list;
mod token;

pub use edit::{ChangeError, add, remove};
pub use list::{MAX_TOKENS, TokenList, TokensError};
pub use token::{ApiToken, NewTokenError, TokenRole};

#[cfg(test)]
mod tests;
