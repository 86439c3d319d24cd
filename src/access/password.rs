//! A password as a client presents it: secret bytes that are not printed, and wiped from memory when they are dropped.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SecureRandom as _;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Bytes of a generated secret: 192 bits.
const SECRET_BYTES: usize = 24;

/// The password of a client. `Debug` does not print it, and it is wiped from memory when it is dropped.
#[derive(Clone)]
pub struct Password(Zeroizing<Vec<u8>>);

/// The operating system gives no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct RandomError;

impl Password {
    /// A password of these bytes. MQTT allows any bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// The bytes of the password.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A new secret: 192 random bits as 32 characters of A-Z a-z 0-9 - _.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn generate() -> Result<Self, RandomError> {
        let secret = Zeroizing::new(random::<SECRET_BYTES>()?);
        Ok(Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(&secret[..]).into_bytes())))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(…)")
    }
}

/// Whether the bytes are equal, compared in constant time: the duration of an ordinary comparison tells at which byte a
/// guess is wrong, and thus allows to guess a secret byte by byte.
pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Random bytes from the operating system.
///
/// # Errors
/// The operating system gives none.
pub(super) fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| RandomError)?;
    Ok(bytes)
}
