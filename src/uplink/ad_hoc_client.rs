//! A connection of a person at the device: sees what a device publishes and sends it a command, beside the daemon and
//! without being taken for it (an id of its own, a clean session, no last will).

use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use tokio::time::timeout;

use super::Settings;
use super::connection::{Connection, LinkEvent};
use super::connection_error::ConnectionError;
use super::message::{Class, Message};
use crate::config::Qos;

/// How long the broker may take to see a visitor off.
const FAREWELL: Duration = Duration::from_secs(1);
/// Letters after the device's name in the client id.
const SUFFIX: usize = 6;
/// Most bytes of a client id at IoT Core.
const MAX_CLIENT_ID: usize = 128;

/// What a visitor saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedMessage {
    /// Full topic.
    pub topic: String,
    /// As it came.
    pub payload: Bytes,
}

/// See the module. Every topic is subscribed to when it exists.
#[derive(Debug)]
pub struct AdHocClient {
    connection: Connection,
    acknowledgement: Duration,
}

impl AdHocClient {
    /// Connects as `<settings.client_id>-<random>` and subscribes to `topics`.
    ///
    /// # Errors
    /// Why there is no connection, or no subscription; within the limits of `settings`.
    pub async fn start(mut settings: Settings, topics: &[&str]) -> Result<Self, ConnectionError> {
        settings.client_id = client_id(&settings.client_id);
        let acknowledgement = settings.limits.acknowledgement;
        let connection = Connection::open(&settings, None, true).await?;
        let mut visit = Self {
            connection,
            acknowledgement,
        };
        let mut missing = topics.len();
        loop {
            match timeout(acknowledgement, visit.connection.events.recv()).await {
                Ok(Some(LinkEvent::Connected)) => {
                    for topic in topics {
                        visit.connection.subscribe(topic).await;
                    }
                }
                Ok(Some(LinkEvent::Subscribed { granted: true })) => {
                    missing -= 1;
                    if missing == 0 {
                        return Ok(visit);
                    }
                }
                Ok(Some(LinkEvent::Subscribed { granted: false })) => {
                    return Err(ConnectionError::Other(
                        "the broker refuses the subscription: the policy of these credentials must allow iot:Subscribe and \
                         iot:Receive for this device's topics"
                            .to_owned(),
                    ));
                }
                Ok(Some(LinkEvent::Closed(reason))) => return Err(reason),
                Ok(Some(_)) => {}
                Ok(None) => return Err(ConnectionError::Closed),
                Err(_) => return Err(ConnectionError::NoAcknowledgement(acknowledgement)),
            }
        }
    }

    /// The next message on one of the topics.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn next(&mut self) -> Result<ReceivedMessage, ConnectionError> {
        loop {
            match self.connection.events.recv().await {
                Some(LinkEvent::Received(publish)) => {
                    return Ok(ReceivedMessage {
                        topic: publish.topic,
                        payload: publish.payload,
                    });
                }
                Some(LinkEvent::Closed(reason)) => return Err(reason),
                Some(_) => {}
                None => return Err(ConnectionError::Closed),
            }
        }
    }

    /// Publishes at QoS 1 without the retain flag, and waits until the broker has it. What comes in the meantime is kept for
    /// [`next`](Self::next) in `seen`.
    ///
    /// # Errors
    /// Why the broker does not have it.
    pub async fn publish(
        &mut self,
        topic: &str,
        payload: Bytes,
        seen: &mut Vec<ReceivedMessage>,
    ) -> Result<(), ConnectionError> {
        let message = Message {
            topic: topic.into(),
            payload,
            class: Class::Urgent,
            qos: Qos::AtLeastOnce,
            retain: false,
            status: None,
        };
        self.connection.publish(message).await;
        loop {
            match timeout(self.acknowledgement, self.connection.events.recv()).await {
                Ok(Some(LinkEvent::Acknowledged(_))) => return Ok(()),
                Ok(Some(LinkEvent::Received(publish))) => seen.push(ReceivedMessage {
                    topic: publish.topic,
                    payload: publish.payload,
                }),
                Ok(Some(LinkEvent::Closed(reason))) => return Err(reason),
                Ok(Some(_)) => {}
                Ok(None) => return Err(ConnectionError::Closed),
                Err(_) => return Err(ConnectionError::NoAcknowledgement(self.acknowledgement)),
            }
        }
    }

    /// Disconnects in order.
    pub async fn leave(mut self) {
        self.connection.disconnect().await;
        let closed =
            async { while !matches!(self.connection.events.recv().await, None | Some(LinkEvent::Closed(_))) {} };
        // The broker closes the connection; when it does not, dropping it will.
        let _ = timeout(FAREWELL, closed).await;
    }
}

/// The device's id, shortened if need be, and letters of chance: two clients with one id throw each other out.
fn client_id(device: &str) -> String {
    let chance: String = rand::rng()
        .sample_iter(rand::distr::Alphanumeric)
        .take(SUFFIX)
        .map(char::from)
        .collect();
    let most = device.floor_char_boundary(MAX_CLIENT_ID - SUFFIX - 1);
    format!("{}-{chance}", device.get(..most).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_never_has_the_devices_own_id_and_fits_iot_core() {
        let (one, two) = (client_id("cam_a1b2"), client_id("cam_a1b2"));
        assert!(one.starts_with("cam_a1b2-") && one.len() == "cam_a1b2-".len() + SUFFIX);
        assert_ne!(one, two);
        assert_eq!(client_id(&"x".repeat(128)).len(), MAX_CLIENT_ID);
    }
}
