//! Starts the local topics, where the configuration asks for them and there is a nucleus.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::context::Context;
use crate::commands;
use crate::config::Config;
use crate::local_topics::{self, LocalTopics, LocalTopicsSettings, LocalTopicsTimes};
use crate::nucleus::Nucleus;
use crate::status::stats::Stats;
use crate::uplink::{MessageCopies, ReceivedCommand};

/// The ends of the local topics that exist before the other parts.
pub(super) struct LocalTopicsEnds {
    nucleus: Nucleus,
    pub(super) copies: Arc<MessageCopies>,
}

/// `None`: they are off, or Greengrass did not start this process (logged).
pub(super) fn prepare(config: &Config, stats: &Arc<Stats>) -> Option<LocalTopicsEnds> {
    if !config.local_topics {
        return None;
    }
    let Some(nucleus) = Nucleus::from_env() else {
        tracing::warn!("The key local_topics has no effect: Greengrass did not start this process");
        return None;
    };
    let copies = Arc::new(MessageCopies::new(stats.clone()));
    Some(LocalTopicsEnds { nucleus, copies })
}

impl LocalTopicsEnds {
    pub(super) fn start(self, context: &Context, commands: mpsc::Sender<ReceivedCommand>) -> LocalTopics {
        local_topics::start(LocalTopicsSettings {
            nucleus: self.nucleus,
            topics: context.topics.clone(),
            qos: context.setup().config.qos,
            copies: self.copies,
            outbox: context.outbox.clone(),
            commands,
            refusal_answer: commands::refusal_answer,
            stats: context.stats.clone(),
            health: context.registry.local_topics_flag().clone(),
            times: LocalTopicsTimes::default(),
        })
    }
}
