//! Provides the model to run and retries after failures. An earlier download is used while Studio provides none.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::api::Project;
use super::api_key::ApiKeySource;
use super::client::StudioClient;
use super::deployment::check_digest;
use super::error::FetchError;
use super::fetch::{FetchPolicy, FetchRequest, FetchStage, fetch_accepted, first_project};
use super::host::base_url;
use super::limits::StudioLimits;
use super::machine::Machine;
use super::origin::ModelOrigin;
use super::selection::ModelSelection;
use super::store::{ModelMetadata, ModelStore, StoredModel};
use super::versions::{BadVersion, ModelVersions};
use crate::aws::secret::SecretError;
use crate::config::{Config, ModelSource};
use crate::util::backoff::{Backoff, BackoffPolicy, Retry};
use crate::util::clock::rounded;
use crate::util::log_limiter::LogLimiter;
use crate::util::secret::Secret;

/// How often the provider checks whether the missing configured file exists now.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// What [`Provider::run`] reports.
#[derive(Debug, Clone)]
pub enum ModelUpdate {
    /// A model from Studio, downloaded now or earlier.
    Model(Box<StoredModel>),
    /// The configured file, which was missing, exists now.
    LocalFile,
    /// There is no model to run yet. The text is the reason and the time of the next attempt.
    Unavailable(String),
    /// The earlier model stays in use. The text is the reason and the time of the next attempt.
    UpdateFailed(String),
}

/// Gets the model from Studio if no model file is configured or if that file is missing.
#[derive(Debug, Clone)]
pub struct Provider {
    /// The options in `eiparams`.
    pub selection: ModelSelection,
    /// Secrets Manager secret id.
    pub secret_id: String,
    /// Key in the secret.
    pub secret_name: String,
    /// `--api-key`: used if the secret is refused.
    pub api_key: Option<Secret>,
    /// `EI_HOST`
    pub ei_host: Option<String>,
    /// The configured model file, which is missing.
    pub local_file: Option<PathBuf>,
    /// The machine that runs the model.
    pub machine: Machine,
    /// The downloaded models.
    pub store: ModelStore,
    /// `model_sha256`: the SHA-256 of every model that is downloaded.
    pub sha256: Option<String>,
    /// Time and size limits.
    pub limits: StudioLimits,
}

