//! Checks the host that a request names and the web page that it comes from.
//!
//! A web page can make the browser of a user on this machine, or in its network, send requests to weir. Requests with a
//! token are safe from that: a page has no token. Requests without one are served only if they name a host that a foreign
//! page cannot have as its own: whoever owns a domain can let a name in it resolve to weir after the page has been loaded
//! (DNS rebinding), and the browser then lets the page read the answers.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{StatusCode, Version, header};

use crate::config::{HostPattern, host_name};
use crate::http::authority::{Authority, RequestHost};
use crate::http::problem::ApiProblem;
use crate::tls::TlsEndpoint;

/// The listener that a connection came in at.
#[derive(Debug, Clone)]
pub(super) struct ReachedListener {
    /// Address of this machine that the client connected to.
    pub address: IpAddr,
    /// Whether other machines can reach the listener.
    pub is_exposed: bool,
    /// The listener's certificate; `None`: the connection has no TLS.
    pub endpoint: Option<Arc<TlsEndpoint>>,
}

impl Default for ReachedListener {
    fn default() -> Self {
        Self { address: Ipv4Addr::LOCALHOST.into(), is_exposed: false, endpoint: None }
    }
}

/// The host that a request names. It is among the extensions of every request that handlers see.
#[derive(Debug, Clone, Default)]
pub(super) struct NamedHost {
    /// `None`: the request is of HTTP/1.0 and names no host. No browser sends such a request.
    pub authority: Option<Authority>,
    /// Whether the host is one of weir's own, or an allowed one.
    pub is_trusted: bool,
}

/// Reads the host that a request names: in its target if the target is a whole URI, else in its Host header.
///
/// # Errors
/// The request does not name exactly one host, in the form of RFC 9110 (400).
pub(super) fn named(request: &Request) -> Result<Option<Authority>, ApiProblem> {
    let mut values = request.headers().get_all(header::HOST).iter();
    let header = match (values.next(), values.next()) {
        (Some(_), Some(_)) => return Err(ApiProblem::bad_request("there is more than one Host header; send one")),
        (None, _) if request.version() < Version::HTTP_11 => None,
        (None, _) => return Err(ApiProblem::bad_request("there is no Host header, which HTTP/1.1 requires")),
        (Some(value), None) => {
            let read = value.to_str().ok().and_then(Authority::parse);
            let wrong = || format!("the Host header {value:?} is not of the form HOST or HOST:PORT");
            Some(read.ok_or_else(|| ApiProblem::bad_request(wrong()))?)
        }
    };
    let Some(target) = request.uri().authority() else { return Ok(header) };
    let read = Authority::parse(target.as_str());
    read.map(Some)
        .ok_or_else(|| ApiProblem::bad_request("the host in the request's target is not of the form HOST:PORT"))
}

/// The hosts that requests without a token may name.
pub(super) struct TrustedHosts<'a> {
    /// `http.allowed_hosts`
    pub allowed: &'a [HostPattern],
    /// `node.name`
    pub node: &'a str,
    /// The listener of the request.
    pub listener: &'a ReachedListener,
}

