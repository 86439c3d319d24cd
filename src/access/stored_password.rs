//! What the users file keeps of a password, to recognise it: an Argon2id hash, or the SHA-256 of a generated secret.

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::digest;

use super::password::{Password, RandomError, equal, random};

/// Largest memory of one hash in KiB. A hash in the file that asks for more would take the memory of a small box at each
/// login.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
/// Largest number of passes over the memory.
const MAX_PASSES: u32 = 16;
/// Largest number of lanes. They are computed one after the other.
const MAX_LANES: u32 = 16;
/// Bytes of a new salt.
const SALT_BYTES: usize = 16;
/// Accepted lengths of a salt, in bytes.
const SALT_RANGE: std::ops::RangeInclusive<usize> = 8..=64;
/// Accepted lengths of a hash, in bytes.
const HASH_RANGE: std::ops::RangeInclusive<usize> = 16..=64;

const ARGON2: &str = "$argon2id$v=19$";
const GENERATED: &str = "$generated-sha256$";

/// Why a password cannot be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// There is not enough memory for Argon2.
    #[error("there is not enough memory to hash a password")]
    Memory,
    /// The operating system gives no random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// Argon2 refuses the password, which has more than 4 GiB.
    #[error("this password cannot be hashed")]
    Input,
}

/// Why a text of the users file is not a hash. The sentences do not quote the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoredPasswordError {
    /// The text begins like no hash that weir knows.
    #[error("it is no hash that weir knows")]
    Unknown,
    /// Another variant or version of Argon2.
    #[error("it is not Argon2id, version 19")]
    Argon2Variant,
    /// An Argon2 hash without one of its parts.
    #[error("it does not have the parts $argon2id$v=19$m=…,t=…,p=…$SALT$HASH")]
    Argon2Form,
    /// The parameters are unreadable or too large.
    #[error("its parameters are not m=…,t=…,p=… with at most m=262144, t=16 and p=16")]
    Params,
    /// The salt is unreadable, too short or too long.
    #[error("its salt is not 8 to 64 bytes in base64 without =")]
    Salt,
    /// The hash is unreadable, too short or too long.
    #[error("its hash is not 16 to 64 bytes in base64 without =")]
    Hash,
    /// The digest of a generated secret is unreadable or of another length.
    #[error("the hash of a generated secret is not 32 bytes in base64 without =")]
    Generated,
}

/// Working memory of Argon2, kept between hashes so that not each of them allocates it.
#[derive(Default)]
pub struct HashMemory(Vec<Block>);

impl HashMemory {
    fn blocks(&mut self, count: usize) -> Result<&mut [Block], HashError> {
        if self.0.len() < count {
            self.0.try_reserve_exact(count - self.0.len()).map_err(|_| HashError::Memory)?;
            self.0.resize(count, Block::new());
        }
        self.0.get_mut(..count).ok_or(HashError::Memory)
    }
}

impl fmt::Debug for HashMemory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HashMemory").field("blocks", &self.0.len()).finish()
    }
}

/// What the users file keeps of a password. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub enum StoredPassword {
    /// A hash that is slow to compute, for passwords that people choose: guessing them must be slow.
    Argon2(Argon2Hash),
    /// The SHA-256 of a secret that weir made. A fast hash is enough, because nobody can try 2^192 secrets.
    Generated(GeneratedHash),
}

/// The SHA-256 of a secret that weir made.
#[derive(Clone, PartialEq, Eq)]
pub struct GeneratedHash([u8; digest::SHA256_OUTPUT_LEN]);

impl fmt::Debug for StoredPassword {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            StoredPassword::Argon2(_) => "Argon2(…)",
            StoredPassword::Generated(_) => "Generated(…)",
        })
    }
}

/// An Argon2id hash with its parameters and salt.
#[derive(Clone, PartialEq, Eq)]
pub struct Argon2Hash {
    params: Params,
    salt: Box<[u8]>,
    hash: Box<[u8]>,
}

impl StoredPassword {
    /// Hashes a password with Argon2id, 19 MiB and two passes: the minimum that OWASP recommends.
    ///
    /// # Errors
    /// There is not enough memory, or there are no random bytes for the salt.
    pub fn hash(password: &Password) -> Result<Self, HashError> {
        let salt = random::<SALT_BYTES>()?;
        let mut hash = [0; Params::DEFAULT_OUTPUT_LEN];
        let params = Params::new(Params::DEFAULT_M_COST, Params::DEFAULT_T_COST, 1, Some(hash.len()));
        let params = params.map_err(|_| HashError::Input)?;
        let unfinished = Argon2Hash { params, salt: salt.into(), hash: hash.into() };
        unfinished.compute(password, &mut HashMemory::default(), &mut hash)?;
        Ok(StoredPassword::Argon2(Argon2Hash { hash: hash.into(), ..unfinished }))
    }

