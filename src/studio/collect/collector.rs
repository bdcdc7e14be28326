//! The task that takes samples, one at a time, and runs the snapshot stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::picture::FrameEncoder;
use super::recording::{GAP_LIMIT, record};
use super::service::CollectSettings;
use super::snapshots;
use super::video::{MAX_LENGTH, record_video};
use crate::capture::{CaptureTap, VideoError, can_encode_video};
use crate::studio::channel::{ChannelHandle, Incoming, Outgoing, SampleRequest, SnapshotResolution};
use crate::studio::upload::{SampleKind, UploadSample};
use crate::util::log_limiter::LogLimiter;
use crate::util::text::excerpt;

/// A camera that delivers no frame for this long takes no sample.
const FRAME_LIMIT: Duration = Duration::from_secs(3);
/// Largest file that ingestion takes, in bytes (exclusive).
const MAX_BYTES: f64 = 104_857_600.0;
/// Length of the header of a WAV file.
const WAV_HEADER: f64 = 44.0;

/// A request for the task.
#[derive(Debug)]
pub(super) enum Request {
    /// A message of Studio.
    Message(Incoming),
    /// The connection has ended.
    Disconnected,
}

pub(super) struct Collector {
    settings: CollectSettings,
    requests: mpsc::Receiver<Request>,
    snapshots: Option<RunningStream>,
    sampling: Option<JoinHandle<()>>,
    /// A Studio that floods the device does not fill the log. Shared with the task of a sample.
    log_limiter: Arc<Mutex<LogLimiter>>,
}

/// The task of a snapshot stream, which ends when this is dropped.
struct RunningStream(JoinHandle<()>);

impl Drop for RunningStream {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Collector {
    pub(super) fn new(settings: CollectSettings, requests: mpsc::Receiver<Request>) -> Self {
        Self {
            settings,
            requests,
            snapshots: None,
            sampling: None,
            log_limiter: Arc::default(),
        }
    }

    /// Handles requests until the service is dropped.
    pub(super) async fn run(&mut self) {
        let mut sources = self.settings.tap.sources();
        // What is known already is told in the first hello.
        sources.mark_changed();
        loop {
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(Request::Message(message)) => self.on_message(message),
                    Some(Request::Disconnected) => self.snapshots = None,
                    None => return,
                },
                Ok(()) = sources.changed() => {
                    if *sources.borrow_and_update() != Default::default() {
                        self.settings.channel.offer_changed();
                    }
                }
            }
        }
    }

    fn on_message(&mut self, message: Incoming) {
        let is_sampling = self.sampling.as_ref().is_some_and(|task| !task.is_finished());
        match message {
            Incoming::Sample(Ok(_)) if is_sampling => self.refuse(&message, "a sample is being taken"),
            Incoming::Sample(Ok(request)) => self.sample(request),
            Incoming::Sample(Err(ref reason)) => {
                self.refuse(&message, &format!("the request cannot be used: {reason}"))
            }
            Incoming::StartSnapshot(_) if is_sampling => self.refuse(&message, "a sample is being taken"),
            Incoming::StartSnapshot(_) if self.settings.tap.sources().borrow().camera.is_none() => {
                self.refuse(&message, "this device has no camera");
            }
            Incoming::StartSnapshot(resolution) => self.start_snapshots(resolution),
            Incoming::StopSnapshot => {
                self.snapshots = None;
                self.settings.channel.send(Outgoing::SnapshotStopped);
            }
            _ => {}
        }
    }

    fn refuse(&self, message: &Incoming, reason: &str) {
        let suppressed = self.log_limiter.lock().check_words(Instant::now(), reason);
        if let Some(suppressed) = suppressed {
            tracing::info!(
                reason,
                suppressed = suppressed.count(),
                "A request of Edge Impulse Studio is refused"
            );
        }
        if let Some(refusal) = message.refusal(reason) {
            self.settings.channel.send(refusal);
        }
    }

    /// A stream that runs goes on in its resolution.
    fn start_snapshots(&mut self, resolution: SnapshotResolution) {
        self.settings.channel.send(Outgoing::SnapshotStarted);
        if self.snapshots.as_ref().is_none_or(|stream| stream.0.is_finished()) {
            let (tap, channel) = (self.settings.tap.clone(), self.settings.channel.clone());
            self.snapshots = Some(RunningStream(tokio::spawn(snapshots::run(tap, channel, resolution))));
        }
    }

    fn sample(&mut self, request: SampleRequest) {
        let suppressed = self.log_limiter.lock().check(Instant::now(), "asked");
        if let Some(suppressed) = suppressed {
            tracing::info!(
                sensor = excerpt(&request.sensor),
                label = excerpt(&request.label),
                length_ms = request.length_ms,
                category = request.category,
                suppressed = suppressed.count(),
                "Edge Impulse Studio asks for a sample"
            );
        }
        self.settings.channel.send(Outgoing::SampleAccepted);
        let (settings, log_limiter) = (self.settings.clone(), self.log_limiter.clone());
        self.sampling = Some(tokio::spawn(async move {
            let channel = &settings.channel;
            match take_sample(request, &settings).await {
                Ok(()) => channel.send(Outgoing::SampleFinished),
                Err(error) => {
                    let suppressed = log_limiter.lock().check_words(Instant::now(), &error);
                    if let Some(suppressed) = suppressed {
                        let suppressed = suppressed.count();
                        tracing::warn!(error, suppressed, "The sample for Edge Impulse Studio failed");
                    }
                    channel.send(Outgoing::SampleFailed { error })
                }
            };
        }));
    }
}

