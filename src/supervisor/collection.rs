//! `launch: linux`: collects data for Edge Impulse Studio, without a model, a broker and commands.
//!
//! The camera and the microphone are open all the time, each with a capture of its own. Nobody infers their frames; the data
//! collection gets copies from the tap.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::capture_supervisor::{self, CaptureSupervisor};
use super::config_update::ConfigUpdate;
use super::event::{EpochEvent, PipelineEvent, SessionEvent};
use super::run::RunEnd;
use super::setup::Setup;
use super::source_secrets::SourceSecrets;
use super::stuck_threads::StuckThreads;
use super::studio_link::{StudioLink, StudioLinkSettings};
use crate::capture::{AudioMailbox, CaptureSettings, CaptureTap, DeviceSelection, FrameMailbox, Received};
use crate::config::{Config, ShutdownBehavior};
use crate::http::live_page;
use crate::inference::LiveTap;
use crate::model::ModelInput;
use crate::status::stats::Stats;
use crate::status::{ComponentInfo, LinkStatus, ModelState, OutboxStatus, SourceState, StatusRegistry, StatusSource};

/// Size of the camera's pictures without `--width` and `--height`, in pixels: the smallest mode that is at least this large.
const PICTURE: (u32, u32) = (640, 480);
/// Samples per second of the microphone, the only rate that the program of Edge Impulse offers.
const FREQUENCY: u32 = 16_000;
/// A stop takes at most this long. Greengrass sends SIGKILL 5 s after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_millis(3_200);
/// Interval at which the threads that drop frames check whether they have to end.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Nothing is published in this mode.
#[derive(Debug)]
struct NoOutbox;

impl StatusSource<OutboxStatus> for NoOutbox {
    fn status(&self) -> OutboxStatus {
        OutboxStatus::default()
    }
}

/// Collects data until `stop` completes, or until the configuration changes.
pub async fn run(
    setup: Setup,
    device: &str,
    stop: impl Future<Output = ()>,
    mut updates: mpsc::Receiver<ConfigUpdate>,
) -> RunEnd {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %device, "ei-greengrass starts to collect data");
    let config = setup.config.clone();
    let (stats, live_tap, tap) = (Arc::<Stats>::default(), Arc::<LiveTap>::default(), Arc::default());
    let registry = Arc::new(StatusRegistry::new(
        ComponentInfo {
            device: device.to_owned(),
            live_page: config.preview.enabled,
            local_topics: false,
        },
        Arc::new(LinkStatus::Off),
        live_tap.clone(),
        Arc::new(NoOutbox),
        stats.clone(),
    ));
    registry.set_model_state(ModelState::Off);
    let _live_page = live_page::start(
        &config.preview,
        config.work_dir.join(device),
        live_tap,
        registry.clone(),
        None,
    );
    let link = StudioLink::start(StudioLinkSettings {
        setup: &Arc::new(Mutex::new(Arc::new(setup))),
        device,
        stats: &stats,
        registry: &registry,
        tap: Some(&tap),
        frames: None,
        model: None,
    });
    let mut sources = Sources::start(&config, &tap, &stats);
    let mut stop = pin!(stop);
    let end = loop {
        let due = sources.due();
        let flow = tokio::select! {
            () = &mut stop => ControlFlow::Break(RunEnd::Stopped),
            Some(update) = updates.recv() => on_config_update(update, &registry),
            Some((kind, event)) = sources.events.recv() => sources.on_event(kind, event, &registry),
            () = until(due) => sources.on_due(),
        };
        if let ControlFlow::Break(end) = flow {
            break end;
        }
    };
    let deadline = tokio::time::Instant::now() + STOP_LIMIT;
    tokio::join!(sources.stop(deadline), link.stop(deadline));
    tracing::info!("Stopped");
    end
}

