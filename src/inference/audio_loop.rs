//! The loop of an audio model: window -> features -> model -> inference, in order.

use std::time::{Duration, Instant};

use super::audio_classifier::AudioClassifier;
use super::context::{InferenceContext, Progress};
use super::drain::DrainNotifier;
use super::event::InferenceEvent;
use super::fault::{InferenceFault, RefusalTracker};
use super::loop_end::LoopEnd;
use crate::capture::audio::{loudness, wav};
use crate::capture::{AudioWindow, Received};
use crate::model::ModelError;
use crate::studio::frames::CollectedInput;
use crate::studio::monitor::InferredInput;

/// Interval at which the loop checks whether it has to return.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Infers window after window until [`InferenceContext::finish`] is set, or until another model takes over. The caller ends
/// the model.
///
/// # Errors
/// The model failed; the caller starts it again.
pub(super) fn run(
    classifier: &mut AudioClassifier,
    context: &mut InferenceContext,
    notify: &dyn Fn(Progress),
) -> Result<LoopEnd, InferenceFault> {
    let (mut drain, mut refusals) = (DrainNotifier::default(), RefusalTracker::default());
    while !context.is_finishing() {
        if let Some((ready, windows)) = context.successor.take_ready() {
            return Ok(LoopEnd::Replaced(ready, windows));
        }
        match context.audio.receive(CHECK_INTERVAL) {
            Received::Value(window) => match infer(classifier, &window, context, notify) {
                Ok(()) => refusals.reset(),
                Err(e) => {
                    context.stats.frames_dropped.inc();
                    refusals.refused(Instant::now(), "audio window", e)?;
                }
            },
            Received::TimedOut => context.apply_threshold_changes(classifier.model())?,
            Received::Closed(epoch) => {
                drain.mailbox_closed(epoch, context, notify);
                context.audio.wait_until_open(CHECK_INTERVAL);
            }
        }
    }
    Ok(LoopEnd::Finished)
}

fn infer(
    classifier: &mut AudioClassifier,
    window: &AudioWindow,
    context: &mut InferenceContext,
    notify: &dyn Fn(Progress),
) -> Result<(), ModelError> {
    context.successor.observe_audio(window);
    let begun = Instant::now();
    let Some(result) = classifier.classify(window)? else {
        return Ok(());
    };
    let (wall_ms, decision) = context.accept(&result, begun);
    if let Some(monitor) = &context.monitor {
        let frequency = classifier.format().sample_rate;
        monitor.observe(
            classifier.model().info(),
            &result,
            InferredInput::Audio { window, frequency },
        );
    }
    if context.live_tap.has_viewers() {
        context.live_tap.send(InferenceEvent {
            result: &result,
            picture: None,
            original: None,
            level: Some(loudness(window.features())),
            wall_ms,
            decision,
            objects: Vec::new(),
        });
        context.apply_threshold_changes(classifier.model())?;
    }
    let sample_rate = classifier.format().sample_rate;
    let copy = || {
        Some(CollectedInput::Audio {
            samples: window.samples.clone(),
            sample_rate,
        })
    };
    context.offer_input(&result, Some(copy));
    if let Some((id, counts)) = context.record_events(&result, decision, None) {
        let encode = || wav(&window.samples, sample_rate);
        context.publisher.publish_audio(id, result, counts, encode);
    }
    context.notify_first_inference(notify);
    Ok(())
}
