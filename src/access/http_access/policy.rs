//! Decides about requests: the tokens of the file, and the settings of the configuration.

use super::refusal::HttpRefusal;
use crate::access::secret_file;
use crate::access::tokens::{ApiToken, TokenList, TokenRole, TokensError};
use crate::config::{HostPattern, HttpConfig, MetricsAccess};

/// The tokens and settings that decide about requests. Loading one changes nothing; it takes effect with
/// [`HttpAccess::replace`](super::HttpAccess::replace).
#[derive(Debug, Clone, Default)]
pub struct HttpPolicy {
    /// `None`: no tokens file is configured.
    pub(super) tokens: Option<TokenList>,
    /// Whether requests need no token.
    pub(super) anonymous: bool,
    pub(super) open_metrics: bool,
    allowed_hosts: Vec<HostPattern>,
    /// Whether MQTT clients, which may come over WebSocket, need credentials.
    mqtt_needs_credentials: bool,
}

impl HttpPolicy {
    /// Reads the tokens file, if one is configured.
    ///
    /// # Errors
    /// The file cannot be read, or has faults.
    pub fn load(config: &HttpConfig) -> Result<Self, TokensError> {
        Ok(Self {
            tokens: config.auth.tokens.as_deref().map(TokenList::load).transpose()?,
            anonymous: config.allows_anonymous(),
            open_metrics: config.auth.metrics == MetricsAccess::Open,
            allowed_hosts: config.allowed_hosts.clone(),
            mqtt_needs_credentials: false,
        })
    }

    /// The same policy, where MQTT clients need credentials or not.
    pub fn with_mqtt_credentials(self, needed: bool) -> Self {
        Self { mqtt_needs_credentials: needed, ..self }
    }

    /// Warnings for the operator about settings that work and are probably not intended.
    pub fn warnings(&self, config: &HttpConfig) -> Vec<String> {
        let mut warnings = Vec::new();
        for (key, address) in config.exposed() {
            if self.anonymous {
                warnings.push(format!(
                    "{key}: whoever reaches {address} may use the HTTP API without a token (http.allow_anonymous)"
                ));
            } else if key == "http.listen" {
                warnings
                    .push(format!("{key}: tokens reach {address} unencrypted; use http.tls.listen for other machines"));
            }
        }
        if let (Some(path), Some(tokens)) = (&config.auth.tokens, &self.tokens) {
            if tokens.tokens().is_empty() && !self.anonymous {
                let path = path.display();
                warnings.push(format!(
                    "{path}: there are no tokens, so nobody can use the API; `weir token add` makes one"
                ));
            }
            warnings.extend(secret_file::world_readable(path));
        }
        warnings
    }

    /// Whether `/metrics` and `/metrics/devices` need no token.
    pub fn open_metrics(&self) -> bool {
        self.open_metrics
    }

    /// `http.allowed_hosts`
    pub fn allowed_hosts(&self) -> &[HostPattern] {
        &self.allowed_hosts
    }

    /// Whether MQTT clients need credentials, over WebSocket too.
    pub fn mqtt_needs_credentials(&self) -> bool {
        self.mqtt_needs_credentials
    }

    /// Decides about a request that needs the role `needed` and presents `secret`.
    ///
    /// # Errors
    /// The token is missing, unknown or expired, or its role does not allow the request.
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

    /// Whether a caller that was accepted earlier, for the role `needed`, would still be accepted.
    pub(super) fn still_allows(&self, caller: &Caller, needed: TokenRole, now_ms: i64) -> bool {
        match (&caller.token, &self.tokens) {
            (Some(token), Some(tokens)) => tokens.holds(token, needed) && !token.is_expired(now_ms),
            (Some(_), None) | (None, _) => self.anonymous,
        }
    }
}

/// The sender of an accepted request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    pub(super) token: Option<ApiToken>,
}

impl Caller {
    /// Name of the sender's token; `None`: the request had none.
    pub fn name(&self) -> Option<&str> {
        self.token.as_ref().map(|token| &*token.name)
    }
}
