//! The component's `Parameters`, and their changes.

use std::time::Duration;

use futures_util::StreamExt;
use greengrass_ipc::Client;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::connection::{Nucleus, get_configuration};
use super::error::NucleusError;
use crate::util::backoff::{Backoff, BackoffPolicy};
use crate::util::clock::rounded;
use crate::util::log_limiter::LogLimiter;

/// Where the recipe has the configuration keys.
const PARAMETERS: &str = "Parameters";
/// A deployment changes its keys one after the other. They are read when no event arrived for this time ...
const QUIET: Duration = Duration::from_millis(500);
/// ... or this time after the first event.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
/// How long the nucleus may take to grant a subscription.
const SUBSCRIBE_LIMIT: Duration = Duration::from_secs(10);

impl Nucleus {
    /// Reads the component's `Parameters` as JSON text; `{}` if the component has none.
    ///
    /// # Errors
    /// The errors of the connection and of the request.
    pub async fn parameters(&self) -> Result<String, NucleusError> {
        parameters(&self.connect().await?).await
    }

    /// Sends the `Parameters` as JSON text after each change, until the receiver is dropped. `known`: the text that the
    /// receiver knows already. Connects again whenever the connection is lost, and then sends what changed meanwhile.
    pub async fn watch_parameters(&self, mut known: String, changes: mpsc::Sender<String>) {
        let (mut backoff, mut log_limiter) = (Backoff::new(BackoffPolicy::default()), LogLimiter::default());
        while !changes.is_closed() {
            let error = match self.watch_connection(&mut known, &changes, &mut backoff).await {
                Ok(()) => return,
                Err(error) => error,
            };
            let now = std::time::Instant::now();
            let wait = backoff.failed(now);
            if let Some(suppressed) = log_limiter.check_words(now, &error.to_string()) {
                tracing::warn!(
                    %error,
                    retry_in = ?rounded(wait),
                    suppressed = suppressed.count(),
                    "Changes of the configuration are not noticed while the nucleus cannot be reached"
                );
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = changes.closed() => return,
            }
        }
    }

    /// Returns when the receiver is dropped.
    ///
    /// # Errors
    /// The connection is lost.
    async fn watch_connection(
        &self,
        known: &mut String,
        changes: &mpsc::Sender<String>,
        backoff: &mut Backoff,
    ) -> Result<(), NucleusError> {
        const OPERATION: &str = "SubscribeToConfigurationUpdate";
        let client = self.connect().await?;
        // The whole configuration: a subscription to `Parameters` is refused while the component has none.
        let subscribing = client.subscribe_to_configuration_update(None, Vec::new());
        let mut events = match timeout(SUBSCRIBE_LIMIT, subscribing).await {
            Ok(events) => events.map_err(|error| NucleusError::of_operation(OPERATION, &error))?,
            Err(_) => {
                return Err(NucleusError::TimedOut {
                    operation: OPERATION,
                    limit: SUBSCRIBE_LIMIT,
                });
            }
        };
        backoff.succeeded(std::time::Instant::now());
        tracing::debug!("Changes of the configuration are applied while the component runs");
        loop {
            let text = parameters(&client).await?;
            if text != *known {
                known.clone_from(&text);
                if changes.send(text).await.is_err() {
                    return Ok(());
                }
            }
            let closed = || NucleusError::Failed {
                operation: OPERATION,
                reason: "the nucleus closed the connection".to_owned(),
            };
            let event = tokio::select! {
                event = events.next() => event,
                () = client.closed() => None,
                () = changes.closed() => return Ok(()),
            };
            event
                .ok_or_else(closed)?
                .map_err(|error| NucleusError::of_operation(OPERATION, &error))?;
            let settled = Instant::now() + SETTLE_LIMIT;
            while Instant::now() < settled
                && let Ok(event) = timeout(QUIET, events.next()).await
            {
                event
                    .ok_or_else(closed)?
                    .map_err(|error| NucleusError::of_operation(OPERATION, &error))?;
            }
        }
    }
}

async fn parameters(client: &Client) -> Result<String, NucleusError> {
    match get_configuration(client, None, &[PARAMETERS]).await {
        Ok(parameters) => Ok(parameters.to_string()),
        Err(NucleusError::NotFound { .. }) => Ok("{}".to_owned()),
        Err(error) => Err(error),
    }
}
