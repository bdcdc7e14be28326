//! Which model answers: the configured one, or the one that Edge Impulse Studio has.

use std::path::PathBuf;

use tokio::sync::watch;

use crate::config::{Config, ModelSource};
use crate::studio::{Found, Provider, StoredModel, is_missing, say_missing};

/// The model to run.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub(super) source: ModelSource,
    /// Held while it is in use, so that nobody removes it.
    _stored: Option<StoredModel>,
}

impl Chosen {
    fn local(source: ModelSource) -> Self {
        Self { source, _stored: None }
    }

    fn downloaded(model: StoredModel) -> Self {
        Self {
            source: ModelSource::File(model.path.clone()),
            _stored: Some(model),
        }
    }
}

/// Tells of the model to run as soon as there is one, and of a newer one once that is downloaded. Never ends.
pub(super) async fn supply(config: &Config, chosen: watch::Sender<Option<Chosen>>) {
    let tell = |new: Chosen| {
        chosen.send_if_modified(|chosen| {
            // The same again, told of a second time, is no reason to start anew.
            let is_new = chosen.as_ref().is_none_or(|chosen| chosen.source != new.source);
            if is_new {
                *chosen = Some(new);
            }
            is_new
        });
    };
    match &config.model {
        Some(ModelSource::File(path)) if is_missing(path) => {
            say_missing(path);
            download(config, path.clone().into(), &tell).await;
        }
        Some(source) => tell(Chosen::local(source.clone())),
        None => download(config, None, &tell).await,
    }
    std::future::pending().await
}

/// `missing`: the configured file, which is used when it appears first.
async fn download(config: &Config, missing: Option<PathBuf>, tell: &(impl Fn(Chosen) + Sync)) {
    let provider = Provider::new(config, std::env::var("EI_HOST").ok());
    let found = |found| match (found, &missing) {
        (Found::Model(model), _) => tell(Chosen::downloaded(*model)),
        (Found::LocalFile, Some(path)) => tell(Chosen::local(ModelSource::File(path.clone()))),
        // The log says why.
        (Found::LocalFile, None) | (Found::Nothing(_) | Found::StandsIn(_), _) => {}
    };
    provider.keep_looking(found).await;
}
