//! A short-lived connection with its own client id, a clean session and no last will. `send`,
//! `watch` and `check --online` use it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::connection::{BrokerConnection, LinkEvent};
use super::connection_error::ConnectionError;
use super::message::Message;
use super::settings::Settings;

/// How long to wait for the broker to close the connection after DISCONNECT.
const DISCONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Most bytes of a client id at IoT Core.
const MAX_CLIENT_ID: usize = 128;

/// A message from a subscribed topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedMessage {
    /// Full topic.
    pub topic: String,
    /// The payload as received.
    pub payload: Bytes,
}

/// A connected client. Dropping it closes the connection.
#[derive(Debug)]
pub struct AdHocClient {
    connection: BrokerConnection,
    /// Time limit for each acknowledgement.
    acknowledgement: Duration,
    /// Messages received while waiting for an acknowledgement.
    received: VecDeque<ReceivedMessage>,
}

impl AdHocClient {
    /// Connects with `settings.client_id`, which must differ from that of the running component: see [`ad_hoc_client_id`].
    ///
    /// # Errors
    /// The connection failed, or the limits of `settings` have passed.
    pub async fn connect(settings: &Settings) -> Result<Self, ConnectionError> {
        let mut client = Self {
            connection: BrokerConnection::open(settings, None, true).await?,
            acknowledgement: settings.limits.acknowledgement,
            received: VecDeque::new(),
        };
        client
            .wait_for(|event| matches!(event, LinkEvent::Connected).then_some(()))
            .await?;
        Ok(client)
    }

    /// Subscribes to `topics` at QoS 1.
    ///
    /// # Errors
    /// The broker refuses a topic, or the connection ended.
    pub async fn subscribe(&mut self, topics: &[&str]) -> Result<(), ConnectionError> {
        for topic in topics {
            self.connection.subscribe(topic).await;
        }
        for topic in topics {
            let granted = self
                .wait_for(|event| match event {
                    LinkEvent::Subscribed { granted } => Some(*granted),
                    _ => None,
                })
                .await
                .map_err(|error| match error {
                    ConnectionError::Closed => ConnectionError::ClosedOnSubscribe((*topic).to_owned()),
                    other => other,
                })?;
            if !granted {
                return Err(ConnectionError::Other(
                    "the broker refuses the subscription: the policy of these credentials must allow iot:Subscribe and \
                     iot:Receive for this device's topics"
                        .to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// Publishes a message of QoS 1 and waits until the broker has acknowledged it.
    ///
    /// # Errors
    /// The connection ended, or the acknowledgement did not come in time.
    pub async fn publish(&mut self, message: Message) -> Result<(), ConnectionError> {
        self.connection.publish(message).await;
        self.wait_for(|event| matches!(event, LinkEvent::Acknowledged(_)).then_some(()))
            .await
    }

    /// The next message on a subscribed topic. Waits without limit.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn next(&mut self) -> Result<ReceivedMessage, ConnectionError> {
        loop {
            if let Some(message) = self.received.pop_front() {
                return Ok(message);
            }
            let event = self.connection.events.recv().await;
            self.keep_message(event)?;
        }
    }

    /// Sends DISCONNECT and waits until the broker closes the connection.
    pub async fn disconnect(mut self) {
        self.connection.disconnect().await;
        let closed =
            async { while !matches!(self.connection.events.recv().await, None | Some(LinkEvent::Closed(_))) {} };
        // If the broker does not close the connection, dropping it does.
        let _ = timeout(DISCONNECT_LIMIT, closed).await;
    }

    /// Waits for the event that `wanted` accepts, within the limit for acknowledgements.
    async fn wait_for<T>(&mut self, wanted: impl Fn(&LinkEvent) -> Option<T>) -> Result<T, ConnectionError> {
        loop {
            let event = timeout(self.acknowledgement, self.connection.events.recv()).await;
            let event = event.map_err(|_| ConnectionError::NoAcknowledgement(self.acknowledgement))?;
            if let Some(found) = event.as_ref().and_then(&wanted) {
                return Ok(found);
            }
            self.keep_message(event)?;
        }
    }

    fn keep_message(&mut self, event: Option<LinkEvent>) -> Result<(), ConnectionError> {
        match event {
            Some(LinkEvent::Received(publish)) => self.received.push_back(ReceivedMessage {
                topic: publish.topic,
                payload: publish.payload,
            }),
            Some(LinkEvent::Closed(error)) => return Err(error),
            Some(_) => {}
            None => return Err(ConnectionError::Closed),
        }
        Ok(())
    }
}

/// Returns `<device>-<random>`, at most 128 bytes. It differs from the client id of the running component, because a broker
/// disconnects a client when another one connects with the same id.
pub fn ad_hoc_client_id(device: &str) -> String {
    let random = format!("-{:08x}", rand::random::<u32>());
    let end = device.floor_char_boundary(MAX_CLIENT_ID - random.len());
    format!("{}{random}", device.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_id_differs_from_the_device_name_and_fits_iot_core() {
        for device in ["cam_a1b2c3d4e5f6", &"x".repeat(128), &"é".repeat(64)] {
            let id = ad_hoc_client_id(device);
            assert!(id.len() <= 128 && id != device, "{id}");
            assert!(id.starts_with(device.get(..10).unwrap()));
        }
        assert_eq!(ad_hoc_client_id(&"x".repeat(128)).len(), MAX_CLIENT_ID);
        assert_ne!(ad_hoc_client_id("cam"), ad_hoc_client_id("cam"));
    }
}
