//! One connection to the broker: a new rumqttc client and event loop for each.
//!
//! rumqttc 0.25 is not reused for a second connection: its retransmission loses messages when the broker lost the session, and
//! a publication that it holds back can block it for ever (rumqttc issues 211, 250, 1056). The outbox owns every message.
//! `EventLoop::poll` must not be cancelled during a write, so one task only polls and passes events on. Packets that the event
//! loop read before a connection failed are still in its state; they are passed on, too.

use std::time::Duration;

use rumqttc::mqttbytes::QoS;
use rumqttc::{
    AsyncClient, ConnectionError as ClientError, Event, EventLoop, Incoming, LastWill, MqttOptions, NetworkOptions,
    Outgoing, Publish, SubscribeReasonCode, TlsConfiguration, Transport as RumqttcTransport,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::address::{BrokerAddress, Transport};
use super::classify::{ConnectionInfo, classify};
use super::connect_params::ConnectParams;
use super::connection_error::ConnectionError;
use super::message::Message;
use super::proxy::Proxy;
use super::settings::Settings;
use super::tls;
use crate::config::Qos;

/// Packet ids wrap here, far above our in-flight windows: a late or repeated acknowledgement must not match a later message.
const INFLIGHT: u16 = 1000;
/// More requests than are ever queued at once: both in-flight windows, metrics, subscription, disconnect.
const REQUEST_CAPACITY: usize = 64;
/// Most events that wait for the driver. When the queue is full, nothing more is read from the broker.
const EVENT_CAPACITY: usize = 16;
/// Most bytes of a packet from the broker. A larger one ends the connection; see [`ConnectionError::TooLarge`].
pub(super) const MAX_INCOMING_BYTES: usize = 4 << 20;
const MAX_OUTGOING_BYTES: usize = 256 * 1024;
/// Time limit for endpoint and credentials; the time limit of the connection begins after that.
const PREPARE_LIMIT: Duration = Duration::from_secs(30);

/// An event of a connection.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// CONNACK.
    Connected,
    /// SUBACK.
    Subscribed { granted: bool },
    /// A publication was written under this packet id (0: QoS 0).
    Written(u16),
    /// PUBACK.
    Acknowledged(u16),
    /// A message was received.
    Received(Publish),
    /// DISCONNECT was written.
    DisconnectWritten,
    /// The connection ended; no event follows.
    Closed(ConnectionError),
}

/// One connection; dropping it closes the socket.
#[derive(Debug)]
pub(super) struct BrokerConnection {
    client: AsyncClient,
    pub events: mpsc::Receiver<LinkEvent>,
    poller: JoinHandle<()>,
}

impl Drop for BrokerConnection {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

impl BrokerConnection {
    /// Determines endpoint, credentials and signature for this attempt, then starts to connect.
    pub async fn open(
        settings: &Settings,
        last_will: Option<Message>,
        clean_session: bool,
    ) -> Result<Self, ConnectionError> {
        let limits = &settings.limits;
        let params = timeout(PREPARE_LIMIT, settings.address.connect_params())
            .await
            .unwrap_or(Err(ConnectionError::Preparation(PREPARE_LIMIT)))?;
        let mut options = options(settings, &params, clean_session);
        let tls = tls_for(settings, &params).await?;
        let proxy = Proxy::for_address(&params.address)?;
        let info = ConnectionInfo {
            client_id: settings.client_id.clone(),
            connect_limit: limits.connect,
            signed: params.signed_url.is_some(),
            proxy: proxy.as_ref().map(ToString::to_string),
        };
        if let Some(proxy) = proxy {
            let tls = match proxy.needs_tls() {
                true => Some(read_tls(tls::TlsSettings::default()).await?),
                false => None,
            };
            options.set_proxy(proxy.into_rumqttc(tls));
        }
        options.set_transport(match (params.address.transport, tls) {
            (Transport::Tls, Some(tls)) => RumqttcTransport::tls_with_config(tls),
            (Transport::Wss, Some(tls)) => RumqttcTransport::wss_with_config(tls),
            (Transport::Ws | Transport::Wss, _) => RumqttcTransport::ws(),
            (Transport::Tcp | Transport::Tls, _) => RumqttcTransport::tcp(),
        });
        // The simulated network listens on a Unix socket, whose path is the host.
        #[cfg(test)]
        if params.address.host.starts_with('/') {
            options.set_transport(RumqttcTransport::Unix);
        }
        if let Some(will) = last_will {
            options.set_last_will(LastWill::new(
                &*will.topic,
                will.payload,
                to_rumqttc_qos(will.qos),
                will.retain,
            ));
        }

        let (client, mut event_loop) = AsyncClient::new(options, REQUEST_CAPACITY);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        // rumqttc counts whole seconds and uses this for each flush, too. The poller has the exact limit for connecting.
        network.set_connection_timeout(limits.connect.max(limits.acknowledgement).as_secs().max(1));
        event_loop.set_network_options(network);

        let (sender, events) = mpsc::channel(EVENT_CAPACITY);
        let poller = Poller {
            event_loop,
            sender,
            info,
        };
        Ok(Self {
            client,
            events,
            poller: tokio::spawn(poller.run()),
        })
    }

