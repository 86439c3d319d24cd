use rcgen::{CertificateRevocationListParams, KeyIdMethod, KeyUsagePurpose, RevokedCertParams, SerialNumber};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;

/// What `openssl ca -gencrl` makes where its configuration names no extension.
const VERSION_1: &str = "-----BEGIN X509 CRL-----
MIGdMEQwCgYIKoZIzj0EAwIwGDEWMBQGA1UEAwwNb2xkIGF1dGhvcml0eRcNMjYx
MTIxMTYxMDM3WhcNMjYxMjIxMTYxMDM3WjAKBggqhkjOPQQDAgNJADBGAiEA9iyG
9zftdRdFvcFq+c9piNACKHnlNsnEqBNJx4MUr8wCIQD2XybZLs2J6Wz/HEZNiUjQ
ClUPsMSoOql/WqtZXpD+Dg==
-----END X509 CRL-----
";

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn id(pem: &str) -> CertificateId {
    CertificateId::of(&der(pem)).unwrap()
}

/// A list of 2025 that is to be replaced at the beginning of `next` and revokes these certificates.
fn list(authority: &TestAuthority, revoked: &[&str], month: u8, next: i32) -> String {
    let revoke = |pem: &&str| {
        let der = der(pem);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        RevokedCertParams {
            serial_number: SerialNumber::from_slice(certificate.raw_serial()),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2025, month, 1),
        next_update: date_time_ymd(next, 1, 1),
        crl_number: SerialNumber::from(u64::from(month)),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(revoke).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&authority.issuer).unwrap().pem().unwrap()
}

/// Files of a listener that asks for certificates by `ca`, less those of `lists`.
fn asking(directory: &Path, ca: &TestAuthority, lists: &str) -> TlsFiles {
    let (cert, key) = leaf(Some("server"), ca, (2027, 1, 1));
    let mut files = files(directory, &cert, &key);
    files.client_certificates = ClientCertificates::Required;
    (files.client_ca, files.client_crl) = (directory.join("ca.pem"), directory.join("crl.pem"));
    fs::write(&files.client_ca, &ca.pem).unwrap();
    fs::write(&files.client_crl, lists).unwrap();
    files
}

#[test]
fn lists_say_who_is_revoked() {
    let directory = TempDir::new().unwrap();
    let (ca, other) = (authority("ca"), authority("other"));
    let (good, _) = leaf(Some("good"), &ca, (2027, 1, 1));
    let (bad, _) = leaf(Some("bad"), &ca, (2027, 1, 1));
    let (strange, _) = leaf(Some("bad"), &other, (2027, 1, 1));
    let files = asking(directory.path(), &ca, &list(&ca, &[&bad], 6, 2027));
    let findings = check(&files, NOW_MS);
    assert!(findings.faults.is_empty() && findings.warnings.is_empty(), "{findings:?}");
    let (endpoint, clock) = endpoint(&files);
    let revoked = endpoint.revoked();
    assert!(revoked.contains(&id(&bad)) && !revoked.contains(&id(&good)) && !revoked.contains(&id(&strange)));
    let next_update = NOW_MS + 365 * DAY_MS;
    let status = CrlStatus { lists: 1, revoked: 1, next_update, overdue: false };
    assert_eq!(endpoint.status().client_crl, Some(status.clone()));
    clock.0.store(next_update + DAY_MS, Ordering::Relaxed);
    assert_eq!(endpoint.status().client_crl, Some(CrlStatus { overdue: true, ..status }));
    assert!(endpoint.revoked().contains(&id(&bad)), "it is used all the same");
}

#[test]
fn an_overdue_list_and_a_missing_one_are_warned_about() {
    let directory = TempDir::new().unwrap();
    let (ca, other) = (authority("ca"), authority("other"));
    let files = asking(directory.path(), &ca, &list(&ca, &[], 6, 2026));
    let warnings = || check(&files, NOW_MS + DAY_MS).warnings;
    assert!(warnings()[0].contains("should have been replaced by 2026-01-01T00:00:00Z"), "{:?}", warnings());
    fs::write(&files.client_ca, format!("{}{}", ca.pem, other.pem)).unwrap();
    assert!(warnings()[0].contains("no list of CN=other"), "{:?}", warnings());
    // One that stands above another does not issue to clients.
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "below");
    let key = KeyPair::generate().unwrap();
    let pem = params.signed_by(&key, &other.issuer).unwrap().pem();
    let below = TestAuthority { pem, issuer: Issuer::new(params, key) };
    fs::write(&files.client_ca, format!("{}{}{}", ca.pem, other.pem, below.pem)).unwrap();
    assert!(warnings()[0].contains("no list of CN=below") && warnings().len() == 2, "{:?}", warnings());
    fs::write(&files.client_crl, [list(&ca, &[], 6, 2027), list(&below, &[], 6, 2027)].concat()).unwrap();
    assert_eq!(warnings(), [""; 0]);
}

