//! Finds the model to run and keeps trying: the newest downloaded one stands in while Studio cannot be asked.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::api::Project;
use super::choice::Wanted;
use super::client::{Limits, Studio};
use super::error::FetchError;
use super::fetch::{Job, Stage, fetch, first_project};
use super::host::base_url;
use super::store::{Origin, Store, StoredModel};
use super::target::Machine;
use crate::aws::secret::{SecretError, api_key};
use crate::config::{Config, ModelSource};
use crate::util::backoff::{Backoff, BackoffPolicy, Retry};
use crate::util::log_limiter::{LogLimiter, like};
use crate::util::secret::Secret;

/// How often a configured model file that is missing is looked for while another one is sought.
const LOOK: Duration = Duration::from_secs(2);

/// What [`Provider::keep_looking`] tells.
#[derive(Debug, Clone)]
pub enum Found {
    /// A model from Studio, downloaded now or earlier.
    Model(Box<StoredModel>),
    /// The configured file, which was missing, is there.
    LocalFile,
    /// There is none to run yet: why, and when it is tried again, in a sentence.
    Nothing(String),
    /// The earlier one that was told of goes on standing in: why Studio gave none, and when it is tried again.
    StandsIn(String),
}

/// Where models come from when none is on the device.
#[derive(Debug, Clone)]
pub struct Provider {
    /// What `eiparams` ask for.
    pub wanted: Wanted,
    /// Secrets Manager secret id.
    pub secret_id: String,
    /// Key in the secret.
    pub secret_name: String,
    /// `--api-key`: used when the secret is refused.
    pub api_key: Option<Secret>,
    /// `EI_HOST`
    pub ei_host: Option<String>,
    /// The configured model file, which was missing.
    pub local_file: Option<PathBuf>,
    /// What the model is for.
    pub machine: Machine,
    /// Where models are kept.
    pub store: Store,
    /// How long things may take.
    pub limits: Limits,
}

impl Provider {
    /// The provider of a configuration; `ei_host` is the environment variable `EI_HOST`.
    pub fn new(config: &Config, ei_host: Option<String>) -> Self {
        let runner = &config.runner;
        Self {
            wanted: Wanted {
                target: runner.force_target.clone(),
                engine: runner.force_engine.clone(),
                variant: runner.force_variant.clone(),
                impulse_id: runner.impulse_id,
            },
            secret_id: config.secret_id.clone(),
            secret_name: config.secret_name.clone(),
            api_key: runner.api_key.clone(),
            ei_host,
            local_file: match &config.model {
                Some(ModelSource::File(path)) => Some(path.clone()),
                _ => None,
            },
            machine: Machine::default(),
            store: Store::new(&config.work_dir),
            limits: Limits::default(),
        }
    }

    /// The model that was used last with this configuration.
    pub fn earlier(&self) -> Option<StoredModel> {
        self.store.newest(Some(&self.origin()))
    }

    /// All steps once: API key, Studio, download.
    ///
    /// # Errors
    /// [`FetchError`]
    pub async fn fetch_once(&self, stage: &watch::Sender<Stage>) -> Result<StoredModel, FetchError> {
        let studio = self.studio().await?;
        let job = Job {
            wanted: &self.wanted,
            machine: &self.machine,
            store: &self.store,
            origin: &self.origin(),
        };
        Ok(fetch(&studio, job, stage).await?)
    }

    /// Asks Studio whose the API key is, and for nothing more: host, project and owner in words.
    ///
    /// # Errors
    /// [`FetchError`]
    pub async fn probe(&self) -> Result<String, FetchError> {
        let studio = self.studio().await?;
        let Project { id, name, owner } = first_project(&studio).await?;
        Ok(format!(
            "{} knows the key: project {owner} / {name} ({id})",
            studio.host()
        ))
    }

