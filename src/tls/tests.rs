use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

mod revocation;

use super::*;
use crate::admission::PendingMemory;
use crate::clock::Clock;
use crate::config::{ClientCertificates, TlsFiles};

/// 2026-01-01T00:00:00Z.
const NOW_MS: i64 = 1_767_225_600_000;
const DAY_MS: i64 = 86_400_000;

#[derive(Debug)]
struct FixedClock(AtomicI64);

impl Clock for FixedClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

struct TestAuthority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority(name: &str) -> TestAuthority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    TestAuthority { pem, issuer: Issuer::new(params, key) }
}

/// Certificate and key as PEM, valid from 2025 until `until`.
fn leaf(name: Option<&str>, authority: &TestAuthority, until: (i32, u8, u8)) -> (String, String) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(name) = name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(until.0, until.1, until.2);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, &authority.issuer).unwrap().pem(), key.serialize_pem())
}

fn files(directory: &Path, cert: &str, key: &str) -> TlsFiles {
    let files = TlsFiles { cert: directory.join("cert.pem"), key: directory.join("key.pem"), ..TlsFiles::default() };
    fs::write(&files.cert, cert).unwrap();
    fs::write(&files.key, key).unwrap();
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
    files
}

fn endpoint(files: &TlsFiles) -> (Arc<TlsEndpoint>, Arc<FixedClock>) {
    let clock = Arc::new(FixedClock(AtomicI64::new(NOW_MS)));
    (TlsEndpoint::load("mqtt", files, &[], 10, Arc::clone(&clock) as Arc<dyn Clock>).unwrap(), clock)
}

#[track_caller]
fn check_fault(files: &TlsFiles, expected: &str) {
    let findings = check(files, NOW_MS);
    assert!(findings.faults.len() == 1 && findings.faults[0].contains(expected), "{findings:?}, not {expected:?}");
}

#[test]
fn good_files_have_no_faults() {
    let directory = TempDir::new().unwrap();
    let ca = authority("ca");
    let (cert, key) = leaf(Some("a"), &ca, (2027, 1, 1));
    let mut files = files(directory.path(), &format!("{cert}{}", ca.pem), &key);
    files.client_ca = directory.path().join("ca.pem");
    files.client_certificates = ClientCertificates::Required;
    fs::write(&files.client_ca, &ca.pem).unwrap();
    let findings = check(&files, NOW_MS);
    assert!(findings.faults.is_empty() && findings.warnings.is_empty(), "{findings:?}");
}

