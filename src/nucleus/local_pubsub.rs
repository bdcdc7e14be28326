//! Greengrass's local publish/subscribe between the components of a device. It needs an `accessControl`.

use bytes::Bytes;
use futures_util::StreamExt;
use greengrass_ipc::{BinaryMessageOut, Client, EventStream, PublishMessage, SubscriptionResponseMessage};
use serde_json::Value;
use tokio::time::{Duration, timeout};

use super::connection::Nucleus;
use super::error::NucleusError;

/// Greengrass Lite closes the connection after a larger packet (`GGL_IPC_MAX_MSG_LEN`).
const MAX_PACKET: usize = 10_000;
/// The bytes of a packet beside topic and payload: 206 of headers and frame, 61 of JSON, and a reserve.
const PACKET_OVERHEAD: usize = 320;
/// A nucleus that does not answer within this time hangs.
const LIMIT: Duration = Duration::from_secs(5);
const PUBLISH: &str = "PublishToTopic";
const SUBSCRIBE: &str = "SubscribeToTopic";

/// A connection to the local publish/subscribe.
pub struct LocalPubSub {
    client: Client,
}

/// The messages of a topic that other components publish.
pub struct LocalMessages {
    events: EventStream<SubscriptionResponseMessage>,
    topic: String,
}

impl Nucleus {
    /// Opens a connection for local messages.
    ///
    /// # Errors
    /// The errors of the connection.
    pub async fn local_pubsub(&self) -> Result<LocalPubSub, NucleusError> {
        Ok(LocalPubSub {
            client: self.connect().await?,
        })
    }
}

impl LocalPubSub {
    /// Most bytes of a payload on this topic.
    pub fn max_payload(topic: &str) -> usize {
        let topic = Value::from(topic).to_string().len();
        // Payloads are base64 in the packet.
        MAX_PACKET.saturating_sub(PACKET_OVERHEAD + topic) / 4 * 3
    }

    /// Publishes a message. It goes as bytes: Lite gives receivers of a message as JSON room for about 20 values
    /// (`PAYLOAD_MAX_SUBOBJECTS` of its core bus), and ends their subscription without a notice after a larger one.
    ///
    /// # Errors
    /// [`NucleusError::Unauthorized`], [`NucleusError::TimedOut`], [`NucleusError::Failed`]
    pub async fn publish(&self, topic: &str, payload: Bytes) -> Result<(), NucleusError> {
        let message = PublishMessage {
            json_message: None,
            binary_message: Some(BinaryMessageOut {
                message: payload.into(),
            }),
        };
        within_limit(PUBLISH, topic, self.client.publish_to_topic(topic, message)).await
    }

    /// Subscribes to a topic.
    ///
    /// # Errors
    /// [`NucleusError::Unauthorized`], [`NucleusError::TimedOut`], [`NucleusError::Failed`]
    pub async fn subscribe(&self, topic: &str) -> Result<LocalMessages, NucleusError> {
        let events = within_limit(SUBSCRIBE, topic, self.client.subscribe_to_topic(topic)).await?;
        Ok(LocalMessages {
            events,
            topic: topic.to_owned(),
        })
    }

    /// Completes when the connection is lost.
    pub async fn closed(&self) -> NucleusError {
        self.client.closed().await;
        lost(PUBLISH)
    }
}

impl LocalMessages {
    /// The payload of the next message. A message in JSON gives its text.
    ///
    /// # Errors
    /// The subscription has ended.
    pub async fn next(&mut self) -> Result<Bytes, NucleusError> {
        let event = self.events.next().await.ok_or_else(|| lost(SUBSCRIBE))?;
        let event = event.map_err(|error| NucleusError::of_topic(SUBSCRIBE, &self.topic, &error))?;
        Ok(match (event.binary_message, event.json_message) {
            // A client may send the text of a command as a JSON text.
            (Some(message), _) => message.message.into(),
            (None, Some(message)) => match message.message {
                Some(Value::String(text)) => text.into(),
                Some(value) => value.to_string().into(),
                None => Bytes::new(),
            },
            (None, None) => Bytes::new(),
        })
    }
}

async fn within_limit<T>(
    operation: &'static str,
    topic: &str,
    request: impl Future<Output = greengrass_ipc::Result<T>>,
) -> Result<T, NucleusError> {
    match timeout(LIMIT, request).await {
        Ok(result) => result.map_err(|error| NucleusError::of_topic(operation, topic, &error)),
        Err(_) => Err(NucleusError::TimedOut {
            operation,
            limit: LIMIT,
        }),
    }
}

fn lost(operation: &'static str) -> NucleusError {
    NucleusError::Failed {
        operation,
        reason: "the nucleus closed the connection".to_owned(),
    }
}
