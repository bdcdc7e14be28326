//! The running daemon of this device in the report of `check`.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::watch::shown;
use crate::config::Config;
use crate::device::peek;
use crate::lifecycle::{holder, own_lock_path};
use crate::util::host::bracketed;
use crate::util::text::sentence;

/// Limit for one request. The page is on this machine: it answers at once, or the daemon hangs.
const REQUEST_LIMIT: Duration = Duration::from_secs(2);
/// The answer holds the last few messages, each of bounded size.
const MAX_BYTES: usize = 4 << 20;

/// The fields of `/api/status` that `check` shows.
#[derive(Debug, Deserialize)]
struct RunningStatus {
    device: String,
    /// Missing: another version of this program.
    #[serde(default)]
    health: Map<String, Value>,
    #[serde(default)]
    problems: Vec<String>,
}

/// The pid, then the health of each part. One line when no daemon runs, or the live page is off.
pub(super) fn lines(config: &Config) -> Vec<String> {
    let device = peek(&config.device_name, &config.work_dir, Path::new("/")).name;
    let path = own_lock_path(&config.lock_filename, &device);
    let pid = match holder(&path) {
        Ok(Some(pid)) => pid,
        Ok(None) => return vec!["none runs for this device".to_owned()],
        Err(e) => {
            let path = path.display();
            return vec![format!(
                "it is unknown whether one runs, because {path} cannot be read: {e}; run this as the user that runs the component"
            )];
        }
    };
    let pid = format!("pid {pid}");
    if config.runner.http_server.is_some() {
        return vec![format!("{pid}, which serves inference requests over HTTP")];
    }
    if !config.preview.enabled {
        return vec![format!(
            "{pid}; its health is unknown because the live page is off (preview); `watch` shows its metrics messages"
        )];
    }
    let url = status_url(&config.preview.host, config.preview.port);
    match read_status(&url) {
        Ok(status) if status.device == device => {
            let mut lines = vec![pid];
            lines.extend(status.lines());
            lines
        }
        Ok(status) => vec![format!(
            "{pid}; {url} is the page of another device, {}: give each one a preview_port of its own",
            shown(&status.device)
        )],
        Err(reason) => vec![format!(
            "{pid}; its health cannot be asked at {url}: {}",
            shown(&reason)
        )],
    }
}

impl RunningStatus {
    fn lines(&self) -> impl Iterator<Item = String> {
        self.health.iter().map(|(part, word)| {
            let word = word.as_str().unwrap_or("?");
            let reason = self
                .problems
                .iter()
                .find_map(|problem| problem.strip_prefix(part)?.strip_prefix(": "));
            let line = reason.map_or_else(
                || format!("{part}: {word}"),
                |reason| format!("{part}: {word}: {reason}"),
            );
            shown(&line)
        })
    }
}

/// The URL at which this machine reaches the page.
fn status_url(host: &str, port: u16) -> String {
    let host = match host.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => "127.0.0.1".into(),
        _ => bracketed(host),
    };
    format!("http://{host}:{port}/api/status")
}

fn read_status(url: &str) -> Result<RunningStatus, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let answer = tokio::time::timeout(REQUEST_LIMIT, fetch_status(url)).await;
        answer.unwrap_or_else(|_| Err(format!("no answer within {} s", REQUEST_LIMIT.as_secs())))
    })
}

async fn fetch_status(url: &str) -> Result<RunningStatus, String> {
    let describe = |e: reqwest::Error| sentence(&e);
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(describe)?;
    let mut response = client.get(url).send().await.map_err(describe)?;
    if !response.status().is_success() {
        return Err(format!("it answers {}", response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(describe)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BYTES {
            return Err("the answer is not a status of this program: it is too long".to_owned());
        }
    }
    serde_json::from_slice(&body).map_err(|e| format!("the answer is not a status of this program: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_url_leads_to_the_listener() {
        for (host, asked) in [
            ("0.0.0.0", "http://127.0.0.1:4912/api/status"),
            ("::", "http://127.0.0.1:4912/api/status"),
            ("::1", "http://[::1]:4912/api/status"),
            ("localhost", "http://localhost:4912/api/status"),
        ] {
            assert_eq!(status_url(host, 4912), asked);
        }
    }
}
