//! Somebody who looks at the live page.

use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use super::watcher::{Client, Served};

/// Takes pictures and results as they come, until it is dropped.
pub struct Viewer(Option<Runtime>);

impl Viewer {
    /// One who looks at the page of `served`.
    pub fn of(served: &Served) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let client = runtime.block_on(served.connect("/"));
        runtime.spawn(look(client));
        Self(Some(runtime))
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn look(mut client: Client) {
    client
        .send(&json!({"type": "set-camera-preview", "enabled": true}))
        .await;
    loop {
        client.next().await;
    }
}
