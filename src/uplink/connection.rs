//! One connection to the broker: a fresh rumqttc client and event loop, used once and thrown away.
//!
//! Why so (rumqttc 0.25): its own retransmission loses messages when the broker forgot the session, and a stashed publication
//! can block it for ever (its issues 211, 250, 1056); here the outbox owns every message. `EventLoop::poll` must not be
//! cancelled in the middle of a write, so one task does nothing but poll and pass events on. What it read before a
//! connection failed is still in its state, and is passed on too.

use std::time::Duration;

use rumqttc::mqttbytes::QoS;
use rumqttc::{
    AsyncClient, ConnectionError as ClientError, Event, EventLoop, Incoming, LastWill, MqttOptions, NetworkOptions,
    Outgoing, Publish, SubscribeReasonCode, TlsConfiguration, Transport as RumqttcTransport,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Settings;
use super::address::{BrokerAddress, Transport};
use super::connection_error::{Circumstances, ConnectionError};
use super::destination::ConnectParams;
use super::message::Message;
use super::proxy::Proxy;
use super::tls;
use crate::config::Qos;

/// Packet ids wrap here. Far above our windows: an acknowledgement that comes twice or late must not hit a later message.
const INFLIGHT: u16 = 1000;
/// Above everything that is ever handed over at once: both windows, metrics, subscription, disconnect.
const REQUEST_CAPACITY: usize = 64;
/// Events on their way to the driver; beyond it the broker waits.
const EVENT_CAPACITY: usize = 16;
/// Larger messages from the broker end the connection; see [`ConnectionError::TooLarge`].
pub(super) const MAX_INCOMING_BYTES: usize = 4 << 20;
const MAX_OUTGOING_BYTES: usize = 256 * 1024;
/// For finding the endpoint and credentials, beside the limit for the connection itself.
const PREPARATION_LIMIT: Duration = Duration::from_secs(30);

/// What happens on a connection.
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
    /// A message came.
    Received(Publish),
    /// DISCONNECT was written.
    DisconnectWritten,
    /// The end; nothing follows.
    Closed(ConnectionError),
}

/// One connection; dropping it closes the socket.
#[derive(Debug)]
pub(super) struct Connection {
    client: AsyncClient,
    pub events: mpsc::Receiver<LinkEvent>,
    poller: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

impl Connection {
    /// Begins to connect. What the broker's address needs (endpoint, credentials, a signature) is found before, anew each time.
    pub async fn open(
        settings: &Settings,
        last_will: Option<Message>,
        clean_session: bool,
    ) -> Result<Self, ConnectionError> {
        let limits = &settings.limits;
        let dial = timeout(PREPARATION_LIMIT, settings.address.dial())
            .await
            .unwrap_or(Err(ConnectionError::Preparation(PREPARATION_LIMIT)))?;
        let mut options = options(settings, &dial, clean_session);
        let tls = tls_for(settings, &dial).await?;
        let proxy = Proxy::for_address(&dial.address)?;
        let circumstances = Circumstances {
            client_id: settings.client_id.clone(),
            connect_limit: limits.connect,
            signed: dial.signed_url.is_some(),
            proxy: proxy.as_ref().map(ToString::to_string),
        };
        if let Some(proxy) = proxy {
            let tls = match proxy.needs_tls() {
                true => Some(read_tls(tls::Wanted::default()).await?),
                false => None,
            };
            options.set_proxy(proxy.into_rumqttc(tls));
        }
        options.set_transport(match (dial.address.transport, tls) {
            (Transport::Tls, Some(tls)) => RumqttcTransport::tls_with_config(tls),
            (Transport::Wss, Some(tls)) => RumqttcTransport::wss_with_config(tls),
            (Transport::Ws | Transport::Wss, _) => RumqttcTransport::ws(),
            (Transport::Tcp | Transport::Tls, _) => RumqttcTransport::tcp(),
        });
        if let Some(will) = last_will {
            options.set_last_will(LastWill::new(&*will.topic, will.payload, wire(will.qos), will.retain));
        }

        let (client, mut event_loop) = AsyncClient::new(options, REQUEST_CAPACITY);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        // Counts whole seconds and is used for each flush too; the exact limit for connecting is our own.
        network.set_connection_timeout(limits.connect.max(limits.acknowledgement).as_secs().max(1));
        event_loop.set_network_options(network);

        let (sender, events) = mpsc::channel(EVENT_CAPACITY);
        let poller = Poller {
            event_loop,
            sender,
            circumstances,
        };
        Ok(Self {
            client,
            events,
            poller: tokio::spawn(poller.run()),
        })
    }

