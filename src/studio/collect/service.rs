//! The service of the channel: what is offered, and the queue of requests.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::collector::{Collector, Request};
use super::video::MAX_LENGTH;
use crate::capture::{CaptureTap, TappedSources, VIDEO_SIZE, can_encode_video};
use crate::studio::channel::{ChannelHandle, ChannelService, HelloOffer, Incoming, IncomingKind, Sensor};
use crate::studio::upload::UploadHandle;
use crate::util::panics::PanicRestart;

/// Requests that wait. Studio sends one at a time; beyond that requests are refused.
const QUEUE: usize = 8;
/// Longest recording offered, in seconds, as in the program of Edge Impulse.
const MAX_AUDIO_S: u32 = 3600;
/// Without meaning for cameras; the value of the program of Edge Impulse.
const MAX_CAMERA_S: u32 = 60_000;

/// What the service needs.
#[derive(Debug, Clone)]
pub struct CollectSettings {
    /// Copies of frames and audio.
    pub tap: Arc<CaptureTap>,
    /// Sends answers.
    pub channel: ChannelHandle,
    /// Uploads samples.
    pub uploads: UploadHandle,
    /// Where a video is encoded; the directory of the uploads, which removes what is left behind.
    pub directory: PathBuf,
}

/// Takes samples for Studio. Its task ends when this is dropped.
#[derive(Debug)]
pub struct CollectService {
    channel: ChannelHandle,
    requests: mpsc::Sender<Request>,
    sources: watch::Receiver<TappedSources>,
    has_video: bool,
    task: JoinHandle<()>,
}

impl CollectService {
    /// Starts the task.
    pub fn start(settings: CollectSettings) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        let sources = settings.tap.sources();
        let channel = settings.channel.clone();
        let mut collector = Collector::new(settings, queue);
        let task = tokio::spawn(async move {
            let mut restart = PanicRestart::new("studio samples");
            while let Err(wait) = restart.attempt(collector.run()).await {
                tokio::time::sleep(wait).await;
            }
        });
        Self {
            channel,
            requests,
            sources,
            has_video: can_encode_video(),
            task,
        }
    }
}

impl Drop for CollectService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ChannelService for CollectService {
    fn kinds(&self) -> &'static [IncomingKind] {
        &[
            IncomingKind::Sample,
            IncomingKind::StartSnapshot,
            IncomingKind::StopSnapshot,
        ]
    }

    fn add_to_hello(&self, offer: &mut HelloOffer) {
        let sources = *self.sources.borrow();
        if let Some(frequency) = sources.microphone {
            offer.sensors.push(Sensor {
                name: "Microphone".to_owned(),
                frequencies: vec![frequency.into()],
                max_sample_length_s: MAX_AUDIO_S,
            });
        }
        if let Some((width, height)) = sources.camera {
            offer.sensors.push(Sensor {
                name: format!("Camera ({width}x{height})"),
                frequencies: Vec::new(),
                max_sample_length_s: MAX_CAMERA_S,
            });
            offer.supports_snapshot_streaming = true;
            if self.has_video {
                let (width, height) = VIDEO_SIZE;
                offer.sensors.push(Sensor {
                    name: format!("Video ({width}x{height})"),
                    frequencies: Vec::new(),
                    max_sample_length_s: MAX_LENGTH.as_secs() as u32,
                });
            }
        }
    }

    fn handle(&self, message: Incoming) {
        let refusal = message.refusal("this device has too many requests at once");
        if self.requests.try_send(Request::Message(message)).is_err()
            && let Some(refusal) = refusal
        {
            self.channel.send(refusal);
        }
    }

    fn disconnected(&self) {
        // The task also ends the stream when it sees that there is no connection.
        let _ = self.requests.try_send(Request::Disconnected);
    }
}
