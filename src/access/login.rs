//! From what a client says about itself to who it is.

use std::net::IpAddr;
use std::sync::Arc;

use super::password::{HashError, HashMemory, Password};
use super::policy::{Policy, Proof};
use super::{Access, Identity, Login};

/// What a client says about itself.
#[derive(Debug, Clone, Default)]
pub struct Credentials<'a> {
    /// The user that its certificate stands for; the listener has verified the certificate.
    pub certificate_user: Option<&'a Arc<str>>,
    /// The user that it says it is.
    pub user: Option<&'a str>,
    /// Its proof of that.
    pub password: Option<&'a Password>,
    /// Where it comes from.
    pub address: Option<IpAddr>,
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Unknown user, wrong password, no password, or another user than the certificate's.
    #[error("bad user name or password")]
    BadCredentials,
    /// Without credentials where some are needed.
    #[error("credentials are needed")]
    NotAuthorized,
    /// Too many wait to be checked: it may try again.
    #[error("too many clients wait to be checked")]
    Busy,
}

impl Access {
    /// Decides about a client.
    ///
    /// # Errors
    /// Why it is not let in.
    pub async fn log_in(&self, credentials: &Credentials<'_>) -> Result<Login, Denied> {
        // Before the policy: where it is replaced in between, the login only seems older than it is.
        let version = self.version();
        let policy = self.policy();
        let (identity, proof) = match (credentials.certificate_user, credentials.user, credentials.password) {
            (_, None, Some(_)) => return Err(Denied::BadCredentials),
            (Some(certified), Some(user), _) if **certified != *user => return Err(Denied::BadCredentials),
            (Some(certified), ..) => (policy.certified(certified), Proof::Certificate),
            (None, Some(user), password) if policy.users.is_some() => {
                self.check(&policy, user, password.ok_or(Denied::BadCredentials)?).await?
            }
            // There is nothing to check a user name against, so it is not believed.
            (None, Some(_), _) => (policy.anonymous().ok_or(Denied::BadCredentials)?, Proof::None),
            (None, None, None) => (policy.anonymous().ok_or(Denied::NotAuthorized)?, Proof::None),
        };
        Ok(Login { identity, proof, address: credentials.address, version })
    }

    async fn check(&self, policy: &Policy, user: &str, password: &Password) -> Result<(Identity, Proof), Denied> {
        let known = policy.users.as_ref().and_then(|users| users.get(user));
        let Some((name, known)) = known else { return Err(Denied::BadCredentials) };
        let identity = Identity { user: Some(Arc::clone(name)), roles: Arc::clone(&known.roles) };
        let (stored, password) = (known.password.clone(), password.clone());
        let proof = Proof::Password(stored.clone());
        let verified = tokio::task::spawn_blocking(move || stored.verify(&password, &mut HashMemory::default()));
        match verified.await {
            Ok(Ok(true)) => Ok((identity, proof)),
            Ok(Ok(false) | Err(HashError::Input)) => Err(Denied::BadCredentials),
            Ok(Err(_)) | Err(_) => Err(Denied::Busy),
        }
    }
}