    /// The digest of a secret that [`Password::generate`] made. For a password that a person chose it is too fast to be safe.
    pub fn of_generated(secret: &Password) -> Self {
        StoredPassword::Generated(GeneratedHash(sha256(secret)))
    }

    /// Reads a hash in the form of the users file.
    ///
    /// # Errors
    /// The text is not a hash that weir knows, or its parameters are out of bounds. The error does not quote the text.
    pub fn parse(text: &str) -> Result<Self, StoredPasswordError> {
        if let Some(rest) = text.strip_prefix(ARGON2) {
            return Argon2Hash::parse(rest).map(StoredPassword::Argon2);
        }
        if let Some(rest) = text.strip_prefix(GENERATED) {
            let hash = BASE64.decode(rest).ok().and_then(|hash| hash.try_into().ok());
            let hash = hash.map(|hash| StoredPassword::Generated(GeneratedHash(hash)));
            return hash.ok_or(StoredPasswordError::Generated);
        }
        Err(if text.starts_with("$argon2") { StoredPasswordError::Argon2Variant } else { StoredPasswordError::Unknown })
    }

    /// The hash in the form of the users file.
    pub fn to_text(&self) -> String {
        match self {
            StoredPassword::Argon2(Argon2Hash { params, salt, hash }) => format!(
                "{ARGON2}m={},t={},p={}${}${}",
                params.m_cost(),
                params.t_cost(),
                params.p_cost(),
                BASE64.encode(salt),
                BASE64.encode(hash)
            ),
            StoredPassword::Generated(hash) => format!("{GENERATED}{}", BASE64.encode(hash.0)),
        }
    }
}

impl GeneratedHash {
    /// Whether this is the secret, compared in constant time.
    pub fn verify(&self, secret: &Password) -> bool {
        equal(&sha256(secret), &self.0)
    }
}

impl Argon2Hash {
    /// Whether this is the password, compared in constant time.
    ///
    /// # Errors
    /// There is not enough memory for Argon2, or it refuses the password.
    pub fn verify(&self, password: &Password, memory: &mut HashMemory) -> Result<bool, HashError> {
        let mut computed = vec![0; self.hash.len()];
        self.compute(password, memory, &mut computed)?;
        Ok(equal(&computed, &self.hash))
    }

    /// A hash that is as slow to check as this one, and that no password is known to have.
    pub fn unmatchable(&self) -> Self {
        Self { hash: vec![0; self.hash.len()].into(), ..self.clone() }
    }

    /// Relative cost of computing the hash: memory times passes.
    pub fn cost(&self) -> u64 {
        u64::from(self.params.m_cost()) * u64::from(self.params.t_cost())
    }

    /// Memory that computing the hash takes.
    pub fn memory_bytes(&self) -> usize {
        self.params.block_count() * Block::SIZE
    }

    fn parse(text: &str) -> Result<Self, StoredPasswordError> {
        let mut parts = text.split('$');
        let (Some(params), Some(salt), Some(hash), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(StoredPasswordError::Argon2Form);
        };
        let decode = |text: &str, range: &std::ops::RangeInclusive<usize>| {
            BASE64.decode(text).ok().filter(|bytes| range.contains(&bytes.len())).map(Vec::into_boxed_slice)
        };
        let salt = decode(salt, &SALT_RANGE).ok_or(StoredPasswordError::Salt)?;
        let hash = decode(hash, &HASH_RANGE).ok_or(StoredPasswordError::Hash)?;
        let params = parse_params(params, hash.len()).ok_or(StoredPasswordError::Params)?;
        Ok(Self { params, salt, hash })
    }

    fn compute(&self, password: &Password, memory: &mut HashMemory, out: &mut [u8]) -> Result<(), HashError> {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone());
        let blocks = memory.blocks(self.params.block_count())?;
        argon2
            .hash_password_into_with_memory(password.as_bytes(), &self.salt, out, blocks)
            .map_err(|_| HashError::Input)
    }
}