#[test]
fn of_several_lists_of_one_issuer_the_newest_counts() {
    let directory = TempDir::new().unwrap();
    let (ca, between) = (authority("ca"), authority("between"));
    let (held, _) = leaf(Some("held"), &ca, (2027, 1, 1));
    let (bad, _) = leaf(Some("bad"), &between, (2027, 1, 1));
    let all = [list(&ca, &[&held], 3, 2027), list(&ca, &[], 6, 2028), list(&between, &[&bad], 1, 2029)];
    let files = asking(directory.path(), &ca, &all.concat());
    let warnings = check(&files, NOW_MS).warnings;
    let [strange, twice] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(strange.contains("the list of CN=between is by none of the authorities"), "{strange}");
    assert!(twice.contains("more than one list of CN=ca"), "{twice}");
    let (endpoint, _) = endpoint(&files);
    assert!(!endpoint.revoked().contains(&id(&held)), "it is taken again");
    assert!(endpoint.revoked().contains(&id(&bad)), "an intermediate authority's list, whose certificate clients send");
    let expected = CrlStatus { lists: 2, revoked: 1, next_update: NOW_MS + (365 * 2) * DAY_MS, overdue: false };
    assert_eq!(endpoint.status().client_crl, Some(expected));
}

#[test]
fn lists_that_would_shut_everybody_out_are_faults() {
    let directory = TempDir::new().unwrap();
    let (ca, namesake) = (authority("ca"), authority("ca"));
    let with = |lists: &str| asking(directory.path(), &ca, lists);
    check_fault(&with("nothing"), "it has no revocation list; expected PEM");
    check_fault(&with(&ca.pem), "it has no revocation list");
    check_fault(&with("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"), "list 1: ");
    check_fault(
        &with(&list(&namesake, &[], 6, 2027)),
        "the list of CN=ca was not signed by the authority of this name",
    );
    check_fault(&with(VERSION_1), "the list of CN=old authority has version 1");
    let missing = TlsFiles { client_crl: directory.path().join("none"), ..with("") };
    check_fault(&missing, "none: cannot be read");
    let large = with("");
    fs::File::options().write(true).open(&large.client_crl).unwrap().set_len(9 << 20).unwrap();
    check_fault(&large, "more than the 8388608 allowed");
}

#[test]
fn an_authority_must_be_allowed_to_sign_lists() {
    let directory = TempDir::new().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "ca");
    let allowed = params.clone();
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let ca = TestAuthority { pem, issuer: Issuer::new(allowed, key) };
    check_fault(&asking(directory.path(), &ca, &list(&ca, &[], 6, 2027)), "key usage cRLSign");
}

#[test]
fn a_new_list_is_taken_and_a_bad_one_is_not() {
    let directory = TempDir::new().unwrap();
    let ca = authority("ca");
    let (first, _) = leaf(Some("first"), &ca, (2027, 1, 1));
    let (second, _) = leaf(Some("second"), &ca, (2027, 1, 1));
    let files = asking(directory.path(), &ca, &list(&ca, &[&first], 3, 2027));
    let (endpoint, _) = endpoint(&files);
    fs::write(&files.client_crl, "").unwrap();
    assert!(!endpoint.watch() && !endpoint.watch());
    assert!(endpoint.status().error.is_some_and(|error| error.contains("it has no revocation list")));
    assert!(endpoint.revoked().contains(&id(&first)));
    fs::write(&files.client_crl, list(&ca, &[&first, &second], 6, 2027)).unwrap();
    assert!(!endpoint.watch(), "it may still be written");
    assert!(endpoint.watch());
    assert_eq!(endpoint.status().error, None);
    assert!(endpoint.revoked().contains(&id(&first)) && endpoint.revoked().contains(&id(&second)));
    let without = TlsFiles { client_crl: Default::default(), ..files };
    endpoint.replace(endpoint.prepare(&without).unwrap());
    assert!(endpoint.revoked().is_empty() && endpoint.status().client_crl.is_none());
}