impl Provider {
    /// The provider of a configuration; `ei_host` is the environment variable `EI_HOST`.
    pub fn new(config: &Config, ei_host: Option<String>) -> Self {
        let runner = &config.runner;
        Self {
            selection: ModelSelection {
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
            store: ModelStore::new(&config.work_dir),
            sha256: config.model_updates.sha256.clone(),
            limits: StudioLimits::default(),
        }
    }

    /// The model that was used last with this configuration: neither a bad one nor one whose trial has not ended.
    pub fn earlier_model(&self) -> Option<StoredModel> {
        let (origin, versions) = (self.origin(), self.versions());
        let candidate = versions.candidate.as_ref().map(|candidate| candidate.model.as_str());
        self.store.newest_where(|metadata, name| {
            metadata.origin == origin && versions.bad(name, self.sha256.as_deref()).is_none() && candidate != Some(name)
        })
    }

    /// Makes one attempt: API key, Studio, download.
    ///
    /// # Errors
    /// [`FetchError`]
    pub async fn fetch_once(&self, stage: &watch::Sender<FetchStage>) -> Result<StoredModel, FetchError> {
        self.fetch(FetchPolicy::default(), stage).await
    }

    /// Gets a model that is to be tried beside the running one: `wanted` even if it is bad, from this device if it is
    /// there; `None`: the newest one in Studio, unless it is bad.
    ///
    /// # Errors
    /// [`FetchError`]
    pub async fn fetch_update(
        &self,
        wanted: Option<u64>,
        stage: &watch::Sender<FetchStage>,
    ) -> Result<StoredModel, FetchError> {
        let origin = self.origin();
        let stored = wanted.and_then(|wanted| {
            let is_wanted = |metadata: &ModelMetadata| metadata.origin == origin && metadata.version == wanted;
            self.store.newest_where(|metadata, _| is_wanted(metadata))
        });
        if let Some(model) = stored {
            stage.send_replace(FetchStage::Downloading(model.metadata.version));
            check_digest(&model.path, model.metadata.version, self.sha256.as_deref()).await?;
            return Ok(model);
        }
        let policy = FetchPolicy {
            wanted,
            is_candidate: true,
            ..FetchPolicy::default()
        };
        self.fetch(policy, stage).await
    }

    async fn fetch(
        &self,
        policy: FetchPolicy<'_>,
        stage: &watch::Sender<FetchStage>,
    ) -> Result<StoredModel, FetchError> {
        let studio = self.studio().await?;
        let request = FetchRequest {
            selection: &self.selection,
            machine: &self.machine,
            store: &self.store,
            origin: &self.origin(),
        };
        let policy = FetchPolicy {
            sha256: self.sha256.as_deref(),
            ..policy
        };
        Ok(fetch_accepted(&studio, request, policy, stage).await?)
    }

    /// Forgets a stored model whose file is not the one that was downloaded.
    pub fn discard(&self, model: &StoredModel) {
        if let Err(error) = self.store.discard(model) {
            tracing::error!(
                path = %model.path.display(),
                %error,
                advice = "remove its directory",
                "A changed model cannot be removed from the store"
            );
        }
    }

    /// Which versions are in use, and which are bad.
    pub fn versions(&self) -> ModelVersions {
        self.store.versions().read(&self.origin())
    }

    /// Records that this model is in use from now on. Returns the versions after that.
    pub fn record_begin(&self, model: &StoredModel) -> ModelVersions {
        let (name, origin) = (model.name(), self.origin());
        let known = self.versions();
        let earlier = || {
            let is_earlier = |found: &str| found != name && known.bad(found, self.sha256.as_deref()).is_none();
            self.store
                .newest_where(|metadata, found| metadata.origin == origin && is_earlier(found))
        };
        let earlier = if known.current.is_none() { earlier() } else { None };
        let earlier = earlier.map(|earlier| earlier.name());
        if known.current.as_deref() != Some(&*name) {
            // Without a network the model that was used last runs.
            self.store.find(&model.metadata);
        }
        self.change_versions(|versions| {
            versions.begin(&name, earlier.clone());
        })
    }

    /// Records that a trial of this model begins. Returns how many have begun.
    pub fn record_trial(&self, model: &StoredModel) -> u32 {
        let versions = self.change_versions(|versions| {
            versions.try_candidate(&model.name());
        });
        versions.candidate.map_or(1, |candidate| candidate.trials)
    }

    /// Records that no model is tried any more, for a reason that is not its own.
    pub fn record_no_trial(&self) {
        self.change_versions(|versions| versions.candidate = None);
    }

    /// Records that a trial was stopped in an orderly way; it does not count.
    pub fn record_stopped_trial(&self) {
        self.change_versions(|versions| {
            if let Some(candidate) = &mut versions.candidate {
                candidate.trials = candidate.trials.saturating_sub(1);
            }
        });
    }

    /// Records a failure of the model in use. Returns the number of failures; `None`: it is not on probation.
    pub fn record_crash(&self) -> Option<u32> {
        let versions = self.change_versions(ModelVersions::count_crash);
        versions.probation.map(|probation| probation.crashes)
    }

    /// Records that the model in use is good.
    pub fn record_confirmed(&self) {
        self.change_versions(ModelVersions::confirm);
    }

    /// Records that a model is bad. Returns the versions after that.
    pub fn record_bad(&self, model: &StoredModel, reason: &str) -> ModelVersions {
        let bad = BadVersion {
            model: model.name(),
            version: model.metadata.version,
            reason: reason.to_owned(),
            sha256: None,
        };
        self.change_versions(|versions| versions.mark_bad(bad.clone()))
    }

    /// Records that the model of this version, whose trial was to follow, is bad: in any case, or while its SHA-256 is not
    /// the configured one.
    pub fn record_bad_candidate(&self, version: u64, reason: &str, sha256: Option<String>) {
        self.change_versions(|versions| {
            if let Some(candidate) = versions.candidate.take() {
                versions.mark_bad(BadVersion {
                    model: candidate.model,
                    version,
                    reason: reason.to_owned(),
                    sha256: sha256.clone(),
                });
            }
        });
    }

    /// The stored model with this [name](StoredModel::name).
    pub fn named(&self, name: &str) -> Option<StoredModel> {
        self.store.named(name)
    }

    /// Removes the versions of a project that are not needed any more.
    pub fn remove_old_versions(&self, project_id: u64) {
        self.store.remove_old_versions(project_id);
    }

    fn change_versions(&self, change: impl Fn(&mut ModelVersions)) -> ModelVersions {
        let changed = self.store.versions().change(&self.origin(), |versions| {
            change(versions);
            versions.clone()
        });
        changed.unwrap_or_else(|error| {
            tracing::error!(
                path = %self.store.root().display(),
                %error,
                advice = "make the directory writable and free some space",
                "The versions of the model cannot be recorded; the next start may take another one"
            );
            let mut versions = self.versions();
            change(&mut versions);
            versions
        })
    }

    /// Requests only the project of the API key. Returns host, project and owner as text.
    ///
    /// # Errors
    /// [`FetchError`]
    pub async fn probe(&self) -> Result<String, FetchError> {
        let studio = self.studio().await?;
        let Project { id, name, owner } = first_project(&studio).await?;
        Ok(format!(
            "{} accepts the key: project {owner} / {name} ({id})",
            studio.host()
        ))
    }

    /// Reports the model to run, and retries until Studio has provided one. Then it returns.
    ///
    /// If Studio fails, does not answer, or must build the newer model, an earlier model is reported first. The newer one is
    /// reported when it is downloaded. Each failure is reported too. The future can be dropped at any time.
    ///
    /// After a trial that has not ended, the model before is reported and nothing is requested: the trial comes first.
    pub async fn run(&self, notify: impl Fn(ModelUpdate) + Sync) {
        self.store.remove_leftovers();
        if self.versions().candidate.is_some()
            && let Some(model) = self.earlier_model()
        {
            tracing::info!(
                version = model.metadata.version,
                "The trial of a newer model has not ended; using the model before it"
            );
            return notify(ModelUpdate::Model(Box::new(model)));
        }
        let mut uses_earlier = false;
        let mut backoff = Backoff::new(BackoffPolicy::default());
        let mut limiter = LogLimiter::default();
        loop {
            let error = match self.attempt(&mut uses_earlier, &notify).await {
                Ok(model) => return notify(ModelUpdate::Model(Box::new(model))),
                Err(error) => error,
            };
            let wait = match error.retry() {
                Retry::Soon => backoff.failed(Instant::now()),
                Retry::Later => Retry::LATER,
            };
            self.use_earlier(&mut uses_earlier, &notify);
            log_failure(&mut limiter, &error, wait, uses_earlier);
            let reason = format!("{error} (next attempt after {:.0} s)", wait.as_secs_f32());
            notify(if uses_earlier {
                ModelUpdate::UpdateFailed(reason)
            } else {
                ModelUpdate::Unavailable(reason)
            });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.local_file_appears() => return notify(ModelUpdate::LocalFile),
            }
        }
    }

