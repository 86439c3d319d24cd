//! Passwords, and what is kept to recognise them.

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::digest;
use ring::rand::SecureRandom as _;
use zeroize::Zeroizing;

/// Memory of one hash at most, in KiB: a hash in the file that asks for more would starve the box at each login.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
/// Passes over the memory at most.
const MAX_PASSES: u32 = 16;
/// Lanes at most; they are computed one after the other.
const MAX_LANES: u32 = 16;
/// Bytes of a new salt.
const SALT_BYTES: usize = 16;
/// Bytes of salts and hashes that are read.
const SALT_RANGE: std::ops::RangeInclusive<usize> = 8..=64;
const HASH_RANGE: std::ops::RangeInclusive<usize> = 16..=64;
/// Bytes of a generated secret: 192 bits.
const SECRET_BYTES: usize = 24;

const ARGON2: &str = "$argon2id$v=19$";
const GENERATED: &str = "$generated-sha256$";

/// What a client proves itself with. It is not shown, and wiped when it is dropped.
#[derive(Clone)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// A password of these bytes; MQTT allows any.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// 192 random bits as 32 characters of A-Z a-z 0-9 - _.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn generate() -> Result<Self, HashError> {
        let secret = Zeroizing::new(random::<SECRET_BYTES>()?);
        let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&secret[..]);
        Ok(Self(Zeroizing::new(text.into_bytes())))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(…)")
    }
}

/// Why a password could not be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not enough memory for Argon2.
    #[error("there is not enough memory to hash a password")]
    Memory,
    /// No random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// What argon2 refuses: a password over 4 GiB.
    #[error("this password cannot be hashed")]
    Input,
}

/// The memory that Argon2 works in, kept between hashes.
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

/// What the users file keeps of a password. It is not shown.
#[derive(Clone, PartialEq, Eq)]
pub enum StoredPassword {
    /// A hash that is costly to compute, for passwords that people choose.
    Argon2(Argon2Hash),
    /// SHA-256 of a secret that weir made: nobody can go through 2^192 of them.
    Generated([u8; digest::SHA256_OUTPUT_LEN]),
}

impl fmt::Debug for StoredPassword {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            StoredPassword::Argon2(_) => "Argon2(…)",
            StoredPassword::Generated(_) => "Generated(…)",
        })
    }
}

/// An Argon2id hash with everything that it was computed from but the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Argon2Hash {
    params: Params,
    salt: Box<[u8]>,
    hash: Box<[u8]>,
}

impl StoredPassword {
    /// Hashes with Argon2id, 19 MiB and two passes.
    ///
    /// # Errors
    /// No memory or no random bytes.
    pub fn hash(password: &Password) -> Result<Self, HashError> {
        let salt = random::<SALT_BYTES>()?;
        let mut hash = [0; Params::DEFAULT_OUTPUT_LEN];
        let unfinished = Argon2Hash { params: Params::DEFAULT, salt: salt.into(), hash: hash.into() };
        unfinished.compute(password, &mut HashMemory::default(), &mut hash)?;
        Ok(StoredPassword::Argon2(Argon2Hash { hash: hash.into(), ..unfinished }))
    }

    /// What is kept of a secret that [`Password::generate`] made; unsafe for any other.
    pub fn of_generated(secret: &Password) -> Self {
        StoredPassword::Generated(sha256(secret))
    }

    /// Reads a hash as the users file has it.
    ///
    /// # Errors
    /// What is wrong with it. It does not quote the hash.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(rest) = text.strip_prefix(ARGON2) {
            return Argon2Hash::parse(rest).map(StoredPassword::Argon2);
        }
        if let Some(rest) = text.strip_prefix(GENERATED) {
            let hash = BASE64.decode(rest).ok().and_then(|hash| hash.try_into().ok());
            return hash
                .map(StoredPassword::Generated)
                .ok_or("the hash of a generated secret is not 32 bytes in base64");
        }
        Err(if text.starts_with("$argon2") {
            "it is not Argon2id, version 19"
        } else {
            "it is no hash that weir knows"
        })
    }

    /// The hash as the users file has it.
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
            StoredPassword::Generated(hash) => format!("{GENERATED}{}", BASE64.encode(hash)),
        }
    }

    /// Whether this is the password. The time that it takes says nothing about the hash.
    ///
    /// # Errors
    /// There is no memory for Argon2.
    pub fn verify(&self, password: &Password, memory: &mut HashMemory) -> Result<bool, HashError> {
        match self {
            StoredPassword::Argon2(stored) => {
                let mut computed = vec![0; stored.hash.len()];
                stored.compute(password, memory, &mut computed)?;
                Ok(equal(&computed, &stored.hash))
            }
            StoredPassword::Generated(hash) => Ok(equal(&sha256(password), hash)),
        }
    }
}

impl Argon2Hash {
    /// A hash that no password has, as costly as this one.
    pub fn unmatchable(&self) -> Self {
        Self { hash: vec![0; self.hash.len()].into(), ..self.clone() }
    }

    /// What computing it takes: memory times passes.
    pub fn cost(&self) -> u64 {
        u64::from(self.params.m_cost()) * u64::from(self.params.t_cost())
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut parts = text.split('$');
        let (Some(params), Some(salt), Some(hash), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("it does not have the parts $argon2id$v=19$m=…,t=…,p=…$SALT$HASH");
        };
        let decode = |text: &str, range: &std::ops::RangeInclusive<usize>| {
            BASE64.decode(text).ok().filter(|bytes| range.contains(&bytes.len())).map(Vec::into_boxed_slice)
        };
        let salt = decode(salt, &SALT_RANGE).ok_or("its salt is not 8 to 64 bytes in base64 without =")?;
        let hash = decode(hash, &HASH_RANGE).ok_or("its hash is not 16 to 64 bytes in base64 without =")?;
        let params = parse_params(params, hash.len())
            .ok_or("its parameters are not m=…,t=…,p=… with at most m=262144, t=16 and p=16")?;
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

/// Compares without telling by its time where they differ.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| std::hint::black_box(differ | (a ^ b))) == 0
}

fn random<const N: usize>() -> Result<[u8; N], HashError> {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| HashError::Random)?;
    Ok(bytes)
}
