//! Requests for an update of the running model, and their outcome. The session answers them; commands, the timer and the
//! channel to Studio send them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::model::ModelInfo;

/// Requests that may wait for the session.
const QUEUE: usize = 4;

/// A request to replace the running model.
#[derive(Debug)]
pub struct UpdateRequest {
    /// This deployment version, even if it is bad. `None`: the newest one in Studio, unless it is bad.
    pub version: Option<u64>,
    /// Receives the outcome.
    pub reply: oneshot::Sender<UpdateOutcome>,
}

/// What came of an update.
#[derive(Debug, Clone, Default)]
pub struct UpdateOutcome {
    /// The deployment version that was found, if one was.
    pub found: Option<u64>,
    /// The model that runs now, with its own version.
    pub running: Option<Arc<ModelInfo>>,
    /// Why the found version is not the running one, as a sentence.
    pub error: Option<String>,
}

impl UpdateOutcome {
    /// An update that was not tried.
    fn refused(reason: &str) -> Self {
        Self {
            error: Some(reason.to_owned()),
            ..Self::default()
        }
    }
}

/// Requests updates. Cheap to clone; it outlives the sessions.
#[derive(Debug, Clone)]
pub struct UpdateRequester(mpsc::Sender<UpdateRequest>);

impl UpdateRequester {
    /// A requester, and the requests for the session.
    pub fn new() -> (Self, mpsc::Receiver<UpdateRequest>) {
        let (sender, requests) = mpsc::channel(QUEUE);
        (Self(sender), requests)
    }

    /// Requests an update and waits for its outcome: download, start and trial, which may take minutes.
    pub async fn request(&self, version: Option<u64>) -> UpdateOutcome {
        let (reply, outcome) = oneshot::channel();
        if self.0.try_send(UpdateRequest { version, reply }).is_err() {
            return UpdateOutcome::refused("the component stops or has too many such requests; send this again later");
        }
        outcome.await.unwrap_or_else(|_| {
            UpdateOutcome::refused(
                "the session ended before the update was complete; send this again after the restart",
            )
        })
    }
}

/// Whether an update that Studio asked for is in progress. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct StudioUpdates(Arc<AtomicUsize>);

/// Counts as an update until it is dropped.
#[derive(Debug)]
pub(super) struct AskedUpdate(StudioUpdates);

impl StudioUpdates {
    /// Whether Studio waits for an answer.
    pub(super) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    pub(super) fn begin(&self) -> AskedUpdate {
        self.0.fetch_add(1, Ordering::Relaxed);
        AskedUpdate(self.clone())
    }
}

impl Drop for AskedUpdate {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_that_nobody_answers_has_an_outcome_all_the_same() {
        let (requester, mut requests) = UpdateRequester::new();
        let waiting = tokio::spawn({
            let requester = requester.clone();
            async move { requester.request(Some(4)).await }
        });
        let request = requests.recv().await.unwrap();
        assert_eq!(request.version, Some(4));
        drop(request);
        let error = waiting.await.unwrap().error.unwrap();
        assert!(error.contains("session ended"), "{error}");
        drop(requests);
        let error = requester.request(None).await.error.unwrap();
        assert!(error.contains("stops"), "{error}");
    }
}
