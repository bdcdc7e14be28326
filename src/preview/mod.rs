//! The live page: what the device sees, for who looks at `http://<device>:4912`, and the WebSocket that applications of the
//! existing runner use.
//!
//! The inference loop shows each inference to the [`Feed`], which costs one relaxed load while nobody looks. The
//! supervisor writes what changes onto the [`Board`]. [`start`] serves both. Nothing here can slow the loop: results are
//! passed on through bounded channels in which the newest wins, and pictures become JPEG only while somebody wants them.

mod access;
mod board;
mod connections;
mod feed;
mod live;
mod metrics;
mod page;
mod pictures;
mod seen;
mod server;
mod socket;
mod states;
mod stills;
mod token;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::backoff::{Backoff, BackoffPolicy};
use crate::config::PreviewConfig;
use crate::health::Gauge;
use crate::log_limit::{RepeatGuard, like};
use crate::panics::Relief;
use crate::secret::Secret;

pub use board::{About, Board, LinkView};
pub(crate) use connections::{Bounds, serve};
pub use feed::{Feed, GLANCES_A_SECOND, Glance, OrderError, Original};
pub(crate) use page::with_policy;
pub(crate) use seen::result_value;
pub use states::{ModelState, SourceState};

/// A port that is in use is tried again after this long, and less and less often.
const BIND_AGAIN: BackoffPolicy = BackoffPolicy {
    min: Duration::from_secs(1),
    max: Duration::from_secs(30),
    reset_after: Duration::from_secs(60),
};

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
pub fn start(config: &PreviewConfig, device_dir: PathBuf, feed: Arc<Feed>, board: Arc<Board>) -> Option<Preview> {
    if !config.enabled {
        return None;
    }
    let config = config.clone();
    Some(Preview(tokio::spawn(async move {
        let serve = async || {
            let token = token(&config, device_dir.clone()).await;
            let access = access::Access::new(token, &config.host, Path::new("/"));
            let listener = bind(&config.host, config.port, ("the live page", ADVICE), board.page_gauge()).await;
            server::run(listener, access, feed.clone(), board.clone()).await;
        };
        let mut relief = Relief::new("the live page");
        while let Err(wait) = relief.attempt(serve()).await {
            tokio::time::sleep(wait).await;
        }
    })))
}

/// Listens, as soon as that is possible: for what, and what to do when it is not. The gauge shows which of the two.
pub(crate) async fn bind(host: &str, port: u16, (what, advice): (&str, &str), gauge: &Gauge) -> TcpListener {
    let mut backoff = Backoff::new(BIND_AGAIN);
    let mut failures = RepeatGuard::default();
    // An address with colons is written in brackets in a URL.
    let shown = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    loop {
        match TcpListener::bind((host, port)).await {
            Ok(listener) => {
                gauge.works();
                let port = listener.local_addr().map_or(port, |address| address.port());
                if listener.local_addr().is_ok_and(|address| address.ip().is_unspecified()) {
                    tracing::info!(
                        "{what} is at http://localhost:{port}, and from other machines at this one's address"
                    );
                } else {
                    tracing::info!("{what} is at http://{shown}:{port}");
                }
                return listener;
            }
            Err(e) => {
                gauge.fails(format_args!("it cannot be opened at {shown}:{port}: {e}; {advice}"));
                let wait = backoff.failed(Instant::now());
                if let Some(more) = failures.check(Instant::now(), &e.to_string()) {
                    tracing::warn!(
                        "{what} cannot be opened at {shown}:{port}{}: {e}; it is tried again. {advice}",
                        like(more)
                    );
                }
                tokio::time::sleep(wait).await;
            }
        }
    }
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
