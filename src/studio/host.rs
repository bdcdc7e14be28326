//! The addresses of Studio: the rules of `EI_HOST`.

use std::net::IpAddr;

use url::Url;

/// The address without `EI_HOST`.
const DEFAULT: &str = "https://studio.edgeimpulse.com/v1";
/// Port of a Studio on an IP address or `localhost`.
const LOCAL_PORT: u16 = 4800;

/// A service of Edge Impulse beside the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StudioService {
    /// Remote management: the channel, a WebSocket.
    RemoteManagement,
    /// Ingestion, which takes samples over HTTP.
    Ingestion,
}

impl StudioService {
    /// The environment variable with the address, for a Studio whose `EI_HOST` is a full URL.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::RemoteManagement => "EI_REMOTE_MGMT_URL",
            Self::Ingestion => "EI_INGESTION_URL",
        }
    }

    /// The name of its host in a domain.
    const fn subdomain(self) -> &'static str {
        match self {
            Self::RemoteManagement => "remote-mgmt",
            Self::Ingestion => "ingestion",
        }
    }

    /// The port on an IP address or `localhost`.
    const fn local_port(self) -> u16 {
        match self {
            Self::RemoteManagement => 4802,
            Self::Ingestion => 4810,
        }
    }

    /// The schemes without and with TLS.
    const fn schemes(self) -> [&'static str; 2] {
        match self {
            Self::RemoteManagement => ["ws", "wss"],
            Self::Ingestion => ["http", "https"],
        }
    }
}

/// The address of a service.
///
/// A domain `x.y` gives `wss://remote-mgmt.x.y` and `https://ingestion.x.y`. An IP address, `localhost` or
/// `host.docker.internal` gives port 4802 and 4810 there, without TLS. `given` is the value of
/// [`StudioService::variable`], which wins.
///
/// # Errors
/// `EI_HOST` is not valid, or is a full URL from which the address does not follow; or `given` is not valid.
pub fn service_url(service: StudioService, ei_host: Option<&str>, given: Option<&str>) -> Result<Url, HostError> {
    let present = |text: &&str| !text.trim().is_empty();
    if let Some(given) = given.filter(present) {
        return given_url(service, given.trim());
    }
    let [plain, secure] = service.schemes();
    let base = base_url(ei_host)?;
    let is_url = ei_host.is_some_and(|host| host.contains("://"));
    let host = base.host_str().unwrap_or_default();
    let text = match (host.strip_prefix("studio."), is_url) {
        (Some(domain), _) if base.scheme() == "https" => format!("{secure}://{}.{domain}", service.subdomain()),
        (_, false) => format!("{plain}://{host}:{}", service.local_port()),
        (_, true) => {
            return Err(HostError {
                reason: format!(
                    "it is a full URL, from which the address of {} does not follow; set {} too",
                    service.subdomain(),
                    service.variable()
                ),
            });
        }
    };
    Url::parse(&text).map_err(|e| HostError { reason: e.to_string() })
}

fn given_url(service: StudioService, text: &str) -> Result<Url, HostError> {
    let schemes = service.schemes();
    match Url::parse(text) {
        Ok(url) if schemes.contains(&url.scheme()) && url.host_str().is_some_and(|host| !host.is_empty()) => Ok(url),
        _ => Err(HostError {
            reason: format!(
                "{} is not a URL with {}:// or {}://",
                service.variable(),
                schemes[0],
                schemes[1]
            ),
        }),
    }
}

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
    let is_local = ["localhost", "host.docker.internal"]
        .iter()
        .any(|local| name.eq_ignore_ascii_case(local))
        || name.parse::<IpAddr>().is_ok();
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
            (Some("host.docker.internal"), "http://host.docker.internal:4800/v1"),
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

    fn service(service: StudioService, host: Option<&str>, given: Option<&str>) -> String {
        service_url(service, host, given).map_or_else(|error| error.to_string(), |url| url.to_string())
    }

    #[test]
    fn channel_and_ingestion_follow_from_the_host() {
        for (host, channel, ingestion) in [
            (
                None,
                "wss://remote-mgmt.edgeimpulse.com/",
                "https://ingestion.edgeimpulse.com/",
            ),
            (
                Some("acme.org"),
                "wss://remote-mgmt.acme.org/",
                "https://ingestion.acme.org/",
            ),
            (
                Some("https://studio.acme.org/v1"),
                "wss://remote-mgmt.acme.org/",
                "https://ingestion.acme.org/",
            ),
            (Some("localhost"), "ws://localhost:4802/", "http://localhost:4810/"),
            (
                Some("192.168.1.20"),
                "ws://192.168.1.20:4802/",
                "http://192.168.1.20:4810/",
            ),
            (
                Some("host.docker.internal"),
                "ws://host.docker.internal:4802/",
                "http://host.docker.internal:4810/",
            ),
        ] {
            assert_eq!(
                service(StudioService::RemoteManagement, host, None),
                channel,
                "{host:?}"
            );
            assert_eq!(
                service(StudioService::Ingestion, host, Some(" ")),
                ingestion,
                "{host:?}"
            );
        }
    }

    #[test]
    fn a_full_url_needs_the_addresses_of_the_services() {
        let host = Some("http://127.0.0.1:8080");
        let text = service(StudioService::RemoteManagement, host, None);
        assert!(text.contains("EI_REMOTE_MGMT_URL"), "{text}");
        let text = service(StudioService::Ingestion, host, Some("ws://h"));
        assert!(text.contains("EI_INGESTION_URL") && text.contains("https://"), "{text}");
        let given = Some("ws://127.0.0.1:9/");
        assert_eq!(
            service(StudioService::RemoteManagement, host, given),
            "ws://127.0.0.1:9/"
        );
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
