//! One connection that publishes one message: what `check --online` uses.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::Settings;
use super::connection::{Connection, LinkEvent};
use super::connection_error::ConnectionError;
use super::message::Message;

/// Where a probe failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeError {
    /// There was no connection.
    Connect(ConnectionError),
    /// The connection stood, and the message was not acknowledged.
    Publish(ConnectionError),
}

/// Connects with a clean session and without a last will, publishes `message` and disconnects.
///
/// Gives the time until the connection stood. `settings.client_id` must not be the daemon's: two clients with one id throw
/// each other out.
///
/// # Errors
/// Where it failed and why; within the limits of `settings`.
pub async fn probe(settings: &Settings, message: Message) -> Result<Duration, ProbeError> {
    let begun = Instant::now();
    let mut connection = Connection::open(settings, None, true)
        .await
        .map_err(ProbeError::Connect)?;
    let mut connected = None;
    let limit = settings.limits.acknowledgement;
    loop {
        let event = match timeout(limit, connection.events.recv()).await {
            Ok(event) => event,
            Err(_) => Some(LinkEvent::Closed(ConnectionError::NoAcknowledgement(limit))),
        };
        match event.unwrap_or(LinkEvent::Closed(ConnectionError::Closed)) {
            LinkEvent::Connected => {
                connected = Some(begun.elapsed());
                connection.publish(message.clone()).await;
            }
            LinkEvent::Acknowledged(_) | LinkEvent::Written(0) => break,
            LinkEvent::Closed(reason) if connected.is_some() => return Err(ProbeError::Publish(reason)),
            LinkEvent::Closed(reason) => return Err(ProbeError::Connect(reason)),
            _ => {}
        }
    }
    connection.disconnect().await;
    // The broker closes the connection; when it does not, dropping it will.
    let closed = async { while !matches!(connection.events.recv().await, None | Some(LinkEvent::Closed(_))) {} };
    let _ = timeout(Duration::from_secs(1), closed).await;
    Ok(connected.unwrap_or_default())
}
