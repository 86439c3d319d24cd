//! Patterns of host names, as in `http.allowed_hosts`.

use std::net::IpAddr;

/// Longest host name.
const MAX_NAME_BYTES: usize = 253;
/// Longest label of a host name.
const MAX_LABEL_BYTES: usize = 63;

/// The hosts that one entry of a list of hosts stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// `*`: every host.
    Any,
    /// One name, in lower case.
    Name(String),
    /// `*.example.org`: the names below `example.org`, however deep, and not `example.org` itself. Holds `example.org`, in
    /// lower case.
    Below(String),
    /// One address.
    Address(IpAddr),
}

impl HostPattern {
    /// Reads one entry; `None` where it is no host name, address or `*`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical()));
        }
        match text.strip_prefix("*.") {
            _ if text == "*" => Some(Self::Any),
            Some(parent) => host_name(parent).map(Self::Below),
            None => host_name(text).map(Self::Name),
        }
    }

    /// Whether the pattern stands for this name, which [`host_name`] returned.
    pub fn has_name(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Name(own) => own == name,
            Self::Below(parent) => {
                name.strip_suffix(&**parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Self::Address(_) => false,
        }
    }

    /// Whether the pattern stands for this address. IPv4 addresses must not be written as IPv6.
    pub fn has_address(&self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Address(own) => *own == address,
            Self::Name(_) | Self::Below(_) => false,
        }
    }
}

/// A host name in lower case, without the dot of the root; `None` where the text is no host name. A name that ends with a
/// number is none, because programs read it as an IPv4 address: `127.1` is 127.0.0.1 for many of them.
pub fn host_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=MAX_LABEL_BYTES).contains(&label.len()) && label.bytes().all(allowed)
    };
    let is_number = |label: &str| {
        let hexadecimal = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
        label.bytes().all(|byte| byte.is_ascii_digit())
            || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let is_name = name.len() <= MAX_NAME_BYTES
        && name.split('.').all(is_label)
        && name.split('.').next_back().is_some_and(|last| !is_number(last));
    is_name.then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let read = HostPattern::parse(pattern).expect("a pattern");
        let has = |host: &str| match host.parse() {
            Ok(address) => read.has_address(address),
            Err(_) => read.has_name(&host_name(host).expect("a name")),
        };
        assert!(yes.iter().all(|host| has(host)), "{pattern} has all of {yes:?}");
        assert!(!no.iter().any(|host| has(host)), "{pattern} has none of {no:?}");
    }

    #[test]
    fn patterns() {
        check(
            "box.local",
            &["box.local", "BOX.Local", "box.local."],
            &["local", "a.box.local", "box.local.evil", "10.0.0.1"],
        );
        check("Box.", &["box"], &["box.local"]);
        check(
            "*.example.org",
            &["a.example.org", "a.b.Example.org"],
            &["example.org", "evilexample.org", "example.org.evil"],
        );
        check("*", &["anything", "10.0.0.1", "::1"], &[]);
        check("10.0.0.1", &["10.0.0.1"], &["10.0.0.2", "::1", "a"]);
        check("::ffff:10.0.0.1", &["10.0.0.1"], &[]);
        check("[fd00::1]", &["fd00::1"], &["fd00::2"]);
    }

    #[test]
    fn other_texts_are_faults() {
        let long = "a".repeat(64);
        for text in [
            "",
            ".",
            "*.",
            "*.*",
            "**",
            "a..b",
            "http://a",
            "a:80",
            "a/b",
            "a b",
            "ä.example",
            "127.1",
            "1",
            "0x7f",
            &long,
        ] {
            assert!(HostPattern::parse(text).is_none(), "{text:?}");
        }
        assert!(HostPattern::parse(&["abcdefg"; 32].join(".")).is_none(), "too long");
    }
}
