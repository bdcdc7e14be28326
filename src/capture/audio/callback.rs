//! The callback that turns GStreamer's audio buffers into windows.

use std::sync::Arc;
use std::time::Instant;

use gstreamer as gst;
use gstreamer_app as gst_app;
use parking_lot::Mutex;

use super::framer::{AudioFormat, AudioFramer, AudioWindow};
use super::mono::to_mono;
use super::silence::{SilenceDetector, SilenceEvent};
use crate::capture::listeners::SampleListeners;
use crate::capture::mailbox::{MailboxControl, MailboxSender, SendOutcome};
use crate::capture::tap::CaptureTap;
use crate::config::MicrophoneChannel;
use crate::status::stats::Stats;

/// The state from one buffer to the next.
struct AudioCallback {
    framer: AudioFramer,
    silence: SilenceDetector,
    /// The samples of one buffer; the memory is reused.
    samples: Vec<i16>,
    /// The first buffer of a stream always has the flag DISCONT. It does not mean a gap there.
    is_first_buffer: bool,
    channel: MicrophoneChannel,
    /// Channels of the buffers that arrive now; 0 before the first one.
    channels: usize,
    sender: MailboxSender<AudioWindow>,
    stats: Arc<Stats>,
    tap: Option<Arc<CaptureTap>>,
    span: tracing::Span,
}

/// Returns the callbacks that cut each buffer into windows and send them. The elements before the sink convert the
/// buffers to 16-bit samples at the model's sample rate. The buffers are mono unless `channel` or unknown positions of
/// the channels prevent it.
pub(in crate::capture) fn audio_callbacks(
    sender: &MailboxSender<AudioWindow>,
    format: AudioFormat,
    channel: MicrophoneChannel,
    listeners: &SampleListeners,
) -> gst_app::AppSinkCallbacks {
    let callback = Mutex::new(AudioCallback {
        framer: AudioFramer::new(format),
        silence: SilenceDetector::new(format.sample_rate),
        samples: Vec::new(),
        is_first_buffer: true,
        channel,
        channels: 0,
        sender: sender.clone(),
        stats: listeners.stats.clone(),
        tap: listeners.tap.clone(),
        span: tracing::Span::current(),
    });
    let (sender, clock) = (sender.clone(), listeners.clock.clone());
    if let Some(tap) = &listeners.tap {
        tap.set_microphone(format.sample_rate);
    }
    gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let Some(buffer) = sample.buffer() else {
                return Ok(gst::FlowSuccess::Ok);
            };
            let at = Instant::now();
            clock.record_frame(at);
            if callback.lock().push_buffer(buffer, channel_count(&sample), at) {
                Ok(gst::FlowSuccess::Ok)
            } else {
                // The capture is being stopped. Flushing ends the stream without an error message.
                Err(gst::FlowError::Flushing)
            }
        })
        .eos(move |_| sender.finish())
        .build()
}

impl AudioCallback {
    /// Returns whether the mailbox is still open.
    fn push_buffer(&mut self, buffer: &gst::BufferRef, channels: usize, at: Instant) -> bool {
        let is_first_buffer = std::mem::take(&mut self.is_first_buffer);
        if !is_first_buffer && buffer.flags().contains(gst::BufferFlags::DISCONT) {
            self.stats.audio_gaps.inc();
        }
        let Ok(bytes) = buffer.map_readable() else {
            return true;
        };
        self.samples.clear();
        let pairs = bytes.chunks_exact(2);
        self.samples
            .extend(pairs.map(|pair| i16::from_le_bytes([pair[0], pair[1]])));
        if channels > 1 {
            if std::mem::replace(&mut self.channels, channels) != channels {
                self.span.in_scope(|| log_channels(channels, self.channel));
            }
            to_mono(&mut self.samples, channels, self.channel);
        }
        if let Some(tap) = &self.tap {
            tap.offer_audio(&self.samples);
        }
        if let Some(event) = self.silence.push_samples(&self.samples) {
            self.span.in_scope(|| log_silence(event));
        }
        let (sender, stats) = (&self.sender, &self.stats);
        self.framer.push_samples(&self.samples, at, |window| {
            stats.frames_captured.inc();
            match sender.send(window) {
                SendOutcome::Stored => true,
                SendOutcome::Replaced => {
                    stats.audio_overruns.inc();
                    true
                }
                SendOutcome::Closed => false,
            }
        })
    }
}

fn channel_count(sample: &gst::Sample) -> usize {
    let channels = sample
        .caps()
        .and_then(|caps| caps.structure(0)?.get::<i32>("channels").ok());
    channels
        .and_then(|channels| usize::try_from(channels).ok())
        .unwrap_or(1)
}

fn log_channels(channels: usize, channel: MicrophoneChannel) {
    let used = match channel {
        MicrophoneChannel::Auto => "the first channel, because their positions are not known".to_owned(),
        MicrophoneChannel::Mix => "a mix of all".to_owned(),
        MicrophoneChannel::Number(number) => format!("channel {number}"),
    };
    tracing::info!(
        channels,
        used,
        advice = "the key microphone_channel selects another channel or a mix",
        "The microphone has several channels"
    );
}

fn log_silence(event: SilenceEvent) {
    match event {
        SilenceEvent::Silent => tracing::warn!(
            after = ?SilenceDetector::LIMIT,
            advice = "the microphone may be muted or its capture volume 0 (alsamixer, F4); another card may be the default \
                      one (select yours with --microphone; `ei-greengrass check --cameras` lists them); the source may be the \
                      monitor of a loudspeaker; the microphone of a USB camera may need the camera open (--enable-camera)",
            "The audio source has delivered nothing but silence since its start"
        ),
        SilenceEvent::SoundStarted => tracing::info!("The audio source delivers sound now"),
    }
}
