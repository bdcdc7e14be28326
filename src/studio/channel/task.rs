//! The task that keeps the channel connected.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;

use super::connection::{Connection, ConnectionEnd, stopped};
use super::error::ChannelError;
use super::handle::{ChannelEnds, ChannelHandle, ends};
use super::hello::{HelloOffer, hello};
use super::incoming::{Incoming, IncomingKind};
use super::limits::ChannelLimits;
use super::outgoing::Outgoing;
use super::registration::register;
use super::service::ChannelService;
use super::socket;
use super::studio_device::StudioDevice;
use crate::status::stats::Stats;
use crate::status::{StudioActivity, StudioProject, StudioState, StudioStateCell};
use crate::studio::api_key::ApiKeyReader;
use crate::studio::client::StudioClient;
use crate::studio::host::{HostError, StudioService, base_url, service_url};
use crate::studio::limits::StudioLimits;
use crate::util::backoff::{Backoff, Retry};
use crate::util::clock::rounded;
use crate::util::log_limiter::LogLimiter;
use crate::util::panics::PanicRestart;
use crate::util::secret::Secret;

/// This many short connections in a row look like another device with the same id.
const SHORT_CONNECTIONS: u32 = 3;

/// Camera and microphone start at about the same time.
const SETTLE: Duration = Duration::from_millis(500);

/// The addresses of Studio, as the environment gives them.
#[derive(Debug, Clone, Default)]
pub struct StudioAddresses {
    /// `EI_HOST`
    pub ei_host: Option<String>,
    /// `EI_REMOTE_MGMT_URL`
    pub remote_management: Option<String>,
    /// `EI_INGESTION_URL`
    pub ingestion: Option<String>,
}

impl StudioAddresses {
    /// Reads the environment.
    pub fn from_env() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        Self {
            ei_host: variable("EI_HOST"),
            remote_management: variable(StudioService::RemoteManagement.variable()),
            ingestion: variable(StudioService::Ingestion.variable()),
        }
    }

    /// The address of the channel.
    ///
    /// # Errors
    /// [`HostError`]
    pub fn remote_management(&self) -> Result<Url, HostError> {
        let given = self.remote_management.as_deref();
        service_url(StudioService::RemoteManagement, self.ei_host.as_deref(), given)
    }

    /// The address of ingestion.
    ///
    /// # Errors
    /// [`HostError`]
    pub fn ingestion(&self) -> Result<Url, HostError> {
        let given = self.ingestion.as_deref();
        service_url(StudioService::Ingestion, self.ei_host.as_deref(), given)
    }
}

/// What the task needs.
pub struct ChannelSettings {
    /// Reads the API key, before each connection.
    pub key: ApiKeyReader,
    /// Where Studio is.
    pub addresses: StudioAddresses,
    /// The name of the device, for a device that has none in Studio yet.
    pub device_name: String,
    /// `/`, or a tree with network cards for tests.
    pub system_root: PathBuf,
    /// Time and size limits of the channel.
    pub limits: ChannelLimits,
    /// Time and size limits of the requests after the hello.
    pub studio_limits: StudioLimits,
    /// Counts connections.
    pub stats: Arc<Stats>,
    /// Where the state is shown.
    pub state: StudioStateCell,
    /// Where the project is shown.
    pub activity: StudioActivity,
}

/// A channel that is not started yet: services are made with the handle.
pub fn channel() -> (ChannelHandle, ChannelEnds) {
    ends()
}

/// The running task. It ends when this is dropped; [`ChannelTask::stop`] ends it in order.
#[derive(Debug)]
pub struct ChannelTask {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl ChannelTask {
    /// Starts to connect.
    pub fn start(settings: ChannelSettings, ends: ChannelEnds, services: Vec<Arc<dyn ChannelService>>) -> Self {
        let (stop, stopping) = watch::channel(false);
        settings.state.set(StudioState::Connecting);
        let mut runner = ChannelRunner {
            backoff: Backoff::new(settings.limits.backoff),
            settings,
            ends,
            services,
            stop: stopping,
            device: None,
            number: 0,
            is_registered: false,
            short_connections: 0,
            told_refusal: None,
            log_limiter: LogLimiter::default(),
        };
        let task = tokio::spawn(async move {
            let mut restart = PanicRestart::new("studio channel");
            while let Err(wait) = restart.attempt(runner.run()).await {
                runner.ends.connection.send_replace(None);
                tokio::time::sleep(wait).await;
            }
        });
        Self { stop, task }
    }

