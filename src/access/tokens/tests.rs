//! Tokens files: what is in them, what is wrong with them, and how they change.

use std::path::Path;

use super::*;

const HEX: &str = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef";

fn parse(text: &str) -> Result<TokenList, TokensError> {
    TokenList::parse(Path::new("tokens"), text)
}

#[track_caller]
fn faults(text: &str, expected: &[&str]) {
    let error = parse(text).expect_err("it has faults");
    assert_eq!(error.to_string().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_secret_is_found_by_its_digest() {
    let (token, secret) = ApiToken::create("panel", TokenRole::Operate, Some(5_000)).unwrap();
    assert!(secret.starts_with("weir_") && secret.len() == 5 + 43, "{secret}");
    let (other, other_secret) = ApiToken::create("prometheus", TokenRole::Read, None).unwrap();
    assert_ne!(secret, other_secret);
    let list = parse(&format!("{}\n\n# comment\n  {}\n", token.line(), other.line())).unwrap();
    assert_eq!(list.find(&secret), Some(&token));
    assert_eq!(list.find(&other_secret), Some(&other));
    for wrong in ["", "weir_", &secret[..secret.len() - 1], &format!("{secret}A"), &secret.to_lowercase()] {
        assert_eq!(list.find(wrong), None, "{wrong}");
    }
    assert!(token.is_expired(5_000) && !token.is_expired(4_999) && !other.is_expired(i64::MAX));
    assert!(
        list.holds(&token, TokenRole::Operate)
            && list.holds(&other, TokenRole::Read)
            && !list.holds(&other, TokenRole::Operate)
    );
    let (again, _) = ApiToken::create("panel", TokenRole::Operate, None).unwrap();
    assert!(!list.holds(&again, TokenRole::Read), "the name alone is not the token");
}

/// The digest is SHA-256, by its published vector for "abc".
#[test]
fn the_digest_is_sha_256() {
    let vector = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let list = parse(&format!("a:read:{vector}")).unwrap();
    assert_eq!(list.find("abc").map(|token| &*token.name), Some("a"));
}

#[test]
fn every_fault_is_told_with_its_line_and_without_what_the_line_holds() {
    let text = format!(
        "# comment\nweir_secret\na:read:{HEX}\na:operate:{}\nb:admin:{HEX}\nc:read:{HEX}\nd:read:12\ne e:read:{HEX}\n\
         f:read:{}:tomorrow\n",
        HEX.replace('0', "1"),
        HEX.replace('0', "2")
    );
    faults(
        &text,
        &[
            "tokens:2: this is not a token; expected NAME:ROLE:SHA256 or NAME:ROLE:SHA256:EXPIRY as `weir token add` writes it",
            "tokens:4: the token a is defined above already",
            "tokens:5: the second field is not a role; expected read or operate",
            "tokens:6: this is the secret of the token a above; expected another secret",
            "tokens:7: the third field is not a SHA-256; expected 64 hexadecimal digits",
            "tokens:8: the first field is not a name; expected 1 to 64 of A-Z a-z 0-9 . _ -",
            "tokens:9: the fourth field is not a time; expected RFC 3339 such as 2027-01-31T12:00:00Z, or no such field",
        ],
    );
    for wrong in ["", "weir_x"] {
        assert!(ApiToken::read(wrong).is_err());
    }
    let many: String = (0..=MAX_TOKENS).map(|n| format!("t{n}:read:{n:064x}\n")).collect();
    faults(&many, &["tokens:1001: expected 1000 tokens at most"]);
}

#[test]
fn nothing_that_is_shown_holds_a_digest() {
    let list = parse(&format!("a:read:{HEX}")).unwrap();
    assert!(!format!("{list:?}").contains("0123"));
    assert_eq!(format!("{:?}", list.tokens()[0]), "ApiToken { name: \"a\", role: Read, .. }");
}

#[test]
fn tokens_come_and_go_and_comments_stay() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let names = || TokenList::load(&path).unwrap().tokens().iter().map(|one| one.name.to_string()).collect::<Vec<_>>();
    let (first, secret) = ApiToken::create("first", TokenRole::Read, None).unwrap();
    let (second, _) = ApiToken::create("second", TokenRole::Operate, Some(1_900_000_000_000)).unwrap();
    assert!(matches!(remove(&path, "first"), Err(ChangeError::Unknown { .. })));
    assert!(TokenList::load(&path).is_err(), "no file is a fault, not a file without tokens");
    add(&path, &first).unwrap();
    add(&path, &second).unwrap();
    assert!(matches!(add(&path, &first), Err(ChangeError::Exists { .. })));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# ") && !text.contains(&secret), "{text}");
    assert!(text.ends_with(":2030-03-17T17:46:40Z\n"), "{text}");
    assert_eq!(TokenList::load(&path).unwrap().tokens(), [first.clone(), second]);
    remove(&path, "first").unwrap();
    assert_eq!(names(), ["second"]);
    // Without a line end, as editors leave it.
    std::fs::write(&path, format!("# mine\n{}", first.line())).unwrap();
    let (third, _) = ApiToken::create("firs", TokenRole::Read, None).unwrap();
    add(&path, &third).unwrap();
    remove(&path, "firs").unwrap();
    assert_eq!(names(), ["first"]);
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("# mine\n"));
    std::fs::write(&path, "nonsense\n").unwrap();
    assert!(matches!(add(&path, &third), Err(ChangeError::Faults(_))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "nonsense\n");
}

#[test]
fn names() {
    for good in ["a", "panel-7", "A.b_c", &"x".repeat(64)] {
        assert!(ApiToken::create(good, TokenRole::Read, None).is_ok(), "{good}");
    }
    for bad in ["", "a b", "a:b", "é", "#a", &"x".repeat(65)] {
        assert!(ApiToken::create(bad, TokenRole::Read, None).is_err(), "{bad}");
    }
}
