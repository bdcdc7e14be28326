//! The loop: frame -> features -> model -> inference. Blocking, on a thread of its own; nothing downstream can slow it.
//! Models that hear have their own in [`audio`].

mod audio;
mod fault;
pub mod live_tap;
mod prediction_logger;
pub mod publisher;
pub mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::capture::pack::pack_features;
use crate::capture::{AudioFormat, AudioMailbox, Converter, Frame, FrameMailbox, Picture, Received, Target};
use crate::config::ResizeMode;
use crate::inference::live_tap::{InferenceEvent, Original};
use crate::inference::publisher::Publisher;
use crate::model::{self, Interrupt, Model, ModelError, ModelInfo};
use crate::report::{Decision, Report};
use crate::status::stats::Stats;
pub use fault::InferenceFault;
use fault::Refusals;
pub use live_tap::LiveTap;
pub use prediction_logger::PredictionLogger;

/// How long to wait for a frame before looking whether the end was asked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What is skipped, in the log.
const A_FRAME: &str = "a frame";

/// What the loop works on. Outlives the model process: the next one goes on with it.
pub struct InferenceContext {
    /// Where frames come from.
    pub slot: Arc<FrameMailbox>,
    /// Where windows of sound come from.
    pub sounds: Arc<AudioMailbox>,
    /// What is decided about each inference.
    pub report: Arc<Mutex<Report>>,
    /// Where a published inference goes.
    pub publisher: Publisher,
    /// Counters.
    pub stats: Arc<Stats>,
    /// Inferences as lines of the log.
    pub prediction_logger: PredictionLogger,
    /// For who looks at the live page.
    pub live_tap: Arc<LiveTap>,
    /// `--force-resize-mode`.
    pub forced_resize: Option<ResizeMode>,
    /// For models that name no mode (those before 2024).
    pub unnamed_resize: ResizeMode,
    /// Set: the next inference is to be announced as the first one after a (re)start.
    pub announce: Arc<AtomicBool>,
    /// Set: finish the frame in hand, then return.
    pub finish: Arc<AtomicBool>,
}

impl InferenceContext {
    /// Tells of an inference when it is the first one after a (re)start.
    fn announce_first(&self, notify: &dyn Fn(Progress)) {
        if self.announce.load(Ordering::Relaxed) && self.announce.swap(false, Ordering::Relaxed) {
            notify(Progress::FirstInference);
        }
    }

    /// Tells and judges the answer to what was asked at `begun`. Gives the milliseconds that took, too.
    fn accept(&mut self, result: &model::InferenceResult, begun: Instant) -> (f32, Decision) {
        let wall_ms = begun.elapsed().as_secs_f32() * 1e3;
        self.prediction_logger.notify(Instant::now(), result, wall_ms);
        (wall_ms, self.report.lock().accept(result, wall_ms))
    }
}

/// What the loop tells the supervisor.
#[derive(Debug)]
pub enum Progress {
    /// The model prepares its first answer, which may take very long.
    WarmingUp(Arc<ModelInfo>),
    /// The model is loaded and wants pictures or sound.
    Ready(Arc<ModelInfo>),
    /// The model wants something this component cannot give.
    Unsupported(Arc<ModelInfo>),
    /// The first inference after a (re)start of capture or model.
    FirstInference,
    /// The source of this slot generation ended, and its last frame was inferred.
    Drained(u64),
}

/// Starts the model and infers frame after frame until told to finish.
///
/// # Errors
/// Whatever ends the model: the caller starts it again.
pub fn run(
    settings: &model::Settings,
    interrupt: &Interrupt,
    context: &mut InferenceContext,
    notify: &dyn Fn(Progress),
) -> Result<(), InferenceFault> {
    let mut model = Model::start(settings, interrupt)?;
    let info = model.info().clone();
    if info.slow_first_inference {
        notify(Progress::WarmingUp(info.clone()));
        model.warm_up()?;
    }
    // What was changed through the live page, at a model that was started since.
    model.set_thresholds(&context.live_tap.changed_thresholds())?;
    if let Some(format) = AudioFormat::of(&info.input, info.features) {
        context.publisher.use_model(&info);
        notify(Progress::Ready(info));
        return audio::infer_until_finished(model, format, context, notify);
    }
    let Some(target) = Target::of(&info.input, context.forced_resize, context.unnamed_resize) else {
        notify(Progress::Unsupported(info));
        model.stop();
        return Ok(());
    };
    context.publisher.use_model(&info);
    notify(Progress::Ready(info));
    let mut session = Session::new(model, target);
    let result = session.infer_until_finished(context, notify);
    if result.is_err() && session.is_ahead {
        context.stats.frames_dropped.inc();
    }
    session.model.stop();
    result
}

/// What those who look at the page want changed at the model.
fn carry_out_orders(model: &mut Model, live_tap: &LiveTap) -> Result<(), ModelError> {
    live_tap.carry_out(|threshold| model.set_threshold(threshold))
}

/// The ends of sources that were told of.
#[derive(Debug, Default)]
struct Ends(Option<u64>);

