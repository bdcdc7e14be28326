//! Opens the WebSocket. The handshake goes through the HTTP client of the other requests to Studio, so proxy, TLS and certificates
//! follow the same rules.

use std::time::Duration;

use reqwest::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use reqwest::{StatusCode, Upgraded};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use url::Url;

use super::error::ChannelError;
use super::limits::ChannelLimits;
use crate::studio::client::reason;
use crate::studio::error::StudioError;

pub(super) type Socket = WebSocketStream<Upgraded>;

/// Buffers of a connection that carries small messages.
const BUFFER: usize = 8 << 10;

/// Opens a WebSocket to `url` (`ws` or `wss`). `ws` is for a Studio on this machine or network and uses no proxy.
///
/// # Errors
/// [`ChannelError`]
pub(super) async fn open(url: &Url, limits: &ChannelLimits) -> Result<Socket, ChannelError> {
    match tokio::time::timeout(limits.answer, handshake(url, limits)).await {
        Ok(opened) => opened,
        Err(_) => Err(unreachable(url, no_answer(limits.answer))),
    }
}

/// Opens a WebSocket and closes it without a hello: a hello would take the place of the device's own connection.
///
/// # Errors
/// [`ChannelError`]
pub async fn probe(url: &Url) -> Result<String, ChannelError> {
    let mut socket = open(url, &ChannelLimits::default()).await?;
    // The answer does not matter.
    let _ = tokio::time::timeout(Duration::from_secs(2), socket.close(None)).await;
    Ok(format!("{} accepts WebSockets", host(url)))
}

async fn handshake(url: &Url, limits: &ChannelLimits) -> Result<Socket, ChannelError> {
    let is_secure = url.scheme() == "wss";
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("ei-greengrass/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(limits.answer)
        .redirect(reqwest::redirect::Policy::none())
        .http1_only();
    if !is_secure {
        builder = builder.no_proxy();
    }
    let http = builder
        .build()
        .map_err(|e| StudioError::Client(crate::util::text::sentence(&e)))?;
    let key = generate_key();
    let request = http
        .get(with_http_scheme(url, is_secure))
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key);
    let response = request.send().await.map_err(|e| unreachable(url, reason(&e)))?;
    let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT);
    let is_websocket = accept.is_some_and(|accept| accept.as_bytes() == derive_accept_key(key.as_bytes()).as_bytes());
    if response.status() != StatusCode::SWITCHING_PROTOCOLS || !is_websocket {
        return Err(ChannelError::NoWebSocket {
            host: host(url),
            status: response.status().as_u16(),
        });
    }
    let upgraded = response.upgrade().await.map_err(|e| unreachable(url, reason(&e)))?;
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = BUFFER;
    config.write_buffer_size = BUFFER;
    config.max_message_size = Some(limits.message_bytes);
    config.max_frame_size = Some(limits.message_bytes);
    Ok(Socket::from_raw_socket(upgraded, Role::Client, Some(config)).await)
}

/// The address for an HTTP client. `Url::set_scheme` refuses this change.
fn with_http_scheme(url: &Url, is_secure: bool) -> String {
    let rest = url.as_str().split_once(':').map_or("", |(_, rest)| rest);
    format!("{}:{rest}", if is_secure { "https" } else { "http" })
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

fn no_answer(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs_f32())
}

fn unreachable(url: &Url, reason: String) -> ChannelError {
    ChannelError::Unreachable {
        host: host(url),
        reason,
    }
}