    /// Hands a message to the event loop. When that has ended already, [`LinkEvent::Closed`] is on its way.
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
            .publish_bytes(&*topic, wire(qos), retain, payload)
            .await
            .is_err()
        {
            tracing::debug!("The connection ended before a message could be handed to it");
        }
    }

    /// Subscribes at QoS 1.
    pub async fn subscribe(&self, topic: &str) {
        if self.client.subscribe(topic, QoS::AtLeastOnce).await.is_err() {
            tracing::debug!("The connection ended before the subscription could be handed to it");
        }
    }

    /// Ends the connection in an orderly way, after everything handed over before.
    pub async fn disconnect(&self) {
        if self.client.disconnect().await.is_err() {
            tracing::debug!("The connection ended before DISCONNECT could be handed to it");
        }
    }
}

fn wire(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
    }
}

fn options(settings: &Settings, dial: &ConnectParams, clean_session: bool) -> MqttOptions {
    let BrokerAddress {
        transport,
        host,
        port,
        credentials,
        ..
    } = &dial.address;
    let host = match (transport, &dial.signed_url) {
        (_, Some(url)) => url.reveal().to_owned(),
        (Transport::Tcp | Transport::Tls, None) => host.clone(),
        (Transport::Ws | Transport::Wss, None) => dial.address.websocket_url(),
    };
    let mut options = MqttOptions::new(&settings.client_id, host, *port);
    options
        // A session without a client id cannot be kept (and rumqttc would panic).
        .set_clean_session(clean_session || settings.client_id.is_empty())
        .set_keep_alive(settings.limits.keep_alive.max(Duration::from_secs(1)))
        .set_inflight(INFLIGHT)
        .set_max_packet_size(MAX_INCOMING_BYTES, MAX_OUTGOING_BYTES);
    if let Some((user, password)) = credentials {
        options.set_credentials(user, password.reveal());
    }
    options
}

/// What TLS needs to know; `None` for a connection without.
async fn tls_for(settings: &Settings, dial: &ConnectParams) -> Result<Option<TlsConfiguration>, ConnectionError> {
    if !matches!(dial.address.transport, Transport::Tls | Transport::Wss) {
        return Ok(None);
    }
    let wanted = tls::Wanted {
        ca: settings.ca.clone(),
        certificate: dial.certificate.clone(),
        alpn: dial.alpn,
    };
    read_tls(wanted).await.map(Some)
}

async fn read_tls(wanted: tls::Wanted) -> Result<TlsConfiguration, ConnectionError> {
    let read = tokio::task::spawn_blocking(move || tls::configuration(&wanted)).await;
    read.unwrap_or_else(|error| Err(ConnectionError::Other(error.to_string())))
}

struct Poller {
    event_loop: EventLoop,
    sender: mpsc::Sender<LinkEvent>,
    circumstances: Circumstances,
}

impl Poller {
    async fn run(mut self) {
        let mut polled = match timeout(self.circumstances.connect_limit, self.event_loop.poll()).await {
            Ok(polled) => polled,
            Err(_) => Err(ClientError::NetworkTimeout),
        };
        loop {
            match polled {
                Ok(event) => {
                    if let Some(event) = translated(event)
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

    /// Passes on what came before the failure. Not what was to be written: whether it was is unknown.
    async fn finish(mut self, error: &ClientError) {
        let reason = ConnectionError::of(error, &self.circumstances);
        let read = std::mem::take(&mut self.event_loop.state.events);
        let read = read.into_iter().filter(|event| matches!(event, Event::Incoming(_)));
        let events = read.filter_map(translated).chain([LinkEvent::Closed(reason)]);
        for event in events {
            if self.sender.send(event).await.is_err() {
                return;
            }
        }
    }
}

fn translated(event: Event) -> Option<LinkEvent> {
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
