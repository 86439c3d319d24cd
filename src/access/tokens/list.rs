//! The tokens of a file, and finding the token of a secret.

use std::path::Path;

use super::token::{ApiToken, FORM, TokenRole, sha256};
use crate::access::password::equal;
use crate::access::secret_file;

/// Largest number of tokens in one file.
pub const MAX_TOKENS: usize = 1_000;

/// Why a tokens file cannot be used: all its faults, one sentence each. They quote nothing of the file except names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct TokensError(pub Vec<String>);

/// The tokens of one file, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenList(Vec<ApiToken>);

impl TokenList {
    /// Reads a tokens file.
    ///
    /// # Errors
    /// The file cannot be read, or has faults.
    pub fn load(path: &Path) -> Result<Self, TokensError> {
        let text = secret_file::read(path).map_err(|error| {
            TokensError(vec![format!(
                "{error}; expected a file that `weir token add` wrote and that weir's user may read"
            )])
        })?;
        Self::parse(path, &text)
    }

    /// Reads the text of a tokens file. `path` is used in faults.
    ///
    /// # Errors
    /// The text has faults.
    pub fn parse(path: &Path, text: &str) -> Result<Self, TokensError> {
        let (mut tokens, mut faults) = (Vec::<ApiToken>::new(), Vec::new());
        for (index, line) in text.lines().enumerate().filter(|(_, line)| is_entry(line)) {
            let read = ApiToken::read(line.trim()).map_err(|error| error.to_string()).and_then(|token| {
                let same = tokens.iter().find(|one| one.name == token.name || one.sha256 == token.sha256);
                match same {
                    Some(one) if one.name == token.name => {
                        Err(format!("the token {} is defined above already", one.name))
                    }
                    Some(one) => {
                        Err(format!("this is the secret of the token {} above; expected another secret", one.name))
                    }
                    None if tokens.len() == MAX_TOKENS => Err(format!("expected {MAX_TOKENS} tokens at most")),
                    None => Ok(token),
                }
            });
            match read {
                Ok(token) => tokens.push(token),
                Err(wrong) => faults.push(format!("{}:{}: {wrong}", path.display(), index + 1)),
            }
        }
        if faults.is_empty() { Ok(Self(tokens)) } else { Err(TokensError(faults)) }
    }

    /// All tokens, expired ones included.
    pub fn tokens(&self) -> &[ApiToken] {
        &self.0
    }

    /// The token with this secret, expired or not.
    ///
    /// Every token is compared, each in constant time: the duration tells neither how much of a guess is right nor which
    /// token it is near to.
    pub fn find(&self, secret: &str) -> Option<&ApiToken> {
        let presented = sha256(secret);
        let mut found = None;
        for token in &self.0 {
            if equal(&token.sha256, &presented) {
                found = Some(token);
            }
        }
        found
    }

    /// Whether the list has this token, with the same secret and at least the role `role`.
    pub fn holds(&self, token: &ApiToken, role: TokenRole) -> bool {
        self.0.iter().any(|one| one.name == token.name && one.sha256 == token.sha256 && one.role >= role)
    }
}

/// Whether a line is neither empty nor a comment.
pub(super) fn is_entry(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#')
}

/// First line of a new tokens file.
pub(super) fn header() -> String {
    format!("# Tokens of weir's HTTP API: {FORM}.\n")
}
