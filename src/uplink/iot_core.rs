//! AWS IoT Core: its endpoint and the authentication.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::address::{BrokerAddress, Transport};
use super::connect_params::{ClientCertificate, ConnectParams};
use super::connection_error::ConnectionError;
use crate::aws::IotHost;
use crate::aws::{AwsConfig, AwsError, EndpointCache, SigningContext, discovery, sigv4};
use crate::util::text::sentence;

/// ALPN protocol that IoT Core requires for MQTT with client certificates on port 443.
/// <https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html>
const ALPN_MQTT: &[u8] = b"x-amzn-mqtt-ca";
const HTTPS: u16 = 443;
/// The first attempt after this time discovers the endpoint again.
const ENDPOINT_MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// How the client authenticates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignIn {
    /// MQTT over WebSocket; the handshake is signed with the component's role.
    SigV4,
    /// A client certificate.
    Certificate(ClientCertificate),
}

/// Where the endpoint comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointOrigin {
    /// `iot_endpoint`
    Configured,
    /// Discovered within the last hour.
    Discovered,
    /// From an earlier discovery; the last one failed with this error.
    EndpointCache(String),
}

/// IoT Core for one device.
#[derive(Debug)]
pub struct IotCore {
    aws: AwsConfig,
    configured: Option<IotHost>,
    sign_in: SignIn,
    cache: EndpointCache,
    state: Mutex<EndpointState>,
}

#[derive(Debug, Default)]
struct EndpointState {
    endpoint: Option<(IotHost, Instant)>,
    /// Whether the warning about FIPS and dual-stack was logged.
    kind_logged: bool,
    /// The discovery error that was logged last.
    logged_error: Option<String>,
}

impl IotCore {
    /// Does no I/O. Without a `configured` endpoint, the endpoint is discovered later and kept in `cache`.
    pub fn new(aws: AwsConfig, configured: Option<IotHost>, sign_in: SignIn, cache: EndpointCache) -> Self {
        Self {
            aws,
            configured,
            sign_in,
            cache,
            state: Mutex::default(),
        }
    }

    /// Returns the configured endpoint, else the discovered one, else the one of an earlier discovery.
    ///
    /// # Errors
    /// [`ConnectionError::Endpoint`] when there is none of these.
    pub async fn endpoint(&self) -> Result<(IotHost, EndpointOrigin), ConnectionError> {
        if let Some(endpoint) = &self.configured {
            return Ok((endpoint.clone(), EndpointOrigin::Configured));
        }
        if let Some((endpoint, at)) = &self.state.lock().endpoint
            && at.elapsed() < ENDPOINT_MAX_AGE
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
                let known = self.last_known().await.ok_or(ConnectionError::Endpoint(error))?;
                self.log_error(&known, &problem);
                Ok((known, EndpointOrigin::EndpointCache(problem)))
            }
        }
    }

    /// Logs once if the discovered endpoint is not of the kind that the environment asks for: `DescribeEndpoint` returns the
    /// usual endpoint of the account.
    async fn log_endpoint_kind(&self, endpoint: &IotHost) {
        let (fips, dual_stack) = (self.aws.use_fips().await, self.aws.use_dual_stack().await);
        let lacks_fips = fips && !endpoint.host.contains("-fips.");
        let lacks_dual_stack = dual_stack && !endpoint.host.ends_with(".api.aws");
        if !(lacks_fips || lacks_dual_stack) || std::mem::replace(&mut self.state.lock().kind_logged, true) {
            return;
        }
        tracing::warn!(
            %endpoint,
            fips = lacks_fips,
            dual_stack = lacks_dual_stack,
            advice = "set iot_endpoint to the host of a FIPS or dual-stack endpoint of the account",
            "AWS_USE_FIPS_ENDPOINT and AWS_USE_DUALSTACK_ENDPOINT do not apply to the MQTT connection"
        );
    }

    async fn keep(&self, endpoint: &IotHost) {
        {
            let mut state = self.state.lock();
            state.logged_error = None;
            let changed = state.endpoint.as_ref().is_none_or(|(known, _)| known != endpoint);
            state.endpoint = Some((endpoint.clone(), Instant::now()));
            if changed {
                tracing::info!(%endpoint, "Discovered the IoT Core endpoint");
            }
        }
        self.log_endpoint_kind(endpoint).await;
        let kept = match self.aws.region().await {
            Ok(region) => {
                let (cache, endpoint) = (self.cache.clone(), endpoint.clone());
                tokio::task::spawn_blocking(move || cache.write(&region, &endpoint))
                    .await
                    .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            }
            Err(error) => Err(std::io::Error::other(error)),
        };
        if let Err(error) = kept {
            tracing::warn!(error = %sentence(&error), "The IoT Core endpoint cannot be cached for a start without a network");
        }
    }

    /// Returns the endpoint discovered in this run, else the one cached on disk.
    async fn last_known(&self) -> Option<IotHost> {
        if let Some((endpoint, _)) = &self.state.lock().endpoint {
            return Some(endpoint.clone());
        }
        let region = self.aws.region().await.ok();
        let cache = self.cache.clone();
        tokio::task::spawn_blocking(move || cache.read(region.as_deref()))
            .await
            .ok()?
    }

    /// Logs each error once.
    fn log_error(&self, known: &IotHost, problem: &str) {
        let mut state = self.state.lock();
        if state.logged_error.as_deref() != Some(problem) {
            tracing::warn!(
                error = problem,
                endpoint = %known,
                "The IoT Core endpoint could not be discovered; the one from an earlier discovery is used"
            );
            state.logged_error = Some(problem.to_owned());
        }
    }

    /// Parameters of the next attempt, with a new signature.
    pub(super) async fn connect_params(&self) -> Result<ConnectParams, ConnectionError> {
        let (endpoint, _) = self.endpoint().await?;
        match &self.sign_in {
            SignIn::SigV4 => self.signed_params(&endpoint).await,
            SignIn::Certificate(certificate) => Ok(params_with_certificate(&endpoint, certificate)),
        }
    }

    async fn signed_params(&self, endpoint: &IotHost) -> Result<ConnectParams, ConnectionError> {
        let session = self
            .session(endpoint)
            .await
            .map_err(|error| ConnectionError::Aws(error.to_string()))?;
        let port = endpoint.port.unwrap_or(HTTPS);
        // The signature covers the `Host` header, which leaves out the default port.
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

    /// The region in the endpoint's name has priority over that of the environment.
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

fn params_with_certificate(endpoint: &IotHost, certificate: &ClientCertificate) -> ConnectParams {
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
        // Only port 8883 accepts MQTT without ALPN.
        alpn: (port != Transport::Tls.default_port()).then_some(ALPN_MQTT),
    }
}

impl fmt::Display for IotCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let endpoint = self
            .configured
            .as_ref()
            .or(state.endpoint.as_ref().map(|(endpoint, _)| endpoint));
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
    fn alpn_is_used_on_every_port_except_8883() {
        let certificate = ClientCertificate {
            cert: "c".into(),
            key: "k".into(),
        };
        for (endpoint, port, alpn) in [
            ("h.example", 8883, None),
            ("h.example:8883", 8883, None),
            ("h.example:443", 443, Some(ALPN_MQTT)),
        ] {
            let params = params_with_certificate(&endpoint.parse().unwrap(), &certificate);
            assert_eq!((params.address.port, params.alpn), (port, alpn), "{endpoint}");
            assert_eq!(params.address.transport, Transport::Tls);
        }
    }
}
