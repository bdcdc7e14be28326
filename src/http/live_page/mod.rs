//! The live page: what the device sees, for who looks at `http://<device>:4912`, and the WebSocket that applications of the
//! existing runner use.
//!
//! The inference loop shows each inference to the [`LiveTap`], which costs one relaxed load while nobody looks. The
//! supervisor writes what changes onto the [`StatusRegistry`]. [`start`] serves both. Nothing here can slow the loop: results are
//! passed on through bounded channels in which the newest wins, and pictures become JPEG only while somebody wants them.

mod live;
mod messages;
mod page;
mod pictures;
mod server;
mod socket;
mod stills;
mod token;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::config::PreviewConfig;
use crate::inference::LiveTap;
use crate::status::StatusRegistry;
use crate::util::panics::PanicRestart;
use crate::util::secret::Secret;

use super::access;
use super::listener::bind;
pub(crate) use page::with_policy;

/// What to do about a port in use.
const ADVICE: &str = "Set preview_port to another port, or preview to off";

/// The running page. Dropping it closes the port.
#[derive(Debug)]
pub struct Preview(JoinHandle<()>);

impl Drop for Preview {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves the page as configured; `device_dir` (`<work_dir>/<device>`) is where a token is kept when none is configured.
/// Never fails: a port in use is a warning and is tried again. Nothing is served, and no port opened, when the page is off.
pub fn start(
    config: &PreviewConfig,
    device_dir: PathBuf,
    live_tap: Arc<LiveTap>,
    registry: Arc<StatusRegistry>,
) -> Option<Preview> {
    if !config.enabled {
        return None;
    }
    let config = config.clone();
    Some(Preview(tokio::spawn(async move {
        let serve = async || {
            let token = token(&config, device_dir.clone()).await;
            let access = access::Access::new(token, &config.host, Path::new("/"));
            let listener = bind(
                &config.host,
                config.port,
                ("the live page", ADVICE),
                registry.live_page_flag(),
            )
            .await;
            server::run(listener, access, live_tap.clone(), registry.clone()).await;
        };
        let mut relief = PanicRestart::new("the live page");
        while let Err(wait) = relief.attempt(serve()).await {
            tokio::time::sleep(wait).await;
        }
    })))
}

/// The configured token, or the one of the device's directory.
async fn token(config: &PreviewConfig, device_dir: PathBuf) -> Option<Secret> {
    if config.token.is_some() {
        return config.token.clone();
    }
    let shown = device_dir.display().to_string();
    match tokio::task::spawn_blocking(move || token::load_or_create(&device_dir)).await {
        Ok(Ok((token, path))) => {
            tracing::info!(
                "the token for changing something through the live page is in {}",
                path.display()
            );
            Some(token)
        }
        Ok(Err(e)) => {
            tracing::warn!(
                "there is no token for the live page, only clients on this machine can change something: {shown} cannot be used: {e}"
            );
            None
        }
        // The runtime ends.
        Err(_) => None,
    }
}
