//! The proxy in the environment, as Greengrass passes it on: `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, upper or lower case.
//!
//! It is used for connections with TLS. `mqtt://` and `ws://` are for local brokers and connect directly.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::address::{BrokerAddress, Transport};
use super::connection_error::ConnectionError;
use crate::util::host::bracketed;
use crate::util::secret::Secret;

/// An HTTP proxy for CONNECT requests. `Display` and `Debug` leave out the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    https: bool,
    host: String,
    port: u16,
    credentials: Option<(String, Secret)>,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl Proxy {
    /// The proxy that the environment sets for this address.
    pub fn for_address(address: &BrokerAddress) -> Result<Option<Self>, ConnectionError> {
        Self::from_matcher(&Matcher::from_env(), address)
    }

    fn from_matcher(matcher: &Matcher, address: &BrokerAddress) -> Result<Option<Self>, ConnectionError> {
        if !matches!(address.transport, Transport::Tls | Transport::Wss) {
            return Ok(None);
        }
        let BrokerAddress { host, port, .. } = address;
        let Ok(uri) = format!("https://{}:{port}/", bracketed(host)).parse::<Uri>() else {
            return Ok(None);
        };
        matcher
            .intercept(&uri)
            .map(|proxy| Self::from_intercept(&proxy))
            .transpose()
    }

    fn from_intercept(proxy: &Intercept) -> Result<Self, ConnectionError> {
        let uri = proxy.uri();
        let https = match uri.scheme_str() {
            Some("http") | None => false,
            Some("https") => true,
            Some(other) => return Err(ConnectionError::ProxyScheme(other.chars().take(16).collect())),
        };
        Ok(Self {
            https,
            host: uri.host().unwrap_or_default().to_owned(),
            port: uri.port_u16().unwrap_or(if https { 443 } else { 80 }),
            credentials: proxy.basic_auth().and_then(|header| {
                let encoded = header.to_str().ok()?.strip_prefix("Basic ")?;
                let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
                let (user, password) = text.split_once(':')?;
                Some((user.to_owned(), Secret::new(password)))
            }),
        })
    }

    /// Converts it for rumqttc; `tls` is used if the connection to the proxy itself uses TLS.
    pub fn into_rumqttc(self, tls: Option<rumqttc::TlsConfiguration>) -> rumqttc::Proxy {
        use rumqttc::{ProxyAuth, ProxyType};
        rumqttc::Proxy {
            ty: match tls {
                Some(tls) if self.https => ProxyType::Https(tls),
                _ => ProxyType::Http,
            },
            auth: match self.credentials {
                Some((username, password)) => ProxyAuth::Basic {
                    username,
                    password: password.reveal().to_owned(),
                },
                None => ProxyAuth::None,
            },
            addr: self.host,
            port: self.port,
        }
    }

    /// Whether the connection to the proxy itself uses TLS.
    pub fn needs_tls(&self) -> bool {
        self.https
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(https: &str, no: &str, address: &str) -> Result<Option<Proxy>, ConnectionError> {
        let matcher = Matcher::builder().https(https.to_owned()).no(no.to_owned()).build();
        Proxy::from_matcher(&matcher, &address.parse().unwrap())
    }

    fn shown(https: &str, no: &str, address: &str) -> Option<String> {
        chosen(https, no, address).unwrap().map(|proxy| proxy.to_string())
    }

    #[test]
    fn connections_with_tls_use_the_proxy_and_others_do_not() {
        let proxy = "http://proxy.example:3128";
        for (address, through) in [
            ("wss://h/mqtt", true),
            ("mqtts://h", true),
            ("mqtt://h", false),
            ("ws://h", false),
        ] {
            assert_eq!(shown(proxy, "", address).is_some(), through, "{address}");
        }
        assert_eq!(
            shown("proxy.example:3128", "", "mqtts://h").as_deref(),
            Some("http://proxy.example:3128")
        );
        assert_eq!(
            shown("http://proxy", "", "mqtts://h").as_deref(),
            Some("http://proxy:80")
        );
        assert_eq!(shown("", "", "mqtts://h"), None);
    }

    #[test]
    fn hosts_in_no_proxy_are_reached_directly() {
        let proxy = "http://proxy:3128";
        assert_eq!(shown(proxy, "localhost,.example.com", "mqtts://iot.example.com"), None);
        assert_eq!(shown(proxy, "10.0.0.0/8", "mqtts://10.1.2.3"), None);
        assert!(shown(proxy, "example.com", "mqtts://example.org").is_some());
    }

    #[test]
    fn the_password_of_a_proxy_is_used_and_not_shown() {
        let proxy = chosen("http://me:hunter%402@proxy:3128", "", "mqtts://h")
            .unwrap()
            .unwrap();
        assert_eq!(proxy.credentials, Some(("me".into(), Secret::new("hunter@2"))));
        assert!(!format!("{proxy} {proxy:?}").contains("hunter"));
    }

    #[test]
    fn the_error_for_an_unsupported_proxy_lists_what_is_accepted() {
        let reason = chosen("socks5://proxy:1080", "", "mqtts://h").unwrap_err().to_string();
        assert!(reason.contains("socks5") && reason.contains("http://"), "{reason}");
    }
}
