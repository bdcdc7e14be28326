//! Starts the channel of Edge Impulse Studio and what uses it, where the configuration asks for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::setup::Setup;
use crate::capture::CaptureTap;
use crate::config::Config;
use crate::status::StatusRegistry;
use crate::status::stats::Stats;
use crate::studio::channel::{
    ChannelHandle, ChannelLimits, ChannelService, ChannelSettings, ChannelTask, StudioAddresses, channel,
};
use crate::studio::collect::{CollectService, CollectSettings};
use crate::studio::frames::{FrameCandidates, FrameCollector, FrameSelector};
use crate::studio::monitor::{Monitor, MonitorSettings, MonitorTap};
use crate::studio::upload::{UploadHandle, UploadLimits, UploadSettings, Uploader};
use crate::studio::{ApiKeyReader, ApiKeySource, ModelUpdateService, StudioLimits, StudioUpdates, UpdateRequester};

/// Directory of the samples that wait, below `work_dir/<device>`.
const SAMPLES: &str = "studio-samples";
/// File with what was taken of the inputs lately, below `work_dir/<device>`.
const TAKEN_FRAMES: &str = "collect-frames.json";
/// File with the bytes that were sent for them today, below `work_dir/<device>`.
const SENT_BYTES: &str = "collect-bytes.json";
/// Directory of the stored inferences, below `work_dir/<device>`.
const RECORDS: &str = "studio-monitor";
/// Directory of the summaries that wait, below `work_dir/<device>`.
const SUMMARIES: &str = "studio-summaries";
/// The part of a stop that is for the end of the connection.
const CLOSE_LIMIT: Duration = Duration::from_millis(100);

/// What the link needs of the component.
pub(super) struct StudioLinkSettings<'a> {
    /// The configuration in force.
    pub setup: &'a Arc<Mutex<Arc<Setup>>>,
    pub device: &'a str,
    pub stats: &'a Arc<Stats>,
    /// Where its state and the uploads are shown.
    pub registry: &'a StatusRegistry,
    /// Copies of what the source delivers; `None`: Studio gets no samples.
    pub tap: Option<&'a Arc<CaptureTap>>,
    /// The inputs that the inference chooses; `None`: it chooses none.
    pub frames: Option<FrameCandidates>,
    /// The model that runs; `None`: none does, or nothing needs the channel.
    pub model: Option<LinkedModel<'a>>,
}

/// What Studio can do with the running model.
pub(super) struct LinkedModel<'a> {
    /// Requests updates.
    pub requester: &'a UpdateRequester,
    /// Shows that Studio has requested one.
    pub updates: &'a StudioUpdates,
    /// Its inferences; `None`: Studio does not see them.
    pub monitor: Option<&'a Arc<MonitorTap>>,
}

/// The running channel with its services, and the uploads.
pub(super) struct StudioLink {
    channel: Option<ChannelTask>,
    uploader: Option<Uploader>,
    monitor: Option<Arc<Monitor>>,
    _frames: Option<FrameCollector>,
}

/// What chooses inputs that are worth an upload; `None`: it is off.
pub(super) fn frame_selector(
    config: &Config,
    device: &str,
    stats: &Arc<Stats>,
) -> Option<(Arc<FrameSelector>, FrameCandidates)> {
    let state = config.work_dir.join(device).join(TAKEN_FRAMES);
    let collection = config.frame_collection?;
    Some(FrameSelector::new(collection, device, state, stats.clone()))
}

