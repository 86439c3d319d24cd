//! The access policy in use, and how another one replaces it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use super::early_refusals::EarlyRefusals;
use super::hash_pool::HashPool;
use super::login_failures::LoginFailures;
use super::password_cache::PasswordCache;
use super::policy::Policy;
use crate::admission::PendingConnections;
use crate::sync;
use crate::tls::RevokedCertificates;

/// The access policy in use and the state of logins, shared by all MQTT connections.
#[derive(Debug)]
pub struct Access {
    policy: RwLock<Arc<Policy>>,
    version: AtomicU64,
    pub(super) hash_pool: HashPool,
    pub(super) password_cache: PasswordCache,
    pub(super) failures: LoginFailures,
    pub(super) early_refusals: EarlyRefusals,
}

impl Access {
    /// Starts with `policy`.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy: RwLock::new(Arc::new(policy)),
            version: AtomicU64::new(1),
            hash_pool: HashPool::new(),
            password_cache: PasswordCache::new(),
            failures: LoginFailures::default(),
            early_refusals: EarlyRefusals::default(),
        }
    }

    /// The policy in use.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&sync::read(&self.policy))
    }

    /// Number of the policy in use. It grows with each [`Access::replace`] and [`Access::revoke`], so a decision of the
    /// policy may be cached together with this number.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Uses `policy` from now on. The revoked certificates stay, because they come from the files of the TLS listener and
    /// may be loaded again at any time between the reading of `policy` and this call. The topics of maps stay, because maps
    /// change with a restart only.
    ///
    /// Open connections and stored sessions are not judged here: the caller does that afterwards.
    pub fn replace(&self, policy: Policy) {
        self.password_cache.keep_only(policy.users.as_ref());
        self.change(|current| Policy {
            revoked: current.revoked.clone(),
            map_topics: current.map_topics.clone(),
            ..policy
        });
    }

    /// Treats exactly these certificates as revoked from now on. Open connections and stored sessions are not judged here:
    /// the caller does that afterwards.
    pub fn revoke(&self, revoked: RevokedCertificates) {
        self.change(|current| Policy { revoked, ..current.clone() });
    }

    /// Sets the memory of all connections that have not logged in. A quarter of it may wait for the check of passwords, and
    /// another quarter with passwords from suspect addresses.
    pub fn set_pending_bytes(&self, pending_bytes: Arc<PendingConnections>) {
        self.hash_pool.set_pending_bytes(pending_bytes);
    }

    fn change(&self, next: impl FnOnce(&Policy) -> Policy) {
        let mut current = sync::write(&self.policy);
        *current = Arc::new(next(&current));
        // Under the lock and after the policy: whoever reads the new version also gets the new policy.
        self.version.fetch_add(1, Ordering::AcqRel);
    }
}
