//! The broker that the uplink connects to.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::address::{AddressError, BrokerAddress, Transport};
use super::connect_params::{ClientCertificate, ConnectParams};
use super::connection_error::ConnectionError;
use super::iot_core::IotCore;

/// A broker with a URL, or IoT Core, whose endpoint and signature are determined for each attempt.
#[derive(Debug, Clone)]
pub enum Destination {
    /// Any MQTT 3.1.1 broker.
    Broker {
        /// Its address.
        address: BrokerAddress,
        /// The client certificate, for a broker that requires one over TLS.
        certificate: Option<ClientCertificate>,
    },
    /// AWS IoT Core.
    IotCore(Arc<IotCore>),
}

impl Destination {
    /// Whether the limits of IoT Core apply.
    pub fn is_iot_core(&self) -> bool {
        matches!(self, Self::IotCore(_))
    }

    /// Parameters of the next attempt. May request the endpoint and credentials from AWS.
    pub(super) async fn connect_params(&self) -> Result<ConnectParams, ConnectionError> {
        match self {
            Self::Broker { address, certificate } => Ok(ConnectParams {
                certificate: certificate
                    .clone()
                    .filter(|_| matches!(address.transport, Transport::Tls | Transport::Wss)),
                address: address.clone(),
                signed_url: None,
                alpn: None,
            }),
            Self::IotCore(iot_core) => iot_core.connect_params().await,
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
