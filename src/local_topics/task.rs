//! The connection to the local publish/subscribe, made again after each failure.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::shorten::shorten;
use crate::config::Qos;
use crate::device::Topics;
use crate::nucleus::{LocalMessages, LocalPubSub, Nucleus, NucleusError};
use crate::status::health::HealthFlag;
use crate::status::stats::Stats;
use crate::uplink::{CommandRefusal, MAX_COMMAND_BYTES, Message, MessageCopies, Outbox, ReceivedCommand};
use crate::util::backoff::{Backoff, BackoffPolicy};
use crate::util::clock::rounded;
use crate::util::log_limiter::{LogLimiter, Suppressed};
use crate::util::panics::PanicRestart;

/// What a deployment must merge for [`NucleusError::Unauthorized`].
const ACCESS_CONTROL: &str = concat!(
    r#"merge {"accessControl": {"aws.greengrass.ipc.pubsub": {"EdgeImpulseLinuxRunnerServiceComponent:pubsub:1": {"#,
    r#""operations": ["aws.greengrass#PublishToTopic", "aws.greengrass#SubscribeToTopic"], "#,
    r#""resources": ["/edgeimpulse/device/*"]}}}} in a deployment"#
);

/// Times of the local topics.
#[derive(Debug, Clone, Copy)]
pub struct LocalTopicsTimes {
    /// A missing `accessControl` is tried again after this time: it may come with a deployment.
    pub unauthorized_retry: Duration,
    /// The subscription is renewed after this time: Lite ends it without a notice when its publish/subscribe service restarts.
    pub renewal: Duration,
}

impl Default for LocalTopicsTimes {
    fn default() -> Self {
        Self {
            unauthorized_retry: Duration::from_secs(60),
            renewal: Duration::from_secs(300),
        }
    }
}

/// What the local topics need.
pub struct LocalTopicsSettings {
    /// The nucleus.
    pub nucleus: Nucleus,
    /// The topics of the device.
    pub topics: Arc<Topics>,
    /// Quality of service of answers at the broker.
    pub qos: Qos,
    /// The messages to publish.
    pub copies: Arc<MessageCopies>,
    /// Receives the answers to commands that are refused.
    pub outbox: Arc<Outbox>,
    /// Receives the commands.
    pub commands: mpsc::Sender<ReceivedCommand>,
    /// Writes the answer to a command that is refused.
    pub refusal_answer: fn(CommandRefusal) -> Bytes,
    /// Counts `local_published`, `local_shortened` and `local_dropped`.
    pub stats: Arc<Stats>,
    /// Whether local topics work.
    pub health: HealthFlag,
    /// Times.
    pub times: LocalTopicsTimes,
}

/// The running task. It ends when this is dropped.
pub struct LocalTopics {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Starts the task on the current tokio runtime.
pub fn start(settings: LocalTopicsSettings) -> LocalTopics {
    let (stop, mut stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        let worker = LocalWorker {
            settings,
            log_limiter: Mutex::default(),
        };
        let mut restart = PanicRestart::new("the local topics");
        while let Err(wait) = restart.attempt(worker.run(&mut stopped)).await {
            if stopped.is_terminated() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = &mut stopped => return,
            }
        }
    });
    LocalTopics { stop, task }
}

