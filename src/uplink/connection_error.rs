//! Why there is no connection to the broker, in words for the person at the device.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::tokio_rustls::rustls::{self, CertificateError};
use rumqttc::{ConnectReturnCode, ConnectionError as ClientError, StateError};

use crate::aws::{AwsError, ClockSkew};
use crate::util::text::first_line;

/// Why a connection could not be made or ended. The text never holds a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// Nothing listens there.
    #[error("connection refused: no broker listens at that port")]
    Refused,
    /// Host or network out of reach.
    #[error("the network does not reach the broker ({0})")]
    Unreachable(String),
    /// The name has no address.
    #[error("the host name has no address ({0}); check its spelling and the DNS server")]
    Dns(String),
    /// No answer to the connection attempt.
    #[error("no answer within {} s; is it an MQTT broker, and does a firewall let the port through?", .0.as_secs_f32())]
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
    /// The IoT Core endpoint is neither configured nor found nor remembered.
    #[error("the IoT Core endpoint could not be asked for: {}{}", .0, endpoint_advice(.0))]
    Endpoint(AwsError),
    /// Nothing can be signed.
    #[error("{0}")]
    Aws(String),
    /// Finding endpoint and credentials takes too long.
    #[error("AWS gave neither endpoint nor credentials within {} s", .0.as_secs_f32())]
    Preparation(Duration),
    /// IoT Core refuses the signature, or the role has no permission.
    #[error(
        "AWS IoT Core refused to let this client in ({status}): its role needs iot:Connect on client/{client_id}, and the \
         endpoint must belong to the account and region of the role"
    )]
    Forbidden {
        /// HTTP status and what AWS calls it.
        status: String,
        /// Ours.
        client_id: String,
    },
    /// The signature is refused because of the time.
    #[error("AWS IoT Core refused the signature: {0}")]
    Clock(ClockSkew),
    /// The proxy does not let us through.
    #[error(
        "the proxy {proxy} (HTTPS_PROXY) gave no connection: {problem}; NO_PROXY lists hosts to be reached without it"
    )]
    Proxy {
        /// The proxy, without credentials.
        proxy: String,
        /// What it said.
        problem: String,
    },
    /// A proxy of a kind that is not supported.
    #[error("HTTPS_PROXY (or ALL_PROXY) names a proxy of the kind {0}://; accepted: http:// and https://")]
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
    #[error("the broker is there but says that its service is unavailable")]
    Unavailable,
    /// CONNACK 1.
    #[error("the broker does not speak MQTT 3.1.1")]
    ProtocolVersion,
    /// The broker does not speak MQTT over WebSocket here.
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
    /// The broker closes the connection as soon as it stands.
    #[error(
        "the broker closed the connection right after accepting it, {times} times in a row: another client may be using the \
         client id \"{client_id}\", or the policy forbids something this client does (on AWS IoT Core it needs \
         iot:Publish on each topic of the device, and iot:RetainPublish on {command_topic})"
    )]
    ThrownOut {
        /// In a row.
        times: u32,
        /// Ours.
        client_id: String,
        /// Where retained commands are cleared.
        command_topic: String,
    },
    /// PUBACK or SUBACK missing.
    #[error("the broker accepts messages and acknowledges none for {} s", .0.as_secs_f32())]
    NoAcknowledgement(Duration),
    /// No PINGRESP.
    #[error("the broker no longer answers")]
    NoPing,
    /// The broker broke the protocol.
    #[error("the broker broke the MQTT protocol: {0}")]
    Protocol(String),
    /// The broker delivers a message larger than any command.
    #[error("the broker delivers a message of {0} bytes, more than is read")]
    TooLarge(usize),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// What a connection was about.
#[derive(Debug, Clone, Default)]
pub(super) struct Circumstances {
    pub client_id: String,
    pub connect_limit: Duration,
    /// IoT Core, the handshake signed.
    pub signed: bool,
    /// The proxy in between, without credentials.
    pub proxy: Option<String>,
}

