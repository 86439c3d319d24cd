//! Reasons for refusing an HTTP request.

use std::sync::Arc;

use crate::access::tokens::TokenRole;

/// Why a request is refused. Displays as a sentence for the sender, without the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpRefusal {
    /// The request has no token.
    #[error("this needs a token: send \"Authorization: Bearer TOKEN\" with one that `weir token add` made")]
    Missing,
    /// The request has more than one Authorization header, so it is unclear which one counts.
    #[error("there is more than one Authorization header; send one")]
    Repeated,
    /// The token is unknown.
    #[error("this token is unknown; it may have been removed. `weir token add` makes another")]
    Invalid,
    /// The token with this name has expired.
    #[error("the token {0} has expired; `weir token add` makes another")]
    Expired(Arc<str>),
    /// The token does not allow this request.
    #[error("the token {name} has the role {}, and this needs {}", role.as_str(), needed.as_str())]
    Scope {
        /// Name of the token.
        name: Arc<str>,
        /// Role of the token.
        role: TokenRole,
        /// Role that the request needs.
        needed: TokenRole,
    },
}

impl HttpRefusal {
    /// Label in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            HttpRefusal::Missing => "missing",
            HttpRefusal::Repeated => "repeated",
            HttpRefusal::Invalid => "invalid",
            HttpRefusal::Expired(_) => "expired",
            HttpRefusal::Scope { .. } => "scope",
        }
    }

    /// Name of the token, where the token is known.
    pub fn name(&self) -> Option<&str> {
        match self {
            HttpRefusal::Expired(name) | HttpRefusal::Scope { name, .. } => Some(name),
            HttpRefusal::Missing | HttpRefusal::Repeated | HttpRefusal::Invalid => None,
        }
    }

    /// Error code of RFC 6750 section 3.1. `None`: the request has no token; the RFC asks for no code then.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            HttpRefusal::Missing => None,
            HttpRefusal::Repeated => Some("invalid_request"),
            HttpRefusal::Invalid | HttpRefusal::Expired(_) => Some("invalid_token"),
            HttpRefusal::Scope { .. } => Some("insufficient_scope"),
        }
    }
}
