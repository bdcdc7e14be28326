//! Who may look, and who may change something.
//!
//! Whoever reaches the port may look. Two kinds of requests are refused all the same, because they are made by a web page
//! in a browser that can reach the device and not by the person in front of it: those of another site (their `Origin` is
//! not this host), and those to a name that is not this device's (DNS rebinding: the attacker's own name is pointed to
//! this address, so that `Origin` and `Host` agree). Changing something takes the token, or a client on this machine.

use std::net::IpAddr;
use std::path::Path;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};

use crate::util::secret::Secret;

/// Headers that a proxy adds: a client behind one on this machine is not on this machine.
const PROXIED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// The rules of one server.
#[derive(Debug)]
pub(super) struct Access {
    token: Option<Secret>,
    /// Names, in lower case, under which this device is known; addresses always are.
    names: Vec<String>,
}

/// Why a request is refused: 403 with these words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "this device does not know itself by the name {0:?}. Open it by its IP address, or set preview_host to that name, \
         or send the token (preview_token)"
    )]
    Host(String),
    #[error("requests from another web site ({0}) are refused")]
    Origin(String),
}

impl Access {
    /// `host` is `preview_host`: a name in it is one of this device's.
    pub(super) fn new(token: Option<Secret>, host: &str, system_root: &Path) -> Self {
        let mut names = own_names(system_root);
        names.push(host.to_ascii_lowercase());
        Self { token, names }
    }

