//! AWS IoT Core: its endpoint, and how to sign in there.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::address::{BrokerAddress, Transport};
use super::connection_error::ConnectionError;
use super::destination::{ClientCertificate, ConnectParams};
use crate::aws::IotHost;
use crate::aws::{AwsConfig, AwsError, EndpointCache, SigningContext, discovery, sigv4};

/// Announced on port 443, so that the TLS port of IoT Core speaks MQTT with client certificates there.
/// <https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html>
const ALPN_MQTT: &[u8] = b"x-amzn-mqtt-ca";
const HTTPS: u16 = 443;
/// An endpoint that was found is asked for again by the first attempt after this time.
const FRESH_FOR: Duration = Duration::from_secs(60 * 60);

/// How to sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignIn {
    /// MQTT over WebSocket, the handshake signed with the component's role.
    SigV4,
    /// A client certificate.
    Certificate(ClientCertificate),
}

/// How the endpoint came to be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointOrigin {
    /// `iot_endpoint`
    Configured,
    /// Asked for, now or within the last hour.
    Discovered,
    /// Known from before; asking failed for the reason in the text.
    EndpointCache(String),
}

/// IoT Core as seen from one device.
#[derive(Debug)]
pub struct IotCore {
    aws: AwsConfig,
    configured: Option<IotHost>,
    sign_in: SignIn,
    remembered: EndpointCache,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    endpoint: Option<(IotHost, Instant)>,
    /// What the log was told last about discovery.
    complaint: Option<String>,
}

impl IotCore {
    /// Touches nothing yet. Without a `configured` endpoint it is asked for, and kept in `remembered`.
    pub fn new(aws: AwsConfig, configured: Option<IotHost>, sign_in: SignIn, remembered: EndpointCache) -> Self {
        Self {
            aws,
            configured,
            sign_in,
            remembered,
            found: Mutex::default(),
        }
    }

    /// The endpoint: the configured one; else as discovered; else the one of an earlier time.
    ///
    /// # Errors
    /// [`ConnectionError::Endpoint`] when there is none of these.
    pub async fn endpoint(&self) -> Result<(IotHost, EndpointOrigin), ConnectionError> {
        if let Some(endpoint) = &self.configured {
            return Ok((endpoint.clone(), EndpointOrigin::Configured));
        }
        if let Some((endpoint, at)) = &self.found.lock().endpoint
            && at.elapsed() < FRESH_FOR
        {
            return Ok((endpoint.clone(), EndpointOrigin::Discovered));
        }
        match discovery::iot_endpoint(&self.aws).await {
            Ok(endpoint) => {
                self.keep(&endpoint).await;
                Ok((endpoint, EndpointOrigin::Discovered))
            }
            Err(error) => {
                let problem = error.to_string();
                let known = self.known().await.ok_or(ConnectionError::Endpoint(error))?;
                self.complain(&known, &problem);
                Ok((known, EndpointOrigin::EndpointCache(problem)))
            }
        }
    }

    async fn keep(&self, endpoint: &IotHost) {
        {
            let mut found = self.found.lock();
            found.complaint = None;
            let changed = found.endpoint.as_ref().is_none_or(|(known, _)| known != endpoint);
            found.endpoint = Some((endpoint.clone(), Instant::now()));
            if changed {
                tracing::info!("The IoT Core endpoint of this account is {endpoint}");
            }
        }
        let kept = match self.aws.region().await {
            Ok(region) => {
                let (remembered, endpoint) = (self.remembered.clone(), endpoint.clone());
                tokio::task::spawn_blocking(move || remembered.write(&region, &endpoint))
                    .await
                    .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            }
            Err(error) => Err(std::io::Error::other(error)),
        };
        if let Err(error) = kept {
            tracing::warn!("The IoT Core endpoint cannot be remembered for a start without network: {error}");
        }
    }

