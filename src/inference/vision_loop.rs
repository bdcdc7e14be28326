//! The loop of an image model: frame -> picture -> features -> model -> inference.

use std::time::{Duration, Instant};

use super::context::{InferenceContext, Progress};
use super::drain::DrainNotifier;
use super::event::{InferenceEvent, OriginalFrame};
use super::fault::{InferenceFault, RefusalTracker};
use super::loop_end::LoopEnd;
use super::picture_classifier::PictureClassifier;
use crate::capture::{Frame, Picture, Received};
use crate::model::{InferenceResult, ModelError};
use crate::studio::frames::CollectedInput;
use crate::studio::monitor::InferredInput;

/// Interval at which the loop checks whether it has to return.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// The log field that names what was skipped.
const INPUT: &str = "frame";

/// A frame converted for the model.
#[derive(Debug, Default)]
struct ConvertedFrame {
    picture: Picture,
    /// The camera's frame, for viewers that want it.
    original: Option<Frame>,
    /// The camera's frame by reference, while it may be uploaded. It is not copied, because most are not chosen; the mailbox keeps one in
    /// the same way.
    kept: Option<Frame>,
}

/// The picture buffers of one model process.
pub(super) struct VisionLoop<'a> {
    classifier: &'a mut PictureClassifier,
    /// The frame that the model works on.
    current: ConvertedFrame,
    /// The frame after that, converted while the model works.
    next: ConvertedFrame,
    /// Whether `next` holds a frame.
    has_next: bool,
    refusals: RefusalTracker,
}

impl<'a> VisionLoop<'a> {
    pub(super) fn new(classifier: &'a mut PictureClassifier) -> Self {
        Self {
            classifier,
            current: ConvertedFrame::default(),
            next: ConvertedFrame::default(),
            has_next: false,
            refusals: RefusalTracker::default(),
        }
    }

    /// Infers frame after frame until [`InferenceContext::finish`] is set, or until another model takes over. The caller
    /// ends the model.
    ///
    /// # Errors
    /// The model failed; the caller starts it again.
    pub(super) fn run(
        mut self,
        context: &mut InferenceContext,
        notify: &dyn Fn(Progress),
    ) -> Result<LoopEnd, InferenceFault> {
        let result = self.infer_until_finished(context, notify);
        if result.is_err() && self.has_next {
            context.stats.frames_dropped.inc();
        }
        result
    }

    fn infer_until_finished(
        &mut self,
        context: &mut InferenceContext,
        notify: &dyn Fn(Progress),
    ) -> Result<LoopEnd, InferenceFault> {
        let mut drain = DrainNotifier::default();
        while !context.is_finishing() {
            if !self.has_next {
                // No frame is in hand: none is lost and none is inferred twice.
                if let Some((ready, windows)) = context.successor.take_ready() {
                    return Ok(LoopEnd::Replaced(ready, windows));
                }
                match context.frames.receive(CHECK_INTERVAL) {
                    Received::Value(frame) => self.convert(frame, context),
                    Received::TimedOut => context.apply_threshold_changes(self.classifier.model())?,
                    Received::Closed(epoch) => {
                        drain.mailbox_closed(epoch, context, notify);
                        context.frames.wait_until_open(CHECK_INTERVAL);
                    }
                }
            }
            if std::mem::take(&mut self.has_next) {
                std::mem::swap(&mut self.current, &mut self.next);
                self.infer(context, notify)?;
            }
        }
        Ok(LoopEnd::Finished)
    }

    /// Converts a frame into `next`.
    fn convert(&mut self, frame: Frame, context: &InferenceContext) {
        context.successor.observe_frame(&frame);
        if let Err(e) = self.classifier.convert(&frame, &mut self.next.picture) {
            context.stats.frames_dropped.inc();
            self.refusals.log_skipped(Instant::now(), INPUT, &e);
            return;
        }
        // A copy: the frame itself returns to the source before the model works.
        self.next.original = context
            .live_tap
            .wants_original_frames()
            .then(|| frame.detached())
            .flatten();
        self.next.kept = context.wants_frames().then_some(frame);
        self.has_next = true;
    }

    /// Classifies the current frame and passes the result on.
    fn infer(&mut self, context: &mut InferenceContext, notify: &dyn Fn(Progress)) -> Result<(), InferenceFault> {
        // Returns to the source with this call, whatever comes of it.
        let kept = self.current.kept.take();
        let begun = Instant::now();
        let result = match self.classify(context) {
            Ok(Some(result)) => result,
            Ok(None) => {
                context.stats.frames_dropped.inc();
                return Ok(());
            }
            Err(e) => {
                context.stats.frames_dropped.inc();
                return self.refusals.refused(Instant::now(), INPUT, e);
            }
        };
        self.refusals.reset();
        // Includes the conversion of the next frame, where that takes longer than the model.
        let (wall_ms, decision) = context.accept(&result, begun);
        if let Some(monitor) = &context.monitor {
            let input = InferredInput::Picture(&self.current.picture);
            monitor.observe(self.classifier.model().info(), &result, input);
        }
        let message = context.record_events(&result, decision, Some(&self.current.picture));
        if context.live_tap.has_viewers() {
            context.live_tap.send(InferenceEvent {
                result: &result,
                picture: Some(&self.current.picture),
                original: self.current.original.take().map(|frame| OriginalFrame {
                    frame,
                    target: self.classifier.target(),
                }),
                level: None,
                wall_ms,
                decision,
                objects: context.events.objects(),
            });
        }
        let target = self.classifier.target();
        let copy = kept.map(|frame| {
            move || {
                let frame = frame.detached()?;
                Some(CollectedInput::Picture { frame, target })
            }
        });
        context.offer_input(&result, copy);
        let picture = &self.current.picture;
        if let Some((id, counts)) = message {
            context.publisher.publish(id, result, counts, picture);
        }
        context.notify_first_inference(notify);
        if context.live_tap.has_viewers() {
            context.apply_threshold_changes(self.classifier.model())?;
        }
        Ok(())
    }

    /// `None`: the model does not take the size of this picture; pictures are squashed from the next frame on.
    fn classify(&mut self, context: &InferenceContext) -> Result<Option<InferenceResult>, ModelError> {
        if !self.classifier.send(&self.current.picture)? {
            return Ok(None);
        }
        // A frame that no newer one can replace is converted while the model works. With a camera the newest frame
        // after the answer is better, so nothing is taken here. The next frame is for a model that waits to take over.
        if !context.successor.is_ready()
            && let Some(frame) = context.frames.prefetch()
        {
            self.convert(frame, context);
        }
        self.classifier.receive().map(Some)
    }
}
