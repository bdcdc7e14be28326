//! The address of the broker: a URL for any MQTT broker, or the bare host of an AWS IoT Core endpoint.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::aws::{IotHost, IotHostError};
use crate::util::host::bracketed;
use crate::util::secret::Secret;

/// The value of `iot_endpoint` or `--mqtt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broker {
    /// A URL: any MQTT 3.1.1 broker.
    Url(BrokerAddress),
    /// A bare host name with an optional port: an IoT Core data endpoint.
    IotCoreHost(IotHost),
}

/// The protocol below MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `mqtt://`
    Tcp,
    /// `mqtts://`
    Tls,
    /// `ws://`
    Ws,
    /// `wss://`
    Wss,
}

impl Transport {
    /// The URL scheme.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Tcp => "mqtt",
            Self::Tls => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// The port of a URL without one.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Tcp => 1883,
            Self::Tls => 8883,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }
}

/// The address of a broker. `Display` and `Debug` leave out the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerAddress {
    /// The protocol below MQTT.
    pub transport: Transport,
    /// Host name or IP address; an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Path and query of a WebSocket URL, beginning with `/`; empty for `mqtt://` and `mqtts://`.
    pub path: String,
    /// User name and password from the URL's user info.
    pub credentials: Option<(String, Secret)>,
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            transport,
            host,
            port,
            path,
            ..
        } = self;
        // A query may hold a signature or a token: only the path is shown.
        let path = path.split('?').next().unwrap_or_default();
        write!(f, "{}://{}:{port}{path}", transport.scheme(), bracketed(host))
    }
}

impl BrokerAddress {
    /// The URL of the WebSocket handshake, without user info, which is sent in the MQTT CONNECT.
    pub(super) fn websocket_url(&self) -> String {
        let Self {
            transport,
            host,
            port,
            path,
            ..
        } = self;
        format!("{}://{}:{port}{path}", transport.scheme(), bracketed(host))
    }
}

/// Why a broker address cannot be used. No variant holds the text itself, which may contain a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is empty.
    #[error("the broker address is empty; {ACCEPTED}")]
    Empty,
    /// A scheme that is not MQTT.
    #[error("\"{0}://\" is not a URL scheme of an MQTT broker; {ACCEPTED}")]
    Scheme(String),
    /// Not a URL.
    #[error("the broker address is not a URL ({0}); {ACCEPTED}")]
    Url(url::ParseError),
    /// No host.
    #[error("the broker address has no host; {ACCEPTED}")]
    NoHost,
    /// A part that an address of this kind cannot have.
    #[error("the broker address has a {part}, which {scheme}:// cannot use; {ACCEPTED}")]
    Extra {
        /// `path`, `query` or `fragment`.
        part: &'static str,
        /// Scheme of the address.
        scheme: &'static str,
    },
    /// Neither a URL nor the host of an IoT Core endpoint.
    #[error("{0}; {ACCEPTED}")]
    IotHost(#[from] IotHostError),
    /// Invalid percent-encoding of user or password.
    #[error(
        "the user name or password in the broker address is not percent-encoded UTF-8; write @ as %40, : as %3A, % as %25"
    )]
    Credentials,
}

const ACCEPTED: &str = "accepted: mqtt://host:1883, mqtts://host:8883, ws://host:80/path, wss://host:443/path \
                        (each with an optional user name and password before the host), or the bare host name of an IoT Core endpoint, with :443 or \
                        another port if it is not the default one";

impl FromStr for Broker {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.contains("://") {
            return text.parse().map(Self::Url);
        }
        Ok(Self::IotCoreHost(text.parse()?))
    }
}

impl FromStr for BrokerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").ok_or(IotHostError::HostName)?;
        let transport = match scheme.to_ascii_lowercase().as_str() {
            "mqtt" | "tcp" => Transport::Tcp,
            "mqtts" | "ssl" => Transport::Tls,
            "ws" => Transport::Ws,
            "wss" => Transport::Wss,
            _ => return Err(AddressError::Scheme(scheme.chars().take(16).collect())),
        };
        // The URL standard checks and lower-cases hosts only for special schemes such as http.
        let websocket = matches!(transport, Transport::Ws | Transport::Wss);
        let url = Url::parse(&format!("http://{rest}")).map_err(AddressError::Url)?;
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err(AddressError::NoHost),
        };
        let extra = |part| AddressError::Extra {
            part,
            scheme: transport.scheme(),
        };
        if url.fragment().is_some() {
            return Err(extra("fragment"));
        }
        if !websocket && url.query().is_some() {
            return Err(extra("query"));
        }
        if !websocket && url.path() != "/" {
            return Err(extra("path"));
        }
        let path = match (websocket, url.query()) {
            (false, _) => String::new(),
            (true, None) => url.path().to_owned(),
            (true, Some(query)) => format!("{}?{query}", url.path()),
        };
        Ok(Self {
            transport,
            host,
            // `Url` leaves out port 80, the default of http.
            port: url
                .port()
                .unwrap_or_else(|| explicit_port_80(rest).unwrap_or(transport.default_port())),
            path,
            credentials: credentials(&url)?,
        })
    }
}