    /// From this run, else from the disk.
    async fn known(&self) -> Option<IotHost> {
        if let Some((endpoint, _)) = &self.found.lock().endpoint {
            return Some(endpoint.clone());
        }
        let region = self.aws.region().await.ok();
        let remembered = self.remembered.clone();
        tokio::task::spawn_blocking(move || remembered.read(region.as_deref()))
            .await
            .ok()?
    }

    /// Once for each problem.
    fn complain(&self, known: &IotHost, problem: &str) {
        let mut found = self.found.lock();
        if found.complaint.as_deref() != Some(problem) {
            tracing::warn!(
                "The IoT Core endpoint could not be asked for: {problem}. {known} is used, known from before"
            );
            found.complaint = Some(problem.to_owned());
        }
    }

    /// The address of the endpoint, and a signature made now.
    pub(super) async fn dial(&self) -> Result<ConnectParams, ConnectionError> {
        let (endpoint, _) = self.endpoint().await?;
        match &self.sign_in {
            SignIn::SigV4 => self.dial_signed(&endpoint).await,
            SignIn::Certificate(certificate) => Ok(dial_with_certificate(&endpoint, certificate)),
        }
    }

    async fn dial_signed(&self, endpoint: &IotHost) -> Result<ConnectParams, ConnectionError> {
        let session = self
            .session(endpoint)
            .await
            .map_err(|error| ConnectionError::Aws(error.to_string()))?;
        let port = endpoint.port.unwrap_or(HTTPS);
        // What is signed must be the `Host` header, letter for letter; the default port is not in it.
        let authority = match port {
            HTTPS => endpoint.host.clone(),
            port => format!("{}:{port}", endpoint.host),
        };
        let url = sigv4::iot_websocket_url(&authority, &session, SystemTime::now())
            .map_err(|error| ConnectionError::Aws(error.to_string()))?;
        Ok(ConnectParams {
            address: BrokerAddress {
                transport: Transport::Wss,
                host: endpoint.host.clone(),
                port,
                path: "/mqtt".into(),
                credentials: None,
            },
            signed_url: Some(url),
            certificate: None,
            alpn: None,
        })
    }

    /// The endpoint's own region goes before that of the environment.
    async fn session(&self, endpoint: &IotHost) -> Result<SigningContext, AwsError> {
        Ok(SigningContext {
            region: match endpoint.region() {
                Some(region) => region.to_owned(),
                None => self.aws.region().await?,
            },
            credentials: self.aws.credentials().await?,
        })
    }
}

fn dial_with_certificate(endpoint: &IotHost, certificate: &ClientCertificate) -> ConnectParams {
    let port = endpoint.port.unwrap_or(Transport::Tls.default_port());
    ConnectParams {
        address: BrokerAddress {
            transport: Transport::Tls,
            host: endpoint.host.clone(),
            port,
            path: String::new(),
            credentials: None,
        },
        signed_url: None,
        certificate: Some(certificate.clone()),
        // Port 8883 speaks MQTT without being asked; elsewhere the protocol must be named.
        alpn: (port != Transport::Tls.default_port()).then_some(ALPN_MQTT),
    }
}

impl fmt::Display for IotCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.found.lock();
        let endpoint = self
            .configured
            .as_ref()
            .or(found.endpoint.as_ref().map(|(endpoint, _)| endpoint));
        match endpoint {
            Some(endpoint) => write!(f, "AWS IoT Core ({endpoint})"),
            None => f.write_str("AWS IoT Core"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_port_than_8883_names_the_protocol() {
        let certificate = ClientCertificate {
            cert: "c".into(),
            key: "k".into(),
        };
        for (endpoint, port, alpn) in [
            ("h.example", 8883, None),
            ("h.example:8883", 8883, None),
            ("h.example:443", 443, Some(ALPN_MQTT)),
        ] {
            let dial = dial_with_certificate(&endpoint.parse().unwrap(), &certificate);
            assert_eq!((dial.address.port, dial.alpn), (port, alpn), "{endpoint}");
            assert_eq!(dial.address.transport, Transport::Tls);
        }
    }
}
