//! A certificate authority, the certificates that it issues, and TLS clients that trust it.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use tempfile::TempDir;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::wait::DEADLINE;

/// A client's end of a TLS connection.
pub type TlsClientStream = StreamOwned<ClientConnection, TcpStream>;

/// A certificate authority with a directory for its certificates, keys and revocation lists.
pub struct CertificateAuthority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    pub fn create() -> Self {
        Self::named("test authority")
    }

    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let directory = TempDir::new().expect("a temporary directory");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        fs::write(directory.path().join("ca.pem"), pem).expect("a file");
        Self { directory, issuer: Issuer::new(params, key) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A path as a TOML value.
    pub fn toml(&self, name: &str) -> String {
        format!("'{}'", self.path(name).display())
    }

    /// Writes NAME.pem and NAME.key for localhost, 127.0.0.1 and this common name, valid until the end of that year.
    pub fn issue(&self, name: &str, common_name: &str, last_year: i32) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(last_year, 12, 31);
        let key = KeyPair::generate().expect("a key");
        let pem = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        self.write(&format!("{name}.pem"), &pem);
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    /// A revocation list in PEM with these certificates, dated to that month of 2020 and valid until the end of that
    /// year.
    pub fn revocation_list(&self, revoked: &[&str], month: u8, last_year: i32) -> String {
        let revoke = |name: &&str| {
            let chain = self.certificates(name);
            let (_, certificate) = X509Certificate::from_der(&chain[0]).expect("a certificate");
            RevokedCertParams {
                serial_number: SerialNumber::from_slice(certificate.raw_serial()),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, month, 1),
            next_update: date_time_ymd(last_year, 12, 31),
            crl_number: SerialNumber::from(u64::from(month)),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(revoke).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }

    /// Replaces a file by a rename, as tools that renew certificates do.
    pub fn write(&self, name: &str, text: &str) {
        let next = self.path("next");
        fs::write(&next, text).expect("a file");
        fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).expect("permissions");
        fs::rename(&next, self.path(name)).expect("it can be renamed");
    }

    fn certificates(&self, name: &str) -> Vec<CertificateDer<'static>> {
        let text = fs::read(self.path(&format!("{name}.pem"))).expect("a file");
        CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().expect("certificates")
    }

    /// Opens a TLS connection that trusts this authority; `client` names a certificate to show.
    pub fn connect(
        &self,
        address: SocketAddr,
        client: Option<&str>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> io::Result<TlsClientStream> {
        connect(address, &self.client(client, versions))
    }

    /// The TLS configuration of such a connection. Connections with the same configuration resume the TLS session of
    /// the first.
    pub fn client(&self, client: Option<&str>, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for root in self.certificates("ca") {
            roots.add(root).expect("a root");
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(versions).expect("versions").with_root_certificates(roots);
        Arc::new(match client {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let key = fs::read(self.path(&format!("{name}.key"))).expect("a file");
                let key = PrivateKeyDer::from_pem_slice(&key).expect("a key");
                builder.with_client_auth_cert(self.certificates(name), key).expect("a certificate")
            }
        })
    }

    /// The certificate that a listener shows, as text that holds its common name.
    pub fn shown(&self, stream: &TlsClientStream) -> String {
        let chain = stream.conn.peer_certificates().expect("the handshake is over");
        // The common name is the only text of the subject, and stands in it as it is.
        let der = chain[0].to_vec();
        String::from_utf8_lossy(&der).into_owned()
    }
}

/// Opens a TLS connection to localhost.
pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsClientStream> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.set_write_timeout(Some(DEADLINE))?;
    session.complete_io(&mut socket)?;
    Ok(StreamOwned::new(session, socket))
}
