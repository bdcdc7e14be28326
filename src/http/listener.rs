//! Opens the port of a server, and retries while the port is in use.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::status::health::HealthFlag;
use crate::util::backoff::{Backoff, BackoffPolicy};
use crate::util::clock::rounded;
use crate::util::host::bracketed;
use crate::util::log_limiter::LogLimiter;

/// Delays between attempts to open the port.
const RETRY: BackoffPolicy = BackoffPolicy {
    min: Duration::from_secs(1),
    max: Duration::from_secs(30),
    reset_after: Duration::from_secs(60),
};

/// A server that needs a port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Service {
    /// Its name in log lines.
    pub name: &'static str,
    /// Advice for a port that is in use.
    pub advice: &'static str,
}

/// Opens the port, and retries until that succeeds. Sets `flag`.
pub(super) async fn bind(host: &str, port: u16, service: Service, flag: &HealthFlag) -> TcpListener {
    let Service { name: server, advice } = service;
    let mut backoff = Backoff::new(RETRY);
    let mut limiter = LogLimiter::default();
    let url_host = bracketed(host);
    loop {
        match TcpListener::bind((host, port)).await {
            Ok(listener) => {
                flag.set_ok();
                let address = listener.local_addr();
                let port = address.as_ref().map_or(port, |address| address.port());
                let is_unspecified = address.is_ok_and(|address| address.ip().is_unspecified());
                let url_host = if is_unspecified { "localhost" } else { &url_host };
                tracing::info!(server, url = format!("http://{url_host}:{port}"), host, "Listening");
                return listener;
            }
            Err(e) => {
                let address = format!("{url_host}:{port}");
                flag.set_failing(format_args!("it cannot be opened at {address}: {e}; {advice}"));
                let wait = backoff.failed(Instant::now());
                if let Some(suppressed) = limiter.check(Instant::now(), &e.to_string()) {
                    tracing::warn!(
                        server,
                        address,
                        error = %e,
                        retry_in = ?rounded(wait),
                        advice,
                        suppressed = suppressed.count(),
                        "The port cannot be opened"
                    );
                }
                tokio::time::sleep(wait).await;
            }
        }
    }
}
