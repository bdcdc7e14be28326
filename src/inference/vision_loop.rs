//! The loop of an image model: frame -> picture -> features -> model -> inference.

use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::context::{InferenceContext, Progress};
use super::drain::DrainNotifier;
use super::event::{InferenceEvent, OriginalFrame};
use super::fault::{InferenceFault, RefusalTracker};
use crate::capture::pack::pack_features;
use crate::capture::{Converter, Frame, Picture, PictureTarget, Received};
use crate::config::ResizeMode;
use crate::model::{InferenceResult, Model, ModelError};
use crate::report::Decision;

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
}

/// One model process and its picture buffers.
pub(super) struct VisionLoop {
    model: Model,
    target: PictureTarget,
    converter: Converter,
    /// The frame that the model works on.
    current: ConvertedFrame,
    /// The frame after that, converted while the model works.
    next: ConvertedFrame,
    /// Whether `next` holds a frame.
    has_next: bool,
    /// The size last announced to a model that takes pictures of any size.
    announced_size: Option<(u32, u32)>,
    refusals: RefusalTracker,
}

impl VisionLoop {
    pub(super) fn new(model: Model, target: PictureTarget) -> Self {
        Self {
            model,
            target,
            converter: Converter::new(target),
            current: ConvertedFrame::default(),
            next: ConvertedFrame::default(),
            has_next: false,
            announced_size: None,
            refusals: RefusalTracker::default(),
        }
    }

    /// Infers frame after frame until [`InferenceContext::finish`] is set, then ends the model.
    ///
    /// # Errors
    /// The model failed; the caller starts it again.
    pub(super) fn run(
        mut self,
        context: &mut InferenceContext,
        notify: &dyn Fn(Progress),
    ) -> Result<(), InferenceFault> {
        let result = self.infer_until_finished(context, notify);
        if result.is_err() && self.has_next {
            context.stats.frames_dropped.inc();
        }
        self.model.stop();
        result
    }

    fn infer_until_finished(
        &mut self,
        context: &mut InferenceContext,
        notify: &dyn Fn(Progress),
    ) -> Result<(), InferenceFault> {
        let mut drain = DrainNotifier::default();
        while !context.is_finishing() {
            if !self.has_next {
                match context.frames.receive(CHECK_INTERVAL) {
                    Received::Value(frame) => self.convert(frame, context),
                    Received::TimedOut => context.apply_threshold_changes(&mut self.model)?,
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
        Ok(())
    }

    /// Converts a frame into `next`.
    fn convert(&mut self, frame: Frame, context: &InferenceContext) {
        if let Err(e) = self.converter.convert(&frame, &mut self.next.picture) {
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
        self.has_next = true;
    }

    /// Classifies the current frame and passes the result on.
    fn infer(&mut self, context: &mut InferenceContext, notify: &dyn Fn(Progress)) -> Result<(), InferenceFault> {
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
        if context.live_tap.has_viewers() {
            context.live_tap.send(InferenceEvent {
                result: &result,
                picture: Some(&self.current.picture),
                original: self.current.original.take().map(|frame| OriginalFrame {
                    frame,
                    target: self.target,
                }),
                level: None,
                wall_ms,
                decision,
            });
            context.apply_threshold_changes(&mut self.model)?;
        }
        if let Decision::Publish(counts) = decision {
            context.publisher.publish(result, counts, &self.current.picture);
        }
        context.notify_first_inference(notify);
        Ok(())
    }

    /// `None`: the model does not take the size of this picture; pictures are squashed from the next frame on.
    fn classify(&mut self, context: &InferenceContext) -> Result<Option<InferenceResult>, ModelError> {
        if self.target.resize == ResizeMode::None && !self.announce_size()? {
            return Ok(None);
        }
        let picture = &self.current.picture;
        let elements = picture.pixels();
        pack_features(picture, self.model.features_for(elements)?);
        self.model.send(elements)?;
        // A frame that no newer one can replace is converted while the model works. With a camera the newest frame
        // after the answer is better, so nothing is taken here.
        if let Some(frame) = context.frames.prefetch() {
            self.convert(frame, context);
        }
        self.model.receive().map(Some)
    }

    /// Sends the current picture's size to a model that takes pictures of any size. `false`: the model refused it.
    fn announce_size(&mut self) -> Result<bool, ModelError> {
        let picture = &self.current.picture;
        let size = (picture.width, picture.height);
        if self.announced_size == Some(size) {
            return Ok(true);
        }
        let channels = if picture.grey { 1 } else { 3 };
        let parameters: Map<String, Value> = [
            ("image_width", size.0),
            ("image_height", size.1),
            ("image_channels", channels),
        ]
        .map(|(key, value)| (key.to_owned(), value.into()))
        .into_iter()
        .collect();
        match self.model.set_parameter(&parameters) {
            Ok(()) => {
                self.announced_size = Some(size);
                return Ok(true);
            }
            Err(e) if e.is_fatal() => return Err(e),
            Err(e) => tracing::warn!(
                width = size.0,
                height = size.1,
                model_width = self.target.width,
                model_height = self.target.height,
                error = %e,
                "The model does not take pictures of this size; pictures are squashed to the model's own size"
            ),
        }
        self.target.resize = ResizeMode::Squash;
        self.converter = Converter::new(self.target);
        Ok(false)
    }
}