    async fn attempt(
        &self,
        uses_earlier: &mut bool,
        notify: &(impl Fn(ModelUpdate) + Sync),
    ) -> Result<StoredModel, FetchError> {
        let (stage, mut stages) = watch::channel(FetchStage::Selecting);
        let mut fetched = std::pin::pin!(self.fetch_once(&stage));
        if !*uses_earlier {
            let takes_long = async {
                let selected = async {
                    let stage = stages.wait_for(|stage| *stage != FetchStage::Selecting).await;
                    stage.map_or(FetchStage::Selecting, |stage| *stage)
                };
                match tokio::time::timeout(self.limits.earlier_model_after, selected).await {
                    Err(_) => "Edge Impulse Studio has not answered yet",
                    Ok(FetchStage::Building) => "the newer one is still to be built",
                    // It is better to wait for a download.
                    Ok(_) => std::future::pending().await,
                }
            };
            tokio::select! {
                result = &mut fetched => return result,
                reason = takes_long => if self.use_earlier(uses_earlier, notify) {
                    tracing::info!(reason, "Using an earlier model meanwhile");
                }
            }
        }
        fetched.await
    }

    /// Reports the earlier model once. Returns `true` if it was reported now.
    fn use_earlier(&self, uses_earlier: &mut bool, notify: &(impl Fn(ModelUpdate) + Sync)) -> bool {
        if *uses_earlier {
            return false;
        }
        let Some(model) = self.earlier_model() else {
            return false;
        };
        *uses_earlier = true;
        notify(ModelUpdate::Model(Box::new(model)));
        true
    }

