//! Access rules: which requests are accepted, and which may change settings.
//!
//! Every client that reaches the port may read. Two kinds of requests are refused, because a foreign web page in a browser can
//! send them without the user: requests of another site (their `Origin` is another host), and requests to a name that is not a
//! name of this device (DNS rebinding: the attacker resolves a name to this address, so `Origin` and `Host` agree). To change
//! settings, a client needs the token or must run on this machine.

use std::net::IpAddr;
use std::path::Path;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};

use crate::util::secret::Secret;

/// Headers that a proxy adds. A client behind a proxy on this machine is not itself on this machine.
const PROXY_HEADERS: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// The access rules of a server.
#[derive(Debug)]
pub(super) struct Access {
    token: Option<Secret>,
    /// Host names of this device, in lower case. IP addresses are always accepted.
    names: Vec<String>,
}

/// Why a request is refused: the text of the 403 response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AccessError {
    #[error(
        "{0:?} is not a name of this device. Use its IP address, or set preview_host to that name, \
         or send the token (preview_token)"
    )]
    Host(String),
    #[error("requests from another web site ({0}) are refused")]
    Origin(String),
}

impl Access {
    /// `host` is `preview_host`: a host name in it is a name of this device.
    pub(super) fn new(token: Option<Secret>, host: &str, system_root: &Path) -> Self {
        let mut names = own_names(system_root);
        names.push(host.to_ascii_lowercase());
        Self { token, names }
    }

    /// Checks `Host` and `Origin` of a request. A request with the token is always accepted.
    ///
    /// # Errors
    /// Why the request is refused.
    pub(super) fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), AccessError> {
        if self.has_token(headers, uri) {
            return Ok(());
        }
        let text = |name| {
            headers
                .get(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        // Browsers always send `Host`. A request without it comes from another program.
        let Some(host) = text(header::HOST) else {
            return Ok(());
        };
        if !host
            .parse()
            .is_ok_and(|authority: Authority| self.is_own_name(&authority))
        {
            return Err(AccessError::Host(shortened(&host)));
        }
        match text(header::ORIGIN) {
            Some(origin) if !is_same_site(&origin, &host) => Err(AccessError::Origin(shortened(&origin))),
            _ => Ok(()),
        }
    }

    /// Whether this client may change settings.
    pub(super) fn may_change(&self, peer: IpAddr, headers: &HeaderMap, uri: &Uri) -> bool {
        let is_local =
            peer.to_canonical().is_loopback() && !PROXY_HEADERS.iter().any(|name| headers.contains_key(*name));
        is_local || self.has_token(headers, uri)
    }

    /// Accepts `Authorization: Bearer TOKEN` and `?token=TOKEN`, because browsers cannot set headers of WebSockets.
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

/// Compares in a time that does not depend on the position of the first difference.
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

/// The host name, and the host name with `.local` (mDNS) and with the search domains of the resolver (set by routers).
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
        // The root domain becomes an empty name, which is not accepted.
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

    fn check(pairs: &[(&'static str, &str)]) -> Result<(), AccessError> {
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
        assert_eq!(check(&[]), Ok(()), "browsers always send Host");
    }

    #[test]
    fn a_foreign_host_is_refused_even_if_the_origin_is_the_same() {
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
            assert!(matches!(refused, Err(AccessError::Host(_))), "{host}: {refused:?}");
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
                matches!(check(&[host, ("origin", origin)]), Err(AccessError::Origin(_))),
                "{origin}"
            );
        }
    }

    #[test]
    fn the_token_allows_everything() {
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
    fn a_client_on_this_machine_may_change_settings_unless_it_is_a_proxy() {
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
    fn an_empty_token_does_not_match_if_there_is_no_token() {
        let access = Access::new(None, "0.0.0.0", Path::new("/nonexistent"));
        let elsewhere = IpAddr::from([10, 0, 0, 9]);
        assert!(!access.may_change(elsewhere, &HeaderMap::new(), &Uri::from_static("/?token=")));
    }

    proptest! {
        #[test]
        fn no_header_causes_a_panic_and_no_foreign_name_is_accepted(host in "[ -~]{0,40}", origin in "[ -~]{0,40}") {
            let _ = check(&[("host", &host), ("origin", &origin)]);
            let foreign = format!("{host}.evil.com");
            prop_assert!(check(&[("host", &foreign)]).is_err());
        }
    }
}
