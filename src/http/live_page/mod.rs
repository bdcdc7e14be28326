//! The live page at `http://<device>:4912` shows pictures and results of the model. The same port has a WebSocket for
//! applications of the existing runner.
//!
//! The inference loop offers each inference to the [`LiveTap`], which costs one relaxed load while there are no viewers. The
//! status comes from the [`StatusRegistry`]. The live page cannot slow down the inference loop: results pass through bounded
//! channels that drop the oldest, and pictures are encoded only while a viewer wants them.

mod events_api;
mod messages;
mod mjpeg;
mod page;
mod page_state;
mod runner_socket;
mod server;
mod token;
mod viewer_encoder;
mod viewer_socket;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::access::Access;
use super::listener::{Service, bind};
use crate::config::PreviewConfig;
use crate::events::EventRecorder;
use crate::inference::LiveTap;
use crate::status::StatusRegistry;
use crate::util::panics::PanicRestart;
use crate::util::secret::Secret;
use page_state::PageState;

const SERVICE: Service = Service {
    name: "live page",
    advice: "Set preview_port to another port, or preview to off",
};

/// The running live page. Dropping it closes the port.
#[derive(Debug)]
pub struct LivePage(JoinHandle<()>);

impl Drop for LivePage {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves the live page as configured. `device_dir` is `<work_dir>/<device>`; it contains the token if none is configured.
///
/// `events`: zones, lines and rules, which the page shows and changes; `None` without a model. Never fails: if the port is in use, a warning is logged and it is tried again. Returns `None` if the live page is off.
pub fn start(
    config: &PreviewConfig,
    device_dir: PathBuf,
    live_tap: Arc<LiveTap>,
    registry: Arc<StatusRegistry>,
    events: Option<Arc<EventRecorder>>,
) -> Option<LivePage> {
    if !config.enabled {
        return None;
    }
    let config = config.clone();
    Some(LivePage(tokio::spawn(async move {
        let serve = async || {
            let token = token(&config, device_dir.clone()).await;
            let access = Access::new(token, &config.host, Path::new("/"));
            let listener = bind(&config.host, config.port, SERVICE, registry.live_page_flag()).await;
            let state = PageState::new(access, live_tap.clone(), registry.clone(), events.clone());
            server::run(listener, state).await;
        };
        let mut restart = PanicRestart::new("the live page");
        while let Err(wait) = restart.attempt(serve()).await {
            tokio::time::sleep(wait).await;
        }
    })))
}

/// The configured token, or the one in the device's directory.
async fn token(config: &PreviewConfig, device_dir: PathBuf) -> Option<Secret> {
    if config.token.is_some() {
        return config.token.clone();
    }
    let directory = device_dir.display().to_string();
    match tokio::task::spawn_blocking(move || token::load_or_create(&device_dir)).await {
        Ok(Ok((token, path))) => {
            tracing::info!(
                path = %path.display(),
                "Requests to the live page that change settings need the token in this file"
            );
            Some(token)
        }
        Ok(Err(e)) => {
            tracing::warn!(
                directory,
                error = %e,
                "The token of the live page cannot be stored; only clients on this machine can change settings"
            );
            None
        }
        // The runtime is shutting down.
        Err(_) => None,
    }
}
