//! The loop of an audio model: window -> features -> model -> inference, in order.

use std::time::{Duration, Instant};

use super::context::{InferenceContext, Progress};
use super::drain::DrainNotifier;
use super::event::InferenceEvent;
use super::fault::{InferenceFault, RefusalTracker};
use crate::capture::audio::{loudness, wav};
use crate::capture::{AudioFormat, AudioWindow, Received};
use crate::model::{InferenceResult, Model, ModelError};
use crate::report::Decision;

/// Interval at which the loop checks whether it has to return.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Infers window after window until [`InferenceContext::finish`] is set. The caller ends the model.
///
/// # Errors
/// The model failed; the caller starts it again.
pub(super) fn run(
    model: &mut Model,
    format: AudioFormat,
    context: &mut InferenceContext,
    notify: &dyn Fn(Progress),
) -> Result<(), InferenceFault> {
    let (mut drain, mut refusals) = (DrainNotifier::default(), RefusalTracker::default());
    if context.refuses_slices(model.info()) {
        model.use_whole_windows();
    }
    let mut classifier = WindowClassifier { format, slices: 0 };
    while !context.is_finishing() {
        match context.audio.receive(CHECK_INTERVAL) {
            Received::Value(window) => match infer(model, &mut classifier, &window, context, notify) {
                Ok(()) => refusals.reset(),
                Err(e) => {
                    context.stats.frames_dropped.inc();
                    refusals.refused(Instant::now(), "audio window", e)?;
                }
            },
            Received::TimedOut => context.apply_threshold_changes(model)?,
            Received::Closed(epoch) => {
                drain.mailbox_closed(epoch, context, notify);
                context.audio.wait_until_open(CHECK_INTERVAL);
            }
        }
    }
    Ok(())
}

fn infer(
    model: &mut Model,
    classifier: &mut WindowClassifier,
    window: &AudioWindow,
    context: &mut InferenceContext,
    notify: &dyn Fn(Progress),
) -> Result<(), ModelError> {
    let begun = Instant::now();
    let Some(result) = classifier.classify(model, window, context)? else {
        return Ok(());
    };
    let (wall_ms, decision) = context.accept(&result, begun);
    if context.live_tap.has_viewers() {
        context.live_tap.send(InferenceEvent {
            result: &result,
            picture: None,
            original: None,
            level: Some(loudness(window.features())),
            wall_ms,
            decision,
        });
        context.apply_threshold_changes(model)?;
    }
    if let Decision::Publish(counts) = decision {
        let encode = || wav(&window.samples, classifier.format.sample_rate);
        context.publisher.publish_audio(result, counts, encode);
    }
    context.notify_first_inference(notify);
    Ok(())
}

/// Gives the model slices, or whole windows.
struct WindowClassifier {
    format: AudioFormat,
    /// Slices that the model answered since its start.
    slices: usize,
}

impl WindowClassifier {
    /// Returns `None` until there is a whole window: a model answers the slices before it with zeros. A window begins
    /// again after a start of the model, which has lost its window, and after a start of the capture, whose first
    /// samples do not continue the last ones. As in the existing runner, a gap within a capture does not begin a new
    /// window.
    fn classify(
        &mut self,
        model: &mut Model,
        window: &AudioWindow,
        context: &InferenceContext,
    ) -> Result<Option<InferenceResult>, ModelError> {
        let AudioFormat {
            window: length, step, ..
        } = self.format;
        if model.is_continuous() {
            // A window that is not a multiple of the slice: the model rounds down.
            let needed = (length / step).max(1);
            match classify(model, window.features()) {
                Ok(result) => {
                    self.slices += 1;
                    let is_full = self.slices >= needed && window.samples.len() >= needed * step;
                    return Ok(is_full.then_some(result));
                }
                Err(ModelError::Refused { reason, .. }) if self.slices < needed => {
                    tracing::warn!(
                        error = reason,
                        "The model refuses continuous classification; it gets whole windows from now on"
                    );
                    context.remember_refused_slices(model.info());
                    model.use_whole_windows();
                }
                Err(error) => return Err(error),
            }
        }
        match window.samples.len().checked_sub(length) {
            Some(start) => classify(model, &window.samples[start..]).map(Some),
            None => Ok(None),
        }
    }
}

/// [`Model::send`] recognises a slice of continuous mode by its number of samples.
fn classify(model: &mut Model, samples: &[i16]) -> Result<InferenceResult, ModelError> {
    let features = model.features_for(samples.len())?;
    for (feature, sample) in features.iter_mut().zip(samples) {
        *feature = f32::from(*sample);
    }
    model.classify(samples.len())
}
