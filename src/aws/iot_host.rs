//! The host of an IoT Core data endpoint, with an optional port.

use std::fmt;
use std::str::FromStr;

use super::partition::is_dns_suffix;

/// Port of MQTT without TLS. IoT Core does not use it, so the user means another broker.
const PLAIN_MQTT: u16 = 1883;

/// Why a text is not the host of an IoT Core endpoint. Does not contain the text, which may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IotHostError {
    /// The text has characters that a host name or port cannot have.
    #[error("the broker address is neither a URL nor a host name")]
    HostName,
    /// The port of MQTT without TLS.
    #[error(
        "port 1883 is the port of MQTT without TLS, which IoT Core does not offer: for another broker write mqtt://host:1883"
    )]
    PlainPort,
}

/// `host` or `host:port`, as in `iot_endpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IotHost {
    /// Host name, lower case.
    pub host: String,
    /// The port; `None`: the default of the authentication method.
    pub port: Option<u16>,
}

impl IotHost {
    /// The region in the name of an AWS host (`<account>-ats.iot.<region>.amazonaws.com`).
    pub fn region(&self) -> Option<&str> {
        let (_, rest) = self
            .host
            .split_once(".iot.")
            .or_else(|| self.host.split_once(".iot-fips."))?;
        let (region, suffix) = rest.split_once('.')?;
        is_dns_suffix(region, suffix).then_some(region)
    }
}

impl fmt::Display for IotHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

impl FromStr for IotHost {
    type Err = IotHostError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = match text.split_once(':') {
            None => (text, None),
            Some((host, port)) => (host, Some(port.parse().map_err(|_| IotHostError::HostName)?)),
        };
        if port == Some(PLAIN_MQTT) {
            return Err(IotHostError::PlainPort);
        }
        let labels_fit = host.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        });
        if !labels_fit || host.len() > 253 || port == Some(0) {
            return Err(IotHostError::HostName);
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(text: &str) -> IotHost {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_host_may_have_a_port() {
        assert_eq!(host("A1-ats.iot.eu-west-1.amazonaws.com:443").port, Some(443));
        assert_eq!(host("A1.example").to_string(), "a1.example");
        assert_eq!(host("h:8883").to_string(), "h:8883");
    }

    #[test]
    fn the_port_of_plain_mqtt_is_refused() {
        let error = "localhost:1883".parse::<IotHost>().unwrap_err().to_string();
        assert!(error.contains("mqtt://host:1883"), "{error}");
        for text in ["h:0", "h:x", "h:99999", "u:p@h", "::1", ""] {
            assert!(text.parse::<IotHost>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_region_is_read_from_an_aws_host_only() {
        for (name, region) in [
            ("a1-ats.iot.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("a1.ats.iot.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("a1-ats.iot.eusc-de-east-1.amazonaws.eu", Some("eusc-de-east-1")),
            ("a1-ats.iot-fips.us-west-2.amazonaws.com", Some("us-west-2")),
            ("a1-ats.iot.eu-west-1.amazonaws.eu", None),
            ("iot.example.com", None),
            ("a1.iot.eu-west-1.example.com", None),
        ] {
            assert_eq!(host(name).region(), region, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_host_or_an_error(text in "[a-zA-Z0-9._:@/\\[\\]ü -]{0,40}") {
            if let Ok(host) = text.parse::<IotHost>() {
                prop_assert_eq!(host.to_string().parse::<IotHost>(), Ok(host));
            }
        }
    }
}