    async fn local_file_appears(&self) {
        let Some(path) = &self.local_file else {
            return std::future::pending().await;
        };
        while !tokio::fs::try_exists(path).await.unwrap_or(false) {
            tokio::time::sleep(FILE_CHECK_INTERVAL).await;
        }
    }

    /// A client with the API key.
    async fn studio(&self) -> Result<StudioClient, FetchError> {
        let base = base_url(self.ei_host.as_deref())?;
        let key = self.key().await?;
        Ok(StudioClient::new(base, &key, self.limits)?)
    }

    /// The key in Secrets Manager, or `--api-key` if Secrets Manager refuses.
    async fn key(&self) -> Result<Secret, SecretError> {
        let source = ApiKeySource {
            secret_id: self.secret_id.clone(),
            secret_name: self.secret_name.clone(),
            option: self.api_key.clone(),
        };
        source.read().await
    }

    fn origin(&self) -> ModelOrigin {
        let studio = base_url(self.ei_host.as_deref()).map(|mut url| {
            // Credentials are never stored. A URL with a host always allows their removal.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.to_string()
        });
        ModelOrigin {
            studio: studio.unwrap_or_default(),
            secret_id: self.secret_id.clone(),
            secret_name: self.secret_name.clone(),
            impulse_id: self.selection.impulse_id,
        }
    }
}

/// Whether the file definitely does not exist.
pub(crate) fn is_missing(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

/// Logs that the configured model file is missing and which model is used.
pub(crate) fn warn_missing_file(path: &Path) {
    tracing::warn!(
        path = %path.display(),
        "The model file (ei_local_model_file) is missing: the model of Edge Impulse Studio is used instead"
    );
}

/// The text that the configured model file is missing and which model is used.
pub(crate) fn missing_file_message(path: &Path) -> String {
    format!(
        "the model file {} (ei_local_model_file) is missing: the model of Edge Impulse Studio is used instead",
        path.display()
    )
}

fn log_failure(limiter: &mut LogLimiter, error: &FetchError, wait: Duration, uses_earlier: bool) {
    let Some(suppressed) = limiter.check(Instant::now(), &error.to_string()) else {
        return;
    };
    let (retry_in, suppressed) = (rounded(wait), suppressed.count());
    match (error.retry(), uses_earlier) {
        (Retry::Later, false) => tracing::error!(?retry_in, suppressed, %error, "There is no model to run"),
        (Retry::Soon, false) => tracing::warn!(?retry_in, suppressed, %error, "There is no model to run yet"),
        (_, true) => tracing::warn!(
            ?retry_in, suppressed, %error,
            "Edge Impulse Studio provided no model; using the one that was downloaded earlier"
        ),
    }
}
