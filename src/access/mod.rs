//! Who may enter, and what they may do there.

mod acl;
mod early_refusals;
mod hash_pool;
pub mod http_access;
mod identity;
mod login;
mod login_failures;
mod password;
mod password_cache;
mod policy;
pub mod secret_file;
pub mod tokens;
mod users;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use early_refusals::EarlyRefusals;
use hash_pool::HashPool;
use login_failures::LoginFailures;
use password_cache::PasswordCache;

use crate::sync;
use crate::tls::RevokedCertificates;

pub use acl::{Acl, Permissions};
pub use identity::Identity;
pub use login::{ClientCredentials, LoginError};
pub use password::{Argon2Hash, GeneratedHash, HashError, Password, StoredPassword};
pub use policy::{ANONYMOUS_ROLE, Policy, Proof};
pub use users::{DEFAULT_ROLE, MAX_USER_BYTES, ROLE_FORM, USER_FORM, User, Users, is_role, is_user, split_line};

/// A client that was let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// Who it is.
    pub identity: Identity,
    /// How it showed that.
    pub proof: Proof,
    /// Its address; `None` where the stream has none.
    pub address: Option<IpAddr>,
    /// [`Access::version`] of the policy that let it in.
    pub version: u64,
}

/// The policy in use, shared by all connections.
#[derive(Debug)]
pub struct Access {
    policy: RwLock<Arc<Policy>>,
    version: AtomicU64,
    hashing: HashPool,
    remembered: PasswordCache,
    failures: LoginFailures,
    refusals: EarlyRefusals,
}

impl Access {
    /// Begins with this policy.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy: RwLock::new(Arc::new(policy)),
            version: AtomicU64::new(1),
            hashing: HashPool::new(),
            remembered: PasswordCache::new(),
            failures: LoginFailures::default(),
            refusals: EarlyRefusals::default(),
        }
    }

    /// The policy in use.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&sync::read(&self.policy))
    }

    /// Grows with each [`Access::replace`]: what a policy said holds while it stays.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// From now on this policy holds, with the certificates that are revoked at present. Open connections are for the
    /// caller to judge anew.
    pub fn replace(&self, policy: Policy) {
        self.remembered.keep_only(policy.users.as_ref());
        self.change(|current| Policy { revoked: current.revoked.clone(), ..policy });
    }

    /// From now on these certificates are revoked, and no others. Open connections are for the caller to judge anew.
    pub fn revoke(&self, revoked: RevokedCertificates) {
        self.change(|current| Policy { revoked, ..current.clone() });
    }

    fn change(&self, next: impl FnOnce(&Policy) -> Policy) {
        let mut current = sync::write(&self.policy);
        *current = Arc::new(next(&current));
        self.version.fetch_add(1, Ordering::AcqRel);
    }
}