/// Every change takes a new process, which is there at once: nothing is in progress that it would interrupt for long.
fn on_config_update(update: ConfigUpdate, registry: &StatusRegistry) -> ControlFlow<RunEnd> {
    match update {
        ConfigUpdate::Accepted(change) if !change.keys.is_empty() => {
            tracing::info!(keys = ?change.keys, "The configuration has changed");
            return ControlFlow::Break(RunEnd::Reexec);
        }
        ConfigUpdate::Accepted(_) => registry.configuration_flag().set_ok(),
        ConfigUpdate::Refused(reason) => {
            tracing::error!(
                reason,
                advice = "deploy a configuration that can run",
                "The configuration that was deployed cannot run; the one before stays in force"
            );
            registry.configuration_flag().set_failing(format_args!(
                "the one that was deployed cannot run, and the one before stays in force: {reason}"
            ));
        }
    }
    ControlFlow::Continue(())
}

/// Which of the two sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceKind {
    Camera,
    Microphone,
}

impl SourceKind {
    fn name(self) -> &'static str {
        match self {
            Self::Camera => "camera",
            Self::Microphone => "microphone",
        }
    }

    /// The option of `eiparams` that switches it off.
    fn off_option(self) -> &'static str {
        match self {
            Self::Camera => "--disable-camera",
            Self::Microphone => "--disable-microphone",
        }
    }
}

struct Source {
    kind: SourceKind,
    capture: CaptureSupervisor,
    state: SourceState,
}

