//! Turns errors of the MQTT client into a [`ConnectionError`].

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::tokio_rustls::rustls::{self, CertificateError};
use rumqttc::{ConnectReturnCode, ConnectionError as ClientError, StateError};

use super::connection_error::ConnectionError;
use crate::aws::ClockSkew;
use crate::util::text::first_line;

/// Facts about a connection that its errors mention.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionInfo {
    pub client_id: String,
    pub connect_limit: Duration,
    /// Whether the WebSocket handshake is signed for IoT Core.
    pub signed: bool,
    /// The proxy, without credentials.
    pub proxy: Option<String>,
}

/// Classifies an error of the MQTT client.
pub(super) fn classify(error: &ClientError, info: &ConnectionInfo) -> ConnectionError {
    if let (ClientError::Proxy(error), Some(proxy)) = (error, &info.proxy) {
        return ConnectionError::Proxy {
            proxy: proxy.clone(),
            problem: error.to_string().trim_end_matches('.').to_owned(),
        };
    }
    if let (ClientError::Websocket(tungstenite::Error::Http(answer)), true) = (error, info.signed) {
        return refused_handshake(answer, &info.client_id);
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        return tls_failure(tls);
    }
    match error {
        ClientError::ConnectionRefused(code) => refused_connect(*code, &info.client_id),
        ClientError::NetworkTimeout => ConnectionError::Silent(info.connect_limit),
        ClientError::FlushTimeout | ClientError::MqttState(StateError::AwaitPingResp) => ConnectionError::NoPing,
        ClientError::MqttState(StateError::ConnectionAborted) => ConnectionError::Closed,
        ClientError::MqttState(StateError::Deserialization(PacketError::PayloadSizeLimitExceeded(size))) => {
            ConnectionError::TooLarge(*size)
        }
        ClientError::NotConnAck(_) => ConnectionError::Protocol("it did not answer CONNECT with CONNACK".into()),
        ClientError::ResponseValidation(error) => {
            ConnectionError::WebSocket(format!("{error}; the broker must offer the subprotocol \"mqtt\""))
        }
        other => match find::<io::Error>(other) {
            Some(io) => io_failure(io),
            None => other_failure(other),
        },
    }
}

fn other_failure(error: &ClientError) -> ConnectionError {
    match error {
        ClientError::Websocket(error) => ConnectionError::WebSocket(error.to_string()),
        ClientError::MqttState(StateError::Unsolicited(id)) => ConnectionError::Protocol(format!(
            "it acknowledged packet {id}, which was not sent or was acknowledged already"
        )),
        ClientError::MqttState(error) => ConnectionError::Protocol(error.to_string()),
        error => ConnectionError::Other(error.to_string()),
    }
}

fn refused_connect(code: ConnectReturnCode, client_id: &str) -> ConnectionError {
    match code {
        ConnectReturnCode::RefusedProtocolVersion => ConnectionError::ProtocolVersion,
        ConnectReturnCode::BadClientId => ConnectionError::BadClientId(client_id.to_owned()),
        ConnectReturnCode::ServiceUnavailable => ConnectionError::Unavailable,
        ConnectReturnCode::BadUserNamePassword => ConnectionError::BadCredentials,
        ConnectReturnCode::NotAuthorized => ConnectionError::NotAuthorised,
        ConnectReturnCode::Success => ConnectionError::Closed,
    }
}

/// A refusal over HTTP. Its body is left out because it may repeat the signature.
fn refused_handshake(answer: &tungstenite::http::Response<Option<Vec<u8>>>, client_id: &str) -> ConnectionError {
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let status = answer.status();
    if !matches!(status.as_u16(), 400..=403) {
        return ConnectionError::WebSocket(format!("AWS IoT Core answered {status}"));
    }
    if let Some(skew) = header("date").and_then(|date| ClockSkew::from_date(date, SystemTime::now())) {
        return ConnectionError::Clock(skew);
    }
    let kind = header("x-amzn-errortype").map(first_line).unwrap_or_default();
    ConnectionError::Forbidden {
        status: format!("{status} {kind}").trim_end().to_owned(),
        client_id: client_id.to_owned(),
    }
}

fn tls_failure(error: &rustls::Error) -> ConnectionError {
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
        return ConnectionError::ClientCertificate(format!("{alert:?}"));
    }
    let rustls::Error::InvalidCertificate(problem) = error else {
        return ConnectionError::Tls(error.to_string());
    };
    ConnectionError::Certificate(match problem {
        // A CA with the same name and another key causes a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "no CA that this machine trusts has signed it; give the CA that signed it (SSL_CERT_FILE, or iot_ca with iot_auth x509)".into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired, or this machine's clock is wrong".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet, or this machine's clock is wrong".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another host name than the one in the address".into()
        }
        other => other.to_string(),
    })
}

fn io_failure(error: &io::Error) -> ConnectionError {
    use io::ErrorKind as Kind;
    let text = error.to_string();
    // The resolver's errors have no kind of their own.
    if text.contains("failed to lookup address") || text.contains("could not resolve") {
        return ConnectionError::Dns(text);
    }
    match error.kind() {
        Kind::ConnectionRefused => ConnectionError::Refused,
        Kind::NetworkUnreachable | Kind::HostUnreachable | Kind::NetworkDown | Kind::AddrNotAvailable => {
            ConnectionError::Unreachable(text)
        }
        Kind::TimedOut => ConnectionError::Unreachable(text),
        Kind::UnexpectedEof | Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => {
            ConnectionError::Closed
        }
        _ => ConnectionError::Other(text),
    }
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
        let about = ConnectionInfo {
            client_id: "me".into(),
            connect_limit: Duration::from_secs(10),
            ..ConnectionInfo::default()
        };
        classify(&error.into(), &about)
    }

    #[test]
    fn a_certificate_error_is_found_inside_other_errors() {
        let tls = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let io = io::Error::new(io::ErrorKind::InvalidData, tls);
        let text = reason(rumqttc::TlsError::Io(io)).to_string();
        assert!(text.contains("certificate") && text.contains("SSL_CERT_FILE"), "{text}");
    }

    #[test]
    fn common_failures_have_their_own_variant() {
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
        let about = ConnectionInfo {
            signed: true,
            ..ConnectionInfo::default()
        };
        classify(&tungstenite::Error::Http(answer).into(), &about)
    }

    #[test]
    fn a_refused_signature_is_explained_by_the_clock_only_if_the_clock_is_wrong() {
        let now = SystemTime::now();
        assert!(matches!(refused(403, now), ConnectionError::Forbidden { .. }));
        let late = refused(403, now - Duration::from_secs(3600));
        assert!(late.to_string().contains("clock is 60 minutes ahead"), "{late}");
        assert!(matches!(refused(503, now), ConnectionError::WebSocket(_)));
        assert!(!refused(403, now).to_string().contains("secret"));
    }
}
