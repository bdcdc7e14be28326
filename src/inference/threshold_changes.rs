//! Threshold changes that viewers request while the model runs.
//!
//! Only the inference loop talks to the model: it applies them between two inferences.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::config::Threshold;
use crate::model::ModelError;

/// Requests that may wait for the inference loop.
const MAX_PENDING: usize = 16;

/// Why a threshold was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdChangeError {
    /// The queue is full.
    #[error("too many threshold changes are waiting; send this one again later")]
    QueueFull,
    /// No answer in time.
    #[error("the model is not running at the moment; send this again when it is")]
    NotRunning,
    /// The model refused; the text is its error message.
    #[error("{0}")]
    Refused(String),
}

#[derive(Debug)]
struct ThresholdRequest {
    threshold: Threshold,
    reply: oneshot::Sender<Result<(), String>>,
}

/// The queue of requested changes, and the changes in force.
#[derive(Debug, Default)]
pub struct ThresholdChanges {
    pending: Mutex<VecDeque<ThresholdRequest>>,
    /// In force since the last [`clear`](Self::clear): a model that is started again gets them too.
    applied: Mutex<Vec<Threshold>>,
}

impl ThresholdChanges {
    /// Asks the inference loop to change a threshold, and waits at most `limit` for the model's answer.
    pub(crate) async fn request(&self, threshold: Threshold, limit: Duration) -> Result<(), ThresholdChangeError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut pending = self.pending.lock();
            pending.retain(|request| !request.reply.is_closed());
            if pending.len() >= MAX_PENDING {
                return Err(ThresholdChangeError::QueueFull);
            }
            pending.push_back(ThresholdRequest { threshold, reply });
        }
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(result)) => result.map_err(ThresholdChangeError::Refused),
            Ok(Err(_)) | Err(_) => Err(ThresholdChangeError::NotRunning),
        }
    }

    /// Applies the pending requests with `set` and answers each of them.
    ///
    /// # Errors
    /// The first fatal error of `set`.
    pub fn apply_pending(&self, mut set: impl FnMut(&Threshold) -> Result<(), ModelError>) -> Result<(), ModelError> {
        while let Some(ThresholdRequest { threshold, reply }) = self.next_request() {
            let result = set(&threshold);
            // The requester may no longer wait.
            let _ = reply.send(result.as_ref().map(|_| ()).map_err(ToString::to_string));
            match result {
                Ok(()) => self.record(threshold),
                Err(e) if e.is_fatal() => return Err(e),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The changes in force, for a model that is started again.
    pub fn applied(&self) -> Vec<Threshold> {
        self.applied.lock().clone()
    }

    /// Returns to the configured thresholds: a new session begins with them.
    pub fn clear(&self) {
        self.applied.lock().clear();
    }

    fn next_request(&self) -> Option<ThresholdRequest> {
        let mut pending = self.pending.lock();
        loop {
            let request = pending.pop_front()?;
            if !request.reply.is_closed() {
                return Some(request);
            }
        }
    }

    fn record(&self, threshold: Threshold) {
        let mut applied = self.applied.lock();
        applied.retain(|known| (known.id, &known.key) != (threshold.id, &threshold.key));
        applied.push(threshold);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn threshold(value: f64) -> Threshold {
        Threshold {
            id: 1,
            key: "min_score".to_owned(),
            value,
        }
    }

    #[tokio::test]
    async fn the_loop_applies_a_change_and_the_next_model_gets_it_too() {
        let changes = Arc::new(ThresholdChanges::default());
        for value in [0.3, 0.4] {
            let requester = changes.clone();
            let requested =
                tokio::spawn(async move { requester.request(threshold(value), Duration::from_secs(10)).await });
            while changes.pending.lock().is_empty() {
                tokio::task::yield_now().await;
            }
            changes.apply_pending(|_| Ok(())).unwrap();
            assert_eq!(requested.await.unwrap(), Ok(()));
        }
        assert_eq!(changes.applied(), [threshold(0.4)]);
        changes.clear();
        assert_eq!(changes.applied(), []);
    }

    #[tokio::test]
    async fn without_a_model_a_change_is_refused_in_time_and_not_applied_later() {
        let changes = ThresholdChanges::default();
        let answer = changes.request(threshold(1.0), Duration::from_millis(20)).await;
        assert_eq!(answer, Err(ThresholdChangeError::NotRunning));
        changes
            .apply_pending(|_| panic!("the requester does not wait any more"))
            .unwrap();
    }
}
