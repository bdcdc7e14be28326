//! A mock of the IoT Core data endpoint at `localhost:<port>`: TLS, then MQTT over WebSocket with a checked signature, or MQTT
//! with client certificates. It forwards MQTT to a broker.

use std::sync::Arc;

use async_tungstenite::tokio::{TokioAdapter, accept_hdr_async};
use async_tungstenite::tungstenite::handshake::server;
use rumqttc::tokio_rustls::TlsAcceptor;
use rumqttc::tokio_rustls::rustls::crypto::aws_lc_rs;
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject;
use rumqttc::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rumqttc::tokio_rustls::rustls::server::WebPkiClientVerifier;
use rumqttc::tokio_rustls::rustls::{RootCertStore, ServerConfig};
use rumqttc::tokio_rustls::server::TlsStream;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use ws_stream_tungstenite::WsStream;

use super::certificates::Certificates;
use super::sigv4::{Request, Scope, verify_presigned};
use super::token_exchange::Keys;
use crate::support::events::Events;

pub const REGION: &str = "eu-west-1";

/// How clients authenticate.
#[derive(Clone)]
pub enum Door {
    /// MQTT over WebSocket, signed with one of these keys.
    Signed(Keys),
    /// Every handshake is refused. The time of the server differs by this many seconds.
    ClockOff(i64),
    /// MQTT; the client certificate must come from the same authority.
    Certificate,
}

/// A connection attempt that reached the handshake.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The key id of an accepted signature, or why it was refused.
    pub signed_by: Result<String, String>,
    /// The received query.
    pub query: Vec<(String, String)>,
    /// The protocol announced in the TLS handshake.
    pub alpn: Option<String>,
}

pub struct Gateway {
    pub port: u16,
    pub attempts: Arc<Events<Attempt>>,
    kick: Arc<Notify>,
    // Dropping it ends all tasks.
    _runtime: Runtime,
}

impl Gateway {
    /// Starts the gateway in front of the broker at `broker_port`.
    pub fn start(door: Door, certificates: &Certificates, broker_port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let acceptor = TlsAcceptor::from(Arc::new(tls(&door, certificates)));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (attempts, kick) = (Arc::new(Events::default()), Arc::new(Notify::new()));
        let (seen, kicked) = (Arc::clone(&attempts), Arc::clone(&kick));
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, door) = (acceptor.clone(), door.clone());
                let (seen, kicked) = (Arc::clone(&seen), Arc::clone(&kicked));
                tokio::spawn(async move {
                    tokio::select! {
                        _ = serve(socket, acceptor, door, seen, broker_port) => {}
                        () = kicked.notified() => {}
                    }
                });
            }
        });
        Self {
            port,
            attempts,
            kick,
            _runtime: runtime,
        }
    }

    /// The value for `iot_endpoint`.
    pub fn endpoint(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Closes all connections.
    pub fn kick(&self) {
        self.kick.notify_waiters();
    }

    /// Key ids of the accepted attempts.
    pub fn accepted(&self) -> Vec<String> {
        self.attempts.with(|list| {
            list.iter()
                .filter_map(|attempt| attempt.signed_by.clone().ok())
                .collect()
        })
    }
}

fn tls(door: &Door, certificates: &Certificates) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let read = |name: &str| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(certificates.path(name))
            .expect("a file")
            .collect::<Result<_, _>>()
            .expect("certificates")
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match door {
        Door::Certificate => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(read("ca.pem"));
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        }
        _ => builder.with_no_client_auth(),
    };
    let key = PrivateKeyDer::from_pem_file(certificates.path("server.key")).expect("a key");
    let mut config = builder.with_single_cert(read("server.pem"), key).expect("a pair");
    if matches!(door, Door::Certificate) {
        config.alpn_protocols = vec![b"x-amzn-mqtt-ca".to_vec()];
    }
    config
}

async fn serve(
    socket: TcpStream,
    acceptor: TlsAcceptor,
    door: Door,
    seen: Arc<Events<Attempt>>,
    broker_port: u16,
) -> Option<()> {
    let mut stream = acceptor.accept(socket).await.ok()?;
    let alpn = stream
        .get_ref()
        .1
        .alpn_protocol()
        .map(|name| String::from_utf8_lossy(name).into_owned());
    match door {
        Door::Certificate => {
            seen.push(Attempt {
                signed_by: Ok("certificate".into()),
                query: Vec::new(),
                alpn,
            });
            bridge(&mut stream, broker_port).await
        }
        Door::Signed(keys) => {
            let accepted = handshake(stream, |request| {
                let checked = check(request, &keys);
                // Before the answer, which a test may wait for.
                seen.push(Attempt {
                    signed_by: checked.clone(),
                    query: request.query(),
                    alpn,
                });
                checked.map(drop).map_err(|problem| refusal(&problem, 0))
            })
            .await;
            bridge(&mut accepted?, broker_port).await
        }
        Door::ClockOff(seconds) => handshake(stream, |_| Err(refusal("Signature expired", seconds)))
            .await
            .map(drop),
    }
}

fn check(request: &Request, keys: &Keys) -> Result<String, String> {
    let scope = Scope {
        region: REGION,
        service: "iotdevicegateway",
    };
    let key = keys.find(&request.key_id()?)?;
    if request.path() != "/mqtt" {
        return Err(format!("the path is {}", request.path()));
    }
    verify_presigned(request, &key, &scope)?;
    Ok(key.id)
}

fn refusal(problem: &str, clock: i64) -> Box<server::ErrorResponse> {
    let now = std::time::SystemTime::now();
    let amount = std::time::Duration::from_secs(clock.unsigned_abs());
    let date = if clock < 0 { now - amount } else { now + amount };
    let answer = server::Response::builder()
        .status(403)
        .header("date", httpdate::fmt_http_date(date))
        .header("x-amzn-errortype", "ForbiddenException")
        .body(Some(problem.to_owned()))
        .expect("an answer");
    Box::new(answer)
}

async fn handshake(
    stream: TlsStream<TcpStream>,
    decide: impl FnOnce(&Request) -> Result<(), Box<server::ErrorResponse>> + Unpin,
) -> Option<WsStream<TokioAdapter<TlsStream<TcpStream>>>> {
    #[allow(clippy::result_large_err)] // the type of the crate
    let callback = |request: &server::Request, mut response: server::Response| {
        let headers = request.headers().iter();
        let headers = headers.map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()));
        let request = Request {
            target: request.uri().path_and_query().unwrap().to_string(),
            headers: headers.collect(),
        };
        decide(&request).map_err(|refusal| *refusal)?;
        let protocol = request.headers.get("sec-websocket-protocol").map(String::as_str);
        assert_eq!(protocol, Some("mqtt"));
        response
            .headers_mut()
            .insert("sec-websocket-protocol", "mqtt".parse().unwrap());
        Ok(response)
    };
    accept_hdr_async(stream, callback).await.ok().map(WsStream::new)
}

async fn bridge(client: &mut (impl AsyncRead + AsyncWrite + Unpin), broker_port: u16) -> Option<()> {
    let mut broker = TcpStream::connect(("127.0.0.1", broker_port)).await.ok()?;
    copy_bidirectional(client, &mut broker).await.ok().map(drop)
}
