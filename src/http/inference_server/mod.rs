//! Inference on demand (`--run-http-server`): the model with the HTTP interface of the existing runner's inference server,
//! without camera and MQTT. Every client that reaches the port may use it, except the web pages of other sites; bodies, pictures and
//! queues are bounded, and shared by the clients.

mod features;
pub(super) mod fuzzing;
mod model_provider;
mod model_worker;
mod picture;
mod server;
mod upload;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::access::Access;
use super::connections::{ServerLimits, serve};
use super::listener::{Service, bind};
use crate::config::Config;
use crate::model::{self, Sandbox, SandboxSupport};
use crate::status::health::HealthFlag;
use crate::status::stats::Stats;
use model_provider::provide_model;
use model_worker::ModelWorker;
use server::ServerState;

/// The port of `--mode http-server`.
const DEFAULT_PORT: u16 = 1337;
/// Time limit for the end of the model.
const STOP_LIMIT: Duration = Duration::from_secs(3);
const SERVICE: Service = Service {
    name: "inference server",
    advice: "Give --run-http-server another port",
};

/// Why the inference server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum InferenceServerError {
    /// The thread cannot be started.
    #[error("no thread could be started for the model: {0}")]
    Thread(#[from] std::io::Error),
}

/// Serves until `stop` completes. Without a local model file the model comes from Edge Impulse Studio; until it is downloaded,
/// requests get an error.
///
/// # Errors
/// [`InferenceServerError`]. A model that fails is restarted, and a failed download is retried.
pub async fn run(config: &Config, device: &str, stop: impl Future<Output = ()>) -> Result<(), InferenceServerError> {
    let stats = Arc::new(Stats::default());
    model::sweep(device);
    let (selected, models) = watch::channel(None);
    let (base, device) = (config.clone(), device.to_owned());
    let sandbox = Sandbox::new(config.model_sandbox.clone(), SandboxSupport::detect());
    let settings = move |source| model::ModelSettings {
        sandbox: sandbox.clone(),
        shm: base.runner.shm,
        thresholds: base.runner.thresholds.clone(),
        ..model::ModelSettings::new(source, &*device, &base.work_dir, stats.clone())
    };
    let worker = Arc::new(ModelWorker::start(settings, models)?);
    let state = ServerState::new(worker.clone(), config.runner.resize_mode);
    let access = Arc::new(Access::new(
        config.preview.token.clone(),
        &config.preview.host,
        Path::new("/"),
    ));
    let port = config.runner.http_server.unwrap_or(DEFAULT_PORT);
    let serving = async {
        let listener = bind(&config.preview.host, port, SERVICE, &HealthFlag::default()).await;
        // The write timeout does not affect a client that waits for a slow model, because nothing is written meanwhile.
        serve(listener, server::router(state, access), ServerLimits::default()).await;
    };
    tokio::select! {
        () = serving => {}
        () = provide_model(config, selected) => {}
        () = stop => {}
    }
    if !worker.stop(STOP_LIMIT).await {
        tracing::warn!("The model did not end in time and is abandoned");
    }
    tracing::info!("Stopped");
    Ok(())
}
