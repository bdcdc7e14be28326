//! The destination of messages: a broker, or stdout. [`SinkTarget`] says which.
//!
//! The outbox has one reader, so there is one destination. Pairs for a second place go to a cache.

use std::future::pending;
use std::io::Write;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::setup::{Setup, SinkTarget};
use crate::aws::{AwsConfig, EndpointCache};
use crate::commands;
use crate::config::{Config, IotAuth};
use crate::device::Topics;
use crate::status::stats::Stats;
use crate::status::{LinkStatus, StatusSource};
use crate::uplink::{self, ClientCertificate, Destination, IotCore, Message, Outbox, ReceivedCommand, SignIn, Uplink};

/// Delivers the messages in the outbox. A broker also sends commands.
pub(super) enum MessageSink {
    Broker(Uplink),
    Stdout(StdoutSink),
}

impl MessageSink {
    /// Starts delivering. Commands arrive at the receiver.
    pub(super) fn start(
        setup: &Setup,
        device: &str,
        topics: &Topics,
        outbox: &Arc<Outbox>,
        stats: &Arc<Stats>,
    ) -> (Self, mpsc::Receiver<ReceivedCommand>) {
        match uplink_settings(&setup.config, &setup.sink, device, topics) {
            Some(settings) => {
                let (uplink, commands) = uplink::start(settings, outbox.clone(), stats.clone());
                (Self::Broker(uplink), commands)
            }
            None => {
                let (sink, commands) = StdoutSink::start(outbox.clone());
                (Self::Stdout(sink), commands)
            }
        }
    }

    /// Completes when stdout is closed (`demo | head`). Never completes for a broker, because the connection may return.
    pub(super) fn closed(&mut self) -> impl Future<Output = ()> + use<> {
        let closed = match self {
            Self::Broker(_) => None,
            Self::Stdout(sink) => sink.closed.take(),
        };
        async {
            let is_closed = match closed {
                Some(closed) => closed.await.is_ok(),
                None => false,
            };
            if !is_closed {
                pending::<()>().await;
            }
        }
    }

    /// The sender of the channel of commands, for commands from elsewhere.
    pub(super) fn commands(&self) -> mpsc::Sender<ReceivedCommand> {
        match self {
            Self::Broker(uplink) => uplink.commands(),
            Self::Stdout(sink) => sink.commands.clone(),
        }
    }

    /// The source of the sink's status.
    pub(super) fn status_source(&self) -> Arc<dyn StatusSource<LinkStatus>> {
        match self {
            Self::Broker(uplink) => Arc::new(uplink.state()),
            Self::Stdout(_) => Arc::new(LinkStatus::Stdout),
        }
    }

    /// Delivers the waiting messages and then the final notice, until the deadline. Undelivered messages stay in the outbox.
    pub(super) async fn stop(self, notice: Message, deadline: Instant) {
        match self {
            Self::Broker(uplink) => {
                let limit = deadline.saturating_duration_since(Instant::now());
                uplink.stop(Some(notice), limit).await;
            }
            Self::Stdout(sink) => sink.stop(notice).await,
        }
    }
}

/// The settings of the uplink; `None` if messages go to stdout. Opens no connection.
pub fn uplink_settings(
    config: &Config,
    target: &SinkTarget,
    device: &str,
    topics: &Topics,
) -> Option<uplink::Settings> {
    let (certificate, ca) = match &config.iot_auth {
        IotAuth::SigV4 => (None, None),
        IotAuth::X509 { cert, key, ca } => {
            let (cert, key) = (cert.clone(), key.clone());
            (Some(ClientCertificate { cert, key }), ca.clone())
        }
    };
    let address = match target.clone() {
        SinkTarget::Stdout => return None,
        SinkTarget::Broker(address) => Destination::Broker { address, certificate },
        SinkTarget::IotCore(endpoint) => Destination::IotCore(Arc::new(IotCore::new(
            AwsConfig::default(),
            endpoint,
            certificate.map_or(SignIn::SigV4, SignIn::Certificate),
            EndpointCache::new(&config.work_dir.join(device)),
        ))),
    };
    let rate_limits = if address.is_iot_core() {
        uplink::RateLimits::IOT_CORE
    } else {
        uplink::RateLimits::UNLIMITED
    };
    Some(uplink::Settings {
        address,
        rate_limits,
        client_id: device.to_owned(),
        topics: topics.clone(),
        qos: config.qos,
        refusal_answer: commands::refusal_answer,
        ca,
        limits: uplink::ConnectionTimes::default(),
    })
}

/// Prints each message as it would be published: topic, then payload.
pub(super) struct StdoutSink {
    stop: oneshot::Sender<()>,
    printer: tokio::task::JoinHandle<()>,
    outbox: Arc<Outbox>,
    /// Notified when stdout is closed.
    closed: Option<oneshot::Receiver<()>>,
    /// No commands arrive from stdout.
    commands: mpsc::Sender<ReceivedCommand>,
}

impl StdoutSink {
    fn start(outbox: Arc<Outbox>) -> (Self, mpsc::Receiver<ReceivedCommand>) {
        let (stop, mut stopped) = oneshot::channel();
        let (commands, receiver) = mpsc::channel(1);
        let (notify_closed, closed) = oneshot::channel();
        let source = outbox.clone();
        let printer = tokio::spawn(async move {
            while print_all(&source).is_ok() {
                tokio::select! {
                    () = source.pushed() => {}
                    _ = &mut stopped => {
                        let _ = print_all(&source);
                        return;
                    }
                }
            }
            let _ = notify_closed.send(());
        });
        let sink = Self {
            stop,
            printer,
            outbox,
            closed: Some(closed),
            commands,
        };
        (sink, receiver)
    }

    async fn stop(self, notice: Message) {
        self.outbox.push(notice);
        let _ = self.stop.send(());
        let _ = self.printer.await;
    }
}

fn print_all(outbox: &Outbox) -> std::io::Result<()> {
    while let Some((token, message)) = outbox.next_to_send() {
        // `println!` panics when stdout is closed (`demo | head`).
        let text = String::from_utf8_lossy(&message.payload);
        writeln!(std::io::stdout(), "{} {text}", message.topic)?;
        outbox.acked(token);
    }
    Ok(())
}
