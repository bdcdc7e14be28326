//! Decides which model starts next: the configured one, or the one from Edge Impulse Studio.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::event::{EpochEvent, ModelEvent, SessionEvent};
use crate::config::ModelSource;
use crate::studio::{ModelUpdate, Provider, StoredModel, is_missing, warn_missing_file};
use crate::util::panics::PanicRestart;

/// The model resolver of one session.
pub(super) struct ModelResolver {
    configured: Option<ModelSource>,
    provider: Arc<Provider>,
    events: mpsc::UnboundedSender<EpochEvent>,
    /// The newest model that the search found.
    found: Option<StoredModel>,
    /// The model that was started last. Holding it prevents its removal from the store.
    current: Option<StoredModel>,
    search: Option<SearchTask>,
}

/// A search that runs until it is dropped.
struct SearchTask(JoinHandle<()>);

impl Drop for SearchTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ModelResolver {
    pub(super) fn new(
        configured: Option<ModelSource>,
        provider: Arc<Provider>,
        events: mpsc::UnboundedSender<EpochEvent>,
    ) -> Self {
        Self {
            configured,
            provider,
            events,
            found: None,
            current: None,
            search: None,
        }
    }

    /// The model to start now. `None`: a search was started, and a [`ModelEvent::Found`] will follow.
    pub(super) fn next(&mut self) -> Option<ModelSource> {
        match &self.configured {
            Some(ModelSource::File(path)) if is_missing(path) => self.log_missing(path),
            Some(source) => {
                self.search = None;
                self.current = None;
                return Some(source.clone());
            }
            None => {}
        }
        if let Some(found) = self.found.as_ref().filter(|found| !is_missing(&found.path)) {
            self.current = Some(found.clone());
            return Some(ModelSource::File(found.path.clone()));
        }
        self.found = None;
        let (provider, events) = (self.provider.clone(), self.events.clone());
        self.search = Some(SearchTask(tokio::spawn(async move {
            let notify = |found| {
                // Sending fails only when the session has ended.
                let _ = events.send(EpochEvent {
                    epoch: 0,
                    event: SessionEvent::Model(ModelEvent::Found(found)),
                });
            };
            let mut panic_restart = PanicRestart::new("the search for a model in Edge Impulse Studio");
            while let Err(wait) = panic_restart.attempt(provider.run(&notify)).await {
                tokio::time::sleep(wait).await;
            }
        })));
        None
    }

    fn log_missing(&self, path: &std::path::Path) {
        if self.found.is_none() && self.search.is_none() {
            warn_missing_file(path);
        }
    }

    /// Stores the result of the search. Returns `true` if it is another model than the one that was started last.
    pub(super) fn set_found(&mut self, found: ModelUpdate) -> bool {
        let model = match found {
            ModelUpdate::Model(model) => model,
            ModelUpdate::LocalFile => return true,
            ModelUpdate::Unavailable(_) | ModelUpdate::UpdateFailed(_) => return false,
        };
        let is_new = self.current.as_ref().is_none_or(|current| current.path != model.path);
        self.found = Some(*model);
        is_new
    }

    /// The model from Studio that was started last.
    pub(super) fn stored(&self) -> Option<&StoredModel> {
        self.current.as_ref()
    }

    /// Whether the configured model is used: it is built in, or its file exists.
    pub(super) fn is_local(&self) -> bool {
        match &self.configured {
            Some(ModelSource::File(path)) => self.current.is_none() && !is_missing(path),
            Some(ModelSource::Builtin(_)) => true,
            None => false,
        }
    }

    /// Starts this model next.
    pub(super) fn set_next(&mut self, model: StoredModel) {
        self.found = Some(model);
    }

    /// This model runs now, and starts again after a failure.
    pub(super) fn set_current(&mut self, model: StoredModel) {
        self.found = Some(model.clone());
        self.current = Some(model);
    }

    /// The next start searches in Studio.
    pub(super) fn forget(&mut self) {
        self.found = None;
        self.current = None;
    }

    /// Logs that the found model is used later.
    pub(super) fn log_waiting(&self) {
        if let Some(StoredModel { metadata, .. }) = &self.found {
            tracing::info!(
                version = metadata.version,
                project = %metadata.project,
                "Downloaded a new model; it is used after the next start or the command restart"
            );
        }
    }

    /// Stops the search.
    pub(super) fn stop(&mut self) {
        self.search = None;
    }
}
