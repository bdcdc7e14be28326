//! Parameters of one connection attempt.

use std::path::PathBuf;

use super::address::BrokerAddress;
use crate::util::secret::Secret;

/// PEM files with a client certificate (and the chain to its CA) and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// `iot_cert`
    pub cert: PathBuf,
    /// `iot_key`
    pub key: PathBuf,
}

/// Parameters of one connection attempt.
#[derive(Debug)]
pub(super) struct ConnectParams {
    pub address: BrokerAddress,
    /// URL of the WebSocket handshake, with the signature in its query.
    pub signed_url: Option<Secret>,
    pub certificate: Option<ClientCertificate>,
    /// ALPN protocol of the TLS handshake.
    pub alpn: Option<&'static [u8]>,
}
