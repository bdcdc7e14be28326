//! What `watch` and `send` share: which device, over which broker.

use std::path::Path;

use super::{ConfigArgs, Exit, LogArgs, complain, logging};
use crate::config::{Sources, Verbosity, load};
use crate::device::{Topics, peek};
use crate::supervisor::{sink_target, uplink_settings};
use crate::uplink::{AdHocClient, Settings};
use crate::util::text::sentence;

/// A device and the way to it.
pub(super) struct DeviceLink {
    settings: Settings,
    /// The device's name.
    pub device: String,
    /// Its topics.
    pub topics: Topics,
}

impl DeviceLink {
    /// Reads the configuration as `run` does. `device`: another device than this one, by its full name.
    ///
    /// # Errors
    /// How to end; why has been said.
    pub(super) fn open(config: &ConfigArgs, device: Option<&str>, log: &LogArgs) -> Result<Self, Exit> {
        logging::init(log.log_format, log.verbosity().unwrap_or(Verbosity::Silent));
        let loaded = match config.load() {
            Ok(Some(loaded)) => Ok(loaded),
            // The defaults name a device too, and IoT Core.
            Ok(None) => load(&Sources::default()),
            Err(e) => Err(e),
        };
        let config = loaded
            .map_err(|e| {
                complain(&sentence(&e));
                Exit::Configuration
            })?
            .config;
        let device = match device {
            Some(device) => device.to_owned(),
            None => peek(&config.device_name, &config.work_dir, Path::new("/")).name,
        };
        let topics = Topics::new(&device);
        let target = sink_target(&config).map_err(|e| {
            complain(&e);
            Exit::Configuration
        })?;
        let Some(settings) = uplink_settings(&config, &target, &device, &topics) else {
            complain("there is no broker to connect to; name one with --mqtt");
            return Err(Exit::Configuration);
        };
        Ok(Self {
            settings,
            device,
            topics,
        })
    }

    /// Connects and subscribes.
    ///
    /// # Errors
    /// How to end; why has been said.
    pub(super) async fn visit(&self, topics: &[&str]) -> Result<AdHocClient, Exit> {
        AdHocClient::start(self.settings.clone(), topics)
            .await
            .map_err(|reason| {
                complain(&format!("no connection to {}: {reason}", self.settings.address));
                Exit::Failure
            })
    }
}

/// Runs a task of the command line until it ends, or Ctrl-C does (which is no failure).
pub(super) fn block_on(task: impl Future<Output = Exit>) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            complain(&format!("the runtime cannot be started: {e}"));
            return Exit::Failure;
        }
    };
    runtime.block_on(async {
        tokio::select! {
            exit = task => exit,
            _ = tokio::signal::ctrl_c() => Exit::Orderly,
        }
    })
}
