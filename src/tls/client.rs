//! TLS on the client side, for weir's commands and simulator when they call an HTTP API.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};

use super::error::TlsError;
use super::load::certificates;

/// A client configuration that trusts only the authorities in the PEM file `ca`, not those of the operating system.
///
/// # Errors
/// The file cannot be read, or holds no certificate of an authority.
pub fn trusting(ca: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    let wrong = |error: rustls::Error| TlsError::ClientCa { path: ca.to_owned(), wrong: error.to_string() };
    let mut roots = RootCertStore::empty();
    for root in certificates(ca)? {
        roots.add(root).map_err(wrong)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(wrong)?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
