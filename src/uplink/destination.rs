//! Where the uplink connects to, and what an attempt needs to know of it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use super::address::{AddressError, BrokerAddress, Transport};
use super::connection_error::ConnectionError;
use super::iot_core::IotCore;
use crate::util::secret::Secret;

/// The broker: one with a URL, or IoT Core, whose address and signature are found for each attempt.
#[derive(Debug, Clone)]
pub enum Destination {
    /// Any MQTT 3.1.1 broker.
    Broker {
        /// Where it is.
        address: BrokerAddress,
        /// Who we are, for a broker with TLS that asks.
        certificate: Option<ClientCertificate>,
    },
    /// AWS IoT Core.
    IotCore(Arc<IotCore>),
}

/// Files with a client certificate (and what leads to its CA) and its private key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// `iot_cert`
    pub cert: PathBuf,
    /// `iot_key`
    pub key: PathBuf,
}

impl Destination {
    /// Whether the limits of IoT Core apply.
    pub fn is_iot_core(&self) -> bool {
        matches!(self, Self::IotCore(_))
    }

    /// What the next attempt needs. May ask AWS for the endpoint and for credentials.
    pub(super) async fn dial(&self) -> Result<ConnectParams, ConnectionError> {
        match self {
            Self::Broker { address, certificate } => Ok(ConnectParams {
                certificate: certificate
                    .clone()
                    .filter(|_| matches!(address.transport, Transport::Tls | Transport::Wss)),
                address: address.clone(),
                signed_url: None,
                alpn: None,
            }),
            Self::IotCore(iot_core) => iot_core.dial().await,
        }
    }
}

impl From<BrokerAddress> for Destination {
    fn from(address: BrokerAddress) -> Self {
        Self::Broker {
            address,
            certificate: None,
        }
    }
}

/// A URL, as for [`BrokerAddress`].
impl FromStr for Destination {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(|address: BrokerAddress| address.into())
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker { address, .. } => address.fmt(f),
            Self::IotCore(iot_core) => iot_core.fmt(f),
        }
    }
}

/// What one attempt needs to know.
#[derive(Debug)]
pub(super) struct ConnectParams {
    pub address: BrokerAddress,
    /// The URL of a WebSocket handshake that is signed in its query.
    pub signed_url: Option<Secret>,
    pub certificate: Option<ClientCertificate>,
    /// The protocol to announce in the TLS handshake.
    pub alpn: Option<&'static [u8]>,
}