impl LocalTopics {
    /// Publishes the waiting messages until the deadline, and ends.
    pub async fn stop(mut self, deadline: Instant) {
        // Fails when the task has ended already.
        let _ = self.stop.send(());
        if tokio::time::timeout_at(deadline, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

struct LocalWorker {
    settings: LocalTopicsSettings,
    log_limiter: Mutex<LogLimiter>,
}

impl LocalWorker {
    /// Keeps a connection until the stop.
    async fn run(&self, stop: &mut oneshot::Receiver<()>) {
        let mut backoff = Backoff::new(BackoffPolicy::default());
        loop {
            let Err(error) = self.serve(stop, &mut backoff).await else {
                return;
            };
            self.settings.copies.discard();
            let now = std::time::Instant::now();
            let wait = match error {
                NucleusError::Unauthorized { .. } => self.settings.times.unauthorized_retry,
                _ => backoff.failed(now),
            };
            self.report(&error, wait);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = &mut *stop => return,
            }
        }
    }

    /// Publishes messages and passes commands on until the stop.
    ///
    /// # Errors
    /// The connection failed, or the nucleus refuses to publish.
    async fn serve(&self, stop: &mut oneshot::Receiver<()>, backoff: &mut Backoff) -> Result<(), NucleusError> {
        let copies = &self.settings.copies;
        let pubsub = tokio::select! {
            pubsub = self.settings.nucleus.local_pubsub() => pubsub?,
            _ = &mut *stop => return Ok(()),
        };
        let (mut commands, mut renewal) = self.subscribe(&pubsub).await?;
        copies.resume();
        backoff.succeeded(std::time::Instant::now());
        loop {
            tokio::select! {
                message = copies.next() => {
                    self.publish(&pubsub, message).await?;
                    // Without the subscription the part still fails.
                    if commands.is_some() {
                        self.set_online();
                    }
                }
                command = next_command(&mut commands) => self.pass_on(command?),
                error = pubsub.closed() => return Err(error),
                () = sleep_until(renewal) => {
                    drop(commands.take());
                    (commands, renewal) = self.subscribe(&pubsub).await?;
                }
                _ = &mut *stop => {
                    while let Some(message) = copies.pop() {
                        self.publish(&pubsub, message).await?;
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Subscribes to commands; also returns when to do it again. Without the permission, messages are still published.
    async fn subscribe(&self, pubsub: &LocalPubSub) -> Result<(Option<LocalMessages>, Instant), NucleusError> {
        let times = self.settings.times;
        match pubsub.subscribe(&self.settings.topics.command_input).await {
            Ok(commands) => Ok((Some(commands), Instant::now() + times.renewal)),
            Err(error @ NucleusError::Unauthorized { .. }) => {
                self.report(&error, times.unauthorized_retry);
                Ok((None, Instant::now() + times.unauthorized_retry))
            }
            Err(error) => Err(error),
        }
    }

    async fn publish(&self, pubsub: &LocalPubSub, message: Message) -> Result<(), NucleusError> {
        let Some(payload) = self.fit(&message) else {
            return Ok(());
        };
        let stats = &self.settings.stats;
        let published = pubsub.publish(&message.topic, payload).await;
        match published {
            Ok(()) => stats.local_published.inc(),
            Err(_) => stats.local_dropped.inc(),
        }
        published
    }

    /// The payload, shortened if it is too large; `None`: it is still too large.
    fn fit(&self, message: &Message) -> Option<Bytes> {
        let (stats, bytes) = (&self.settings.stats, message.payload.len());
        let limit = LocalPubSub::max_payload(&message.topic);
        if bytes <= limit {
            return Some(message.payload.clone());
        }
        let Some(short) = shorten(&message.payload, limit) else {
            stats.local_dropped.inc();
            if let Some(suppressed) = self.check_limit("dropped") {
                tracing::warn!(
                    topic = %message.topic,
                    bytes,
                    limit,
                    suppressed = suppressed.count(),
                    "A message is too large for the local topics of Greengrass and goes to the broker only"
                );
            }
            return None;
        };
        stats.local_shortened.inc();
        if short.omitted > 0
            && let Some(suppressed) = self.check_limit("cut")
        {
            tracing::warn!(
                omitted = short.omitted,
                bytes,
                limit,
                suppressed = suppressed.count(),
                "A result is published locally without all its values: its message is too large for the local topics of Greengrass"
            );
        } else if short.omitted == 0
            && let Some(suppressed) = self.check_limit("picture")
        {
            tracing::warn!(
                bytes,
                limit,
                suppressed = suppressed.count(),
                "Messages are published locally without their pictures, which are too large for the local topics of Greengrass"
            );
        }
        Some(short.payload)
    }

    fn pass_on(&self, payload: Bytes) {
        let bytes = payload.len();
        if bytes == 0 {
            return;
        }
        let refusal = if bytes > MAX_COMMAND_BYTES {
            CommandRefusal::TooLarge(bytes)
        } else {
            match self.settings.commands.try_send(ReceivedCommand { payload }) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => CommandRefusal::Busy,
                Err(TrySendError::Closed(_)) => CommandRefusal::Stopping,
            }
        };
        if let Some(suppressed) = self.check_limit("refused") {
            tracing::warn!(error = %refusal, suppressed = suppressed.count(), "A local command was refused");
        }
        let LocalTopicsSettings {
            topics,
            outbox,
            refusal_answer,
            qos,
            ..
        } = &self.settings;
        outbox.push(Message::answer(topics, refusal_answer(refusal), *qos));
    }

    fn set_online(&self) {
        if self.settings.health.failure().is_some() {
            self.settings.health.set_ok();
            tracing::info!("Local topics work again");
        }
    }

    fn report(&self, error: &NucleusError, wait: Duration) {
        self.settings.health.set_failing(error);
        let is_unauthorized = matches!(error, NucleusError::Unauthorized { .. });
        let advice = is_unauthorized.then(|| tracing::field::display(ACCESS_CONTROL));
        let now = std::time::Instant::now();
        if let Some(suppressed) = self.log_limiter.lock().check_words(now, &error.to_string()) {
            tracing::warn!(
                %error,
                advice,
                retry_in = ?rounded(wait),
                suppressed = suppressed.count(),
                "Local topics do not work"
            );
        }
    }

    fn check_limit(&self, key: &str) -> Option<Suppressed> {
        self.log_limiter.lock().check(std::time::Instant::now(), key)
    }
}

/// Waits for the next command; for ever without a subscription.
async fn next_command(commands: &mut Option<LocalMessages>) -> Result<Bytes, NucleusError> {
    match commands {
        Some(commands) => commands.next().await,
        None => std::future::pending().await,
    }
}
