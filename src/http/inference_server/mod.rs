//! Inference on demand (`--run-http-server`): no camera and no MQTT, but the model behind an HTTP interface, as the
//! existing runner's inference server has it. It answers whoever can reach it; bodies, pictures and queues are bounded.

mod features;
mod picture;
mod server;
mod supply;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::Config;
use crate::http::connections::{Bounds, serve};
use crate::http::listener::bind;
use crate::model;
use crate::status::health::HealthFlag;
use crate::status::stats::Stats;
use server::Site;
use supply::supply;
use worker::Worker;

/// The port of `--mode http-server`.
const DEFAULT_PORT: u16 = 1337;
/// How long the model may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// Why there is nothing to serve.
#[derive(Debug, thiserror::Error)]
pub enum OnDemandError {
    /// No thread for it.
    #[error("the system gives no thread for the model: {0}")]
    Thread(#[from] std::io::Error),
}

/// Serves until `stop` completes. Without a local model file the model comes from Edge Impulse Studio; until it is there
/// requests are told so.
///
/// # Errors
/// [`OnDemandError`]. A model that fails is started again, and one that cannot be had yet is sought again.
pub async fn run(config: &Config, device: &str, stop: impl Future<Output = ()>) -> Result<(), OnDemandError> {
    let stats = Arc::new(Stats::default());
    model::sweep(device);
    let (chosen, models) = watch::channel(None);
    let (base, device) = (config.clone(), device.to_owned());
    let settings = move |source| model::Settings {
        shm: base.runner.shm,
        thresholds: base.runner.thresholds.clone(),
        ..model::Settings::new(source, &*device, &base.work_dir, stats.clone())
    };
    let worker = Arc::new(Worker::start(settings, models)?);
    let site = Site::new(worker.clone(), config.runner.resize_mode);
    let port = config.runner.http_server.unwrap_or(DEFAULT_PORT);
    let serving = async {
        let listener = bind(
            &config.preview.host,
            port,
            ("inference on demand", "Give --run-http-server another port"),
            &HealthFlag::default(),
        )
        .await;
        // A client that waits for a slow model reads nothing meanwhile, but it is not written to either.
        serve(listener, server::router(site), Bounds::default()).await;
    };
    tokio::select! {
        () = serving => {}
        () = supply(config, chosen) => {}
        () = stop => {}
    }
    if !worker.stop(STOP_LIMIT).await {
        tracing::warn!("the model did not end in time and is abandoned");
    }
    tracing::info!("stopped");
    Ok(())
}
