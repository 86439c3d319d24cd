//! Who may use the HTTP API: the tokens in use, and what they say about a request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::secret_file;
use super::tokens::{ApiToken, TokenList, TokenRole, TokensError};
use crate::clock::Clock;
use crate::config::{HttpConfig, MetricsAccess};

/// Time between two looks at the clock, which may be set, while something waits for a token to expire.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// What is asked of requests. Made from the configuration and the file that it names; takes effect when it is handed to
/// [`HttpAccess`].
#[derive(Debug, Clone, Default)]
pub struct HttpPolicy {
    tokens: Option<TokenList>,
    anonymous: bool,
    open_metrics: bool,
}

impl HttpPolicy {
    /// Reads the tokens file, where there is one.
    ///
    /// # Errors
    /// It cannot be read, or has faults.
    pub fn load(config: &HttpConfig) -> Result<Self, TokensError> {
        Ok(Self {
            tokens: config.auth.tokens.as_deref().map(TokenList::load).transpose()?,
            anonymous: config.allows_anonymous(),
            open_metrics: config.auth.metrics == MetricsAccess::Open,
        })
    }

    /// What should be looked at, although weir does as it is told.
    pub fn warnings(&self, config: &HttpConfig) -> Vec<String> {
        let mut warnings = Vec::new();
        for (key, address) in config.exposed() {
            if self.anonymous {
                warnings.push(format!(
                    "{key}: whoever reaches {address} may use the HTTP API and needs no token (http.allow_anonymous)"
                ));
            } else if key == "http.listen" {
                warnings
                    .push(format!("{key}: tokens reach {address} unencrypted; use http.tls.listen for other machines"));
            }
        }
        if let (Some(path), Some(tokens)) = (&config.auth.tokens, &self.tokens) {
            if tokens.tokens().is_empty() && !self.anonymous {
                let path = path.display();
                warnings
                    .push(format!("{path}: there are no tokens: nobody can use the API; `weir token add` makes one"));
            }
            warnings.extend(secret_file::open_to_all(path));
        }
        warnings
    }

    /// Whether `/metrics` and `/metrics/devices` are for everybody.
    pub fn open_metrics(&self) -> bool {
        self.open_metrics
    }

    /// Decides about a request that needs `needed` and came with this secret.
    ///
    /// # Errors
    /// Why it may not be served.
    pub fn judge(&self, secret: Option<&str>, needed: TokenRole, now_ms: i64) -> Result<Caller, HttpRefusal> {
        let (Some(secret), Some(tokens)) = (secret, &self.tokens) else {
            return if self.anonymous { Ok(Caller::default()) } else { Err(HttpRefusal::Missing) };
        };
        let token = tokens.find(secret).ok_or(HttpRefusal::Invalid)?;
        if token.is_expired(now_ms) {
            return Err(HttpRefusal::Expired(token.name.clone()));
        }
        if token.role < needed {
            return Err(HttpRefusal::Scope { name: token.name.clone(), role: token.role, needed });
        }
        Ok(Caller { token: Some(token.clone()) })
    }

    /// Whether what was let in before, for `needed`, would be let in now.
    fn still_allows(&self, caller: &Caller, needed: TokenRole, now_ms: i64) -> bool {
        match (&caller.token, &self.tokens) {
            (Some(token), Some(tokens)) => tokens.holds(token, needed) && !token.is_expired(now_ms),
            (Some(_), None) | (None, _) => self.anonymous,
        }
    }
}

/// Who sent a request that may be served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    token: Option<ApiToken>,
}

impl Caller {
    /// The name of its token; `None`: it came without.
    pub fn name(&self) -> Option<&str> {
        self.token.as_ref().map(|token| &*token.name)
    }
}