#[test]
fn every_fault_has_its_message() {
    let directory = TempDir::new().unwrap();
    let (ca, other) = (authority("ca"), authority("other"));
    let (cert, key) = leaf(Some("a"), &ca, (2027, 1, 1));
    let (_, other_key) = leaf(Some("b"), &ca, (2027, 1, 1));
    let put = |cert: &str, key: &str| files(directory.path(), cert, key);
    check_fault(&put(&cert, &other_key), "not the key of the first certificate");
    check_fault(&put(&format!("{cert}{}", other.pem), &key), "certificate 2 (CN=other) did not sign");
    check_fault(&put(&format!("{}{cert}", ca.pem), &key), "did not sign");
    check_fault(&put("nothing", &key), "it has no certificate");
    check_fault(&put(&cert, &cert), "it has no private key");
    check_fault(&put("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key), "certificate 1");
    check_fault(&put(&leaf(Some("a"), &ca, (2025, 6, 1)).0, &key), "");
    let missing = TlsFiles { cert: directory.path().join("none"), ..put(&cert, &key) };
    check_fault(&missing, "cannot be read");
    let (cert, key) = leaf(Some("a"), &ca, (2025, 12, 1));
    check_fault(&put(&cert, &key), "expired at 2025-12-01T00:00:00Z");
    let mut asked = put(&leaf(Some("a"), &ca, (2027, 1, 1)).0, &key);
    asked.client_certificates = ClientCertificates::Optional;
    asked.client_ca.clone_from(&asked.key);
    check_fault(&asked, "");
}

/// A fault in one file does not hide those in others.
#[test]
fn the_faults_of_all_files_are_told() {
    let directory = TempDir::new().unwrap();
    let mut files = files(directory.path(), "nothing", "nothing");
    files.client_certificates = ClientCertificates::Required;
    files.client_ca = directory.path().join("absent-ca.pem");
    files.client_crl = directory.path().join("absent-crl.pem");
    let faults = check(&files, NOW_MS).faults;
    let expected = ["it has no certificate", "it has no private key", "absent-ca.pem", "absent-crl.pem"];
    assert_eq!(faults.len(), expected.len(), "{faults:?}");
    for (fault, expected) in faults.iter().zip(expected) {
        assert!(fault.contains(expected), "{fault}, not {expected}");
    }
}

#[test]
fn what_should_be_looked_at_is_a_warning() {
    let directory = TempDir::new().unwrap();
    let (cert, key) = leaf(Some("a"), &authority("ca"), (2026, 1, 20));
    let files = files(directory.path(), &cert, &key);
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
    let findings = check(&files, NOW_MS);
    assert!(findings.faults.is_empty());
    assert!(findings.warnings[0].contains("expires in 19 days"), "{findings:?}");
    assert!(findings.warnings[1].contains("every user of this machine"), "{findings:?}");
}

#[test]
fn a_good_reload_replaces_and_a_bad_one_changes_nothing() {
    let directory = TempDir::new().unwrap();
    let ca = authority("ca");
    let (cert, key) = leaf(Some("first"), &ca, (2027, 1, 1));
    let in_use = files(directory.path(), &cert, &key);
    let (endpoint, clock) = endpoint(&in_use);
    let reload = || endpoint.prepare(&in_use).map(|ready| endpoint.replace(ready));
    assert_eq!((endpoint.status().subject.as_str(), endpoint.status().days_left), ("CN=first", 365));
    fs::write(directory.path().join("cert.pem"), "broken").unwrap();
    assert!(reload().is_err());
    assert_eq!(endpoint.status().subject, "CN=first");
    assert!(endpoint.status().error.is_some_and(|error| error.contains("no certificate")));
    let (cert, key) = leaf(Some("late"), &ca, (2025, 12, 1));
    files(directory.path(), &cert, &key);
    assert!(reload().is_err(), "it has expired");
    clock.0.fetch_add(DAY_MS, Ordering::Relaxed);
    let (cert, key) = leaf(Some("second"), &ca, (2028, 1, 1));
    files(directory.path(), &cert, &key);
    reload().unwrap();
    let status = endpoint.status();
    assert_eq!((status.subject.as_str(), status.loaded, status.error), ("CN=second", NOW_MS + DAY_MS, None));
}

#[test]
fn changed_files_are_read_once_they_stay_as_they_are() {
    let directory = TempDir::new().unwrap();
    let ca = authority("ca");
    let (cert, key) = leaf(Some("first"), &ca, (2027, 1, 1));
    let (endpoint, _) = endpoint(&files(directory.path(), &cert, &key));
    let (cert, key) = leaf(Some("the second one"), &ca, (2027, 1, 1));
    fs::write(directory.path().join("cert.pem"), cert).unwrap();
    endpoint.watch();
    assert_eq!(endpoint.status().error, None, "the key may be on its way");
    let next = directory.path().join("next");
    fs::write(&next, key).unwrap();
    fs::rename(next, directory.path().join("key.pem")).unwrap();
    endpoint.watch();
    assert_eq!(endpoint.status().subject, "CN=first");
    endpoint.watch();
    assert_eq!((endpoint.status().subject.as_str(), endpoint.status().error), ("CN=the second one", None));
}

#[test]
fn users_of_client_certificates() {
    let ca = authority("ca");
    let user = |name| {
        let (pem, _) = leaf(name, &ca, (2027, 1, 1));
        let der = <rustls::pki_types::CertificateDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(
            pem.as_bytes(),
        );
        client_user(&der.unwrap())
    };
    assert_eq!(user(Some("pump-7")).as_deref(), Some("pump-7"));
    assert_eq!(user(None).as_deref(), Some("localhost"), "the DNS name stands in");
    for wrong in ["", "a/b", "#", "+", "a:b", " a", "a\n", &"x".repeat(129)] {
        assert_eq!(user(Some(wrong)), None, "{wrong:?}");
    }
    assert_eq!(client_user(&rustls::pki_types::CertificateDer::from(vec![1, 2, 3])), None);
}

#[tokio::test]
async fn handshakes_have_a_time_limit_and_fail_alone() {
    let directory = TempDir::new().unwrap();
    let (cert, key) = leaf(Some("a"), &authority("ca"), (2027, 1, 1));
    let (endpoint, _) = endpoint(&files(directory.path(), &cert, &key));
    let (_silent, server) = tokio::io::duplex(1_000);
    let held = PendingMemory::unlimited().unwrap();
    let from = || HandshakeClient { address: None, held: &held };
    let ended = endpoint.accept(server, from(), Duration::from_millis(1)).await;
    assert!(matches!(ended, Err(HandshakeError::Timeout)));
    let (mut client, server) = tokio::io::duplex(1_000);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(
        endpoint.accept(server, from(), Duration::from_secs(5)).await,
        Err(HandshakeError::Failed { refused_subject: None, .. })
    ));
    assert_eq!(endpoint.handshakes(), 0);
}
