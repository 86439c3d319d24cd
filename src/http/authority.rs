//! Host and port that a request or an origin names, RFC 9110 section 4.2 and RFC 9112 section 3.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::host_name;

/// A host with its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    /// The host.
    pub host: RequestHost,
    /// `None`: the port of the scheme.
    pub port: Option<u16>,
}

/// A host as a request names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestHost {
    /// An IP address. IPv4 addresses that are written as IPv6 are IPv4 here. A zone is left out.
    Address(IpAddr),
    /// A name in lower case, without the dot of the root.
    Name(String),
}

impl std::fmt::Display for RequestHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Authority {
    /// Reads `HOST` or `HOST:PORT`; `None` where the text has another form. Names of users are another form.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']')?;
            let port = if rest.is_empty() { None } else { port(rest.strip_prefix(':')?)? };
            return Some(Self { host: RequestHost::Address(ipv6(address)?), port });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, digits)) => (host, port(digits)?),
            None => (text, None),
        };
        let host = match host.parse::<Ipv4Addr>() {
            Ok(address) => RequestHost::Address(address.into()),
            Err(_) => RequestHost::Name(host_name(host)?),
        };
        Some(Self { host, port })
    }

    /// Reads the origin of a web page, `SCHEME://HOST` or `SCHEME://HOST:PORT`: whether the scheme is https, and the rest.
    /// `None` for `null` and for origins that are not of the web, such as those of browser extensions.
    pub fn of_origin(text: &str) -> Option<(bool, Self)> {
        let (scheme, rest) = text.split_once("://")?;
        let secure = scheme.eq_ignore_ascii_case("https");
        (secure || scheme.eq_ignore_ascii_case("http")).then_some((secure, Self::parse(rest)?))
    }

    /// Whether this is the host and port of `origin`, which [`Authority::of_origin`] returned. A port that is left out is
    /// that of the origin's scheme on both sides: a proxy may speak TLS in weir's place.
    pub fn is_of(&self, (secure, origin): &(bool, Self)) -> bool {
        let default = if *secure { 443 } else { 80 };
        self.host == origin.host && self.port.unwrap_or(default) == origin.port.unwrap_or(default)
    }
}

/// The port in digits; `Some(None)` for none after the colon, which RFC 3986 allows.
fn port(digits: &str) -> Option<Option<u16>> {
    if digits.is_empty() {
        return Some(None);
    }
    // `parse` would take a sign too.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten().map(Some)
}

/// An IPv6 address, with a zone or without: some clients send the zone of a link-local address.
fn ipv6(text: &str) -> Option<IpAddr> {
    let (address, zone) = text.split_once('%').unwrap_or((text, "-"));
    let is_zone = !zone.is_empty() && zone.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte));
    let address: Ipv6Addr = address.parse().ok().filter(|_| is_zone)?;
    Some(IpAddr::V6(address).to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, host: &str, port: Option<u16>) {
        let read = Authority::parse(text).unwrap_or_else(|| panic!("{text} is a host"));
        assert_eq!((read.host.to_string().as_str(), read.port), (host, port), "{text}");
    }

    #[test]
    fn hosts_and_ports() {
        check("box.local:8080", "box.local", Some(8080));
        check("BOX.Local.", "box.local", None);
        check("box:", "box", None);
        check("127.0.0.1:80", "127.0.0.1", Some(80));
        check("[::1]:8080", "::1", Some(8080));
        check("[0:0:0:0:0:0:0:1]", "::1", None);
        check("[::ffff:127.0.0.1]", "127.0.0.1", None);
        check("[fe80::1%25eth0]:1", "fe80::1", Some(1));
        check("[fe80::1%eth0]", "fe80::1", None);
        check("my_box", "my_box", None);
    }

    #[test]
    fn other_texts_are_no_hosts() {
        let wrong = [
            "",
            ":",
            ":80",
            ".",
            "a..b",
            "a b",
            " a",
            "a ",
            "a/",
            "a?b",
            "a#b",
            "user@a",
            "user:pass@a",
            "a@",
            "a,b",
            "a%41",
            "ä.example",
            "a:b",
            "a:+1",
            "a:-1",
            "a:65536",
            "a:80:80",
            "[::1",
            "::1",
            "::1]",
            "[::1]a",
            "[::1]80",
            "[a]",
            "[127.0.0.1]",
            "[::1%]",
            "[::1%a b]",
            "127.1",
            "127.0.0.1.",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "http://a",
            "a\0",
        ];
        for text in wrong {
            assert_eq!(Authority::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn origins() {
        let is_of = |host: &str, origin: &str| {
            let host = Authority::parse(host).expect("a host");
            Authority::of_origin(origin).is_some_and(|origin| host.is_of(&origin))
        };
        for (host, origin) in [
            ("box:8080", "http://box:8080"),
            ("BOX:8080", "HTTP://box.:8080"),
            ("box", "http://box:80"),
            ("box", "https://box"),
            ("box:443", "https://box"),
            ("[::1]:8080", "http://[0::1]:8080"),
        ] {
            assert!(is_of(host, origin), "{host} {origin}");
        }
        for (host, origin) in [
            ("box:8080", "http://box"),
            ("box:80", "https://box"),
            ("box", "http://box.evil"),
            ("box", "null"),
            ("box", "box"),
            ("box", "ftp://box"),
            ("box", "http://box/"),
            ("box", "http://box http://evil"),
        ] {
            assert!(!is_of(host, origin), "{host} {origin}");
        }
    }

    proptest! {
        /// Whatever comes, the parser ends; what it reads it reads again from its own text.
        #[test]
        fn a_host_reads_back(text in ".{0,40}|[\\[\\]a-fA-F0-9.:%@]{0,40}") {
            if let Some(read) = Authority::parse(&text) {
                let host = match &read.host {
                    RequestHost::Address(IpAddr::V6(address)) => format!("[{address}]"),
                    host => host.to_string(),
                };
                let port = read.port.map(|port| format!(":{port}")).unwrap_or_default();
                prop_assert_eq!(Authority::parse(&format!("{host}{port}")), Some(read));
                prop_assert!(!text.contains(['@', '/', ' ', ',', '\\']));
            }
        }

        /// Names of users, paths and second hosts never hide a host.
        #[test]
        fn nothing_stands_beside_a_host(before in "[a-z]{1,5}", mark in "[@/?#, \\\\]", after in "(localhost|127\\.0\\.0\\.1)") {
            let joined = [before, mark, after].concat();
            prop_assert_eq!(Authority::parse(&joined), None);
        }
    }
}
