//! Inference on demand (`--run-http-server`): no camera and no MQTT, but the model behind an HTTP interface, as the
//! existing runner's inference server has it. It answers whoever can reach it; bodies, pictures and queues are bounded.

mod picture;
mod server;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::model;
use crate::preview::{Bounds, bind, serve};
use crate::stats::Stats;
use server::Site;
use worker::Worker;

/// The port of `--mode http-server`.
const DEFAULT_PORT: u16 = 1337;
/// How long the model may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// Why there is nothing to serve.
#[derive(Debug, thiserror::Error)]
pub enum OnDemandError {
    /// No model.
    #[error("no model is given for --run-http-server: set ei_local_model_file (or --model) to an .eim file")]
    NoModel,
    /// No thread for it.
    #[error("the system gives no thread for the model: {0}")]
    Thread(#[from] std::io::Error),
}

/// Serves until `stop` completes.
///
/// # Errors
/// [`OnDemandError`]: when there is nothing to serve. A model that fails is started again.
pub async fn run(config: &Config, device: &str, stop: impl Future<Output = ()>) -> Result<(), OnDemandError> {
    let source = config.model.clone().ok_or(OnDemandError::NoModel)?;
    let stats = Arc::new(Stats::default());
    model::sweep(device);
    let settings = model::Settings {
        shm: config.runner.shm,
        thresholds: config.runner.thresholds.clone(),
        ..model::Settings::new(source, device, &config.work_dir, stats)
    };
    let worker = Arc::new(Worker::start(settings)?);
    let site = Site::new(worker.clone(), config.runner.resize_mode);
    let port = config.runner.http_server.unwrap_or(DEFAULT_PORT);
    let serving = async {
        let listener = bind(
            &config.preview.host,
            port,
            "inference on demand",
            "Give --run-http-server another port",
        )
        .await;
        // A client that waits for a slow model reads nothing meanwhile, but it is not written to either.
        serve(listener, server::router(site), Bounds::default()).await;
    };
    tokio::select! {
        () = serving => {}
        () = stop => {}
    }
    if !worker.stop(STOP_LIMIT).await {
        tracing::warn!("the model did not end in time and is abandoned");
    }
    tracing::info!("stopped");
    Ok(())
}
