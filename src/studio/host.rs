//! The address of Studio: the rules of `EI_HOST`.

use std::net::IpAddr;

use url::Url;

/// The address without `EI_HOST`.
const DEFAULT: &str = "https://studio.edgeimpulse.com/v1";
/// Port of a Studio on an IP address or `localhost`.
const LOCAL_PORT: u16 = 4800;

/// `EI_HOST` is not valid.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "EI_HOST is not valid ({reason}); accepted: a domain like edgeimpulse.com, an IP address, localhost, or a full http(s) URL"
)]
pub struct HostError {
    reason: String,
}

/// The base address of Studio's API. It ends in `/v1`, without a slash after it.
///
/// A domain `x.y` gives `https://studio.x.y/v1`. An IP address or `localhost` gives `http://<host>:4800/v1`. A full URL is
/// used as it is, with `/v1` added if it is missing.
///
/// # Errors
/// [`HostError`]
pub fn base_url(ei_host: Option<&str>) -> Result<Url, HostError> {
    let host = ei_host.map(str::trim).filter(|host| !host.is_empty());
    let text = match host {
        None => DEFAULT.to_owned(),
        Some(url) if url.contains("://") => with_v1(url),
        Some(host) => from_host(host),
    };
    let wrong = |reason: &str| HostError {
        reason: reason.to_owned(),
    };
    let url = Url::parse(&text).map_err(|e| wrong(&e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong(&format!("the scheme is {}", url.scheme())));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it has no host"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has a query or a fragment"));
    }
    // A host without a scheme must not have a path or a user.
    if host.is_none_or(|host| !host.contains("://")) && (url.path() != "/v1" || !url.username().is_empty()) {
        return Err(wrong(
            "a host without a scheme cannot have a path or a user; add the scheme",
        ));
    }
    Ok(url)
}

fn with_v1(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    match rest.trim_end_matches('/') {
        "" => format!("{scheme}://"),
        rest if rest.ends_with("/v1") => format!("{scheme}://{rest}"),
        rest => format!("{scheme}://{rest}/v1"),
    }
}

fn from_host(host: &str) -> String {
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return match address {
            IpAddr::V4(v4) => format!("http://{v4}:{LOCAL_PORT}/v1"),
            IpAddr::V6(v6) => format!("http://[{v6}]:{LOCAL_PORT}/v1"),
        };
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let is_local = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok();
    match (is_local, port) {
        (true, "") => format!("http://{name}:{LOCAL_PORT}/v1"),
        (true, port) => format!("http://{name}:{port}/v1"),
        (false, _) if name.starts_with("studio.") => format!("https://{host}/v1"),
        (false, _) => format!("https://studio.{host}/v1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_host_becomes_a_base_address() {
        for (host, expected) in [
            (None, "https://studio.edgeimpulse.com/v1"),
            (Some(" "), "https://studio.edgeimpulse.com/v1"),
            (Some("edgeimpulse.com"), "https://studio.edgeimpulse.com/v1"),
            (Some("studio.edgeimpulse.com"), "https://studio.edgeimpulse.com/v1"),
            (Some("acme.example.org"), "https://studio.acme.example.org/v1"),
            (Some("localhost"), "http://localhost:4800/v1"),
            (Some("localhost:5000"), "http://localhost:5000/v1"),
            (Some("192.168.1.20"), "http://192.168.1.20:4800/v1"),
            (Some("fd00::1"), "http://[fd00::1]:4800/v1"),
            (Some("[fd00::1]"), "http://[fd00::1]:4800/v1"),
            (Some("http://127.0.0.1:8080"), "http://127.0.0.1:8080/v1"),
            (Some("https://ei.example.org/v1"), "https://ei.example.org/v1"),
            (Some("https://ei.example.org/v1/"), "https://ei.example.org/v1"),
            (
                Some("https://ei.example.org/studio/"),
                "https://ei.example.org/studio/v1",
            ),
        ] {
            assert_eq!(base_url(host).unwrap().as_str(), expected, "{host:?}");
        }
    }

    #[test]
    fn an_invalid_host_is_refused() {
        for host in [
            "ftp://x.y",
            "http://",
            "a b",
            "x.y/path",
            "me@x.y",
            "x.y?z",
            "https://x.y/?a=1#b",
        ] {
            assert!(base_url(Some(host)).is_err(), "{host}");
        }
    }
}
