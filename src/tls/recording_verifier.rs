//! Whose certificate a handshake was refused for: rustls tells why, and not whose it was.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

tokio::task_local! {
    /// The subject of the certificate that the handshake within was refused for.
    static REFUSED: RefCell<Option<String>>;
}

/// Shakes hands; a failure comes with the subject of the client certificate that was refused, if that is why.
pub(super) async fn telling<T, E>(shake: impl Future<Output = Result<T, E>>) -> Result<T, (E, Option<String>)> {
    let told = async { shake.await.map_err(|error| (error, REFUSED.with(|refused| refused.take()))) };
    REFUSED.scope(RefCell::default(), told).await
}

/// Verifies as the verifier within does, and notes whose certificate that refuses.
#[derive(Debug)]
pub(super) struct RecordingVerifier(pub Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for RecordingVerifier {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now);
        if verified.is_err()
            && let Ok((_, certificate)) = X509Certificate::from_der(end_entity)
        {
            // Nobody asks outside of `telling`.
            let _ = REFUSED.try_with(|refused| refused.replace(Some(certificate.subject().to_string())));
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.0.requires_raw_public_keys()
    }
}