    /// Queues a message for the event loop. If the event loop has ended, [`LinkEvent::Closed`] follows.
    pub async fn publish(&self, message: Message) {
        let Message {
            topic,
            payload,
            qos,
            retain,
            ..
        } = message;
        if self
            .client
            .publish_bytes(&*topic, to_rumqttc_qos(qos), retain, payload)
            .await
            .is_err()
        {
            tracing::debug!("The connection ended before a message could be queued");
        }
    }

    /// Subscribes at QoS 1.
    pub async fn subscribe(&self, topic: &str) {
        if self.client.subscribe(topic, QoS::AtLeastOnce).await.is_err() {
            tracing::debug!("The connection ended before the subscription could be queued");
        }
    }

    /// Sends DISCONNECT after everything queued before.
    pub async fn disconnect(&self) {
        if self.client.disconnect().await.is_err() {
            tracing::debug!("The connection ended before DISCONNECT could be queued");
        }
    }
}

fn to_rumqttc_qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
    }
}

fn options(settings: &Settings, params: &ConnectParams, clean_session: bool) -> MqttOptions {
    let BrokerAddress {
        transport,
        host,
        port,
        credentials,
        ..
    } = &params.address;
    let host = match (transport, &params.signed_url) {
        (_, Some(url)) => url.reveal().to_owned(),
        (Transport::Tcp | Transport::Tls, None) => host.clone(),
        (Transport::Ws | Transport::Wss, None) => params.address.websocket_url(),
    };
    let mut options = MqttOptions::new(&settings.client_id, host, *port);
    options
        // A persistent session needs a client id; rumqttc would panic without one.
        .set_clean_session(clean_session || settings.client_id.is_empty())
        .set_keep_alive(settings.limits.keep_alive.max(Duration::from_secs(1)))
        .set_inflight(INFLIGHT)
        .set_max_packet_size(MAX_INCOMING_BYTES, MAX_OUTGOING_BYTES);
    if let Some((user, password)) = credentials {
        options.set_credentials(user, password.reveal());
    }
    options
}

/// The TLS configuration; `None` for a connection without TLS.
async fn tls_for(settings: &Settings, params: &ConnectParams) -> Result<Option<TlsConfiguration>, ConnectionError> {
    if !matches!(params.address.transport, Transport::Tls | Transport::Wss) {
        return Ok(None);
    }
    let tls_settings = tls::TlsSettings {
        ca: settings.ca.clone(),
        certificate: params.certificate.clone(),
        alpn: params.alpn,
    };
    read_tls(tls_settings).await.map(Some)
}

async fn read_tls(tls_settings: tls::TlsSettings) -> Result<TlsConfiguration, ConnectionError> {
    let read = tokio::task::spawn_blocking(move || tls::configuration(&tls_settings)).await;
    read.unwrap_or_else(|error| Err(ConnectionError::Other(error.to_string())))
}

struct Poller {
    event_loop: EventLoop,
    sender: mpsc::Sender<LinkEvent>,
    info: ConnectionInfo,
}

impl Poller {
    async fn run(mut self) {
        let mut polled = match timeout(self.info.connect_limit, self.event_loop.poll()).await {
            Ok(polled) => polled,
            Err(_) => Err(ClientError::NetworkTimeout),
        };
        loop {
            match polled {
                Ok(event) => {
                    if let Some(event) = link_event(event)
                        && self.sender.send(event).await.is_err()
                    {
                        return;
                    }
                }
                Err(error) => return self.finish(&error).await,
            }
            polled = self.event_loop.poll().await;
        }
    }

    /// Passes on the packets read before the failure, but no outgoing events: it is unknown whether those were written.
    async fn finish(mut self, error: &ClientError) {
        let reason = classify(error, &self.info);
        let read = std::mem::take(&mut self.event_loop.state.events);
        let read = read.into_iter().filter(|event| matches!(event, Event::Incoming(_)));
        let events = read.filter_map(link_event).chain([LinkEvent::Closed(reason)]);
        for event in events {
            if self.sender.send(event).await.is_err() {
                return;
            }
        }
    }
}

fn link_event(event: Event) -> Option<LinkEvent> {
    match event {
        Event::Incoming(Incoming::ConnAck(_)) => Some(LinkEvent::Connected),
        Event::Incoming(Incoming::SubAck(ack)) => Some(LinkEvent::Subscribed {
            granted: ack
                .return_codes
                .iter()
                .all(|code| matches!(code, SubscribeReasonCode::Success(_))),
        }),
        Event::Incoming(Incoming::PubAck(ack)) => Some(LinkEvent::Acknowledged(ack.pkid)),
        Event::Incoming(Incoming::Publish(publish)) => Some(LinkEvent::Received(publish)),
        Event::Outgoing(Outgoing::Publish(id)) => Some(LinkEvent::Written(id)),
        Event::Outgoing(Outgoing::Disconnect) => Some(LinkEvent::DisconnectWritten),
        _ => None,
    }
}
