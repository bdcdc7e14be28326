//! Opens the port of a server, and tries again while it is in use.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::status::health::HealthFlag;
use crate::util::backoff::{Backoff, BackoffPolicy};
use crate::util::log_limiter::{LogLimiter, like};

/// A port that is in use is tried again after this long, and less and less often.
const BIND_AGAIN: BackoffPolicy = BackoffPolicy {
    min: Duration::from_secs(1),
    max: Duration::from_secs(30),
    reset_after: Duration::from_secs(60),
};

/// Listens, as soon as that is possible: for what, and what to do when it is not. The flag shows which of the two.
pub(crate) async fn bind(host: &str, port: u16, (what, advice): (&str, &str), flag: &HealthFlag) -> TcpListener {
    let mut backoff = Backoff::new(BIND_AGAIN);
    let mut failures = LogLimiter::default();
    // An address with colons is written in brackets in a URL.
    let shown = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    loop {
        match TcpListener::bind((host, port)).await {
            Ok(listener) => {
                flag.set_ok();
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
                flag.set_failing(format_args!("it cannot be opened at {shown}:{port}: {e}; {advice}"));
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
