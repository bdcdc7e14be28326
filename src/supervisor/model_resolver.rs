//! Which model is started next: the configured one, or the one that Edge Impulse Studio has.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::event::{Event, ModelEvent, Tagged};
use crate::config::ModelSource;
use crate::studio::{Found, Provider, StoredModel, is_missing, say_missing};
use crate::util::panics::PanicRestart;

/// The source of models of one generation.
pub(super) struct ModelResolver {
    configured: Option<ModelSource>,
    provider: Arc<Provider>,
    events: mpsc::UnboundedSender<Tagged>,
    /// Told of, the newest one.
    found: Option<StoredModel>,
    /// Started last; held so that nobody removes it.
    current: Option<StoredModel>,
    looking: Option<Looking>,
}

/// A search that goes on until it is dropped.
struct Looking(JoinHandle<()>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ModelResolver {
    pub(super) fn new(
        configured: Option<ModelSource>,
        provider: Provider,
        events: mpsc::UnboundedSender<Tagged>,
    ) -> Self {
        Self {
            configured,
            provider: Arc::new(provider),
            events,
            found: None,
            current: None,
            looking: None,
        }
    }

    /// What to start now. `None`: it is being sought, a [`ModelEvent::Found`] will come.
    pub(super) fn next(&mut self) -> Option<ModelSource> {
        match &self.configured {
            Some(ModelSource::File(path)) if is_missing(path) => self.say_missing(path),
            Some(source) => {
                self.looking = None;
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
        self.looking = Some(Looking(tokio::spawn(async move {
            let tell = |found| {
                // Nobody listens any more once the generation is over.
                let _ = events.send(Tagged {
                    epoch: 0,
                    event: Event::Model(ModelEvent::Found(found)),
                });
            };
            let mut relief = PanicRestart::new("the search for a model in Edge Impulse Studio");
            while let Err(wait) = relief.attempt(provider.keep_looking(&tell)).await {
                tokio::time::sleep(wait).await;
            }
        })));
        None
    }

    fn say_missing(&self, path: &std::path::Path) {
        if self.found.is_none() && self.looking.is_none() {
            say_missing(path);
        }
    }

    /// Takes what was found. `true`: it is another one than was started last.
    pub(super) fn found(&mut self, found: Found) -> bool {
        let model = match found {
            Found::Model(model) => model,
            Found::LocalFile => return true,
            Found::Nothing(_) | Found::StandsIn(_) => return false,
        };
        let is_new = self.current.as_ref().is_none_or(|current| current.path != model.path);
        self.found = Some(*model);
        is_new
    }

    /// Tells that what was found waits for its turn.
    pub(super) fn say_waiting(&self) {
        if let Some(StoredModel { about, .. }) = &self.found {
            tracing::info!(
                "version {} of the model ({}) is here: it is used from the next start or the command restart on",
                about.version,
                about.project
            );
        }
    }

    /// Ends the search.
    pub(super) fn stop(&mut self) {
        self.looking = None;
    }
}
