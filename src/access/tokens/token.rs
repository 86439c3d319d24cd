//! One token, and its line in the tokens file.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};

use crate::access::password::{RandomError, random};

/// Every secret begins with this prefix, so that scanners for leaked secrets can find it.
const PREFIX: &str = "weir_";
const SECRET_BYTES: usize = 32;
const MAX_NAME_BYTES: usize = 64;
const DIGEST_BYTES: usize = 32;

/// What a token allows. Each role includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenRole {
    /// Requests that change nothing.
    Read,
    /// Requests that make weir do something: take a savepoint, replay errors.
    Operate,
}

impl TokenRole {
    /// The name of the role in the tokens file and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            TokenRole::Read => "read",
            TokenRole::Operate => "operate",
        }
    }

    /// The role with this name.
    pub fn named(name: &str) -> Option<Self> {
        [TokenRole::Read, TokenRole::Operate].into_iter().find(|role| role.as_str() == name)
    }
}

/// One token. Only the digest of its secret is known, and `Debug` does not print that either.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Name of the token: the person or program that it was given to.
    pub name: Arc<str>,
    /// What the token allows.
    pub role: TokenRole,
    /// Time of expiry, Unix milliseconds; `None`: the token does not expire.
    pub expires_ms: Option<i64>,
    pub(super) sha256: [u8; DIGEST_BYTES],
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiToken").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// Why a token cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NewTokenError {
    /// The name is not allowed.
    #[error("{name:?} cannot be the name of a token; expected {NAME_FORM}")]
    Name {
        /// The refused name.
        name: String,
    },
    /// There are no random bytes for the secret.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Why a line of the tokens file is not a token. The sentences quote nothing of the line: somebody may have written a
/// secret into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenLineError {
    #[error("this is not a token; expected {FORM}")]
    Fields,
    #[error("the first field is not a name; expected {NAME_FORM}")]
    Name,
    #[error("the second field is not a role; expected read or operate")]
    Role,
    #[error("the third field is not a SHA-256; expected 64 hexadecimal digits")]
    Digest,
    #[error("the fourth field is not a time; expected RFC 3339 such as 2027-01-31T12:00:00Z, or no such field")]
    Expiry,
}

/// The form of a line, for messages.
pub(super) const FORM: &str = "NAME:ROLE:SHA256 or NAME:ROLE:SHA256:EXPIRY as `weir token add` writes it";
/// The form of a name, for messages.
const NAME_FORM: &str = "1 to 64 of A-Z a-z 0-9 . _ -";

impl ApiToken {
    /// Makes a token with a new secret. The secret is returned beside the token and kept nowhere else.
    ///
    /// # Errors
    /// The name is not allowed, or the operating system gives no random bytes.
    pub fn create(name: &str, role: TokenRole, expires_ms: Option<i64>) -> Result<(Self, String), NewTokenError> {
        if !is_name(name) {
            return Err(NewTokenError::Name { name: name.to_owned() });
        }
        let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random::<SECRET_BYTES>()?));
        Ok((Self { name: name.into(), role, expires_ms, sha256: sha256(&secret) }, secret))
    }

    /// Whether the token has expired.
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_ms.is_some_and(|expires_ms| now_ms >= expires_ms)
    }

    /// Time of expiry as RFC 3339; `None`: the token does not expire.
    pub fn expiry(&self) -> Option<String> {
        self.expires_ms.map(|ms| {
            Timestamp::from_millisecond(ms).map_or_else(|_| format!("Unix time {ms} ms"), |time| format!("{time:.0}"))
        })
    }

    /// The token's line in the tokens file.
    pub(super) fn line(&self) -> String {
        let mut line = format!("{}:{}:", self.name, self.role.as_str());
        for byte in self.sha256 {
            line.push_str(&format!("{byte:02x}"));
        }
        if let Some(expiry) = self.expiry() {
            line.push(':');
            line.push_str(&expiry);
        }
        line
    }

    /// Reads a line of the tokens file.
    pub(super) fn read(line: &str) -> Result<Self, TokenLineError> {
        // Three splits at most: a time of RFC 3339 holds colons of its own.
        let mut fields = line.splitn(4, ':');
        let (Some(name), Some(role), Some(digest)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(TokenLineError::Fields);
        };
        if !is_name(name) {
            return Err(TokenLineError::Name);
        }
        let role = TokenRole::named(role).ok_or(TokenLineError::Role)?;
        let sha256 = from_hex(digest).ok_or(TokenLineError::Digest)?;
        let expires_ms = match fields.next() {
            None => None,
            Some(text) => Some(text.parse::<Timestamp>().map_err(|_| TokenLineError::Expiry)?.as_millisecond()),
        };
        Ok(Self { name: name.into(), role, expires_ms, sha256 })
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}

/// The digest of a secret. One round without salt is enough for 256 random bits; salt and slow hashes protect passwords
/// that people choose.
pub(super) fn sha256(secret: &str) -> [u8; DIGEST_BYTES] {
    let mut out = [0; DIGEST_BYTES];
    out.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    out
}

fn from_hex(text: &str) -> Option<[u8; DIGEST_BYTES]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = [0; DIGEST_BYTES];
    if text.len() != 2 * DIGEST_BYTES {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}
