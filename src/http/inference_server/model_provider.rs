//! Selects the model to run: the configured one, or the newest one in Edge Impulse Studio.

use std::path::PathBuf;

use tokio::sync::watch;

use crate::config::{Config, ModelSource};
use crate::studio::{ModelUpdate, Provider, StoredModel, is_missing, warn_missing_file};

/// The model to run.
#[derive(Debug, Clone)]
pub(super) struct SelectedModel {
    pub(super) source: ModelSource,
    /// The SHA-256 of a downloaded file.
    pub(super) sha256: Option<String>,
    /// Keeps the downloaded file from being removed while it is in use.
    _stored: Option<StoredModel>,
}

impl SelectedModel {
    fn local(source: ModelSource) -> Self {
        Self {
            source,
            sha256: None,
            _stored: None,
        }
    }

    fn downloaded(model: StoredModel) -> Self {
        Self {
            source: ModelSource::File(model.path.clone()),
            sha256: model.sha256.clone(),
            _stored: Some(model),
        }
    }
}

/// Sends the model to run when there is one, and each newer one when it is downloaded. Never returns.
pub(super) async fn provide_model(config: &Config, selected: watch::Sender<Option<SelectedModel>>) {
    let select = |new: SelectedModel| {
        selected.send_if_modified(|selected| {
            // The same model again must not restart the worker.
            let is_new = selected.as_ref().is_none_or(|selected| selected.source != new.source);
            if is_new {
                *selected = Some(new);
            }
            is_new
        });
    };
    match &config.model {
        Some(ModelSource::File(path)) if is_missing(path) => {
            warn_missing_file(path);
            download(config, path.clone().into(), &select).await;
        }
        Some(source) => select(SelectedModel::local(source.clone())),
        None => download(config, None, &select).await,
    }
    std::future::pending().await
}

/// `missing`: the configured file; it is used if it appears before a model is downloaded.
async fn download(config: &Config, missing: Option<PathBuf>, select: &(impl Fn(SelectedModel) + Sync)) {
    let provider = Provider::new(config, std::env::var("EI_HOST").ok());
    let found = |found| match (found, &missing) {
        (ModelUpdate::Model(model), _) => select(SelectedModel::downloaded(*model)),
        (ModelUpdate::LocalFile, Some(path)) => select(SelectedModel::local(ModelSource::File(path.clone()))),
        // The provider has logged the reason.
        (ModelUpdate::LocalFile, None) | (ModelUpdate::Unavailable(_) | ModelUpdate::UpdateFailed(_), _) => {}
    };
    provider.run(found).await;
}