impl Ends {
    /// The source of this slot generation ended, and its last frame was inferred: tells of it once.
    fn closed(&mut self, generation: u64, context: &InferenceContext, notify: &dyn Fn(Progress)) {
        // At the stop the slot is closed too. Nobody asks then, and what is still being encoded must not hold it up.
        if context.finish.load(Ordering::Relaxed) || self.0.replace(generation) == Some(generation) {
            return;
        }
        // Whoever hears of the end has all messages before it.
        context.publisher.flush(&context.finish);
        notify(Progress::Drained(generation));
    }
}

/// A frame as the model gets it.
#[derive(Debug, Default)]
struct Prepared {
    picture: Picture,
    /// The camera's, for those who look at it.
    original: Option<Frame>,
}

/// One model process and the buffers that serve it.
struct Session {
    model: Model,
    target: Target,
    converter: Converter,
    /// What the model is asked about.
    current: Prepared,
    /// What it is asked about after that, converted while it works.
    next: Prepared,
    /// Whether there is such a frame.
    is_ahead: bool,
    /// Size last told to a model that takes pictures in their own size.
    told: Option<(u32, u32)>,
    refusals: Refusals,
}

impl Session {
    fn new(model: Model, target: Target) -> Self {
        Self {
            model,
            target,
            converter: Converter::new(target),
            current: Prepared::default(),
            next: Prepared::default(),
            is_ahead: false,
            told: None,
            refusals: Refusals::default(),
        }
    }

    fn infer_until_finished(
        &mut self,
        context: &mut InferenceContext,
        notify: &dyn Fn(Progress),
    ) -> Result<(), InferenceFault> {
        let mut ends = Ends::default();
        while !context.finish.load(Ordering::Relaxed) {
            if !self.is_ahead {
                match context.slot.receive(LOOK_EVERY) {
                    Received::Value(frame) => self.prepare(frame, context),
                    Received::TimedOut => carry_out_orders(&mut self.model, &context.live_tap)?,
                    Received::Closed(epoch) => {
                        ends.closed(epoch, context, notify);
                        context.slot.wait_until_open(LOOK_EVERY);
                    }
                }
            }
            if std::mem::take(&mut self.is_ahead) {
                std::mem::swap(&mut self.current, &mut self.next);
                self.infer(context, notify)?;
            }
        }
        Ok(())
    }

    /// Makes of a frame what the model is asked about next.
    fn prepare(&mut self, frame: Frame, context: &InferenceContext) {
        if let Err(e) = self.converter.convert(&frame, &mut self.next.picture) {
            context.stats.frames_dropped.inc();
            self.refusals.say(Instant::now(), A_FRAME, &e);
            return;
        }
        // The frame itself goes back to the source before the model works.
        self.next.original = context.live_tap.wants_original().then(|| frame.detached()).flatten();
        self.is_ahead = true;
    }

    /// Asks the model about the current picture and reports what it says.
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
                return self.refusals.note(Instant::now(), A_FRAME, e);
            }
        };
        self.refusals.over();
        // With a frame converted meanwhile this is at least as long as that took.
        let (wall_ms, decision) = context.accept(&result, begun);
        if context.live_tap.is_watched() {
            context.live_tap.show(InferenceEvent {
                result: &result,
                picture: Some(&self.current.picture),
                original: self.current.original.take().map(|frame| Original {
                    frame,
                    target: self.target,
                }),
                level: None,
                wall_ms,
                decision,
            });
            carry_out_orders(&mut self.model, &context.live_tap)?;
        }
        if let Decision::Publish(numbers) = decision {
            context.publisher.publish(result, numbers, &self.current.picture);
        }
        context.announce_first(notify);
        Ok(())
    }

    /// `None`: the picture's size suits the model no longer; from the next frame on it is squashed.
    fn classify(&mut self, context: &InferenceContext) -> Result<Option<model::InferenceResult>, ModelError> {
        if self.target.resize == ResizeMode::None && !self.announce_size()? {
            return Ok(None);
        }
        let picture = &self.current.picture;
        let elements = picture.pixels();
        pack_features(picture, self.model.features_for(elements)?);
        self.model.send(elements)?;
        // The model's memory is its own now. A frame that no newer one can replace is converted meanwhile; for a camera the
        // newest frame after the answer is the better one.
        if let Some(frame) = context.slot.prefetch() {
            self.prepare(frame, context);
        }
        self.model.receive().map(Some)
    }

    /// Tells a model that takes pictures in their own size how large they are now.
    fn announce_size(&mut self) -> Result<bool, ModelError> {
        let picture = &self.current.picture;
        let size = (picture.width, picture.height);
        if self.told == Some(size) {
            return Ok(true);
        }
        let channels = if picture.grey { 1 } else { 3 };
        let Value::Object(parameters) =
            json!({"image_width": size.0, "image_height": size.1, "image_channels": channels})
        else {
            return Ok(false);
        };
        match self.model.set_parameter(&parameters) {
            Ok(()) => {
                self.told = Some(size);
                return Ok(true);
            }
            Err(e) if e.is_fatal() => return Err(e),
            Err(e) => tracing::warn!(
                "pictures are squashed to {} x {}, the size the model was built for: it does not take {} x {} ({e})",
                self.target.width,
                self.target.height,
                size.0,
                size.1
            ),
        }
        self.target.resize = ResizeMode::Squash;
        self.converter = Converter::new(self.target);
        Ok(false)
    }
}

#[cfg(test)]
mod tests;
