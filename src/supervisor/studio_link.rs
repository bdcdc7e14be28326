//! Starts the channel of Edge Impulse Studio and what uses it, where the configuration asks for it.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::setup::Setup;
use crate::capture::CaptureTap;
use crate::status::StatusRegistry;
use crate::status::stats::Stats;
use crate::studio::channel::{ChannelLimits, ChannelSettings, ChannelTask, StudioAddresses, channel};
use crate::studio::collect::{CollectService, CollectSettings};
use crate::studio::upload::{UploadLimits, UploadSettings, Uploader};
use crate::studio::{ApiKeyReader, ApiKeySource, StudioLimits};

/// Directory of the samples that wait, below `work_dir/<device>`.
const SAMPLES: &str = "studio-samples";

/// What the link needs of the component.
pub(super) struct StudioLinkSettings<'a> {
    /// The configuration in force.
    pub setup: &'a Arc<Mutex<Arc<Setup>>>,
    pub device: &'a str,
    pub stats: &'a Arc<Stats>,
    /// Where its state and the uploads are shown.
    pub registry: &'a StatusRegistry,
    /// Copies of what the source delivers.
    pub tap: &'a Arc<CaptureTap>,
}

/// The running channel with its services.
pub(super) struct StudioLink {
    channel: ChannelTask,
    uploader: Uploader,
}

impl StudioLink {
    pub(super) fn start(settings: &StudioLinkSettings<'_>) -> Self {
        let device_dir = settings.setup.lock().config.work_dir.join(settings.device);
        let addresses = StudioAddresses::from_env();
        let (uploader, uploads) = Uploader::start(UploadSettings {
            key: key_reader(settings.setup),
            ingestion: addresses.ingestion(),
            directory: device_dir.join(SAMPLES),
            limits: UploadLimits::default(),
            stats: settings.stats.clone(),
            activity: settings.registry.studio_activity().clone(),
        });
        let (handle, ends) = channel();
        let collect = CollectService::start(CollectSettings {
            tap: settings.tap.clone(),
            channel: handle,
            uploads,
            directory: device_dir.join(SAMPLES),
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
        Self {
            channel: ChannelTask::start(channel_settings, ends, vec![Arc::new(collect)]),
            uploader,
        }
    }

    /// Sends what waits, and writes the samples in memory to the disk.
    pub(super) async fn stop(self, deadline: tokio::time::Instant) {
        tokio::join!(self.channel.stop(deadline), self.uploader.stop(deadline));
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
