//! Applies a configuration that is deployed while the session runs.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::{Session, caches, event_settings, metrics_interval, outputs};
use crate::config::Config;
use crate::supervisor::config_update::{ConfigUpdate, Effect};
use crate::supervisor::session_end::SessionEnd;
use crate::uplink::Message;

/// How long a replaced cache may write its pairs.
const REPLACED_CACHE_LIMIT: Duration = Duration::from_secs(10);

impl Session<'_> {
    /// Applies the new configuration, or ends the session so that the next one starts with it. Tells what changed in one
    /// notice on `command/output`.
    pub(super) fn on_config_update(&mut self, update: ConfigUpdate) -> ControlFlow<SessionEnd> {
        let present = self.context.setup();
        let change = match update {
            ConfigUpdate::Accepted(change) => *change,
            ConfigUpdate::Refused(reason) => {
                self.refuse_config(&reason);
                return ControlFlow::Continue(());
            }
        };
        self.context.registry.configuration_flag().set_ok();
        if change.keys.is_empty() && change.setup.config == present.config {
            tracing::info!("The configuration that was deployed is the one in force");
            return ControlFlow::Continue(());
        }
        let mut effect = Effect::of(&present.config, &change.setup.config);
        if effect == Effect::AtOnce
            && let Err(error) = self.apply_at_once(&present.config, &change.setup.config)
        {
            tracing::warn!(%error, "The caches cannot be changed while the session runs");
            effect = Effect::NewSession;
        }
        let applied: &str = effect.into();
        tracing::info!(keys = ?change.keys, applied, "The configuration has changed");
        self.context.outbox.push(Message::reconfigured(
            &self.context.topics,
            &change.keys,
            applied,
            &change.warnings,
            change.setup.config.qos,
        ));
        *self.context.setup.lock() = Arc::new(change.setup);
        match effect {
            Effect::AtOnce => ControlFlow::Continue(()),
            Effect::NewSession => ControlFlow::Break(SessionEnd::Reconfigure),
            Effect::NewProcess => ControlFlow::Break(SessionEnd::Reexec),
        }
    }

    fn refuse_config(&self, reason: &str) {
        self.context.registry.configuration_flag().set_failing(format_args!(
            "the one that was deployed cannot run, and the one before stays in force: {reason}"
        ));
        let qos = self.context.setup().config.qos;
        self.context
            .outbox
            .push(Message::config_refused(&self.context.topics, reason, qos));
    }

    /// Changes what differs. Settings made by commands stay where the configuration has not changed.
    ///
    /// # Errors
    /// The system cannot start the thread of a cache; nothing was changed.
    fn apply_at_once(&mut self, old: &Config, new: &Config) -> io::Result<()> {
        let (changed, replaced) = caches::change(self.context, &self.caches, old, new)?;
        self.caches = changed;
        self.context.registry.set_caches(caches::status(&self.caches, new));
        self.publisher.set_outputs(outputs(new, &self.caches));
        self.context.events.set_pairs(self.publisher.pair_destination());
        self.context.events.set_settings(event_settings(new));
        if replaced.count() > 0 {
            tokio::spawn(caches::stop(replaced, REPLACED_CACHE_LIMIT));
        }
        {
            let mut report = self.report.lock();
            if new.filter != old.filter {
                report.set_filter(new.filter);
            }
            if new.iotcore_backoff != old.iotcore_backoff {
                report.set_publish_every(new.iotcore_backoff);
            }
        }
        if let (Some(selector), Some(config)) = (&self.context.frame_selector, new.frame_collection) {
            selector.reconfigure(config);
        }
        if new.metrics_interval != old.metrics_interval {
            self.metrics = metrics_interval(new);
        }
        Ok(())
    }
}
