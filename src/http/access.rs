//! Access rules of both servers: which requests are accepted, and which may change settings.
//!
//! Every client that reaches the port may read. Two kinds of requests are refused, because a foreign web page in a browser can
//! send them without the user: requests of another site (their `Origin` is another host, or `Sec-Fetch-Site` says so), and requests
//! to a name that is not a name of this device (DNS rebinding: the attacker resolves a name to this address, so `Origin` and `Host`
//! agree). Programs without a browser send no `Origin`, and reach the device by its address or name. To change settings, a client
//! needs the token or must run on this machine.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::util::secret::Secret;
use crate::util::text::visible;

/// Beginnings of the names of headers that proxies and content delivery networks add. A client behind a proxy on this machine is
/// not itself on this machine.
const PROXY_PREFIXES: [&str; 14] = [
    "cdn-",
    "cf-",
    "forwarded",
    "proxy-",
    "true-client",
    "via",
    "x-amz",
    "x-appengine-",
    "x-azure-",
    "x-cluster-",
    "x-envoy-",
    "x-original-",
    "x-real-",
    "x-varnish",
];
/// Parts of such names: `X-Forwarded-For`, `Fastly-Client-IP`, `X-ProxyUser-Ip`, `DO-Connecting-IP`.
const PROXY_PARTS: [&str; 8] = [
    "client-ip",
    "client_ip",
    "clientip",
    "connecting-ip",
    "forwarded",
    "proxyuser",
    "remote-addr",
    "remote-ip",
];
/// Headers that may occur only once: with two values, two programs may see different ones.
const SINGLE_HEADERS: [HeaderName; 4] = [
    header::HOST,
    header::ORIGIN,
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
];
/// Longest part of a header that an error repeats, in characters.
const REPEATED: usize = 100;

/// The access rules of a server.
#[derive(Debug)]
pub(super) struct Access {
    token: Option<Secret>,
    /// Host names of this device, in lower case. IP addresses are always accepted.
    names: Vec<String>,
}

/// Why a request is refused: the text of the response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AccessError {
    #[error("the request has more than one header {0:?}; accepted: one")]
    Repeated(HeaderName),
    #[error(
        "{0:?} is not a name of this device. Use its IP address, or set preview_host to that name, \
         or send the token (preview_token)"
    )]
    Host(String),
    #[error("requests from another web site ({0}) are refused")]
    Origin(String),
}

impl AccessError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Repeated(_) => StatusCode::BAD_REQUEST,
            Self::Host(_) | Self::Origin(_) => StatusCode::FORBIDDEN,
        }
    }
}

/// Refuses requests that break the access rules, and adds the headers that every response has. It is the outermost layer of a
/// server, so that errors have these headers too.
pub(super) async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    // Another site may show what is read with the token.
    let policy = if access.has_token(request.headers(), request.uri()) {
        "cross-origin"
    } else {
        "same-origin"
    };
    let mut response = match access.check(request.headers(), request.uri()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            tracing::info!(reason = %refusal, "An HTTP request was refused");
            (refusal.status(), format!("{refusal}\n")).into_response()
        }
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a body is JSON according to its `Content-Type`. A program that names no type is believed. The types of HTML forms and
/// plain text are not JSON: a foreign web page can send these without asking.
///
/// # Errors
/// The response with status 415.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let kind = String::from_utf8_lossy(kind.as_bytes());
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if matches!(essence.as_str(), "application/json" | "text/json")
        || (essence.starts_with("application/") && essence.ends_with("+json"))
    {
        return Ok(());
    }
    let reason = format!(
        "the Content-Type is \"{}\"; accepted: application/json\n",
        visible(&kind, REPEATED)
    );
    Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, reason))
}

impl Access {
    /// `host` is `preview_host`: a host name in it is a name of this device.
    pub(super) fn new(token: Option<Secret>, host: &str, system_root: &Path) -> Self {
        let mut names = own_names(system_root);
        names.push(host.to_ascii_lowercase());
        Self { token, names }
    }

