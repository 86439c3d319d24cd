//! Which requests a policy accepts, and what it warns about.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::access::tokens;
use crate::access::tokens::ApiToken;
use crate::clock::SystemClock;
use crate::config::HttpConfig;

/// A clock whose time of day a test sets.
#[derive(Debug, Default)]
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
}

/// Adds a token to the file and returns its secret.
fn add(path: &Path, name: &str, role: TokenRole, expires_ms: Option<i64>) -> String {
    let (token, secret) = ApiToken::create(name, role, expires_ms).unwrap();
    tokens::add(path, &token).unwrap();
    secret
}

fn config(path: &Path, allow_anonymous: Option<bool>) -> HttpConfig {
    let mut config = HttpConfig { allow_anonymous, ..HttpConfig::default() };
    config.auth.tokens = Some(path.to_owned());
    config
}

#[test]
fn roles_expiry_and_what_is_no_token() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let reader = add(&path, "reader", TokenRole::Read, None);
    let operator = add(&path, "operator", TokenRole::Operate, Some(10_000));
    let policy = HttpPolicy::load(&config(&path, None)).unwrap();
    let judge = |secret: Option<&str>, needed, now_ms| {
        let caller = policy.judge(secret, needed, now_ms);
        caller.map(|caller| caller.name().map(str::to_owned)).map_err(|refusal| refusal.as_str())
    };
    assert_eq!(judge(Some(&reader), TokenRole::Read, 0), Ok(Some("reader".into())));
    assert_eq!(judge(Some(&reader), TokenRole::Operate, 0), Err("scope"));
    assert_eq!(judge(Some(&operator), TokenRole::Read, 9_999), Ok(Some("operator".into())));
    assert_eq!(judge(Some(&operator), TokenRole::Operate, 9_999), Ok(Some("operator".into())));
    assert_eq!(judge(Some(&operator), TokenRole::Read, 10_000), Err("expired"));
    assert_eq!(judge(Some("weir_guess"), TokenRole::Read, 0), Err("invalid"));
    assert_eq!(judge(None, TokenRole::Read, 0), Err("missing"));
}

#[test]
fn anonymous_requests_where_they_are_allowed() {
    let open = HttpPolicy::load(&HttpConfig::default()).unwrap();
    // A proxy may send credentials of its own: without a tokens file they are ignored.
    for secret in [None, Some("anything")] {
        assert_eq!(open.judge(secret, TokenRole::Operate, 0), Ok(Caller::default()));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let reader = add(&path, "reader", TokenRole::Read, None);
    let both = HttpPolicy::load(&config(&path, Some(true))).unwrap();
    assert_eq!(both.judge(None, TokenRole::Operate, 0), Ok(Caller::default()));
    assert_eq!(both.judge(Some("weir_guess"), TokenRole::Read, 0), Err(HttpRefusal::Invalid));
    assert_eq!(both.judge(Some(&reader), TokenRole::Read, 0).unwrap().name(), Some("reader"));
    assert_eq!(both.judge(Some(&reader), TokenRole::Operate, 0).unwrap_err().as_str(), "scope");
}

#[test]
fn a_policy_that_cannot_be_loaded_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let error = HttpPolicy::load(&config(&path, None)).unwrap_err().to_string();
    assert!(error.contains("tokens: No such file") && error.contains("weir token add"), "{error}");
}

#[test]
fn warnings() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    std::fs::write(&path, "").unwrap();
    let check = |mut config: HttpConfig, listen: &str, expected: &[&str]| {
        config.listen = listen.parse().unwrap();
        let warnings = HttpPolicy::load(&config).unwrap().warnings(&config);
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        for (warning, part) in warnings.iter().zip(expected) {
            assert!(warning.contains(part), "{part:?} is not in {warning:?}");
        }
    };
    let chmod = |mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    chmod(0o600);
    check(HttpConfig::default(), "127.0.0.1:80", &[]);
    check(config(&path, None), "127.0.0.1:80", &["there are no tokens"]);
    check(config(&path, Some(true)), "127.0.0.1:80", &[]);
    add(&path, "a", TokenRole::Read, None);
    check(config(&path, None), "127.0.0.1:80", &[]);
    check(config(&path, None), "0.0.0.0:80", &["http.listen: tokens reach 0.0.0.0:80 unencrypted"]);
    let open = HttpConfig { allow_anonymous: Some(true), ..HttpConfig::default() };
    check(open, "0.0.0.0:80", &["whoever reaches 0.0.0.0:80 may use"]);
    chmod(0o644);
    check(config(&path, None), "127.0.0.1:80", &["every user of this machine may read"]);
}

/// What stays open ends when its token is removed, loses the role, or expires.
#[tokio::test]
async fn what_is_open_ends_with_its_token() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let stays = add(&path, "stays", TokenRole::Operate, None);
    let goes = add(&path, "goes", TokenRole::Read, None);
    let brief = add(&path, "brief", TokenRole::Read, Some(1_000));
    let clock = Arc::new(SetClock::default());
    let access = HttpAccess::new(HttpPolicy::load(&config(&path, None)).unwrap(), clock.clone());
    let open = |secret: &str| {
        let caller = access.judge(Some(secret), TokenRole::Read).unwrap();
        // Bounded, so that one that does not end fails the test.
        tokio::spawn(tokio::time::timeout(Duration::from_secs(60), access.clone().ended(caller, TokenRole::Read)))
    };
    let (stays, goes, brief) = (open(&stays), open(&goes), open(&brief));
    tokens::remove(&path, "goes").unwrap();
    access.replace(HttpPolicy::load(&config(&path, None)).unwrap());
    goes.await.unwrap().expect("it ends");
    assert!(!stays.is_finished() && !brief.is_finished());
    clock.0.store(1_000, Ordering::SeqCst);
    brief.await.unwrap().expect("it ends");
    assert!(!stays.is_finished());
    access.replace(HttpPolicy::default());
    stays.await.unwrap().expect("it ends");
}