impl ConnectionError {
    pub(super) fn of(error: &ClientError, about: &Circumstances) -> Self {
        if let (ClientError::Proxy(error), Some(proxy)) = (error, &about.proxy) {
            return Self::Proxy {
                proxy: proxy.clone(),
                problem: error.to_string().trim_end_matches('.').to_owned(),
            };
        }
        if let (ClientError::Websocket(tungstenite::Error::Http(answer)), true) = (error, about.signed) {
            return Self::of_refused_handshake(answer, &about.client_id);
        }
        if let Some(tls) = find::<rustls::Error>(error) {
            return Self::of_tls(tls);
        }
        match error {
            ClientError::ConnectionRefused(code) => Self::of_code(*code, &about.client_id),
            ClientError::NetworkTimeout => Self::Silent(about.connect_limit),
            ClientError::FlushTimeout | ClientError::MqttState(StateError::AwaitPingResp) => Self::NoPing,
            ClientError::MqttState(StateError::ConnectionAborted) => Self::Closed,
            ClientError::MqttState(StateError::Deserialization(PacketError::PayloadSizeLimitExceeded(size))) => {
                Self::TooLarge(*size)
            }
            ClientError::NotConnAck(_) => Self::Protocol("it did not answer CONNECT with CONNACK".into()),
            ClientError::ResponseValidation(error) => {
                Self::WebSocket(format!("{error}; the broker must offer the subprotocol \"mqtt\""))
            }
            other => match find::<io::Error>(other) {
                Some(io) => Self::of_io(io),
                None => Self::of_rest(other),
            },
        }
    }

    fn of_rest(error: &ClientError) -> Self {
        match error {
            ClientError::Websocket(error) => Self::WebSocket(error.to_string()),
            ClientError::MqttState(StateError::Unsolicited(id)) => Self::Protocol(format!(
                "it acknowledged packet {id}, which was not sent or was acknowledged already"
            )),
            ClientError::MqttState(error) => Self::Protocol(error.to_string()),
            error => Self::Other(error.to_string()),
        }
    }

    fn of_code(code: ConnectReturnCode, client_id: &str) -> Self {
        match code {
            ConnectReturnCode::RefusedProtocolVersion => Self::ProtocolVersion,
            ConnectReturnCode::BadClientId => Self::BadClientId(client_id.to_owned()),
            ConnectReturnCode::ServiceUnavailable => Self::Unavailable,
            ConnectReturnCode::BadUserNamePassword => Self::BadCredentials,
            ConnectReturnCode::NotAuthorized => Self::NotAuthorised,
            ConnectReturnCode::Success => Self::Closed,
        }
    }

    /// A refusal by HTTP. Its body is not shown: it may repeat what was signed.
    fn of_refused_handshake(answer: &tungstenite::http::Response<Option<Vec<u8>>>, client_id: &str) -> Self {
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let status = answer.status();
        if !matches!(status.as_u16(), 400..=403) {
            return Self::WebSocket(format!("AWS IoT Core answered {status}"));
        }
        if let Some(skew) = header("date").and_then(|date| ClockSkew::from_date(date, SystemTime::now())) {
            return Self::Clock(skew);
        }
        let kind = header("x-amzn-errortype").map(first_line).unwrap_or_default();
        Self::Forbidden {
            status: format!("{status} {kind}").trim_end().to_owned(),
            client_id: client_id.to_owned(),
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        use rustls::AlertDescription as Alert;
        if let rustls::Error::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::CertificateRequired
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::UnsupportedCertificate
            | Alert::UnknownCA
            | Alert::AccessDenied),
        ) = error
        {
            return Self::ClientCertificate(format!("{alert:?}"));
        }
        let rustls::Error::InvalidCertificate(problem) = error else {
            return Self::Tls(error.to_string());
        };
        Self::Certificate(match problem {
            // A bad signature is what another CA of the same name looks like.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "it is signed by nobody this machine trusts; give the CA that signed it (SSL_CERT_FILE, or iot_ca with iot_auth x509)".into()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "it has expired, or this machine's clock is wrong".into()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "it is not valid yet: is this machine's clock right?".into()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "it is for another host name than the one in the address".into()
            }
            other => other.to_string(),
        })
    }

    fn of_io(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        let text = error.to_string();
        // The resolver's errors have no kind of their own.
        if text.contains("failed to lookup address") || text.contains("could not resolve") {
            return Self::Dns(text);
        }
        match error.kind() {
            Kind::ConnectionRefused => Self::Refused,
            Kind::NetworkUnreachable | Kind::HostUnreachable | Kind::NetworkDown | Kind::AddrNotAvailable => {
                Self::Unreachable(text)
            }
            Kind::TimedOut => Self::Unreachable(text),
            Kind::UnexpectedEof | Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => Self::Closed,
            _ => Self::Other(text),
        }
    }
}

