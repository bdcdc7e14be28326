//! Sound from GStreamer's thread into the queue of windows.

use std::sync::Arc;
use std::time::Instant;

use gstreamer as gst;
use gstreamer_app as gst_app;
use parking_lot::Mutex;

use super::audio_framer::{AudioFormat, AudioFramer, Silence, SilenceWatch, Window};
use super::mailbox::{MailboxSender, MailboxSink, Put};
use super::pipeline::FrameClock;
use crate::status::stats::Stats;

/// What GStreamer's thread keeps from buffer to buffer.
struct AudioCallback {
    windower: AudioFramer,
    silence: SilenceWatch,
    /// The buffer's samples; its memory is used again.
    samples: Vec<i16>,
    /// Whether a buffer came before: the first one always begins anew.
    heard: bool,
}

/// Cuts each buffer (16-bit, mono, at the model's frequency: the line sees to that) into windows and queues them.
pub(super) fn callbacks(
    feed: &MailboxSender<Window>,
    format: AudioFormat,
    stats: &Arc<Stats>,
    clock: &Arc<FrameClock>,
) -> gst_app::AppSinkCallbacks {
    let ear = Mutex::new(AudioCallback {
        windower: AudioFramer::new(format),
        silence: SilenceWatch::new(format.frequency),
        samples: Vec::new(),
        heard: false,
    });
    let (ended, feed, stats, clock) = (feed.clone(), feed.clone(), Arc::clone(stats), Arc::clone(clock));
    gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let Some(buffer) = sample.buffer() else {
                return Ok(gst::FlowSuccess::Ok);
            };
            let at = Instant::now();
            clock.frame(at);
            let mut ear = ear.lock();
            if std::mem::replace(&mut ear.heard, true) && buffer.flags().contains(gst::BufferFlags::DISCONT) {
                stats.audio_gaps.inc();
            }
            let open = ear.push_samples(buffer, at, &feed, &stats);
            // The capture is being stopped. Flushing ends the stream without an error message.
            if open {
                Ok(gst::FlowSuccess::Ok)
            } else {
                Err(gst::FlowError::Flushing)
            }
        })
        .eos(move |_| ended.finish())
        .build()
}

impl AudioCallback {
    /// `false`: nobody takes windows any more.
    fn push_samples(
        &mut self,
        buffer: &gst::BufferRef,
        at: Instant,
        feed: &MailboxSender<Window>,
        stats: &Stats,
    ) -> bool {
        let Ok(bytes) = buffer.map_readable() else {
            return true;
        };
        self.samples.clear();
        let pairs = bytes.chunks_exact(2);
        self.samples
            .extend(pairs.map(|pair| i16::from_le_bytes([pair[0], pair[1]])));
        match self.silence.push_samples(&self.samples) {
            Some(Silence::Told) => tell_silence(),
            Some(Silence::Over) => tracing::info!("the microphone delivers sound now"),
            None => {}
        }
        self.windower.push_samples(&self.samples, at, |window| {
            stats.frames_captured.inc();
            match feed.put(window) {
                Put::Stored => true,
                Put::Replaced => {
                    stats.audio_overruns.inc();
                    true
                }
                Put::Closed => false,
            }
        })
    }
}

fn tell_silence() {
    tracing::warn!(
        "the sound source has delivered nothing but silence for its first {} s. Usual causes: the microphone is muted or its \
         capture volume is 0 (alsamixer, F4), another card is the default one (name yours with --microphone; \
         `ei-greengrass check --cameras` lists what is there), the source is the monitor of a loudspeaker, or the microphone of a USB camera \
         needs the camera open (--enable-camera)",
        SilenceWatch::LIMIT.as_secs()
    );
}
