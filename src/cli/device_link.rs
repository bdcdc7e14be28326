//! The device and the connection to its broker, shared by `watch` and `send`.

use std::path::Path;

use super::{ConfigArgs, Exit, LogArgs, complain, logging};
use crate::config::Verbosity;
use crate::device::{Topics, peek};
use crate::supervisor::{sink_target, uplink_settings};
use crate::uplink::{AdHocClient, ConnectionError, Settings, ad_hoc_client_id};
use crate::util::text::sentence;

/// A device and how to reach it.
pub(super) struct DeviceLink {
    settings: Settings,
    /// The device's name.
    pub device: String,
    /// Its topics.
    pub topics: Topics,
}

impl DeviceLink {
    /// Reads the configuration as `run` does. `device`: full name of another device than this one.
    ///
    /// # Errors
    /// The exit code; the reason is already printed.
    pub(super) fn open(config: &ConfigArgs, device: Option<&str>, log: &LogArgs) -> Result<Self, Exit> {
        logging::init(log.log_format, log.verbosity().unwrap_or(Verbosity::Silent));
        let config = config
            .load_or_default()
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
        let Some(mut settings) = uplink_settings(&config, &target, &device, &topics) else {
            complain("no broker is configured; name one with --mqtt");
            return Err(Exit::Configuration);
        };
        settings.client_id = ad_hoc_client_id(&device);
        Ok(Self {
            settings,
            device,
            topics,
        })
    }

    /// Connects and subscribes.
    ///
    /// # Errors
    /// The exit code; the reason is already printed.
    pub(super) async fn connect(&self, topics: &[&str]) -> Result<AdHocClient, Exit> {
        let connected = async {
            let mut client = AdHocClient::connect(&self.settings).await?;
            client.subscribe(topics).await?;
            Ok(client)
        };
        connected.await.map_err(|error: ConnectionError| {
            complain(&format!("no connection to {}: {error}", self.settings.address));
            Exit::Failure
        })
    }
}

/// Runs a task until it ends or Ctrl-C is pressed (which is not a failure).
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
