//! Starts the channel of Edge Impulse Studio, where the configuration asks for it.

use std::path::PathBuf;
use std::sync::Arc;

use super::context::Context;
use crate::studio::channel::{
    ChannelHandle, ChannelLimits, ChannelService, ChannelSettings, ChannelTask, StudioAddresses, channel,
};
use crate::studio::{ApiKeySource, StudioLimits};

/// The running channel with its services.
pub(super) struct StudioLink {
    channel: ChannelTask,
}

impl StudioLink {
    /// `None`: nothing in the configuration asks for it.
    pub(super) fn start(context: &Context) -> Option<Self> {
        if !context.setup().config.wants_studio_channel() {
            return None;
        }
        let (handle, ends) = channel();
        Some(Self {
            channel: ChannelTask::start(settings(context), ends, services(&handle)),
        })
    }

    pub(super) async fn stop(self, deadline: tokio::time::Instant) {
        self.channel.stop(deadline).await;
    }
}

fn services(_handle: &ChannelHandle) -> Vec<Arc<dyn ChannelService>> {
    Vec::new()
}

fn settings(context: &Context) -> ChannelSettings {
    let setup = context.setup.clone();
    ChannelSettings {
        key: Box::new(move || {
            let source = ApiKeySource::new(&setup.lock().config);
            Box::pin(async move { source.read().await })
        }),
        addresses: StudioAddresses::from_env(),
        device_name: context.device.clone(),
        system_root: PathBuf::from("/"),
        limits: ChannelLimits::default(),
        studio_limits: StudioLimits::default(),
        stats: context.stats.clone(),
        state: context.registry.studio_state().clone(),
    }
}