impl TrustedHosts<'_> {
    /// Whether requests without a token may name this host.
    pub fn has(&self, host: &RequestHost) -> bool {
        match host {
            RequestHost::Address(address) => self.has_address(*address),
            RequestHost::Name(name) => self.has_name(name),
        }
    }

    /// No name resolves to an address, so no page can pretend to be one. A listener that others reach is also reached by
    /// addresses that this machine does not have, where a container's ports are published; these are private ones.
    fn has_address(&self, address: IpAddr) -> bool {
        address.is_loopback()
            || address.is_unspecified()
            || address == self.listener.address
            || self.listener.is_exposed && is_private(address)
            || self.allowed.iter().any(|pattern| pattern.has_address(address))
    }

    fn has_name(&self, name: &str) -> bool {
        name == "localhost"
            || name.ends_with(".localhost")
            || self.listener.is_exposed && self.is_own(name)
            || self.listener.endpoint.as_ref().is_some_and(|endpoint| endpoint.covers(name))
            || self.allowed.iter().any(|pattern| pattern.has_name(name))
    }

    /// Whether the name is that of this machine, alone or with the domain of multicast DNS. Only machines of the same
    /// network could take this name, and these reach an exposed listener themselves.
    fn is_own(&self, name: &str) -> bool {
        let Some(node) = host_name(self.node) else { return false };
        let label = node.split('.').next().unwrap_or_default();
        name == node || name.strip_suffix(".local").unwrap_or(name) == label
    }

    /// Checks the host and the origin of a request without a token. At /mqtt the handshake checks the origin.
    ///
    /// # Errors
    /// The host is none of these (421), or a page of another site sent the request (403). The label of the refusal in
    /// metrics stands first.
    pub fn check(&self, request: &Request, named: Option<&Authority>) -> Result<(), (&'static str, ApiProblem)> {
        if let Some(named) = named.filter(|named| !self.has(&named.host)) {
            let detail = format!(
                "weir does not know itself as {}, so a foreign web page may have made a browser send this; \
                 http.allowed_hosts lists the names under which requests without a token are served",
                named.host
            );
            return Err(("foreign_host", ApiProblem::new(StatusCode::MISDIRECTED_REQUEST, detail)));
        }
        if request.uri().path() == "/mqtt" || !self.is_foreign_page(request, named) {
            return Ok(());
        }
        Err(("cross_site", cross_site()))
    }

    /// Whether a page of another site sends the request. Browsers say so in headers that pages cannot set; other clients
    /// have no reason to send these headers. A request that only reads says so in `Origin`; `Sec-Fetch-Site` is also set
    /// for a link that a user follows.
    pub fn is_foreign_page(&self, request: &Request, named: Option<&Authority>) -> bool {
        let headers = request.headers();
        let site = headers.get("sec-fetch-site").map(|value| value.to_str().unwrap_or("?"));
        match site {
            Some("same-origin") => return false,
            Some("none") | None => {}
            Some(_) if request.method().is_safe() => {}
            Some(_) => return true,
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => false,
            (Some(_), Some(_)) => true,
            (Some(origin), None) => {
                let origin = origin.to_str().ok().and_then(Authority::of_origin);
                !origin
                    .is_some_and(|origin| named.is_some_and(|named| named.is_of(&origin)) || self.lists(&origin.1.host))
            }
        }
    }

    /// Whether `http.allowed_hosts` lists the host of an origin: pages that a proxy serves under that name. `*` says
    /// nothing about pages.
    fn lists(&self, host: &RequestHost) -> bool {
        let listed = |pattern: &HostPattern| match host {
            RequestHost::Address(address) => pattern.has_address(*address),
            RequestHost::Name(name) => pattern.has_name(name),
        };
        self.allowed.iter().filter(|pattern| **pattern != HostPattern::Any).any(listed)
    }
}

/// The answer to a request that a page of another site sent.
pub(super) fn cross_site() -> ApiProblem {
    let detail = "another site's page asks for this through a browser, which is not allowed; http.allowed_hosts lists the \
                  names of weir's own pages";
    ApiProblem::new(StatusCode::FORBIDDEN, detail)
}

