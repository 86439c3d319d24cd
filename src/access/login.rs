//! The login of an MQTT client: from the credentials of its CONNECT to an identity, or to a refusal.
//!
//! Two rules protect against guessing. A refusal takes the same time for an unknown user as for a wrong password, so its
//! duration does not tell which names exist. And refusals of one address come later and later, while a right password is
//! accepted at once.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::counter;

use super::early_refusals::ReportDecision;
use super::hash_pool::{Busy, HashClient};
use super::identity::{Identity, Login, Proof};
use super::password::Password;
use super::policy::Policy;
use super::service::Access;
use super::stored_password::StoredPassword;
use super::users::User;
use crate::admission::PendingPermit;
use crate::telemetry::audit::{self, AuditActor, AuditEvent};
use crate::telemetry::names;
use crate::tls::CertificateId;

/// The credentials that a client presents.
#[derive(Debug, Clone, Default)]
pub struct ClientCredentials<'a> {
    /// Client identifier, for the audit log only.
    pub client_id: &'a str,
    /// The user that the client's certificate names. The listener has verified the certificate.
    pub certificate_user: Option<&'a Arc<str>>,
    /// The id of that certificate.
    pub certificate: Option<CertificateId>,
    /// The user name of the CONNECT.
    pub user: Option<&'a str>,
    /// The password of the CONNECT.
    pub password: Option<&'a Password>,
    /// Address of the client.
    pub address: Option<IpAddr>,
    /// Memory that the connection holds while its password waits to be checked.
    pub held_bytes: usize,
}

/// A login that was refused. Its answer is due after [`RefusedLogin::wait`]; what the client sent is not needed meanwhile.
#[derive(Debug)]
pub struct RefusedLogin {
    /// Why the login is refused.
    pub error: LoginError,
    delay: Option<(PendingPermit, Duration)>,
}

impl RefusedLogin {
    /// A refusal whose answer is not delayed.
    pub fn at_once(error: LoginError) -> Self {
        Self { error, delay: None }
    }

    /// Waits until the answer is due: the more logins from the same address failed before, the longer.
    pub async fn wait(self) {
        if let Some((permit, delay)) = self.delay {
            // An eviction ends the delay early: another refused client needs the place.
            let _ = tokio::time::timeout(delay, permit.evicted()).await;
        }
    }
}

/// Why a login is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The user is unknown, the password is wrong or missing, or the certificate names another user.
    #[error("bad user name or password")]
    BadCredentials,
    /// Credentials are required and the client has none, or its certificate is revoked.
    #[error("credentials are needed")]
    NotAuthorized,
    /// Too many passwords wait to be checked. The client may try again.
    #[error("too many clients wait to be checked")]
    Busy,
}

impl LoginError {
    /// Label in metrics and audit events.
    pub fn as_str(self) -> &'static str {
        match self {
            LoginError::BadCredentials => "bad_credentials",
            LoginError::NotAuthorized => "not_authorized",
            LoginError::Busy => "server_busy",
        }
    }
}

impl From<Busy> for LoginError {
    fn from(Busy: Busy) -> Self {
        LoginError::Busy
    }
}

impl Access {
    /// Checks the credentials of a client. A refusal is written to the audit log, and its answer is to be delayed.
    ///
    /// # Errors
    /// The credentials are wrong or missing, or too many passwords wait to be checked.
    pub async fn log_in(&self, credentials: &ClientCredentials<'_>) -> Result<Login, RefusedLogin> {
        let error = match self.judge(credentials).await {
            Ok(login) => return Ok(login),
            Err(refused) => refused,
        };
        let now = Instant::now();
        // The overload is weir's, not a failure of this client: it is neither counted against its address nor delayed.
        if error == LoginError::Busy {
            audit::record(AuditEvent::MqttRefused, &credentials.actor(), "", error.as_str());
            return Err(RefusedLogin::at_once(error));
        }
        let failure = self.failures.add(credentials.address, now);
        if let Some(repeated) = failure.report {
            let detail = match repeated {
                0 => error.as_str().to_owned(),
                repeated => format!("{}; {}", error.as_str(), repeated_text(repeated)),
            };
            audit::record(AuditEvent::MqttRefused, &credentials.actor(), "", &detail);
        }
        let permit = self.failures.wait(credentials.address, now);
        Err(RefusedLogin { error, delay: permit.map(|permit| (permit, failure.delay)) })
    }

    async fn judge(&self, credentials: &ClientCredentials<'_>) -> Result<Login, LoginError> {
        // The version is read before the policy. If the policy is replaced in between, the login carries a version that is
        // too old, and is judged again; the other order could leave a login of the old policy unjudged.
        let version = self.version();
        let policy = self.policy();
        let (identity, proof) = match (credentials.certificate_user, credentials.user, credentials.password) {
            (_, None, Some(_)) => return Err(LoginError::BadCredentials),
            (Some(certified), Some(user), _) if **certified != *user => return Err(LoginError::BadCredentials),
            (Some(certified), ..) => {
                let proof = Proof::Certificate(credentials.certificate);
                let identity = Identity { user: Some(Arc::clone(certified)), ..Identity::default() };
                // The handshake has checked the revocation lists, but newer lists may have been loaded since.
                (policy.renew(&identity, &proof).ok_or(LoginError::NotAuthorized)?, proof)
            }
            (None, Some(user), password) if policy.users.is_some() => {
                let password = password.ok_or(LoginError::BadCredentials)?;
                self.check(&policy, user, password, credentials).await?
            }
            // Without a users file a user name cannot be checked. The client is anonymous then, whatever its name.
            (None, Some(_), _) => (policy.anonymous().ok_or(LoginError::NotAuthorized)?, Proof::None),
            (None, None, None) => (policy.anonymous().ok_or(LoginError::NotAuthorized)?, Proof::None),
        };
        Ok(Login { identity, proof, address: credentials.address, version })
    }

