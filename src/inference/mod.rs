//! The inference loop. A frame passes five modules: capture -> inference -> model -> report -> uplink.
//!
//! [`run`] starts the model and runs one of two loops on the inference thread: [`vision_loop`] for models that take
//! pictures, [`audio_loop`] for models that take audio. Both work in the same way:
//! - take the newest input from the mailbox of the capture and write it into the model's memory as features,
//! - ask the model and wait for its answer ([`crate::model`]),
//! - let [`crate::report`] decide whether the result is published,
//! - copy it to the [`live_tap`], if there are viewers,
//! - hand it to the [`publisher`], which puts the message into the outbox of [`crate::uplink`] and the pair into the
//!   caches.
//!
//! The loop is blocking, and nothing downstream can slow it.

mod audio_loop;
mod context;
mod drain;
pub mod event;
mod fault;
pub mod live_tap;
mod prediction_logger;
pub mod publisher;
pub mod threshold_changes;
pub(crate) mod view;
mod vision_loop;

use tracing::field::Empty;

use crate::capture::{AudioFormat, PictureTarget};
use crate::model::{Interrupt, Model, ModelSettings};
use crate::util::text::clean;
pub use context::{InferenceContext, Progress, RefusedSlices};
pub use fault::InferenceFault;
pub use live_tap::LiveTap;
pub use prediction_logger::PredictionLogger;
use vision_loop::VisionLoop;

/// Longest model name in log lines, in characters.
const MODEL_NAME: usize = 64;

/// Starts the model and infers until [`InferenceContext::finish`] is set.
///
/// # Errors
/// The model failed; the caller starts it again.
pub fn run(
    settings: &ModelSettings,
    interrupt: &Interrupt,
    context: &mut InferenceContext,
    notify: &dyn Fn(Progress),
) -> Result<(), InferenceFault> {
    let span = tracing::info_span!("model_session", model = Empty, version = Empty);
    let _entered = span.enter();
    let mut model = Model::start(settings, interrupt)?;
    let mut info = model.info().clone();
    span.record("model", clean(&info.name, MODEL_NAME));
    span.record("version", info.deploy_version);
    if info.slow_first_inference {
        notify(Progress::WarmingUp(info.clone()));
        model.warm_up()?;
    }
    model.set_thresholds(&context.live_tap.thresholds.applied())?;
    info.clone_from(model.info());
    if let Some(format) = AudioFormat::of(&info.input, info.features) {
        context.publisher.set_model(&info);
        notify(Progress::Ready(info));
        let result = audio_loop::run(&mut model, format, context, notify);
        model.stop();
        return result;
    }
    let Some(target) = PictureTarget::of(&info.input, context.forced_resize, context.unnamed_resize) else {
        notify(Progress::Unsupported(info));
        model.stop();
        return Ok(());
    };
    context.publisher.set_model(&info);
    notify(Progress::Ready(info));
    VisionLoop::new(model, target).run(context, notify)
}