/// The camera and the microphone.
struct Sources {
    all: Vec<Source>,
    events: mpsc::UnboundedReceiver<(SourceKind, EpochEvent)>,
    stuck_threads: Arc<StuckThreads>,
    is_stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Sources {
    fn start(config: &Config, tap: &Arc<CaptureTap>, stats: &Arc<Stats>) -> Self {
        // Unbounded, because each start or end of a source sends only a few events.
        let (sender, events) = mpsc::unbounded_channel();
        let stuck_threads = Arc::<StuckThreads>::default();
        let is_stopping = Arc::<AtomicBool>::default();
        let secrets = Arc::new(SourceSecrets::new(tokio::runtime::Handle::current()));
        let (frames, audio) = (Arc::new(FrameMailbox::new()), Arc::new(AudioMailbox::new()));
        let kinds = [
            (SourceKind::Camera, config.runner.disable_camera),
            (SourceKind::Microphone, config.runner.disable_microphone),
        ];
        let mut all = Vec::new();
        for (kind, _) in kinds.into_iter().filter(|(_, is_off)| !is_off) {
            let (own_sender, mut own_events) = mpsc::unbounded_channel();
            let forward = sender.clone();
            tokio::spawn(async move {
                while let Some(event) = own_events.recv().await {
                    let _ = forward.send((kind, event));
                }
            });
            let source = match kind {
                SourceKind::Camera => config.source.clone(),
                // Without a camera the line is that of the microphone.
                SourceKind::Microphone if config.runner.disable_camera => config.source.clone(),
                SourceKind::Microphone => None,
            };
            let settings = CaptureSettings {
                devices: DeviceSelection::from_options(&config.runner),
                still_interval: config.still_interval,
                microphone_channel: config.microphone_channel,
                tap: Some(tap.clone()),
                ..CaptureSettings::new(source)
            };
            let mut capture = CaptureSupervisor::new(
                settings,
                // There is no command `restart`.
                ShutdownBehavior::Restart,
                (frames.clone(), audio.clone()),
                stuck_threads.clone(),
                secrets.clone(),
                stats.clone(),
                own_sender,
            );
            let (input, features) = input_of(kind);
            capture.set_input(input, features);
            all.push(Source {
                kind,
                capture,
                state: SourceState::Starting,
            });
        }
        let threads = drop_frames(&frames, &audio, &is_stopping);
        Self {
            all,
            events,
            stuck_threads,
            is_stopping,
            threads,
        }
    }

    fn due(&self) -> Option<Instant> {
        self.all.iter().filter_map(|source| source.capture.due()).min()
    }

    fn on_due(&mut self) -> ControlFlow<RunEnd> {
        let now = Instant::now();
        for source in &mut self.all {
            if source.capture.due().is_some_and(|due| due <= now) && source.capture.on_due().is_break() {
                return ControlFlow::Break(RunEnd::Reexec);
            }
        }
        ControlFlow::Continue(())
    }

    fn on_event(
        &mut self,
        kind: SourceKind,
        EpochEvent { epoch, event }: EpochEvent,
        registry: &StatusRegistry,
    ) -> ControlFlow<RunEnd> {
        let SessionEvent::Capture(event) = event else {
            return ControlFlow::Continue(());
        };
        let Some(source) = self.all.iter_mut().find(|source| source.kind == kind) else {
            return ControlFlow::Continue(());
        };
        if !source.capture.is_current(epoch) {
            if let PipelineEvent::Started(Ok(capture)) = event {
                let stuck_threads = self.stuck_threads.clone();
                tokio::task::spawn_blocking(move || capture_supervisor::stop(capture, &stuck_threads));
            }
            return ControlFlow::Continue(());
        }
        if let Some(state) = event.source_state() {
            source.state = state;
        }
        let flow = source.capture.on_event(event);
        registry.set_source_state(self.state());
        match flow {
            ControlFlow::Continue(()) => ControlFlow::Continue(()),
            ControlFlow::Break(_) => ControlFlow::Break(RunEnd::Reexec),
        }
    }

    /// The state of the first source that does not work, else the state of the first one.
    fn state(&self) -> SourceState {
        for source in &self.all {
            if let SourceState::Waiting(reason) | SourceState::Stalled(reason) = &source.state {
                let (name, option) = (source.kind.name(), source.kind.off_option());
                return SourceState::Waiting(format!("{name}: {reason} ({option} in eiparams switches it off)"));
            }
        }
        self.all
            .first()
            .map_or(SourceState::Starting, |source| source.state.clone())
    }

    async fn stop(&mut self, deadline: tokio::time::Instant) {
        self.is_stopping.store(true, Ordering::Relaxed);
        futures_util::future::join_all(self.all.iter_mut().map(|source| source.capture.stop(deadline))).await;
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        let _ = tokio::time::timeout_at(deadline, joined).await;
    }
}

fn input_of(kind: SourceKind) -> (ModelInput, usize) {
    match kind {
        SourceKind::Camera => {
            let (width, height) = PICTURE;
            let input = ModelInput::Image {
                width,
                height,
                grey: false,
                resize: None,
            };
            (input, width as usize * height as usize)
        }
        SourceKind::Microphone => {
            let input = ModelInput::Audio {
                frequency: FREQUENCY,
                slice_size: 0,
                continuous: false,
            };
            (input, FREQUENCY as usize)
        }
    }
}

/// Takes frames and audio out of the mailboxes: the end of a file waits until its last frame is taken.
fn drop_frames(
    frames: &Arc<FrameMailbox>,
    audio: &Arc<AudioMailbox>,
    is_stopping: &Arc<AtomicBool>,
) -> Vec<JoinHandle<()>> {
    let (frames, audio) = (frames.clone(), audio.clone());
    let (frames_stop, audio_stop) = (is_stopping.clone(), is_stopping.clone());
    let spawn = |work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new()
            .name("collection".to_owned())
            .spawn(work)
            .map_err(|error| tracing::error!(%error, "A thread of the data collection cannot be started"))
            .ok()
    };
    let threads = [
        spawn(Box::new(move || {
            while !frames_stop.load(Ordering::Relaxed) {
                if let Received::Closed(_) = frames.receive(CHECK_INTERVAL) {
                    frames.wait_until_open(CHECK_INTERVAL);
                }
            }
        })),
        spawn(Box::new(move || {
            while !audio_stop.load(Ordering::Relaxed) {
                if let Received::Closed(_) = audio.receive(CHECK_INTERVAL) {
                    audio.wait_until_open(CHECK_INTERVAL);
                }
            }
        })),
    ];
    threads.into_iter().flatten().collect()
}

/// Completes at `time`, or never if it is `None`.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