    /// Checks `Host` and `Origin` of a request. A request with the token is accepted from every site and to every name.
    ///
    /// # Errors
    /// Why the request is refused.
    pub(super) fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), AccessError> {
        let is_repeated = |name: &HeaderName| headers.get_all(name).iter().nth(1).is_some();
        if let Some(name) = SINGLE_HEADERS.into_iter().find(is_repeated) {
            return Err(AccessError::Repeated(name));
        }
        if self.has_token(headers, uri) {
            return Ok(());
        }
        let text = |name| {
            headers
                .get(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        // `GET http://name/path`, which a client sends to a proxy.
        if let Some(authority) = uri.authority().filter(|authority| !self.is_own_name(authority)) {
            return Err(AccessError::Host(shortened(authority.as_str())));
        }
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
            None if is_sent_by_other_site(headers) => Err(AccessError::Origin("Sec-Fetch-Site".to_owned())),
            _ => Ok(()),
        }
    }

    /// Whether this client may change settings.
    pub(super) fn may_change(&self, peer: IpAddr, headers: &HeaderMap, uri: &Uri) -> bool {
        let is_local = peer.to_canonical().is_loopback() && !headers.keys().any(is_of_proxy);
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

/// Whether proxies add this header.
fn is_of_proxy(name: &HeaderName) -> bool {
    let name = name.as_str();
    PROXY_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || PROXY_PARTS.iter().any(|part| name.contains(part))
}

/// Whether a browser says that the page of another site makes the request. It may open this page by a link.
fn is_sent_by_other_site(headers: &HeaderMap) -> bool {
    let is = |name, values: &[&str]| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| values.contains(&value))
    };
    is("sec-fetch-site", &["cross-site", "same-site"]) && !is("sec-fetch-mode", &["navigate"])
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
    visible(text, REPEATED)
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
    fn requests_that_another_site_makes_without_an_origin_are_refused() {
        let with =
            |site: &str, mode: &str| check(&[("host", "10.0.0.2"), ("sec-fetch-site", site), ("sec-fetch-mode", mode)]);
        for site in ["cross-site", "same-site"] {
            assert!(matches!(with(site, "no-cors"), Err(AccessError::Origin(_))), "{site}");
            assert_eq!(with(site, "navigate"), Ok(()), "a link to the page");
        }
        for site in ["same-origin", "none"] {
            assert_eq!(with(site, "no-cors"), Ok(()));
        }
    }

    #[test]
    fn a_repeated_header_and_a_foreign_name_in_the_path_are_refused() {
        let host = ("host", "10.0.0.2");
        for name in ["host", "origin", "authorization", "content-type"] {
            let mut repeated = headers(&[host]);
            for _ in 0..2 {
                repeated.append(name, HeaderValue::from_static("Bearer s3cret"));
            }
            let refused = access().check(&repeated, &Uri::from_static("/?token=s3cret"));
            assert!(matches!(refused, Err(AccessError::Repeated(_))), "{name}");
        }
        let uri = |uri: &'static str| access().check(&headers(&[host]), &Uri::from_static(uri));
        assert_eq!(uri("http://10.0.0.2/api"), Ok(()));
        assert!(matches!(uri("http://evil.com/api"), Err(AccessError::Host(_))));
    }

    #[test]
    fn only_json_is_json() {
        let with =
            |kind: &str| require_json(&headers(&[("content-type", kind)])).map_err(|(status, _)| status.as_u16());
        for kind in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/problem+json",
        ] {
            assert_eq!(with(kind), Ok(()), "{kind}");
        }
        for kind in [
            "text/plain",
            "text/plain; application/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=a",
            "",
            "application/json, text/plain",
        ] {
            assert_eq!(with(kind), Err(415), "{kind}");
        }
        assert_eq!(require_json(&HeaderMap::new()), Ok(()));
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
            for name in [
                "forwarded",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-proto",
                "x-forwarded",
                "x-real-ip",
                "via",
                "cf-connecting-ip",
                "cf-ray",
                "true-client-ip",
                "x-client-ip",
                "x-cluster-client-ip",
                "fastly-client-ip",
                "do-connecting-ip",
                "x-original-forwarded-for",
                "x-original-host",
                "x-proxyuser-ip",
                "x-azure-clientip",
                "x-envoy-external-address",
                "x-amzn-trace-id",
                "proxy-connection",
                "cdn-loop",
            ] {
                let proxied = headers(&[(name, "1.2.3.4")]);
                assert!(
                    !access.may_change(here.parse().unwrap(), &proxied, &uri),
                    "{here} {name}"
                );
            }
            let browser = [
                ("user-agent", "Mozilla/5.0"),
                ("accept", "*/*"),
                ("accept-language", "en"),
                ("sec-fetch-site", "same-origin"),
                ("upgrade-insecure-requests", "1"),
                ("sec-websocket-version", "13"),
            ];
            assert!(
                access.may_change(here.parse().unwrap(), &headers(&browser), &uri),
                "{here}"
            );
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
