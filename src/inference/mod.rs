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

mod audio_classifier;
mod audio_loop;
mod classifier;
mod context;
mod drain;
pub mod event;
mod fault;
pub mod live_tap;
mod loop_end;
mod picture_classifier;
mod prediction_logger;
pub mod publisher;
mod successor;
pub mod threshold_changes;
pub mod trial;
pub(crate) mod view;
mod vision_loop;

use tracing::Span;
use tracing::field::Empty;

use crate::capture::AudioWindow;
use crate::config::Threshold;
use crate::model::{Interrupt, Model, ModelError, ModelInfo, ModelSettings};
use crate::util::text::clean;
pub use audio_classifier::RefusedSlices;
use classifier::Classifier;
pub use classifier::ClassifierSettings;
pub use context::{InferenceContext, Progress};
pub use fault::InferenceFault;
pub use live_tap::LiveTap;
use loop_end::LoopEnd;
pub use prediction_logger::PredictionLogger;
use successor::ReadyModel;
pub use successor::Successor;
use vision_loop::VisionLoop;

/// Longest model name in log lines, in characters.
const MODEL_NAME: usize = 64;

/// Starts the model and infers until [`InferenceContext::finish`] is set. A model that has passed its trial takes over
/// between two inputs.
///
/// # Errors
/// The model failed; the caller starts it again.
pub fn run(
    settings: &ModelSettings,
    interrupt: &Interrupt,
    context: &mut InferenceContext,
    notify: &dyn Fn(Progress),
) -> Result<(), InferenceFault> {
    let mut span = tracing::info_span!("model_session", model = Empty, version = Empty).entered();
    let mut model = Model::start(settings, interrupt)?;
    record_model(&span, model.info());
    if model.info().slow_first_inference {
        notify(Progress::WarmingUp(model.info().clone()));
        model.warm_up()?;
    }
    model.set_thresholds(&context.live_tap.thresholds.applied())?;
    let mut classifier = match Classifier::new(model, &context.classifier) {
        Ok(classifier) => classifier,
        Err(model) => {
            notify(Progress::Unsupported(model.info().clone()));
            model.stop();
            return Ok(());
        }
    };
    let info = classifier.info();
    context.set_model(&info);
    notify(Progress::Ready(info));
    loop {
        let end = match &mut classifier {
            Classifier::Pictures(classifier) => VisionLoop::new(classifier).run(context, notify)?,
            Classifier::Audio(classifier) => audio_loop::run(classifier, context, notify)?,
        };
        match end {
            LoopEnd::Finished => {
                classifier.stop();
                return Ok(());
            }
            LoopEnd::Replaced(ready, windows) => {
                if take_over(&mut classifier, ready, &windows, context, notify) {
                    drop(span);
                    span = tracing::info_span!("model_session", model = Empty, version = Empty).entered();
                    record_model(&span, &classifier.info());
                }
            }
        }
    }
}

fn record_model(span: &Span, info: &ModelInfo) {
    span.record("model", clean(&info.name, MODEL_NAME));
    span.record("version", info.deploy_version);
}

/// Replaces the running model. Returns `false` if the new one failed at the last moment: the running one continues.
fn take_over(
    running: &mut Classifier,
    ready: ReadyModel,
    windows: &[AudioWindow],
    context: &InferenceContext,
    notify: &dyn Fn(Progress),
) -> bool {
    let ReadyModel {
        mut classifier,
        thresholds,
    } = ready;
    if let Err(error) = catch_up(&mut classifier, &thresholds, windows, context) {
        classifier.stop_in_background();
        notify(Progress::TakeoverFailed(error));
        return false;
    }
    let info = classifier.info();
    context.set_model(&info);
    std::mem::replace(running, classifier).stop_in_background();
    notify(Progress::TookOver(info));
    true
}

/// Gives the new model what changed since its trial: thresholds, and the audio that only the running model got.
fn catch_up(
    new: &mut Classifier,
    thresholds: &[Threshold],
    windows: &[AudioWindow],
    context: &InferenceContext,
) -> Result<(), ModelError> {
    let applied = context.live_tap.thresholds.applied();
    if applied != thresholds {
        new.model().set_thresholds(&applied)?;
    }
    if let Classifier::Audio(classifier) = new {
        for window in windows {
            classifier.classify(window)?;
        }
    }
    Ok(())
}
