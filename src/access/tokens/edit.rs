//! Adds tokens to a tokens file and removes them, while weir may be running.

use std::path::{Path, PathBuf};

use super::list::{TokenList, TokensError, header, is_entry};
use super::token::ApiToken;
use crate::access::secret_file::SecretFileEdit;

/// Why a tokens file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The file has faults, or the change would make a file with faults.
    #[error(transparent)]
    Faults(#[from] TokensError),
    /// A call of the file system failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file has no token of this name.
    #[error("there is no token {name} in {}; `weir token list` shows all tokens", path.display())]
    Unknown {
        /// Name of the token.
        name: String,
        /// The tokens file.
        path: PathBuf,
    },
    /// The file has a token of this name already.
    #[error("there is a token {name} in {} already; remove it first, or take another name", path.display())]
    Exists {
        /// Name of the token.
        name: String,
        /// The tokens file.
        path: PathBuf,
    },
}

/// Adds a token to the file at `path`. A missing file is created.
///
/// # Errors
/// The file has faults, cannot be read or written, or has a token of that name.
pub fn add(path: &Path, token: &ApiToken) -> Result<(), ChangeError> {
    let changing = SecretFileEdit::lock(path)?;
    let mut text = changing.read()?.unwrap_or_else(header);
    if TokenList::parse(path, &text)?.tokens().iter().any(|one| one.name == token.name) {
        return Err(ChangeError::Exists { name: token.name.to_string(), path: path.to_owned() });
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&token.line());
    text.push('\n');
    // The result is checked before it is written, so that no command leaves a file that weir would refuse.
    TokenList::parse(path, &text)?;
    Ok(changing.replace(&text)?)
}

/// Removes the token named `name` from the file at `path`. Comments stay.
///
/// # Errors
/// The file has faults, cannot be read or written, or has no such token.
pub fn remove(path: &Path, name: &str) -> Result<(), ChangeError> {
    let changing = SecretFileEdit::lock(path)?;
    let unknown = || ChangeError::Unknown { name: name.to_owned(), path: path.to_owned() };
    let text = changing.read()?.ok_or_else(unknown)?;
    if !TokenList::parse(path, &text)?.tokens().iter().any(|one| &*one.name == name) {
        return Err(unknown());
    }
    let is_it = |line: &&str| is_entry(line) && line.trim().split(':').next() == Some(name);
    let kept: String = text.lines().filter(|line| !is_it(line)).flat_map(|line| [line, "\n"]).collect();
    Ok(changing.replace(&kept)?)
}
