//! Updates of the model that Studio asks for over the channel.

use super::channel::{ChannelHandle, ChannelService, HelloOffer, Incoming, IncomingKind, Outgoing};
use super::inference_info::inference_info;
use super::update::{StudioUpdates, UpdateOutcome, UpdateRequester};

/// Answers `newModelAvailable`, wherever a model runs.
#[derive(Debug)]
pub struct ModelUpdateService {
    channel: ChannelHandle,
    requester: UpdateRequester,
    updates: StudioUpdates,
}

impl ModelUpdateService {
    /// `updates`: shows others that an update is in progress.
    pub fn new(channel: ChannelHandle, requester: UpdateRequester, updates: StudioUpdates) -> Self {
        Self {
            channel,
            requester,
            updates,
        }
    }
}

impl ChannelService for ModelUpdateService {
    fn kinds(&self) -> &'static [IncomingKind] {
        &[IncomingKind::NewModelAvailable]
    }

    fn add_to_hello(&self, _offer: &mut HelloOffer) {}

    fn handle(&self, message: Incoming) {
        let Incoming::NewModelAvailable(version) = message else {
            return;
        };
        let version = match version {
            Ok(version) => version,
            Err(error) => {
                tracing::warn!(error, "A request of Edge Impulse Studio for another model is refused");
                self.channel.send(Outgoing::ModelUpdateFailed { error });
                return;
            }
        };
        tracing::info!(version, "Edge Impulse Studio asks for another version of the model");
        let (channel, requester, update) = (self.channel.clone(), self.requester.clone(), self.updates.begin());
        tokio::spawn(async move {
            let answer = answer_of(requester.request(version).await);
            // Without a connection nobody waits: the next hello names the model.
            let _ = channel.deliver(answer).await;
            drop(update);
        });
    }

    fn disconnected(&self) {}
}

fn answer_of(outcome: UpdateOutcome) -> Outgoing {
    let error = match outcome {
        UpdateOutcome { error: Some(error), .. } => error,
        UpdateOutcome {
            running: Some(info), ..
        } => {
            return Outgoing::ModelUpdated {
                inference_info: inference_info(&info),
            };
        }
        UpdateOutcome {
            found: Some(version), ..
        } => {
            format!(
                "no model serves, so version {version} starts without a trial; the next hello names the model that runs"
            )
        }
        UpdateOutcome { .. } => "there is no new version of the model".to_owned(),
    };
    Outgoing::ModelUpdateFailed { error }
}
