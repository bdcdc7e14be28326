//! Where a capture delivers: the mailbox of video frames or of audio windows.

use std::sync::Arc;
use std::time::Instant;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::audio::callback::audio_callbacks;
use super::audio::{AudioFormat, AudioWindow};
use super::frame::{Frame, FrameMailbox};
use super::launch_line::MediaKind;
use super::listeners::SampleListeners;
use super::mailbox::{MailboxControl, MailboxSender, OverflowPolicy, Reservation, SendOutcome};
use crate::config::MicrophoneChannel;

/// Where a capture delivers, and in which form.
#[derive(Debug)]
pub enum CaptureOutput {
    /// Video frames; the newest replaces the one before.
    Video(Reservation<Frame>),
    /// Audio windows, in order.
    Audio(Reservation<AudioWindow>, AudioFormat),
}

impl From<&Arc<FrameMailbox>> for CaptureOutput {
    /// Reserves the mailbox.
    fn from(mailbox: &Arc<FrameMailbox>) -> Self {
        Self::Video(mailbox.reserve())
    }
}

impl CaptureOutput {
    /// What the pipeline has to deliver.
    pub(super) fn kind(&self, channel: MicrophoneChannel) -> MediaKind {
        match self {
            Self::Video(_) => MediaKind::Video,
            Self::Audio(_, format) => MediaKind::Audio {
                sample_rate: format.sample_rate,
                channel,
            },
        }
    }

    /// Opens the mailbox and lets the sink fill it. `None`: it is reserved for another capture now.
    pub(super) fn connect(
        &self,
        lossless: bool,
        channel: MicrophoneChannel,
        sink: &gst_app::AppSink,
        listeners: &SampleListeners,
    ) -> Option<Arc<dyn MailboxControl>> {
        let policy = match self {
            _ if lossless => OverflowPolicy::Block,
            Self::Video(_) => OverflowPolicy::KeepNewest,
            Self::Audio(_, format) => OverflowPolicy::DropOldest(format.queue_capacity()),
        };
        sink.set_property("drop", policy == OverflowPolicy::KeepNewest);
        match self {
            Self::Video(reservation) => {
                let sender = reservation.open(policy)?;
                sink.set_callbacks(video_callbacks(&sender, listeners));
                Some(Arc::new(sender))
            }
            Self::Audio(reservation, format) => {
                let sender = reservation.open(policy)?;
                sink.set_callbacks(audio_callbacks(&sender, *format, channel, listeners));
                Some(Arc::new(sender))
            }
        }
    }
}

/// Sends a reference to each frame and does nothing else: `videorate` can deliver 2200 duplicates per second.
fn video_callbacks(sender: &MailboxSender<Frame>, listeners: &SampleListeners) -> gst_app::AppSinkCallbacks {
    let (ended, sender) = (sender.clone(), sender.clone());
    let SampleListeners {
        stats,
        clock,
        tap,
        mut clips,
    } = listeners.clone();
    let mut is_first = true;
    gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let at = Instant::now();
            clock.record_frame(at);
            stats.frames_captured.inc();
            let frame = Frame { sample, at };
            if let Some(tap) = &tap {
                if std::mem::take(&mut is_first)
                    && let Some(size) = frame.size()
                {
                    tap.set_camera(size);
                }
                tap.offer_frame(&frame);
            }
            if let Some(clips) = &mut clips {
                clips.on_frame(sink, &frame);
            }
            match sender.send(frame) {
                SendOutcome::Stored => Ok(gst::FlowSuccess::Ok),
                SendOutcome::Replaced => {
                    stats.frames_skipped.inc();
                    Ok(gst::FlowSuccess::Ok)
                }
                // The capture is being stopped. Flushing ends the stream without an error message.
                SendOutcome::Closed => Err(gst::FlowError::Flushing),
            }
        })
        .eos(move |_| ended.finish())
        .build()
}
