//! Tokens of the HTTP API: the file that lists them, and which of them a secret is.
//!
//! A secret is 256 random bits that weir made, so nobody guesses it, and its SHA-256 needs neither salt nor many rounds:
//! those protect what people choose.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use subtle::ConstantTimeEq as _;

use super::secret_file;

/// Tokens in one file.
pub const MAX_TOKENS: usize = 1_000;
/// Every secret begins so: tools that look for secrets in the wrong places find it.
const PREFIX: &str = "weir_";
const SECRET_BYTES: usize = 32;
const MAX_NAME_BYTES: usize = 64;
const DIGEST_BYTES: usize = 32;
const FORM: &str = "NAME:ROLE:SHA256 or NAME:ROLE:SHA256:EXPIRY as `weir token add` writes it";

/// What a token allows. Each includes what is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenRole {
    /// To look: everything that changes nothing.
    Read,
    /// To have weir do something: take savepoints, replay errors.
    Operate,
}

impl TokenRole {
    /// Its name in the file and in answers.
    pub fn name(self) -> &'static str {
        match self {
            TokenRole::Read => "read",
            TokenRole::Operate => "operate",
        }
    }

    /// The role of that name.
    pub fn named(name: &str) -> Option<Self> {
        [TokenRole::Read, TokenRole::Operate].into_iter().find(|role| role.name() == name)
    }
}

/// One token. Of its secret only the digest is known, which is not shown either.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Who it was given to.
    pub name: Arc<str>,
    /// What it allows.
    pub role: TokenRole,
    /// Unix milliseconds from which on it is worth nothing; `None`: it does not expire.
    pub expires_ms: Option<i64>,
    sha256: [u8; DIGEST_BYTES],
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

impl ApiToken {
    /// A new token, and its secret, which is nowhere else.
    ///
    /// # Errors
    /// The name cannot be one, or the system has no randomness.
    pub fn create(name: &str, role: TokenRole, expires_ms: Option<i64>) -> Result<(Self, String), String> {
        if !is_name(name) {
            return Err(format!("{name:?} cannot be the name of a token; expected {NAME_FORM}"));
        }
        let mut bytes = [0; SECRET_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| "the system has no random numbers to give")?;
        let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        Ok((Self { name: name.into(), role, expires_ms, sha256: sha256(&secret) }, secret))
    }

    /// Whether it is worth nothing any more.
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_ms.is_some_and(|expires_ms| now_ms >= expires_ms)
    }

    /// When it expires, RFC 3339; `None`: never.
    pub fn expiry(&self) -> Option<String> {
        self.expires_ms.map(|ms| {
            Timestamp::from_millisecond(ms).map_or_else(|_| format!("Unix time {ms} ms"), |time| format!("{time:.0}"))
        })
    }

    fn line(&self) -> String {
        let mut line = format!("{}:{}:", self.name, self.role.name());
        for byte in self.sha256 {
            line.push_str(&format!("{byte:02x}"));
        }
        if let Some(expiry) = self.expiry() {
            line.push(':');
            line.push_str(&expiry);
        }
        line
    }

    fn read(line: &str) -> Result<Self, String> {
        // What a field holds is not repeated: somebody may have put a secret into it.
        let mut fields = line.splitn(4, ':');
        let (Some(name), Some(role), Some(digest)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(format!("this is not a token; expected {FORM}"));
        };
        if !is_name(name) {
            return Err(format!("the first field is not a name; expected {NAME_FORM}"));
        }
        let role = TokenRole::named(role).ok_or("the second field is not a role; expected read or operate")?;
        let sha256 = from_hex(digest).ok_or("the third field is not a SHA-256; expected 64 hexadecimal digits")?;
        let expires_ms = match fields.next() {
            None => None,
            Some(text) => {
                let expires = text.parse::<Timestamp>().map_err(|_| {
                    "the fourth field is not a time; expected RFC 3339 such as 2027-01-31T12:00:00Z, or no such field"
                })?;
                Some(expires.as_millisecond())
            }
        };
        Ok(Self { name: name.into(), role, expires_ms, sha256 })
    }
}

const NAME_FORM: &str = "1 to 64 of A-Z a-z 0-9 . _ -";

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}