    /// Tells of the model to run, tries again until Studio has given it, then ends.
    ///
    /// When an earlier model is there it is told of first if Studio fails, is silent, or has to build the newer one;
    /// the newer one is told of once it is downloaded. Each failure is told of too. Dropping the future is fine at any time.
    pub async fn keep_looking(&self, tell: impl Fn(Found) + Sync) {
        self.store.sweep();
        let mut standing_in = None;
        let mut backoff = Backoff::new(BackoffPolicy::default());
        let mut said = LogLimiter::default();
        loop {
            match self.attempt(&mut standing_in, &tell).await {
                Ok(model) => return tell(Found::Model(Box::new(model))),
                Err(e) => {
                    let wait = match e.retry() {
                        Retry::Soon => backoff.failed(Instant::now()),
                        Retry::Later => Retry::LATER,
                    };
                    self.stand_in(&mut standing_in, &tell);
                    say(&mut said, &e, wait, standing_in.is_some());
                    let reason = format!("{e} (next attempt after {:.0} s)", wait.as_secs_f32());
                    tell(match standing_in {
                        Some(_) => Found::StandsIn(reason),
                        None => Found::Nothing(reason),
                    });
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.local_file_appears() => return tell(Found::LocalFile),
                    }
                }
            }
        }
    }

    async fn attempt(
        &self,
        standing_in: &mut Option<PathBuf>,
        tell: &(impl Fn(Found) + Sync),
    ) -> Result<StoredModel, FetchError> {
        let (stage, mut stages) = watch::channel(Stage::Looking);
        let mut fetched = std::pin::pin!(self.fetch_once(&stage));
        if standing_in.is_none() {
            let impatient = async {
                let past_looking = async {
                    let stage = stages.wait_for(|stage| *stage != Stage::Looking).await;
                    stage.map_or(Stage::Looking, |stage| *stage)
                };
                match tokio::time::timeout(self.limits.patience, past_looking).await {
                    Err(_) => "Edge Impulse Studio has not answered yet",
                    Ok(Stage::Building) => "the newer one is still to be built",
                    // It is being downloaded: that is worth waiting for.
                    Ok(_) => std::future::pending().await,
                }
            };
            tokio::select! {
                result = &mut fetched => return result,
                why = impatient => if self.stand_in(standing_in, tell) {
                    tracing::info!("an earlier model runs meanwhile: {why}");
                }
            }
        }
        fetched.await
    }

    /// Tells of the earlier model, once. `true`: it was told of now.
    fn stand_in(&self, standing_in: &mut Option<PathBuf>, tell: &(impl Fn(Found) + Sync)) -> bool {
        if standing_in.is_some() {
            return false;
        }
        let Some(model) = self.earlier() else { return false };
        *standing_in = Some(model.path.clone());
        tell(Found::Model(Box::new(model)));
        true
    }

    async fn local_file_appears(&self) {
        let Some(path) = &self.local_file else {
            return std::future::pending().await;
        };
        while !tokio::fs::try_exists(path).await.unwrap_or(false) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Studio, with the API key.
    async fn studio(&self) -> Result<Studio, FetchError> {
        let base = base_url(self.ei_host.as_deref())?;
        let key = self.key().await?;
        Ok(Studio::new(base, &key, self.limits)?)
    }

    /// Secrets Manager first; `--api-key` when it definitely has none.
    async fn key(&self) -> Result<Secret, SecretError> {
        let aws = crate::aws::load().await;
        match (api_key(&aws, &self.secret_id, &self.secret_name).await, &self.api_key) {
            (Err(e), Some(option)) if e.retry() == Retry::Later => {
                tracing::info!("the API key of eiparams (--api-key) is used: {e}");
                Ok(option.clone())
            }
            (result, _) => result,
        }
    }

    fn origin(&self) -> Origin {
        let studio = base_url(self.ei_host.as_deref()).map(|mut url| {
            // Never on disk; a URL with a host can lose both.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.to_string()
        });
        Origin {
            studio: studio.unwrap_or_default(),
            secret_id: self.secret_id.clone(),
            secret_name: self.secret_name.clone(),
            impulse_id: self.wanted.impulse_id,
        }
    }
}

/// Whether the file is definitely not there.
pub(crate) fn is_missing(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

/// Says that the configured file is not there, and what is done about it.
pub(crate) fn say_missing(path: &Path) {
    tracing::warn!("{}", missing_words(path));
}

/// That the configured file is not there, and what is done about it.
pub(crate) fn missing_words(path: &Path) -> String {
    format!(
        "the model file {} (ei_local_model_file) is missing: the model of Edge Impulse Studio is used instead",
        path.display()
    )
}

fn say(said: &mut LogLimiter, error: &FetchError, wait: Duration, runs: bool) {
    let Some(more) = said.check(Instant::now(), &error.to_string()) else {
        return;
    };
    let next = format!("next attempt in {:.0} s{}", wait.as_secs_f32(), like(more));
    match (error.retry(), runs) {
        (Retry::Later, false) => tracing::error!("there is no model to run ({next}): {error}"),
        (Retry::Soon, false) => tracing::warn!("there is no model to run yet ({next}): {error}"),
        (_, true) => {
            tracing::warn!("Edge Impulse Studio has given no model, the one downloaded earlier runs ({next}): {error}");
        }
    }
}