impl StudioLink {
    pub(super) fn start(mut settings: StudioLinkSettings<'_>) -> Self {
        let frames = settings.frames.take();
        let wants_channel = settings.tap.is_some() || settings.model.is_some();
        let (uploader, uploads) = (settings.tap.is_some() || frames.is_some())
            .then(|| start_uploader(&settings))
            .unzip();
        let frames = frames.zip(uploads.clone());
        let frames = frames.map(|(frames, uploads)| FrameCollector::start(frames, uploads));
        let (handle, ends) = channel();
        let mut services: Vec<Arc<dyn ChannelService>> = Vec::new();
        if let Some((tap, uploads)) = settings.tap.zip(uploads) {
            services.push(Arc::new(CollectService::start(CollectSettings {
                tap: tap.clone(),
                channel: handle.clone(),
                uploads,
                directory: settings.device_dir().join(SAMPLES),
            })));
        }
        let mut monitor = None;
        if let Some(model) = &settings.model {
            let updates = ModelUpdateService::new(handle.clone(), model.requester.clone(), model.updates.clone());
            services.push(Arc::new(updates));
            monitor = model.monitor.and_then(|tap| start_monitor(&settings, tap, handle));
        }
        if let Some(monitor) = &monitor {
            services.push(monitor.clone());
        }
        Self {
            channel: wants_channel.then(|| ChannelTask::start(channel_settings(&settings), ends, services)),
            uploader,
            monitor,
            _frames: frames,
        }
    }

    /// Sends what waits, and writes the samples in memory to the disk.
    pub(super) async fn stop(self, deadline: tokio::time::Instant) {
        let Self {
            channel,
            uploader,
            monitor,
            ..
        } = self;
        let stop_channel = async {
            if let Some(monitor) = monitor {
                monitor.stop(deadline - CLOSE_LIMIT).await;
            }
            if let Some(channel) = channel {
                channel.stop(deadline).await;
            }
        };
        let stop_uploader = async {
            if let Some(uploader) = uploader {
                uploader.stop(deadline).await;
            }
        };
        tokio::join!(stop_channel, stop_uploader);
    }
}

fn channel_settings(settings: &StudioLinkSettings<'_>) -> ChannelSettings {
    ChannelSettings {
        key: key_reader(settings.setup),
        addresses: StudioAddresses::from_env(),
        device_name: settings.device.to_owned(),
        system_root: PathBuf::from("/"),
        limits: ChannelLimits::default(),
        studio_limits: StudioLimits::default(),
        stats: settings.stats.clone(),
        state: settings.registry.studio_state().clone(),
        activity: settings.registry.studio_activity().clone(),
    }
}

fn start_uploader(settings: &StudioLinkSettings<'_>) -> (Uploader, UploadHandle) {
    let device_dir = settings.device_dir();
    let setup = settings.setup.clone();
    let daily_limit = move || {
        let collection = setup.lock().config.frame_collection;
        // What an earlier configuration left is still uploaded.
        collection.map_or(u64::MAX, |collection| collection.bytes_per_day)
    };
    Uploader::start(UploadSettings {
        key: key_reader(settings.setup),
        ingestion: StudioAddresses::from_env().ingestion(),
        directory: device_dir.join(SAMPLES),
        daily_bytes: device_dir.join(SENT_BYTES),
        daily_limit: Box::new(daily_limit),
        limits: UploadLimits::default(),
        stats: settings.stats.clone(),
        activity: settings.registry.studio_activity().clone(),
    })
}

/// `None`: the system cannot start a thread.
fn start_monitor(
    settings: &StudioLinkSettings<'_>,
    tap: &Arc<MonitorTap>,
    channel: ChannelHandle,
) -> Option<Arc<Monitor>> {
    let monitor = Monitor::start(MonitorSettings {
        tap: tap.clone(),
        channel,
        records: settings.device_dir().join(RECORDS),
        summaries: settings.device_dir().join(SUMMARIES),
        stats: settings.stats.clone(),
    });
    monitor
        .map(Arc::new)
        .inspect_err(|error| {
            tracing::error!(
                %error, advice = "restart the component when the system has fewer threads",
                "The monitoring by Edge Impulse Studio cannot be started"
            );
        })
        .ok()
}

impl StudioLinkSettings<'_> {
    fn device_dir(&self) -> PathBuf {
        self.setup.lock().config.work_dir.join(self.device)
    }
}

/// A deployment may change the secret.
fn key_reader(setup: &Arc<Mutex<Arc<Setup>>>) -> ApiKeyReader {
    let setup = setup.clone();
    Box::new(move || {
        let source = ApiKeySource::new(&setup.lock().config);
        Box::pin(async move { source.read().await })
    })
}
