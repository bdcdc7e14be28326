//! Which zones, lines and rules are in force: those of the deployment, or those that a command has set.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::{EventRecorder, EventSettings, Inner, now};
use crate::config::{EventsConfig, parse_events};
use crate::events::store::CommandedConfig;

impl EventRecorder {
    /// Changes the settings. A configuration that a command has set stays while that of the deployment is the same.
    pub fn set_settings(self: &Arc<Self>, settings: EventSettings) {
        let mut inner = self.inner.lock();
        let is_other = inner.settings.deployed != settings.deployed;
        inner.settings = settings;
        if !inner.picture_outputs().any() {
            inner.queue.forget_pictures();
        }
        if is_other {
            self.apply_config(&mut inner);
        }
    }

    /// Sets the configuration until the deployment has another one; `None`: no events.
    pub fn set_config(self: &Arc<Self>, config: Option<&EventsConfig>) {
        let mut inner = self.inner.lock();
        inner.command = Some(CommandedConfig {
            events: to_json(config),
            deployed: to_json(inner.settings.deployed.as_ref()),
        });
        inner.is_dirty = true;
        self.apply_config(&mut inner);
        self.wake(&mut inner);
    }

    /// Returns to the configuration of the deployment.
    pub fn use_deployed_config(self: &Arc<Self>) {
        let mut inner = self.inner.lock();
        inner.command = None;
        inner.is_dirty = true;
        self.apply_config(&mut inner);
        self.wake(&mut inner);
    }

    /// Sets what a person gives: an object with zones, lines and rules or its JSON text, `none`, or `deployed`.
    ///
    /// # Errors
    /// What is wrong and what is accepted. Nothing is changed.
    pub fn set_given(self: &Arc<Self>, value: &Value) -> Result<(), String> {
        const ACCEPTED: &str = "accepted: an object with zones, lines and rules, \"none\" or \"deployed\"";
        match value.as_str().map(str::trim) {
            Some("none") => self.set_config(None),
            Some("deployed") => self.use_deployed_config(),
            Some("") => return Err(ACCEPTED.to_owned()),
            _ if value.is_null() => return Err(ACCEPTED.to_owned()),
            _ => {
                let config = parse_events(value).map_err(|reason| format!("the value {reason}"))?;
                self.set_config(Some(&config));
            }
        }
        Ok(())
    }

    /// A number that grows when [`config`](Self::config) or [`is_deployed`](Self::is_deployed) may have changed.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// Whether the zones, lines and rules in force are those of the deployment.
    pub fn is_deployed(&self) -> bool {
        self.inner.lock().command.is_none()
    }

    /// Takes the configuration of the command or of the deployment.
    pub(super) fn apply_config(self: &Arc<Self>, inner: &mut Inner) {
        // Readers take the lock afterwards, so they see what this call does.
        self.revision.fetch_add(1, Ordering::Relaxed);
        let deployed = to_json(inner.settings.deployed.as_ref());
        if inner
            .command
            .as_ref()
            .is_some_and(|command| command.deployed != deployed)
        {
            inner.command = None;
            inner.is_dirty = true;
        }
        let config = match &inner.command {
            Some(command) if command.events.is_null() => None,
            Some(command) => match parse_events(&command.events) {
                Ok(config) => Some(config),
                Err(reason) => {
                    tracing::error!(%reason, "The configuration of events that a command has set cannot be used any more");
                    None
                }
            },
            None => inner.settings.deployed.clone(),
        };
        let (config, was_on) = (config.unwrap_or_default(), inner.engine.is_on());
        if **inner.engine.config() == config {
            if inner.is_dirty {
                self.wake(inner);
            }
            return;
        }
        let events = inner.engine.set_config(Arc::new(config), now(None));
        inner.clips.set_delay(inner.longest_delay());
        inner.warn_of_labels();
        let is_on = inner.engine.is_on();
        self.is_on.store(is_on, Ordering::Relaxed);
        if is_on || was_on {
            inner.is_dirty = true;
        }
        self.enqueue(inner, events, None);
        if inner.is_dirty {
            self.wake(inner);
        }
    }

    /// The zones, lines and rules in force as JSON; null: none.
    pub fn config(&self) -> Value {
        let inner = self.inner.lock();
        to_json(inner.engine.is_on().then(|| &**inner.engine.config()))
    }
}

fn to_json(config: Option<&EventsConfig>) -> Value {
    config.map_or(Value::Null, EventsConfig::to_json)
}