/// Takes and uploads one sample. The error is the text for Studio.
async fn take_sample(request: SampleRequest, settings: &CollectSettings) -> Result<(), String> {
    let CollectSettings {
        tap,
        channel,
        uploads,
        directory,
    } = settings;
    let sources = *tap.sources().borrow();
    let (kind, data) = match (&*request.sensor, sources.camera, sources.microphone) {
        (sensor, Some(_), _) if sensor.starts_with("Camera") => {
            channel.send(Outgoing::SampleStarted);
            (SampleKind::Jpeg, picture(tap).await?)
        }
        (sensor, Some(_), _) if sensor.starts_with("Video") => {
            let length = Duration::from_secs_f64(request.length_ms / 1000.0);
            if length.is_zero() || length > MAX_LENGTH {
                return Err(format!(
                    "a video of {} s cannot be taken; accepted: up to {} s",
                    length.as_secs_f64(),
                    MAX_LENGTH.as_secs()
                ));
            }
            if !can_encode_video() {
                return Err(VideoError::NoEncoder.to_string());
            }
            channel.send(Outgoing::SampleStarted);
            let processing = || {
                channel.send(Outgoing::SampleProcessing);
            };
            (SampleKind::Mp4, record_video(tap, length, directory, processing).await?)
        }
        ("Microphone", _, Some(frequency)) => (SampleKind::Wav, sound(&request, frequency, tap, channel).await?),
        (sensor, ..) => return Err(format!("this device has no sensor {:?}", excerpt(sensor))),
    };
    channel.send(Outgoing::SampleUploading);
    let sample = UploadSample {
        category: request.category,
        label: request.label,
        kind,
        data,
        collected: None,
    };
    uploads.upload(sample).await.map_err(|e| e.to_string())
}

/// The next frame of the camera as JPEG, in its own size.
async fn picture(tap: &CaptureTap) -> Result<Bytes, String> {
    let mut frames = tap.frames();
    let frame = match tokio::time::timeout(FRAME_LIMIT, frames.changed()).await {
        Ok(Ok(())) => frames.borrow_and_update().clone(),
        _ => None,
    };
    let timeout = || format!("Timeout: the camera delivered no frame for {} s", FRAME_LIMIT.as_secs());
    let frame = frame.ok_or_else(timeout)?;
    let encode = move || FrameEncoder::default().encode(&frame, SnapshotResolution::High);
    let encoded = tokio::task::spawn_blocking(encode).await;
    encoded.unwrap_or_else(|e| Err(e.to_string()))
}

/// The sound from now on as WAV.
async fn sound(
    request: &SampleRequest,
    frequency: u32,
    tap: &CaptureTap,
    channel: &ChannelHandle,
) -> Result<Bytes, String> {
    let wanted = f64::from(frequency);
    if !is_interval_of(request.interval_ms, wanted) {
        return Err(format!(
            "the microphone runs at {frequency} Hz; a sample at {:.0} Hz cannot be taken",
            1000.0 / request.interval_ms
        ));
    }
    let samples = (wanted * request.length_ms / 1000.0).floor();
    if samples < 1.0 {
        return Err(format!("the length {} ms is too short", request.length_ms));
    }
    if samples * 2.0 + WAV_HEADER >= MAX_BYTES {
        return Err(format!(
            "{} s of sound at {frequency} Hz are more than the 100 MiB that Edge Impulse Studio takes",
            request.length_ms / 1000.0
        ));
    }
    let mut audio = tap.record().ok_or("another recording is in progress")?;
    channel.send(Outgoing::SampleStarted);
    let file = record(&mut audio, samples as usize, frequency, GAP_LIMIT).await?;
    channel.send(Outgoing::SampleProcessing);
    Ok(file)
}

/// Whether an interval is that of a frequency in Hz: in milliseconds, or in microseconds, in which requests were seen too. 0 names
/// no frequency.
fn is_interval_of(interval: f64, frequency: f64) -> bool {
    interval == 0.0
        || [1000.0, 1_000_000.0]
            .iter()
            .any(|units| (units / interval).round() == frequency)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_frequency_is_given_in_milliseconds_or_microseconds() {
        for interval in [0.0, 0.0625, 62.5] {
            assert!(is_interval_of(interval, 16_000.0), "{interval}");
        }
        for interval in [0.125, 125.0, 1.0, f64::MIN_POSITIVE] {
            assert!(!is_interval_of(interval, 16_000.0), "{interval}");
        }
    }
}
