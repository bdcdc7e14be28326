//! Where messages go: a broker, or the screen.

use std::future::pending;
use std::io::Write;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::setup::{LinkTarget, Setup};
use crate::aws::{AwsConfig, EndpointCache};
use crate::config::{Config, IotAuth};
use crate::device::Topics;
use crate::status::LinkView;
use crate::status::stats::Stats;
use crate::uplink::{self, ClientCertificate, Destination, IotCore, Message, Outbox, ReceivedCommand, SignIn, Uplink};

/// The way out (and, with a broker, in).
pub(super) enum Link {
    Broker(Uplink),
    Screen(Screen),
}

impl Link {
    /// Starts delivering what is in the outbox.
    pub(super) fn start(
        setup: &Setup,
        device: &str,
        topics: &Topics,
        outbox: &Arc<Outbox>,
        stats: &Arc<Stats>,
    ) -> (Self, mpsc::Receiver<ReceivedCommand>) {
        match link_settings(&setup.config, &setup.link, device, topics) {
            Some(settings) => {
                let (uplink, commands) = uplink::start(settings, outbox.clone(), stats.clone());
                (Self::Broker(uplink), commands)
            }
            None => {
                let (screen, commands) = Screen::start(outbox.clone());
                (Self::Screen(screen), commands)
            }
        }
    }

    /// Completes when nobody reads the messages any more and never will (`demo | head`); never with a broker, which
    /// comes back.
    pub(super) fn abandoned(&mut self) -> impl Future<Output = ()> + use<> {
        let unread = match self {
            Self::Broker(_) => None,
            Self::Screen(screen) => screen.unread.take(),
        };
        async {
            let told = match unread {
                Some(unread) => unread.await.is_ok(),
                None => false,
            };
            if !told {
                pending::<()>().await;
            }
        }
    }

    /// What the live page shows of it.
    pub(super) fn view(&self) -> LinkView {
        match self {
            Self::Broker(uplink) => LinkView::Broker(uplink.state()),
            Self::Screen(_) => LinkView::Screen,
        }
    }

    /// Delivers what is left and the final notice, until the deadline. What remains is in the outbox.
    pub(super) async fn stop(self, notice: Message, deadline: Instant) {
        match self {
            Self::Broker(uplink) => {
                let limit = deadline.saturating_duration_since(Instant::now());
                uplink.stop(Some(notice), limit).await;
            }
            Self::Screen(screen) => screen.stop(notice).await,
        }
    }
}

/// How to reach the broker that the configuration names; `None`: messages go to the screen. Touches nothing yet.
pub fn link_settings(config: &Config, target: &LinkTarget, device: &str, topics: &Topics) -> Option<uplink::Settings> {
    let (certificate, ca) = match &config.iot_auth {
        IotAuth::SigV4 => (None, None),
        IotAuth::X509 { cert, key, ca } => {
            let (cert, key) = (cert.clone(), key.clone());
            (Some(ClientCertificate { cert, key }), ca.clone())
        }
    };
    let address = match target.clone() {
        LinkTarget::Screen => return None,
        LinkTarget::Broker(address) => Destination::Broker { address, certificate },
        LinkTarget::IotCore(endpoint) => Destination::IotCore(Arc::new(IotCore::new(
            AwsConfig::default(),
            endpoint,
            certificate.map_or(SignIn::SigV4, SignIn::Certificate),
            EndpointCache::new(&config.work_dir.join(device)),
        ))),
    };
    let pacing = if address.is_iot_core() {
        uplink::RateLimits::IOT_CORE
    } else {
        uplink::RateLimits::UNLIMITED
    };
    Some(uplink::Settings {
        address,
        pacing,
        client_id: device.to_owned(),
        topics: topics.clone(),
        qos: config.qos,
        ca,
        limits: uplink::Limits::default(),
    })
}

/// Prints each message as it would be published: topic, then payload.
pub(super) struct Screen {
    stop: oneshot::Sender<()>,
    printing: tokio::task::JoinHandle<()>,
    outbox: Arc<Outbox>,
    /// Told when stdout takes nothing more.
    unread: Option<oneshot::Receiver<()>>,
    /// Nobody sends commands to a screen; the channel must stay open all the same.
    _commands: mpsc::Sender<ReceivedCommand>,
}

impl Screen {
    fn start(outbox: Arc<Outbox>) -> (Self, mpsc::Receiver<ReceivedCommand>) {
        let (stop, mut stopped) = oneshot::channel();
        let (commands, receiver) = mpsc::channel(1);
        let (tell_unread, unread) = oneshot::channel();
        let source = outbox.clone();
        let printing = tokio::spawn(async move {
            while print_all(&source).is_ok() {
                tokio::select! {
                    () = source.pushed() => {}
                    _ = &mut stopped => {
                        let _ = print_all(&source);
                        return;
                    }
                }
            }
            let _ = tell_unread.send(());
        });
        (
            Self {
                stop,
                printing,
                outbox,
                unread: Some(unread),
                _commands: commands,
            },
            receiver,
        )
    }

    async fn stop(self, notice: Message) {
        self.outbox.push(notice);
        let _ = self.stop.send(());
        let _ = self.printing.await;
    }
}

fn print_all(outbox: &Outbox) -> std::io::Result<()> {
    while let Some((token, message)) = outbox.next_to_send() {
        // Not println!, which panics when nobody reads any more (`demo | head`).
        let text = String::from_utf8_lossy(&message.payload);
        writeln!(std::io::stdout(), "{} {text}", message.topic)?;
        outbox.acked(token);
    }
    Ok(())
}
