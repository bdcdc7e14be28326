//! What `check` says of the daemon that runs for this device.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::watch::shown;
use crate::config::Config;
use crate::device::peek;
use crate::lifecycle::{holder, lock_path};
use crate::util::host::bracketed;
use crate::util::text::sentence;

/// The page is on this machine: it answers at once, or the daemon hangs.
const LIMIT: Duration = Duration::from_secs(2);
/// The page's answer has the last few messages in it, of bounded size each.
const MOST_BYTES: usize = 4 << 20;

/// What the page knows, as far as it is of interest here.
#[derive(Debug, Deserialize)]
struct Status {
    device: String,
    /// Missing: another version of this program.
    #[serde(default)]
    health: Map<String, Value>,
    #[serde(default)]
    problems: Vec<String>,
}

/// The pid, then how each part is. One line when no daemon runs, or the page, which knows, is off.
pub(super) fn lines(config: &Config) -> Vec<String> {
    let device = peek(&config.device_name, &config.work_dir, Path::new("/")).name;
    let path = lock_path(&config.lock_filename, &device);
    let pid = match holder(&path) {
        Ok(Some(pid)) => pid,
        Ok(None) => return vec!["none runs for this device".to_owned()],
        Err(e) => {
            let path = path.display();
            return vec![format!(
                "whether one runs cannot be told from {path}: {e}; try as the user that runs the component"
            )];
        }
    };
    let pid = format!("pid {pid}");
    if config.runner.http_server.is_some() {
        return vec![format!("{pid}, which answers pictures over HTTP")];
    }
    if !config.preview.enabled {
        return vec![format!(
            "{pid}; the live page, which would tell how it is, is off (preview); `watch` shows its metrics messages"
        )];
    }
    let url = url(&config.preview.host, config.preview.port);
    match ask(&url) {
        Ok(status) if status.device == device => {
            let mut lines = vec![pid];
            lines.extend(status.lines());
            lines
        }
        Ok(status) => vec![format!(
            "{pid}; {url} is the page of another device, {}: give each one a preview_port of its own",
            shown(&status.device)
        )],
        Err(reason) => vec![format!("{pid}; how it is cannot be asked at {url}: {}", shown(&reason))],
    }
}

impl Status {
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

/// Where this machine reaches the page.
fn url(host: &str, port: u16) -> String {
    let host = match host.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => "127.0.0.1".into(),
        _ => bracketed(host),
    };
    format!("http://{host}:{port}/api/status")
}

fn ask(url: &str) -> Result<Status, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let asked = tokio::time::timeout(LIMIT, get(url)).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())))
    })
}

async fn get(url: &str) -> Result<Status, String> {
    let words = |e: reqwest::Error| sentence(&e);
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(words)?;
    let mut response = client.get(url).send().await.map_err(words)?;
    if !response.status().is_success() {
        return Err(format!("it answers {}", response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(words)? {
        body.extend_from_slice(&chunk);
        if body.len() > MOST_BYTES {
            return Err("the answer is no status of this program, it is too long".to_owned());
        }
    }
    serde_json::from_slice(&body).map_err(|e| format!("the answer is no status of this program: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_asked_where_it_listens() {
        for (host, asked) in [
            ("0.0.0.0", "http://127.0.0.1:4912/api/status"),
            ("::", "http://127.0.0.1:4912/api/status"),
            ("::1", "http://[::1]:4912/api/status"),
            ("localhost", "http://localhost:4912/api/status"),
        ] {
            assert_eq!(url(host, 4912), asked);
        }
    }
}