fn sha256(secret: &str) -> [u8; DIGEST_BYTES] {
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

/// Why a tokens file cannot be used: every fault, one per line, and nothing of what the file holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct TokensError(pub Vec<String>);

/// The tokens of one file, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenList(Vec<ApiToken>);

impl TokenList {
    /// Reads a tokens file.
    ///
    /// # Errors
    /// It cannot be read, or has faults.
    pub fn load(path: &Path) -> Result<Self, TokensError> {
        let text = secret_file::read(path).map_err(|error| {
            TokensError(vec![format!("{error}; expected a file that `weir token add` wrote and weir's user may read")])
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, TokensError> {
        let (mut tokens, mut faults) = (Vec::<ApiToken>::new(), Vec::new());
        for (index, line) in text.lines().enumerate().filter(|(_, line)| is_entry(line)) {
            let read = ApiToken::read(line.trim()).and_then(|token| {
                let same = tokens.iter().find(|one| one.name == token.name || one.sha256 == token.sha256);
                match same {
                    Some(one) if one.name == token.name => Err(format!("there is a token {} above", one.name)),
                    Some(one) => Err(format!("this is the secret of {} above; expected one of its own", one.name)),
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

    /// All of them.
    pub fn tokens(&self) -> &[ApiToken] {
        &self.0
    }

    /// The token of that secret, expired or not. How long it takes says nothing of how near a guess is.
    pub fn find(&self, secret: &str) -> Option<&ApiToken> {
        let presented = sha256(secret);
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.sha256.ct_eq(&presented)) {
                found = Some(token);
            }
        }
        found
    }

    /// Whether this very token, with the same secret and at least this role, is still one of them.
    pub fn holds(&self, token: &ApiToken, role: TokenRole) -> bool {
        self.0.iter().any(|one| one.name == token.name && one.sha256 == token.sha256 && one.role >= role)
    }
}

fn is_entry(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#')
}

/// Why a tokens file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It has faults, or what it would become has.
    #[error(transparent)]
    Faults(#[from] TokensError),
    /// A call of the file system failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// There is no such token.
    #[error("there is no token {name} in {}; `weir token list` shows those that there are", path.display())]
    Unknown {
        /// Its name.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// There is one already.
    #[error("there is a token {name} in {} already; remove it first, or take another name", path.display())]
    Exists {
        /// Its name.
        name: String,
        /// The file.
        path: PathBuf,
    },
}

/// Adds a token to the file, which is made where there is none.
///
/// # Errors
/// The file has faults or cannot be written, or has a token of that name.
pub fn add(path: &Path, token: &ApiToken) -> Result<(), ChangeError> {
    let changing = secret_file::SecretFileEdit::lock(path)?;
    let mut text = changing.read()?.unwrap_or_else(|| format!("# Tokens of weir's HTTP API: {FORM}.\n"));
    if TokenList::parse(path, &text)?.tokens().iter().any(|one| one.name == token.name) {
        return Err(ChangeError::Exists { name: token.name.to_string(), path: path.to_owned() });
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&token.line());
    text.push('\n');
    // So that no command leaves a file that weir would refuse.
    TokenList::parse(path, &text)?;
    Ok(changing.replace(&text)?)
}

/// Removes the token of that name from the file. Comments stay.
///
/// # Errors
/// The file has faults or cannot be written, or has no such token.
pub fn remove(path: &Path, name: &str) -> Result<(), ChangeError> {
    let changing = secret_file::SecretFileEdit::lock(path)?;
    let unknown = || ChangeError::Unknown { name: name.to_owned(), path: path.to_owned() };
    let text = changing.read()?.ok_or_else(unknown)?;
    if !TokenList::parse(path, &text)?.tokens().iter().any(|one| &*one.name == name) {
        return Err(unknown());
    }
    let is_it = |line: &&str| is_entry(line) && line.trim().split(':').next() == Some(name);
    let kept: String = text.lines().filter(|line| !is_it(line)).flat_map(|line| [line, "\n"]).collect();
    Ok(changing.replace(&kept)?)
}

#[cfg(test)]
mod tests;