/// Why a request is not served. Displays as a sentence for its sender, without the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpRefusal {
    /// It has no token.
    #[error("this needs a token: send \"Authorization: Bearer TOKEN\" with one that `weir token add` made")]
    Missing,
    /// It says twice who it is.
    #[error("there is more than one Authorization header; send one")]
    Repeated,
    /// Its token is not known.
    #[error("this token is not one of weir's; it may have been removed. `weir token add` makes another")]
    Invalid,
    /// Its token was good once.
    #[error("the token {0} has expired; `weir token add` makes another")]
    Expired(Arc<str>),
    /// Its token does not allow this.
    #[error("the token {name} has the role {}, and this needs {}", role.name(), needed.name())]
    Scope {
        /// The token's name.
        name: Arc<str>,
        /// Its role.
        role: TokenRole,
        /// The role that allows it.
        needed: TokenRole,
    },
}

impl HttpRefusal {
    /// Label in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            HttpRefusal::Missing => "missing",
            HttpRefusal::Repeated => "repeated",
            HttpRefusal::Invalid => "invalid",
            HttpRefusal::Expired(_) => "expired",
            HttpRefusal::Scope { .. } => "scope",
        }
    }

    /// The name of the token, where it is known.
    pub fn name(&self) -> Option<&str> {
        match self {
            HttpRefusal::Expired(name) | HttpRefusal::Scope { name, .. } => Some(name),
            HttpRefusal::Missing | HttpRefusal::Repeated | HttpRefusal::Invalid => None,
        }
    }

    /// The error code of RFC 6750 section 3.1; none where no token was sent.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            HttpRefusal::Missing => None,
            HttpRefusal::Repeated => Some("invalid_request"),
            HttpRefusal::Invalid | HttpRefusal::Expired(_) => Some("invalid_token"),
            HttpRefusal::Scope { .. } => Some("insufficient_scope"),
        }
    }
}

/// What `/api/v1/status` says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct HttpAccessStatus {
    /// Whether requests need a token.
    pub token_required: bool,
    /// Tokens in the file; `null` where there is none.
    pub tokens: Option<usize>,
    /// Whether metrics need one too.
    pub metrics_token_required: bool,
}

/// The policy in use, shared by all requests.
pub struct HttpAccess {
    policy: watch::Sender<Arc<HttpPolicy>>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for HttpAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpAccess").finish_non_exhaustive()
    }
}

impl HttpAccess {
    /// Begins with this policy.
    pub fn new(policy: HttpPolicy, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { policy: watch::Sender::new(Arc::new(policy)), clock })
    }

    /// From now on this policy holds, for what is open too: [`HttpAccess::ended`].
    pub fn replace(&self, policy: HttpPolicy) {
        self.policy.send_replace(Arc::new(policy));
    }

    /// The policy in use.
    pub fn policy(&self) -> Arc<HttpPolicy> {
        self.policy.borrow().clone()
    }

    /// [`HttpPolicy::judge`] by the policy and the time of now.
    ///
    /// # Errors
    /// Why the request may not be served.
    pub fn judge(&self, secret: Option<&str>, needed: TokenRole) -> Result<Caller, HttpRefusal> {
        self.policy().judge(secret, needed, self.clock.now_ms())
    }

    /// What the status page shows.
    pub fn status(&self) -> HttpAccessStatus {
        let policy = self.policy();
        HttpAccessStatus {
            token_required: !policy.anonymous,
            tokens: policy.tokens.as_ref().map(|list| list.tokens().len()),
            metrics_token_required: !policy.anonymous && !policy.open_metrics,
        }
    }

    /// Returns when `caller` may no longer do what needs `needed`: its token was removed, lost the role or expired, or
    /// tokens are asked for now. For what stays open.
    pub async fn ended(self: Arc<Self>, caller: Caller, needed: TokenRole) {
        let mut policies = self.policy.subscribe();
        loop {
            let now_ms = self.clock.now_ms();
            if !policies.borrow_and_update().still_allows(&caller, needed, now_ms) {
                return;
            }
            let expires_ms = caller.token.as_ref().and_then(|token| token.expires_ms);
            let left = expires_ms.map(|ms| Duration::from_millis(ms.saturating_sub(now_ms).max(0).unsigned_abs()));
            tokio::select! {
                changed = policies.changed() => if changed.is_err() { return },
                () = sleep(left) => {}
            }
        }
    }
}

async fn sleep(left: Option<Duration>) {
    match left {
        Some(left) => tokio::time::sleep(left.min(LONGEST_SLEEP)).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