fn parse_params(text: &str, hash_bytes: usize) -> Option<Params> {
    let mut parts = text.split(',');
    let mut next = |name: &str, max: u32| {
        let number = parts.next()?.strip_prefix(name)?.parse::<u32>().ok()?;
        (number <= max).then_some(number)
    };
    let (memory, passes, lanes) = (next("m=", MAX_MEMORY_KIB)?, next("t=", MAX_PASSES)?, next("p=", MAX_LANES)?);
    if parts.next().is_some() {
        return None;
    }
    Params::new(memory, passes, lanes, Some(hash_bytes)).ok()
}

fn sha256(secret: &Password) -> [u8; digest::SHA256_OUTPUT_LEN] {
    let mut hash = [0; digest::SHA256_OUTPUT_LEN];
    hash.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::new(text.as_bytes())
    }

    fn verify(stored: &StoredPassword, text: &str) -> bool {
        match stored {
            StoredPassword::Argon2(hash) => hash.verify(&password(text), &mut HashMemory::default()).expect("memory"),
            StoredPassword::Generated(hash) => hash.verify(&password(text)),
        }
    }

    #[test]
    fn a_hash_matches_its_password_and_no_other() {
        let stored = StoredPassword::hash(&password("correct horse")).expect("a hash");
        let again = StoredPassword::parse(&stored.to_text()).expect("it reads back");
        assert!(stored == again && verify(&again, "correct horse") && !verify(&again, "correct horsf"));
        assert!(stored != StoredPassword::hash(&password("correct horse")).expect("a hash"), "salts differ");
        let StoredPassword::Argon2(hash) = again else { panic!("expected Argon2") };
        assert!(!verify(&StoredPassword::Argon2(hash.unmatchable()), "correct horse"));
    }

    /// A vector of the reference implementation's own tests: version 19, t=2, m=2^8, p=1, "password", "somesalt".
    #[test]
    fn hashes_of_other_programs_are_understood() {
        let text = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let stored = StoredPassword::parse(text).expect("a hash");
        assert!(verify(&stored, "password") && !verify(&stored, "Password"));
        assert_eq!(stored.to_text(), text);
    }

    #[test]
    fn generated_secrets_are_long_and_read_back() {
        let secret = Password::generate().expect("random bytes");
        assert_eq!(secret.as_bytes().len(), 32);
        let text = StoredPassword::of_generated(&secret).to_text();
        let stored = StoredPassword::parse(&text).expect("it reads back");
        assert!(verify(&stored, std::str::from_utf8(secret.as_bytes()).expect("text")) && !verify(&stored, "x"));
        assert_ne!(secret.as_bytes(), Password::generate().expect("random bytes").as_bytes());
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let stored = StoredPassword::hash(&password("open sesame")).expect("a hash");
        let shown = format!("{:?} {stored:?} {:?}", password("open sesame"), HashMemory::default());
        assert_eq!(shown, "Password(…) Argon2(…) HashMemory { blocks: 0 }");
    }

    #[test]
    fn a_text_that_is_no_hash_is_refused_and_not_quoted() {
        let (salt, hash) = ("c29tZXNhbHQ", "nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4");
        for bad in [
            String::new(),
            "hunter2".into(),
            "$2b$10$abcdefghijklmnopqrstuv".into(),
            format!("$argon2i$v=19$m=256,t=2,p=1${salt}${hash}"),
            format!("$argon2id$v=16$m=256,t=2,p=1${salt}${hash}"),
            format!("$argon2id$v=19$m=256,t=2${salt}${hash}"),
            format!("$argon2id$v=19$m=256,t=2,p=1,data=AA${salt}${hash}"),
            format!("$argon2id$v=19$m=262145,t=2,p=1${salt}${hash}"),
            format!("$argon2id$v=19$m=256,t=17,p=1${salt}${hash}"),
            format!("$argon2id$v=19$m=4,t=2,p=1${salt}${hash}"),
            format!("$argon2id$v=19$m=256,t=2,p=1$c2${hash}"),
            format!("$argon2id$v=19$m=256,t=2,p=1${salt}$AAAA"),
            format!("$argon2id$v=19$m=256,t=2,p=1${salt}${hash}$"),
            "$generated-sha256$AAAA".into(),
        ] {
            let wrong = StoredPassword::parse(&bad).expect_err(&bad).to_string();
            assert!(!wrong.contains(hash) && !wrong.contains("hunter2"), "{wrong}");
        }
    }
}