    /// Whether a request comes from who it seems to come from.
    ///
    /// # Errors
    /// The reason why not.
    pub(super) fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Refusal> {
        if self.has_token(headers, uri) {
            return Ok(());
        }
        let text = |name| {
            headers
                .get(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        // Browsers always send it; a request without it is none of theirs.
        let Some(host) = text(header::HOST) else {
            return Ok(());
        };
        if !host
            .parse()
            .is_ok_and(|authority: Authority| self.is_own_name(&authority))
        {
            return Err(Refusal::Host(shortened(&host)));
        }
        match text(header::ORIGIN) {
            Some(origin) if !is_same_site(&origin, &host) => Err(Refusal::Origin(shortened(&origin))),
            _ => Ok(()),
        }
    }

    /// Whether this client may change something.
    pub(super) fn may_change(&self, peer: IpAddr, headers: &HeaderMap, uri: &Uri) -> bool {
        let here = peer.to_canonical().is_loopback() && !PROXIED.iter().any(|name| headers.contains_key(*name));
        here || self.has_token(headers, uri)
    }

    /// `Authorization: Bearer TOKEN`, or `?token=TOKEN` where a browser cannot set headers.
    fn has_token(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        let Some(token) = &self.token else {
            return false;
        };
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
            .find(|(key, _)| key == "token")
            .map(|(_, value)| value);
        bearer.is_some_and(|given| is_equal(given.trim(), token.reveal()))
            || query.is_some_and(|given| is_equal(&given, token.reveal()))
    }

    fn is_own_name(&self, authority: &Authority) -> bool {
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_ok() {
            return true;
        }
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        name == "localhost" || self.names.contains(&name)
    }
}

/// Compares without telling by the time it takes how much was right.
fn is_equal(given: &str, token: &str) -> bool {
    let differences = given
        .bytes()
        .zip(token.bytes())
        .fold(0, |found, (a, b)| found | (a ^ b));
    given.len() == token.len() && differences == 0 && !token.is_empty()
}

fn is_same_site(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let bare = |text: &str| text.strip_suffix(default_port).unwrap_or(text).to_ascii_lowercase();
    bare(authority) == bare(host)
}

/// The host name, that name below `.local` (mDNS) and below the search domains of the resolver (what routers give out).
fn own_names(system_root: &Path) -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(system_root.join(path)).unwrap_or_default();
    let host = read("proc/sys/kernel/hostname").trim().to_ascii_lowercase();
    if host.is_empty() {
        return Vec::new();
    }
    let short = host.split('.').next().unwrap_or(&host).to_owned();
    let resolver = read("etc/resolv.conf");
    let domains = resolver
        .lines()
        .filter_map(|line| line.strip_prefix("search ").or_else(|| line.strip_prefix("domain ")))
        .flat_map(str::split_whitespace)
        // The root is no domain of this device's.
        .map(|domain| domain.trim_matches('.').to_ascii_lowercase())
        .filter(|domain| !domain.is_empty());
    let mut names: Vec<_> = domains.map(|domain| format!("{short}.{domain}")).collect();
    names.push(format!("{short}.local"));
    names.push(short);
    names.push(host);
    names
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn access() -> Access {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("proc/sys/kernel/hostname"), "Pi4\n").unwrap();
        std::fs::write(
            root.path().join("etc/resolv.conf"),
            "nameserver 1.1.1.1\nsearch fritz.box lan\n",
        )
        .unwrap();
        Access::new(Some(Secret::new("s3cret")), "camera.example.com", root.path())
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn check(pairs: &[(&'static str, &str)]) -> Result<(), Refusal> {
        access().check(&headers(pairs), &Uri::from_static("/"))
    }

    #[test]
    fn addresses_and_the_devices_own_names_are_accepted() {
        for host in [
            "192.168.1.5:4912",
            "[fe80::1]:4912",
            "localhost:4912",
            "pi4",
            "PI4.local:4912",
            "pi4.fritz.box",
            "pi4.lan.:4912",
            "camera.example.com",
        ] {
            assert_eq!(check(&[("host", host)]), Ok(()), "{host}");
        }
        assert_eq!(check(&[]), Ok(()), "no browser leaves Host out");
    }

    #[test]
    fn a_name_of_somebody_else_is_refused_even_when_the_origin_agrees() {
        for host in [
            "evil.com",
            "pi4.evil.com:4912",
            "local",
            "",
            "a b",
            "192.168.1.5.evil.com",
        ] {
            let origin = format!("http://{host}");
            let refused = check(&[("host", host), ("origin", &origin)]);
            assert!(matches!(refused, Err(Refusal::Host(_))), "{host}: {refused:?}");
        }
    }

    #[test]
    fn another_site_is_refused() {
        let host = ("host", "10.0.0.2:4912");
        assert_eq!(check(&[host, ("origin", "http://10.0.0.2:4912")]), Ok(()));
        assert_eq!(check(&[("host", "10.0.0.2"), ("origin", "http://10.0.0.2:80")]), Ok(()));
        for origin in [
            "http://10.0.0.2:8080",
            "http://10.0.0.3:4912",
            "https://evil.com",
            "null",
            "file://",
            "chrome-extension://10.0.0.2:4912",
        ] {
            assert!(
                matches!(check(&[host, ("origin", origin)]), Err(Refusal::Origin(_))),
                "{origin}"
            );
        }
    }

    #[test]
    fn the_token_opens_every_door() {
        let (access, elsewhere) = (access(), IpAddr::from([10, 0, 0, 9]));
        let plain = Uri::from_static("/");
        let bearer = headers(&[("host", "evil.com"), ("authorization", "Bearer s3cret")]);
        assert_eq!(access.check(&bearer, &plain), Ok(()));
        assert!(access.may_change(elsewhere, &bearer, &plain));
        assert!(access.may_change(elsewhere, &HeaderMap::new(), &Uri::from_static("/?a=b&token=s3cret")));
        for wrong in ["/?token=", "/?token=s3cre", "/?token=s3crett", "/?token=S3cret"] {
            assert!(
                !access.may_change(elsewhere, &HeaderMap::new(), &Uri::from_static(wrong)),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_client_on_this_machine_may_change_things_unless_a_proxy_speaks_for_others() {
        let (access, uri) = (access(), Uri::from_static("/"));
        for here in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(
                access.may_change(here.parse().unwrap(), &HeaderMap::new(), &uri),
                "{here}"
            );
            let proxied = headers(&[("x-forwarded-for", "1.2.3.4")]);
            assert!(!access.may_change(here.parse().unwrap(), &proxied, &uri), "{here}");
        }
        assert!(!access.may_change("192.168.1.7".parse().unwrap(), &HeaderMap::new(), &uri));
    }

    #[test]
    fn without_a_token_an_empty_one_does_not_match() {
        let access = Access::new(None, "0.0.0.0", Path::new("/nonexistent"));
        let elsewhere = IpAddr::from([10, 0, 0, 9]);
        assert!(!access.may_change(elsewhere, &HeaderMap::new(), &Uri::from_static("/?token=")));
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic_and_no_foreign_name_gets_in(host in "[ -~]{0,40}", origin in "[ -~]{0,40}") {
            let _ = check(&[("host", &host), ("origin", &origin)]);
            let foreign = format!("{host}.evil.com");
            prop_assert!(check(&[("host", &foreign)]).is_err());
        }
    }
}