/// Whether the address is one that networks use inside: private, shared by a provider, or of one link.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_private() || address.is_link_local() || first == 100 && second & 0xc0 == 64
        }
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn hosts<'a>(allowed: &'a [HostPattern], listener: &'a ReachedListener) -> TrustedHosts<'a> {
        TrustedHosts { allowed, node: "Box7.example.org", listener }
    }

    fn trusts(allowed: &[HostPattern], listener: &ReachedListener, host: &str) -> bool {
        hosts(allowed, listener).has(&Authority::parse(host).expect("a host").host)
    }

    fn exposed() -> ReachedListener {
        ReachedListener { address: "203.0.113.9".parse().expect("an address"), is_exposed: true, endpoint: None }
    }

    #[test]
    fn hosts_of_a_loopback_listener() {
        let trusts = |host: &str| trusts(&[], &ReachedListener::default(), host);
        for host in [
            "localhost",
            "LOCALHOST.:8080",
            "panel.localhost",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(trusts(host), "{host}");
        }
        let foreign = [
            "evil.example",
            "localhost.evil.example",
            "evillocalhost",
            "box7",
            "box7.local",
            "10.0.0.1",
            "203.0.113.9",
            "8.8.8.8",
            "[fd00::1]",
            "[::2]",
        ];
        for host in foreign {
            assert!(!trusts(host), "{host}");
        }
    }

    #[test]
    fn hosts_of_a_listener_that_others_reach() {
        let trusts = |host: &str| trusts(&[], &exposed(), host);
        let own = [
            "localhost",
            "203.0.113.9",
            "192.168.1.5:8080",
            "172.17.0.2",
            "100.64.0.1",
            "169.254.1.1",
            "[fd00::1]",
            "[fe80::1%25eth0]",
            "box7",
            "box7.local",
            "BOX7.example.org.",
        ];
        for host in own {
            assert!(trusts(host), "{host}");
        }
        for host in [
            "evil.example",
            "8.8.8.8",
            "100.128.0.1",
            "[2001:db8::1]",
            "box7.evil.example",
            "box",
            "x.box7.local",
            "example.org",
        ] {
            assert!(!trusts(host), "{host}");
        }
    }

    #[test]
    fn allowed_hosts() {
        let allowed = [HostPattern::Name("weir".into()), HostPattern::Below("example.org".into())];
        let listener = ReachedListener::default();
        assert!(trusts(&allowed, &listener, "weir:8080") && trusts(&allowed, &listener, "a.example.org"));
        assert!(!trusts(&allowed, &listener, "evil.example"));
        assert!(
            trusts(&[HostPattern::Any], &listener, "evil.example") && trusts(&[HostPattern::Any], &listener, "8.8.8.8")
        );
    }

    #[test]
    fn pages() {
        let allowed = [HostPattern::Any, HostPattern::Name("panel.example".into())];
        let listener = ReachedListener::default();
        let is_foreign = |method: &str, headers: &[(&str, &str)]| {
            let request = headers
                .iter()
                .fold(Request::builder().method(method), |request, (name, value)| request.header(*name, *value));
            let named = Authority::parse("box:8080");
            hosts(&allowed, &listener).is_foreign_page(&request.body(Body::empty()).expect("a request"), named.as_ref())
        };
        for method in ["GET", "POST"] {
            assert!(!is_foreign(method, &[]));
            assert!(!is_foreign(method, &[("origin", "http://box:8080")]));
            assert!(!is_foreign(method, &[("origin", "https://panel.example")]), "a proxy serves it");
            assert!(!is_foreign(method, &[("origin", "https://other"), ("sec-fetch-site", "same-origin")]));
            for origin in
                ["null", "http://box", "http://box:3000", "http://evil.example", "chrome-extension://a", "", "ä"]
            {
                assert!(is_foreign(method, &[("origin", origin)]), "{method} {origin}");
                assert!(is_foreign(method, &[("origin", origin), ("sec-fetch-site", "none")]), "{method} {origin}");
            }
            assert!(
                is_foreign(method, &[("origin", "http://box:8080"), ("origin", "http://evil.example")]),
                "{method}"
            );
        }
        for site in ["cross-site", "same-site", "x"] {
            assert!(is_foreign("POST", &[("sec-fetch-site", site)]), "{site}");
            assert!(!is_foreign("GET", &[("sec-fetch-site", site)]), "a link that a user follows");
        }
    }
}
