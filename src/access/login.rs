//! From what a client says about itself to who it is.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use metrics::counter;

use super::early_refusals::ReportDecision;
use super::hash_pool::Busy;
use super::password::{Password, StoredPassword};
use super::policy::{Policy, Proof};
use super::users::User;
use super::{Access, Identity, Login};
use crate::telemetry::audit::{self, AuditActor, AuditEvent};
use crate::telemetry::names;
use crate::tls::CertificateId;

/// What a client says about itself.
#[derive(Debug, Clone, Default)]
pub struct ClientCredentials<'a> {
    /// For the audit log.
    pub client_id: &'a str,
    /// The user that its certificate stands for; the listener has verified the certificate.
    pub certificate_user: Option<&'a Arc<str>>,
    /// That certificate.
    pub certificate: Option<CertificateId>,
    /// The user that it says it is.
    pub user: Option<&'a str>,
    /// Its proof of that.
    pub password: Option<&'a Password>,
    /// Where it comes from.
    pub address: Option<IpAddr>,
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
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

impl LoginError {
    /// Label in metrics and audit events.
    pub fn label(self) -> &'static str {
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
    /// Decides about a client. A refusal is written to the audit log, and comes the later the more clients of the same
    /// address failed before.
    ///
    /// # Errors
    /// Why it is not let in.
    pub async fn log_in(&self, credentials: &ClientCredentials<'_>) -> Result<Login, LoginError> {
        let denied = match self.judge(credentials).await {
            Ok(login) => return Ok(login),
            Err(denied) => denied,
        };
        let now = Instant::now();
        // weir's own shortage is no fault of the client.
        if denied == LoginError::Busy {
            audit::record(AuditEvent::MqttRefused, &credentials.who(), "", denied.label());
            return Err(denied);
        }
        let failure = self.failures.add(credentials.address, now);
        if let Some(repeated) = failure.report {
            let detail = match repeated {
                0 => denied.label().to_owned(),
                repeated => format!("{}; {}", denied.label(), repeated_text(repeated)),
            };
            audit::record(AuditEvent::MqttRefused, &credentials.who(), "", &detail);
        }
        if let Some(ticket) = self.failures.wait(now) {
            // Where another needs the place, the answer comes early.
            let _ = tokio::time::timeout(failure.delay, ticket.evicted()).await;
        }
        Err(denied)
    }

    async fn judge(&self, credentials: &ClientCredentials<'_>) -> Result<Login, LoginError> {
        // Before the policy: where it is replaced in between, the login only seems older than it is.
        let version = self.version();
        let policy = self.policy();
        let (identity, proof) = match (credentials.certificate_user, credentials.user, credentials.password) {
            (_, None, Some(_)) => return Err(LoginError::BadCredentials),
            (Some(certified), Some(user), _) if **certified != *user => return Err(LoginError::BadCredentials),
            (Some(certified), ..) => {
                let proof = Proof::Certificate(credentials.certificate);
                let identity = Identity { user: Some(Arc::clone(certified)), ..Identity::default() };
                // The list may have come after the handshake.
                (policy.renew(&identity, &proof).ok_or(LoginError::NotAuthorized)?, proof)
            }
            (None, Some(user), password) if policy.users.is_some() => {
                let password = password.ok_or(LoginError::BadCredentials)?;
                self.check(&policy, user, password, credentials.address).await?
            }
            // There is nothing to check a user name against, so it is not believed.
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
        address: Option<IpAddr>,
    ) -> Result<(Identity, Proof), LoginError> {
        let known = policy.users.as_ref().and_then(|users| users.get(user));
        if !self.is_right(policy, user, known.map(|(_, known)| known), password, address).await? {
            return Err(LoginError::BadCredentials);
        }
        let (name, User { roles, password, .. }) = known.ok_or(LoginError::BadCredentials)?;
        let identity = Identity { user: Some(Arc::clone(name)), roles: Arc::clone(roles) };
        Ok((identity, Proof::Password(password.clone())))
    }

    /// Whether this is the user's password. For a user that there is not, and for a wrong secret in the place of a generated
    /// one, it takes as long as for a wrong password: how long a refusal takes tells nobody which names there are.
    async fn is_right(
        &self,
        policy: &Policy,
        user: &str,
        known: Option<&User>,
        password: &Password,
        address: Option<IpAddr>,
    ) -> Result<bool, Busy> {
        let stored = known.map(|known| &known.password);
        if let Some(StoredPassword::Generated(secret)) = stored
            && secret.verify(password)
        {
            counter!(names::MQTT_PASSWORDS_CHECKED, "how" => "generated").increment(1);
            return Ok(true);
        }
        let tag = self.remembered.tag(user, password, stored);
        if let Some(right) = tag.and_then(|tag| self.remembered.find(user, &tag)) {
            counter!(names::MQTT_PASSWORDS_CHECKED, "how" => "remembered").increment(1);
            return Ok(right);
        }
        let hash = match stored {
            Some(StoredPassword::Argon2(hash)) => Some(hash),
            Some(StoredPassword::Generated(_)) | None => policy.users.as_ref().and_then(|users| users.decoy()),
        };
        // No user of the file has a password that is costly to check.
        let Some(hash) = hash else { return Ok(false) };
        let suspect = self.failures.is_suspect(address, Instant::now());
        let right = self.hashing.verify(hash.clone(), password.clone(), suspect).await?;
        if let Some(tag) = tag {
            self.remembered.keep(user, tag, right);
        }
        Ok(right)
    }

    /// Writes the refusal of a client that did not get as far as [`Access::log_in`] to the audit log: once a minute for
    /// each address and reason. `reason` is its label in metrics, `explanation` what more is known or nothing.
    pub fn note_refusal(&self, who: &AuditActor<'_>, reason: &'static str, explanation: &str) {
        let repeated = match self.refusals.note(who.address, reason, Instant::now()) {
            ReportDecision::Tell(repeated) => repeated,
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
        audit::record(AuditEvent::MqttRefused, who, "", &detail);
    }

    /// Sets the gauges, forgets what is over and reports what was left over; called once per second.
    pub fn tidy(&self) {
        self.hashing.measure();
        let now = Instant::now();
        let failures = self.failures.tidy(now).into_iter().map(|(address, repeated)| (address, "", repeated));
        for (address, reason, repeated) in failures.chain(self.refusals.tidy(now)) {
            let who = AuditActor { address: Some(address), ..AuditActor::default() };
            let separator = if reason.is_empty() { "" } else { "; " };
            audit::record(
                AuditEvent::MqttRefused,
                &who,
                "",
                &format!("{reason}{separator}{}", repeated_text(repeated)),
            );
        }
    }
}

impl ClientCredentials<'_> {
    fn who(&self) -> AuditActor<'_> {
        let user = self.user.or(self.certificate_user.map(|user| &**user));
        AuditActor { client_id: Some(self.client_id), user, address: self.address }
    }
}

fn repeated_text(repeated: u64) -> String {
    format!("{repeated} more refusals of this address since the last event")
}
