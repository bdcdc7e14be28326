//! Why there is no connection to the broker, with advice.

use std::path::PathBuf;
use std::time::Duration;

use crate::aws::{AwsError, ClockSkew, hidden_source};

/// Why a connection failed or ended. The text never contains a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// Nothing listens at the port.
    #[error("connection refused: no broker listens at that port")]
    Refused,
    /// The host or the network is unreachable.
    #[error("the broker is unreachable ({0})")]
    Unreachable(String),
    /// The host name cannot be resolved.
    #[error("the host name has no address ({0}); check its spelling and the DNS server")]
    Dns(String),
    /// No answer to the connection attempt.
    #[error("no answer within {} s; check that it is an MQTT broker and that no firewall blocks the port", .0.as_secs_f32())]
    Silent(Duration),
    /// The broker's certificate was not accepted.
    #[error("the broker's TLS certificate was not accepted: {0}")]
    Certificate(String),
    /// TLS failed in another way.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// A file with certificates cannot be used.
    #[error("the CA file {} cannot be used: {problem}", .file.display())]
    CaFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of the client certificate cannot be used.
    #[error("{key} names {}, which cannot be used: {problem}", .file.display())]
    CertificateFile {
        /// `iot_cert` or `iot_key`.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The broker ended the TLS handshake because of our certificate.
    #[error(
        "the broker does not accept our client certificate ({0}); on AWS IoT Core it must be registered and active, with a \
         policy attached"
    )]
    ClientCertificate(String),
    /// The IoT Core endpoint is neither configured nor discovered nor cached.
    #[error("the IoT Core endpoint could not be discovered: {}{}", .0, endpoint_advice(.0))]
    Endpoint(AwsError),
    /// The request cannot be signed.
    #[error("{0}")]
    Aws(String),
    /// AWS did not return the endpoint or the credentials in time.
    #[error("AWS did not return the endpoint and the credentials within {} s", .0.as_secs_f32())]
    Preparation(Duration),
    /// IoT Core refuses the signature, or the role has no permission.
    #[error(
        "AWS IoT Core refused the connection ({status}): the role needs iot:Connect on client/{client_id}, and the \
         endpoint must belong to the account and region of the role{}",
        hidden_source()
    )]
    Forbidden {
        /// HTTP status and AWS error type.
        status: String,
        /// MQTT client id.
        client_id: String,
    },
    /// IoT Core refuses the signature because the clock is wrong.
    #[error("AWS IoT Core refused the signature: {0}")]
    Clock(ClockSkew),
    /// The proxy refuses the connection.
    #[error("the proxy {proxy} (HTTPS_PROXY) did not connect: {problem}; add hosts that need no proxy to NO_PROXY")]
    Proxy {
        /// The proxy, without credentials.
        proxy: String,
        /// Its answer.
        problem: String,
    },
    /// A proxy of a kind that is not supported.
    #[error("HTTPS_PROXY (or ALL_PROXY) has the scheme {0}://; accepted: http:// and https://")]
    ProxyScheme(String),
    /// The machine has no root certificates.
    #[error(
        "no root certificates were found on this machine ({0}); install the package ca-certificates or set SSL_CERT_FILE"
    )]
    NoRoots(String),
    /// CONNACK 4.
    #[error("the broker does not accept the user name or password")]
    BadCredentials,
    /// CONNACK 5.
    #[error("the broker does not authorise this client to connect")]
    NotAuthorised,
    /// CONNACK 2.
    #[error("the broker does not accept the client id \"{0}\"")]
    BadClientId(String),
    /// CONNACK 3.
    #[error("the broker answers that its service is unavailable")]
    Unavailable,
    /// CONNACK 1.
    #[error("the broker does not speak MQTT 3.1.1")]
    ProtocolVersion,
    /// The broker does not accept MQTT over WebSocket.
    #[error("the WebSocket handshake failed: {0}")]
    WebSocket(String),
    /// SUBACK 0x80.
    #[error(
        "the broker does not authorise this client to subscribe to {0}; on AWS IoT Core its policy must allow iot:Subscribe on \
         topicfilter/{0} and iot:Receive on topic/{0}"
    )]
    SubscriptionRefused(String),
    /// The broker closed the connection.
    #[error("the broker closed the connection")]
    Closed,
    /// The broker closes each connection right after accepting it.
    #[error(
        "the broker closed the connection right after accepting it, {times} times in a row{}: another client may be using the \
         client id \"{client_id}\", or the policy forbids {}",
        if *on_subscribe { ", before it acknowledged the subscription" } else { "" },
        closed_advice(*on_subscribe, command_topic)
    )]
    RepeatedlyClosed {
        /// Number of connections in a row.
        times: u32,
        /// MQTT client id.
        client_id: String,
        /// The topic of the subscription, where retained commands are cleared.
        command_topic: String,
        /// Whether the broker closed the connection after SUBSCRIBE and before SUBACK.
        on_subscribe: bool,
    },
    /// The broker closed the connection of an ad-hoc client instead of answering SUBSCRIBE.
    #[error(
        "the broker closed the connection when this client subscribed to {0}; on AWS IoT Core its policy must allow iot:Subscribe \
         on topicfilter/{0} and iot:Receive on topic/{0}"
    )]
    ClosedOnSubscribe(String),
    /// PUBACK or SUBACK did not come in time.
    #[error("the broker acknowledged no message for {} s", .0.as_secs_f32())]
    NoAcknowledgement(Duration),
    /// PINGRESP did not come in time.
    #[error("the broker no longer answers")]
    NoPing,
    /// The broker broke the protocol.
    #[error("the broker broke the MQTT protocol: {0}")]
    Protocol(String),
    /// The broker delivers a message larger than any command.
    #[error("the broker delivers a message of {0} bytes, which is too large")]
    TooLarge(usize),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

fn closed_advice(on_subscribe: bool, topic: &str) -> String {
    if on_subscribe {
        return format!(
            "the subscription (on AWS IoT Core it needs iot:Subscribe on topicfilter/{topic}, and iot:Receive on topic/{topic})"
        );
    }
    format!(
        "something this client does (on AWS IoT Core it needs iot:Publish on each topic of the device, and iot:RetainPublish on \
         {topic})"
    )
}

fn endpoint_advice(error: &AwsError) -> &'static str {
    // This error contains advice, and the endpoint does not help without credentials.
    if error.concerns_every_request() {
        return "";
    }
    "; or set iot_endpoint (`aws iot describe-endpoint --endpoint-type iot:Data-ATS` shows it on a machine that reaches AWS)"
}
