//! The loop of a model that hears: window -> features -> model -> inference, in order.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::fault::Refusals;
use super::{Ends, InferenceContext, InferenceFault, LOOK_EVERY, Progress, carry_out_orders};
use crate::capture::audio::{loudness, wav};
use crate::capture::{AudioFormat, AudioWindow, Received};
use crate::inference::live_tap::InferenceEvent;
use crate::model::{Model, ModelError};
use crate::report::Decision;

/// Infers window after window until told to finish, then ends the model.
pub(super) fn infer_until_finished(
    mut model: Model,
    format: AudioFormat,
    context: &mut InferenceContext,
    notify: &dyn Fn(Progress),
) -> Result<(), InferenceFault> {
    let result = listen(&mut model, format, context, notify);
    model.stop();
    result
}

fn listen(
    model: &mut Model,
    format: AudioFormat,
    context: &mut InferenceContext,
    notify: &dyn Fn(Progress),
) -> Result<(), InferenceFault> {
    let (mut ends, mut refusals) = (Ends::default(), Refusals::default());
    while !context.finish.load(Ordering::Relaxed) {
        match context.sounds.receive(LOOK_EVERY) {
            Received::Value(window) => match infer(model, format, &window, context, notify) {
                Ok(()) => refusals.over(),
                Err(e) => {
                    context.stats.frames_dropped.inc();
                    refusals.note(Instant::now(), "a window of sound", e)?;
                }
            },
            Received::TimedOut => carry_out_orders(model, &context.live_tap)?,
            Received::Closed(epoch) => {
                ends.closed(epoch, context, notify);
                context.sounds.wait_until_open(LOOK_EVERY);
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
    if context.live_tap.is_watched() {
        context.live_tap.show(InferenceEvent {
            result: &result,
            picture: None,
            original: None,
            level: Some(loudness(window.features())),
            wall_ms,
            decision,
        });
        carry_out_orders(model, &context.live_tap)?;
    }
    if let Decision::Publish(numbers) = decision {
        let sound = || wav(&window.samples, format.sample_rate);
        context.publisher.publish_sound(result, numbers, sound);
    }
    context.announce_first(notify);
    Ok(())
}

/// A slice goes as `classify_continuous`: the model's own count of features tells it from a window.
fn classify(model: &mut Model, samples: &[i16]) -> Result<crate::model::InferenceResult, ModelError> {
    let features = model.features_for(samples.len())?;
    for (feature, sample) in features.iter_mut().zip(samples) {
        *feature = f32::from(*sample);
    }
    model.classify(samples.len())
}