/// What else to do about it.
fn endpoint_advice(error: &AwsError) -> &'static str {
    // Such an error says what to do, and without credentials the endpoint alone is of no use.
    if error.concerns_every_request() {
        return "";
    }
    "; or set iot_endpoint (`aws iot describe-endpoint --endpoint-type iot:Data-ATS` shows it where AWS is reached)"
}

/// The first error of type `T` in the chain. `io::Error` leaves the error it wraps out of its `source()`.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    if let Some(found) = error.downcast_ref::<T>() {
        return Some(found);
    }
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => find(inner),
        None => find(error.source()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(error: impl Into<ClientError>) -> ConnectionError {
        let about = Circumstances {
            client_id: "me".into(),
            connect_limit: Duration::from_secs(10),
            ..Circumstances::default()
        };
        ConnectionError::of(&error.into(), &about)
    }

    #[test]
    fn a_certificate_problem_is_found_however_deep_it_is_wrapped() {
        let tls = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let io = io::Error::new(io::ErrorKind::InvalidData, tls);
        let text = reason(rumqttc::TlsError::Io(io)).to_string();
        assert!(text.contains("certificate") && text.contains("SSL_CERT_FILE"), "{text}");
    }

    #[test]
    fn common_failures_have_words_of_their_own() {
        let io = |kind: io::ErrorKind| reason(io::Error::from(kind));
        assert_eq!(io(io::ErrorKind::ConnectionRefused), ConnectionError::Refused);
        assert_eq!(io(io::ErrorKind::ConnectionReset), ConnectionError::Closed);
        assert_eq!(reason(StateError::ConnectionAborted), ConnectionError::Closed);
        assert_eq!(
            reason(StateError::Deserialization(PacketError::PayloadSizeLimitExceeded(9))),
            ConnectionError::TooLarge(9)
        );
        assert!(matches!(
            reason(io::Error::other("failed to lookup address information: x")),
            ConnectionError::Dns(_)
        ));
        let refused = |code| reason(ClientError::ConnectionRefused(code));
        assert_eq!(
            refused(ConnectReturnCode::BadUserNamePassword),
            ConnectionError::BadCredentials
        );
        assert_eq!(
            refused(ConnectReturnCode::BadClientId),
            ConnectionError::BadClientId("me".into())
        );
    }

    fn refused(status: u16, date: SystemTime) -> ConnectionError {
        let answer = tungstenite::http::Response::builder()
            .status(status)
            .header("date", httpdate::fmt_http_date(date))
            .body(Some(b"X-Amz-Signature=secret".to_vec()))
            .expect("an answer");
        let about = Circumstances {
            signed: true,
            ..Circumstances::default()
        };
        ConnectionError::of(&tungstenite::Error::Http(answer).into(), &about)
    }

    #[test]
    fn a_refused_signature_is_blamed_on_the_clock_only_when_that_is_off() {
        let now = SystemTime::now();
        assert!(matches!(refused(403, now), ConnectionError::Forbidden { .. }));
        let late = refused(403, now - Duration::from_secs(3600));
        assert!(late.to_string().contains("clock is 60 minutes ahead"), "{late}");
        assert!(matches!(refused(503, now), ConnectionError::WebSocket(_)));
        assert!(!refused(403, now).to_string().contains("secret"));
    }
}
