//! Finds out whose client certificate a failed handshake refused. rustls reports why it refused a certificate, but not the
//! certificate.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

tokio::task_local! {
    /// Subject of the client certificate that the current handshake refused.
    ///
    /// It is local to the task because one verifier serves all handshakes of a listener, and rustls gives it nothing that
    /// tells them apart.
    static REFUSED: RefCell<Option<String>>;
}

/// Runs a handshake. If it fails, the error comes with the subject of the client certificate that was refused, if a
/// certificate is the reason.
pub(super) async fn with_refused_subject<T, E>(
    handshake: impl Future<Output = Result<T, E>>,
) -> Result<T, (E, Option<String>)> {
    let recorded = async { handshake.await.map_err(|error| (error, REFUSED.with(|refused| refused.take()))) };
    REFUSED.scope(RefCell::default(), recorded).await
}

/// Verifies like the verifier inside, and records the subject of each certificate that it refuses.
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
            // Fails outside of `with_refused_subject`, where nobody asks for the subject.
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
