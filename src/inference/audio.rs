//! The loop of a model that hears: window -> features -> model -> inference, in order.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::fault::Refusals;
use super::{Ends, InferenceFault, LOOK_EVERY, Progress, Workbench, carry_out_orders};
use crate::capture::windows::{loudness, wav};
use crate::capture::{SoundFormat, Taken, Window};
use crate::model::{Model, ModelError};
use crate::preview::Glance;
use crate::report::Verdict;

/// Infers window after window until told to finish, then ends the model.
pub(super) fn infer_until_finished(
    mut model: Model,
    format: SoundFormat,
    bench: &mut Workbench,
    tell: &dyn Fn(Progress),
) -> Result<(), InferenceFault> {
    let result = listen(&mut model, format, bench, tell);
    model.stop();
    result
}

fn listen(
    model: &mut Model,
    format: SoundFormat,
    bench: &mut Workbench,
    tell: &dyn Fn(Progress),
) -> Result<(), InferenceFault> {
    let (mut ends, mut refusals) = (Ends::default(), Refusals::default());
    while !bench.finish.load(Ordering::Relaxed) {
        match bench.sounds.take(LOOK_EVERY) {
            Taken::Frame(window) => match infer(model, format, &window, bench, tell) {
                Ok(()) => refusals.over(),
                Err(e) => {
                    bench.stats.frames_dropped.inc();
                    refusals.note(Instant::now(), "a window of sound", e)?;
                }
            },
            Taken::TimedOut => carry_out_orders(model, &bench.feed)?,
            Taken::Closed(generation) => {
                ends.closed(generation, bench, tell);
                bench.sounds.wait_until_open(LOOK_EVERY);
            }
        }
    }
    Ok(())
}

fn infer(
    model: &mut Model,
    format: SoundFormat,
    window: &Window,
    bench: &mut Workbench,
    tell: &dyn Fn(Progress),
) -> Result<(), ModelError> {
    let begun = Instant::now();
    let result = classify(model, window.features())?;
    let (wall_ms, verdict) = bench.accept(&result, begun);
    if bench.feed.is_watched() {
        bench.feed.show(Glance {
            result: &result,
            picture: None,
            original: None,
            level: Some(loudness(window.features())),
            wall_ms,
            verdict,
        });
        carry_out_orders(model, &bench.feed)?;
    }
    if let Verdict::Publish(numbers) = verdict {
        let sound = || wav(&window.samples, format.frequency);
        bench.publisher.publish_sound(result, numbers, sound);
    }
    bench.announce_first(tell);
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
