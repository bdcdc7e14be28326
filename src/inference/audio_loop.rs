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

/// The loop checks this often whether it shall return.
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
    while !context.is_finishing() {
        match context.audio.receive(CHECK_INTERVAL) {
            Received::Value(window) => match infer(model, format, &window, context, notify) {
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
    format: AudioFormat,
    window: &AudioWindow,
    context: &mut InferenceContext,
    notify: &dyn Fn(Progress),
) -> Result<(), ModelError> {
    let begun = Instant::now();
    let result = classify(model, window.features())?;
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
        let encode = || wav(&window.samples, format.sample_rate);
        context.publisher.publish_audio(result, counts, encode);
    }
    context.notify_first_inference(notify);
    Ok(())
}

/// [`Model::send`] recognises a slice of continuous mode by its number of samples.
fn classify(model: &mut Model, samples: &[i16]) -> Result<InferenceResult, ModelError> {
    let features = model.features_for(samples.len())?;
    for (feature, sample) in features.iter_mut().zip(samples) {
        *feature = f32::from(*sample);
    }
    model.classify(samples.len())
}