    async fn check(
        &self,
        policy: &Policy,
        user: &str,
        password: &Password,
        credentials: &ClientCredentials<'_>,
    ) -> Result<(Identity, Proof), LoginError> {
        let known = policy.users.as_ref().and_then(|users| users.get(user));
        if !self.is_right(policy, user, known.map(|(_, known)| known), password, credentials).await? {
            return Err(LoginError::BadCredentials);
        }
        let (name, User { roles, password, .. }) = known.ok_or(LoginError::BadCredentials)?;
        let identity = Identity { user: Some(Arc::clone(name)), roles: Arc::clone(roles) };
        Ok((identity, Proof::Password(password.clone())))
    }

    /// Whether `password` is the user's password.
    ///
    /// An unknown user (`known` is `None`) and a user with a generated secret are checked against a decoy hash: a refusal
    /// takes as long as for a wrong password of a user with an Argon2 hash, so its duration does not tell which users exist.
    async fn is_right(
        &self,
        policy: &Policy,
        user: &str,
        known: Option<&User>,
        password: &Password,
        credentials: &ClientCredentials<'_>,
    ) -> Result<bool, Busy> {
        let stored = known.map(|known| &known.password);
        if let Some(StoredPassword::Generated(secret)) = stored
            && secret.verify(password)
        {
            counter!(names::MQTT_PASSWORDS_CHECKED, "how" => "generated").increment(1);
            return Ok(true);
        }
        let tag = self.password_cache.tag(user, password, stored);
        if let Some(right) = tag.and_then(|tag| self.password_cache.find(user, &tag)) {
            counter!(names::MQTT_PASSWORDS_CHECKED, "how" => "remembered").increment(1);
            return Ok(right);
        }
        let hash = match stored {
            Some(StoredPassword::Argon2(hash)) => Some(hash),
            Some(StoredPassword::Generated(_)) | None => policy.users.as_ref().and_then(|users| users.decoy()),
        };
        // Without an Argon2 hash in the users file all checks are fast, and no decoy is needed.
        let Some(hash) = hash else { return Ok(false) };
        let client = HashClient {
            address: credentials.address,
            user,
            suspect: self.failures.is_suspect(credentials.address, Instant::now()),
            held_bytes: credentials.held_bytes,
        };
        let right = self.hash_pool.verify(hash.clone(), password.clone(), &client).await?;
        if let Some(tag) = tag {
            self.password_cache.insert(user, tag, right);
        }
        Ok(right)
    }

    /// Writes the refusal of a client that did not get as far as [`Access::log_in`] to the audit log: at most once a
    /// minute for each address and reason. `reason` is the label in metrics; `explanation` adds details, or is empty.
    pub fn note_refusal(&self, actor: &AuditActor<'_>, reason: &'static str, explanation: &str) {
        let repeated = match self.early_refusals.note(actor.address, reason, Instant::now()) {
            ReportDecision::Report(repeated) => repeated,
            ReportDecision::Later => return,
            ReportDecision::Full => return audit::suppress(AuditEvent::MqttRefused),
        };
        let mut detail = reason.to_owned();
        if !explanation.is_empty() {
            detail = format!("{detail} ({explanation})");
        }
        if repeated > 0 {
            detail = format!("{detail}; {}", repeated_text(repeated));
        }
        audit::record(AuditEvent::MqttRefused, actor, "", &detail);
    }

    /// Sets the gauges of logins, forgets addresses without recent failures, and reports refusals that were counted and
    /// not reported. Called once per second.
    pub fn tidy(&self) {
        self.hash_pool.measure();
        let now = Instant::now();
        let failures = self.failures.tidy(now).into_iter().map(|(address, repeated)| (address, "", repeated));
        for (address, reason, repeated) in failures.chain(self.early_refusals.tidy(now)) {
            let actor = AuditActor { address: Some(address), ..AuditActor::default() };
            let separator = if reason.is_empty() { "" } else { "; " };
            let detail = format!("{reason}{separator}{}", repeated_text(repeated));
            audit::record(AuditEvent::MqttRefused, &actor, "", &detail);
        }
    }
}

impl ClientCredentials<'_> {
    fn actor(&self) -> AuditActor<'_> {
        let user = self.user.or(self.certificate_user.map(|user| &**user));
        AuditActor { client_id: Some(self.client_id), user, address: self.address }
    }
}

fn repeated_text(repeated: u64) -> String {
    format!("{repeated} more refusals of this address since the last event")
}
