//! Starts the channel of Edge Impulse Studio and what uses it, where the configuration asks for it.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::setup::Setup;
use crate::capture::CaptureTap;
use crate::config::Config;
use crate::status::StatusRegistry;
use crate::status::stats::Stats;
use crate::studio::channel::{ChannelLimits, ChannelSettings, ChannelTask, StudioAddresses, channel};
use crate::studio::collect::{CollectService, CollectSettings};
use crate::studio::frames::{FrameCandidates, FrameCollector, FrameSelector};
use crate::studio::upload::{UploadHandle, UploadLimits, UploadSettings, Uploader};
use crate::studio::{ApiKeyReader, ApiKeySource, StudioLimits};

/// Directory of the samples that wait, below `work_dir/<device>`.
const SAMPLES: &str = "studio-samples";
/// File with what was taken of the inputs lately, below `work_dir/<device>`.
const TAKEN_FRAMES: &str = "collect-frames.json";
/// File with the bytes that were sent for them today, below `work_dir/<device>`.
const SENT_BYTES: &str = "collect-bytes.json";

/// What the link needs of the component.
pub(super) struct StudioLinkSettings<'a> {
    /// The configuration in force.
    pub setup: &'a Arc<Mutex<Arc<Setup>>>,
    pub device: &'a str,
    pub stats: &'a Arc<Stats>,
    /// Where its state and the uploads are shown.
    pub registry: &'a StatusRegistry,
    /// Copies of what the source delivers; `None`: nothing needs the channel.
    pub tap: Option<&'a Arc<CaptureTap>>,
    /// The inputs that the inference chooses; `None`: it chooses none.
    pub frames: Option<FrameCandidates>,
}

/// The running channel with its services, and the uploads.
pub(super) struct StudioLink {
    channel: Option<ChannelTask>,
    uploader: Uploader,
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
        let device_dir = settings.setup.lock().config.work_dir.join(settings.device);
        let addresses = StudioAddresses::from_env();
        let setup = settings.setup.clone();
        let daily_limit = move || {
            let collection = setup.lock().config.frame_collection;
            // What an earlier configuration left is still uploaded.
            collection.map_or(u64::MAX, |collection| collection.bytes_per_day)
        };
        let (uploader, uploads) = Uploader::start(UploadSettings {
            key: key_reader(settings.setup),
            ingestion: addresses.ingestion(),
            directory: device_dir.join(SAMPLES),
            daily_bytes: device_dir.join(SENT_BYTES),
            daily_limit: Box::new(daily_limit),
            limits: UploadLimits::default(),
            stats: settings.stats.clone(),
            activity: settings.registry.studio_activity().clone(),
        });
        let frames = settings.frames.take();
        let frames = frames.map(|frames| FrameCollector::start(frames, uploads.clone()));
        let samples = device_dir.join(SAMPLES);
        let start_channel = |tap| start_channel(&settings, tap, addresses, uploads, samples);
        Self {
            channel: settings.tap.map(start_channel),
            uploader,
            _frames: frames,
        }
    }

    /// Sends what waits, and writes the samples in memory to the disk.
    pub(super) async fn stop(self, deadline: tokio::time::Instant) {
        let stop_channel = async {
            if let Some(channel) = self.channel {
                channel.stop(deadline).await;
            }
        };
        tokio::join!(stop_channel, self.uploader.stop(deadline));
    }
}

fn start_channel(
    settings: &StudioLinkSettings<'_>,
    tap: &Arc<CaptureTap>,
    addresses: StudioAddresses,
    uploads: UploadHandle,
    samples: PathBuf,
) -> ChannelTask {
    let (handle, ends) = channel();
    let collect = CollectService::start(CollectSettings {
        tap: tap.clone(),
        channel: handle,
        uploads,
        directory: samples,
    });
    let channel_settings = ChannelSettings {
        key: key_reader(settings.setup),
        addresses,
        device_name: settings.device.to_owned(),
        system_root: PathBuf::from("/"),
        limits: ChannelLimits::default(),
        studio_limits: StudioLimits::default(),
        stats: settings.stats.clone(),
        state: settings.registry.studio_state().clone(),
        activity: settings.registry.studio_activity().clone(),
    };
    ChannelTask::start(channel_settings, ends, vec![Arc::new(collect)])
}

/// A deployment may change the secret.
fn key_reader(setup: &Arc<Mutex<Arc<Setup>>>) -> ApiKeyReader {
    let setup = setup.clone();
    Box::new(move || {
        let source = ApiKeySource::new(&setup.lock().config);
        Box::pin(async move { source.read().await })
    })
}