/// `Some(80)` when the authority of `rest` ends in `:80` (with any leading zeros).
fn explicit_port_80(rest: &str) -> Option<u16> {
    let authority = rest.split(['/', '?', '#']).next()?;
    let host_and_port = authority.rsplit('@').next()?;
    let (host, port) = host_and_port.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && !host.ends_with(']');
    (!bracketed && port.parse() == Ok(80)).then_some(80)
}

fn credentials(url: &Url) -> Result<Option<(String, Secret)>, AddressError> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let user = percent_decoded(url.username())?;
    let password = percent_decoded(url.password().unwrap_or_default())?;
    Ok(Some((user, Secret::new(password))))
}

fn percent_decoded(text: &str) -> Result<String, AddressError> {
    // The decoder keeps an incomplete escape as it is, which would hide a password with a bare `%`.
    let is_escape = |after: &str| after.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !text.split('%').skip(1).all(is_escape) {
        return Err(AddressError::Credentials);
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| AddressError::Credentials)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> BrokerAddress {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn each_scheme_has_its_default_port() {
        for (text, shown) in [
            ("mqtt://broker", "mqtt://broker:1883"),
            ("mqtts://Broker.example.com", "mqtts://broker.example.com:8883"),
            ("ws://broker", "ws://broker:80/"),
            ("wss://broker/mqtt", "wss://broker:443/mqtt"),
            ("mqtt://10.0.0.1:80", "mqtt://10.0.0.1:80"),
            ("wss://u:p@h:80/x", "wss://h:80/x"),
            ("mqtt://[::1]", "mqtt://[::1]:1883"),
            ("mqtt://[::80]", "mqtt://[::80]:1883"),
            (" tcp://h:1234/ ", "mqtt://h:1234"),
        ] {
            assert_eq!(address(text).to_string(), shown, "{text}");
        }
        assert_eq!(address("mqtt://[::1]").host, "::1");
        assert_eq!(address("ws://[::1]/m?a=b").websocket_url(), "ws://[::1]:80/m?a=b");
    }

    #[test]
    fn no_error_holds_text_that_would_be_hidden() {
        for text in ["", "x://h", "mqtt://", "mqtts://h/path", "two words"] {
            let error = text.parse::<Broker>().unwrap_err().to_string();
            assert_eq!(crate::util::redact::credentials(&error), error);
        }
    }

    #[test]
    fn credentials_are_decoded_and_never_printed() {
        let address = address("mqtts://me:p%40ss%3A@h");
        assert_eq!(address.credentials, Some(("me".into(), Secret::new("p@ss:"))));
        for text in [format!("{address}"), format!("{address:?}")] {
            assert!(!text.contains("p@ss") && !text.contains("p%40ss"), "{text}");
        }
    }

    #[test]
    fn a_bare_host_is_an_iot_core_endpoint() {
        let host = "a1b2-ats.iot.eu-west-1.amazonaws.com";
        assert_eq!(host.parse(), Ok(Broker::IotCoreHost(host.parse().unwrap())));
        assert!(matches!("mqtt://h".parse(), Ok(Broker::Url(_))));
    }

    #[test]
    fn the_error_for_an_invalid_address_names_what_is_accepted() {
        for text in [
            "",
            "http://h",
            "mqtt://",
            "mqtt://h:99999",
            "mqtt://h/topic",
            "mqtt://h?x=1",
            "ws://h/#f",
            "h:1883",
            "a b",
        ] {
            let error = text.parse::<Broker>().expect_err(text).to_string();
            assert!(error.contains("accepted: mqtt://host:1883"), "{text}: {error}");
        }
        assert_eq!("mqtt://u:%zz@h".parse::<Broker>(), Err(AddressError::Credentials));
    }

    #[test]
    fn an_error_does_not_repeat_a_password() {
        for text in [
            "http://u:hunter2@h",
            "mqtt://u:hunter2@h:99999",
            "u:hunter2@h",
            "mqtt://u:hunter2@h/x",
        ] {
            let error = text.parse::<Broker>().expect_err(text);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_an_error(text in "(mqtt|mqtts|ws|wss|x)?(://)?\\PC{0,40}") {
            if let Ok(Broker::Url(address)) = text.parse() {
                prop_assert_eq!(address.to_string().parse::<BrokerAddress>().map(|a| (a.host, a.port)), Ok((address.host, address.port)));
            }
        }
    }
}