    /// Writes what waits, closes the connection and ends the task.
    pub async fn stop(mut self, deadline: tokio::time::Instant) {
        self.stop.send_replace(true);
        let _ = tokio::time::timeout_at(deadline, &mut self.task).await;
    }
}

impl Drop for ChannelTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct ChannelRunner {
    settings: ChannelSettings,
    ends: ChannelEnds,
    services: Vec<Arc<dyn ChannelService>>,
    stop: watch::Receiver<bool>,
    /// Determined at the first connection: at the start of the machine the network card may have no address yet.
    device: Option<StudioDevice>,
    /// Number of the present connection.
    number: u64,
    is_registered: bool,
    backoff: Backoff,
    /// Connections in a row that Studio ended shortly after the hello.
    short_connections: u32,
    /// The refusal that is in the log.
    told_refusal: Option<String>,
    log_limiter: LogLimiter,
}

impl ChannelRunner {
    async fn run(&mut self) {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = self.wait_for_offer() => {}
            () = stopped(&mut stop) => return,
        }
        loop {
            let established = tokio::select! {
                established = self.establish() => established,
                () = stopped(&mut stop) => return,
            };
            let (error, lasted) = match established {
                Ok(established) => {
                    let begun = Instant::now();
                    match self.exchange(established).await {
                        ConnectionEnd::Stopped => return,
                        ConnectionEnd::OfferChanged => {
                            tracing::info!(
                                "Connecting to Edge Impulse Studio again, because what this device offers has changed"
                            );
                            self.settings.state.set(StudioState::Connecting);
                            continue;
                        }
                        ConnectionEnd::Failed(error) => (error, Some(begun.elapsed())),
                    }
                }
                Err(error) => (error, None),
            };
            let wait = self.failed(&error, lasted);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stopped(&mut stop) => return,
            }
        }
    }

    /// The first hello waits until the services know what they offer: the size of the camera's pictures, for example.
    async fn wait_for_offer(&mut self) {
        let known = async {
            self.ends.offer_changed.notified().await;
            // A second source follows soon, and needs no second hello.
            tokio::time::sleep(SETTLE).await;
        };
        let _ = tokio::time::timeout(self.settings.limits.first_offer, known).await;
    }

    /// Connects and says hello.
    async fn establish(&mut self) -> Result<Established, ChannelError> {
        let url = self.settings.addresses.remote_management()?;
        let key = (self.settings.key)().await?;
        let socket = socket::open(&url, &self.settings.limits).await?;
        let device = match &self.device {
            Some(device) => device.clone(),
            None => StudioDevice::detect(&self.settings.system_root, &self.settings.device_name),
        };
        self.device = Some(device.clone());
        self.number += 1;
        let offer = offer_of(&self.services);
        let text = hello(&key, &device, &offer);
        let connection = Connection::greet(socket, text, self.number, self.settings.limits).await?;
        Ok(Established {
            connection,
            device,
            offer,
            key,
        })
    }

    /// Exchanges messages until the connection ends. The device is registered meanwhile.
    async fn exchange(&mut self, established: Established) -> ConnectionEnd {
        let Established {
            mut connection,
            device,
            offer,
            key,
        } = established;
        self.connected(&device);
        let (settings, services) = (&self.settings, &self.services);
        let stable_at = tokio::time::Instant::now() + settings.limits.short_connection;
        let was_registered = self.is_registered;
        let is_registered = &mut self.is_registered;
        let meanwhile = async {
            if !was_registered {
                *is_registered = registered(settings, &device, &key).await;
            }
            // Another device with the same id would have ended it by now.
            tokio::time::sleep_until(stable_at).await;
            settings.state.set(StudioState::Online);
            std::future::pending().await
        };
        let dispatch = |kind: IncomingKind, incoming: Incoming| dispatch(services, kind, incoming);
        let is_offer_new = || offer_of(services).differs_from(&offer);
        let mut stop = self.stop.clone();
        let end = tokio::select! {
            end = connection.run(&mut self.ends, &dispatch, is_offer_new, &mut stop) => end,
            () = meanwhile => ConnectionEnd::Stopped,
        };
        self.ends.connection.send_replace(None);
        for service in &self.services {
            service.disconnected();
        }
        end
    }

    fn connected(&mut self, device: &StudioDevice) {
        self.backoff.succeeded(Instant::now());
        self.told_refusal = None;
        self.settings.stats.studio_connects.inc();
        // While another device takes the connection again and again, the problem stays visible.
        if self.short_connections < SHORT_CONNECTIONS {
            self.settings.state.set(StudioState::Online);
            tracing::info!(device_id = device.id, "Connected to Edge Impulse Studio");
        }
        self.ends.connection.send_replace(Some(self.number));
    }

    /// Logs and shows a failure. Returns the delay before the next attempt. `lasted`: the connection worked this long.
    fn failed(&mut self, error: &ChannelError, lasted: Option<Duration>) -> Duration {
        let now = Instant::now();
        self.short_connections = match lasted {
            Some(lasted) if error.is_end_by_studio() && lasted < self.settings.limits.short_connection => {
                self.short_connections.saturating_add(1)
            }
            Some(_) => 0,
            None => self.short_connections,
        };
        if let ChannelError::Refused(text) = error {
            self.refused(text);
            return self.settings.limits.refused;
        }
        let wait = match error.retry() {
            Retry::Soon => self.backoff.failed(now),
            Retry::Later => self.settings.limits.refused,
        };
        let retry_in = rounded(wait);
        if self.short_connections >= SHORT_CONNECTIONS {
            self.contended(now, retry_in);
        } else {
            self.settings.state.set(StudioState::Offline(error.to_string()));
            if let Some(suppressed) = self.log_limiter.check_words(now, &error.to_string()) {
                let suppressed = suppressed.count();
                match error.retry() {
                    Retry::Soon => {
                        tracing::warn!(%error, ?retry_in, suppressed, "No connection to Edge Impulse Studio")
                    }
                    Retry::Later => {
                        tracing::error!(%error, ?retry_in, suppressed, "No connection to Edge Impulse Studio")
                    }
                }
            }
        }
        wait
    }

    /// A refused key is told once, not at each attempt.
    fn refused(&mut self, text: &str) {
        let retry_in = self.settings.limits.refused;
        let reason = format!(
            "Edge Impulse Studio refuses this device: {text}; create an API key in Studio (Dashboard, Keys) and store it in the secret"
        );
        self.settings.state.set(StudioState::Refused(reason));
        if self.told_refusal.as_deref() == Some(text) {
            tracing::debug!(error = text, ?retry_in, "Edge Impulse Studio still refuses this device");
            return;
        }
        self.told_refusal = Some(text.to_owned());
        tracing::error!(
            error = text,
            ?retry_in,
            advice = "create an API key in Studio (Dashboard, Keys) and store it in the secret (ei_sm_secret_id)",
            "Edge Impulse Studio refuses this device"
        );
    }

    fn contended(&mut self, now: Instant, retry_in: Duration) {
        let id = self.device.as_ref().map_or("", |device| &device.id);
        self.settings.state.set(StudioState::Contended(format!(
            "Edge Impulse Studio ends the connection again and again shortly after it accepted it: another device or component with \
             the id {id} (its network card) may be connected; only one can be"
        )));
        if let Some(suppressed) = self.log_limiter.check(now, "contended") {
            tracing::error!(
                device_id = id,
                ?retry_in,
                suppressed = suppressed.count(),
                advice = "only one component of a machine can be connected to Studio: stop edge-impulse-linux, the data collection \
                          component or the monitoring runner on it, and look for a cloned disk",
                "Edge Impulse Studio ends the connection again and again; another device or component may use the same id"
            );
        }
    }
}

/// A connection whose hello was accepted.
struct Established {
    connection: Connection,
    device: StudioDevice,
    /// What the hello offered.
    offer: HelloOffer,
    key: Secret,
}

fn offer_of(services: &[Arc<dyn ChannelService>]) -> HelloOffer {
    let mut offer = HelloOffer::default();
    for service in services {
        service.add_to_hello(&mut offer);
    }
    offer
}

/// Gives a message to the service that handles it; returns the refusal where there is none.
fn dispatch(services: &[Arc<dyn ChannelService>], kind: IncomingKind, incoming: Incoming) -> Option<Outgoing> {
    match services.iter().find(|service| service.kinds().contains(&kind)) {
        Some(service) => {
            service.handle(incoming);
            None
        }
        None => incoming.refusal(match kind {
            IncomingKind::Sample | IncomingKind::StartSnapshot => {
                "this device takes no samples: its configuration has the key collect off"
            }
            _ => "this component is not configured for it",
        }),
    }
}

/// Registers the device and logs the result. `false`: it failed; the next connection tries again.
async fn registered(settings: &ChannelSettings, device: &StudioDevice, key: &Secret) -> bool {
    let registration = async {
        let base = base_url(settings.addresses.ei_host.as_deref())?;
        let link = link_without_password(&base);
        let studio = StudioClient::new(base, key, settings.studio_limits)?;
        Ok::<_, ChannelError>((link, register(&studio, device).await?))
    };
    match registration.await {
        Ok((link, registration)) => {
            let link = format!("{link}/studio/{}/acquisition/training", registration.project_id);
            tracing::info!(
                device = registration.device_name,
                project = registration.project,
                link,
                "This device is known to Edge Impulse Studio"
            );
            settings.activity.set_project(StudioProject {
                name: registration.project,
                device: registration.device_name,
                link,
            });
            true
        }
        Err(error) => {
            tracing::warn!(%error, "The device could not be named in Edge Impulse Studio");
            false
        }
    }
}

/// The address of Studio for a browser.
fn link_without_password(base: &Url) -> String {
    let mut link = base.clone();
    // A URL with a host always allows this.
    let _ = link.set_username("");
    let _ = link.set_password(None);
    link.as_str().trim_end_matches("/v1").to_owned()
}
