//! The trial of a new model beside the running one: it answers copies of the live inputs, and its results are not
//! published. A model that passes waits in the [`Successor`] until the inference loop takes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::classifier::{Classifier, ClassifierSettings};
use super::live_tap::LiveTap;
use super::successor::{NoInput, ReadyModel, Successor, TrialInput};
use crate::capture::{AudioFormat, FrameMailbox, Picture};
use crate::model::{Interrupt, Model, ModelError, ModelInfo, ModelSettings};
use crate::util::panics::Panicked;

/// Inputs after which their interval counts.
const LEAST_INPUTS: u32 = 5;
/// A model may take longer than the interval by this part of it: two models share the machine during the trial.
const TOLERANCE: f32 = 0.25;
/// An interval below this counts as this: scheduling alone takes some milliseconds.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

/// What a trial needs.
pub struct Trial {
    /// The model to try.
    pub settings: ModelSettings,
    /// How it treats its input.
    pub classifier: ClassifierSettings,
    /// The audio of the running model; `None`: it takes pictures.
    pub audio: Option<AudioFormat>,
    /// How many inputs it must answer.
    pub inferences: u32,
    /// How long an input may take to arrive.
    pub input_limit: Duration,
    /// Where the inputs come from, and where the model goes.
    pub successor: Arc<Successor>,
    /// Tells whether the source waits for the model.
    pub frames: Arc<FrameMailbox>,
    /// Has the thresholds that were changed while the running model runs.
    pub live_tap: Arc<LiveTap>,
}

/// Why a model did not pass.
#[derive(Debug, thiserror::Error)]
pub enum TrialFailure {
    /// It does not start, or ended.
    #[error("the model failed before its trial: {}", .0.brief())]
    NotStarted(#[source] ModelError),
    /// It does not answer, or answers with an error.
    #[error("the model failed in its trial, at input {input} of {inputs}: {}", error.brief())]
    Failed {
        /// The input, from 1.
        input: u32,
        /// How many it had to answer.
        inputs: u32,
        /// What happened.
        error: ModelError,
    },
    /// It is slower than the source.
    #[error(
        "the model is too slow: {} ms for each input in its trial, and an input comes every {} ms",
        took.as_millis(),
        interval.as_millis()
    )]
    TooSlow {
        /// Mean time of an answer.
        took: Duration,
        /// Mean time between two inputs.
        interval: Duration,
    },
    /// It takes an input that this component cannot give.
    #[error("the model is not supported: {0}")]
    Unsupported(String),
    /// It takes another kind of input than the running model.
    #[error(
        "the model takes {new} and the running model {running}, so it cannot be tried beside it; it is used after the command restart"
    )]
    OtherInput {
        /// What it takes.
        new: String,
        /// What the running model takes.
        running: String,
    },
    /// The source delivers nothing.
    #[error("no input arrived within {} s, so the model cannot be tried; send this again when the source delivers", .0.as_secs())]
    NoInput(Duration),
    /// The component ended during each of so many trials.
    #[error("the component ended during each of {0} trials of the model")]
    NeverEnded(u32),
    /// The session ends.
    #[error("the trial of the model was interrupted; it begins again after the restart")]
    Cancelled,
    /// The thread of the trial cannot be started.
    #[error("the thread of the trial cannot be started: {0}")]
    NoThread(#[source] std::io::Error),
    /// The thread of the trial panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

impl TrialFailure {
    /// Whether the model file is not the one that was downloaded.
    pub fn is_changed_file(&self) -> bool {
        matches!(self, Self::NotStarted(ModelError::Changed { .. }))
    }

    /// Whether the model is to blame, and not the circumstances.
    pub fn is_bad_model(&self) -> bool {
        match self {
            Self::NotStarted(error) | Self::Failed { error, .. } => error.is_models_fault(),
            Self::TooSlow { .. } | Self::Unsupported(_) | Self::NeverEnded(_) => true,
            Self::OtherInput { .. } | Self::NoInput(_) | Self::Cancelled | Self::NoThread(_) | Self::Panicked(_) => {
                false
            }
        }
    }

    /// The last output of the model.
    pub fn output(&self) -> &[String] {
        match self {
            Self::NotStarted(error) | Self::Failed { error, .. } => error.output(),
            _ => &[],
        }
    }
}

/// Runs the trial. The model has passed when this returns its information, and waits for the inference loop.
///
/// # Errors
/// [`TrialFailure`]; the model has ended then.
pub fn run(trial: &Trial, interrupt: &Interrupt) -> Result<Arc<ModelInfo>, TrialFailure> {
    let result = prove(trial, interrupt);
    if result.is_err() {
        trial.successor.cancel();
    }
    result
}

fn prove(trial: &Trial, interrupt: &Interrupt) -> Result<Arc<ModelInfo>, TrialFailure> {
    let mut model = Model::start(&trial.settings, interrupt).map_err(TrialFailure::NotStarted)?;
    if model.info().slow_first_inference {
        model.warm_up().map_err(TrialFailure::NotStarted)?;
    }
    let thresholds = trial.live_tap.thresholds.applied();
    model.set_thresholds(&thresholds).map_err(TrialFailure::NotStarted)?;
    let mut classifier = Classifier::new(model, &trial.classifier).map_err(|model| {
        let reason = model.info().input.unsupported_reason().unwrap_or_default();
        TrialFailure::Unsupported(reason)
    })?;
    let capacity = match &classifier {
        Classifier::Pictures(_) if trial.audio.is_none() => 1,
        Classifier::Audio(new) if trial.audio == Some(new.format()) => new.format().queue_capacity(),
        other => return Err(other_input(other, trial.audio)),
    };
    trial.successor.begin(capacity);
    let info = classifier.info();
    tracing::info!(
        model = info.name,
        version = info.deploy_version,
        inferences = trial.inferences,
        "The new model is tried beside the running one"
    );
    answer_inputs(trial, &mut classifier)?;
    let ready = ReadyModel { classifier, thresholds };
    trial.successor.hand_over(ready).map_err(|_| TrialFailure::Cancelled)?;
    Ok(info)
}

fn other_input(new: &Classifier, running: Option<AudioFormat>) -> TrialFailure {
    let described = |format: Option<AudioFormat>| match format {
        None => "pictures".to_owned(),
        Some(format) => format!(
            "audio ({} Hz, windows of {} samples, one every {})",
            format.sample_rate, format.window, format.step
        ),
    };
    let format = match new {
        Classifier::Pictures(_) => None,
        Classifier::Audio(new) => Some(new.format()),
    };
    TrialFailure::OtherInput {
        new: described(format),
        running: described(running),
    }
}

/// Lets the model answer as many inputs as the trial asks for.
fn answer_inputs(trial: &Trial, classifier: &mut Classifier) -> Result<(), TrialFailure> {
    let inputs = trial.inferences;
    let mut picture = Picture::default();
    let mut pace = Pace::default();
    let mut answered = 0;
    let mut last_answer = Instant::now();
    while answered < inputs {
        let input = trial
            .successor
            .next_input(trial.input_limit)
            .map_err(|error| match error {
                NoInput::TimedOut => TrialFailure::NoInput(trial.input_limit),
                NoInput::Cancelled => TrialFailure::Cancelled,
                NoInput::Overflowed => TrialFailure::TooSlow {
                    took: pace.mean(),
                    interval: trial.successor.input_interval(2).unwrap_or_default(),
                },
            })?;
        let begun = Instant::now();
        let is_answered = answer(classifier, &input, &mut picture).map_err(|error| match error {
            ModelError::Interrupted => TrialFailure::Cancelled,
            error => TrialFailure::Failed {
                input: answered + 1,
                inputs,
                error,
            },
        })?;
        if is_answered {
            answered += 1;
            last_answer = Instant::now();
            // A source that waits for the model has no pace of its own.
            let interval = trial.successor.input_interval(LEAST_INPUTS);
            let interval = interval.filter(|_| !trial.frames.waits_for_receiver());
            pace.add(begun.elapsed(), interval);
            pace.check(inputs, interval)?;
        } else if last_answer.elapsed() > trial.input_limit {
            return Err(TrialFailure::NoInput(trial.input_limit));
        }
    }
    Ok(())
}

/// Whether the input gave a result: a frame that cannot be converted and an incomplete window give none.
fn answer(classifier: &mut Classifier, input: &TrialInput, picture: &mut Picture) -> Result<bool, ModelError> {
    match (classifier, input) {
        (Classifier::Pictures(classifier), TrialInput::Frame(frame)) => {
            if classifier.convert(frame, picture).is_err() || !classifier.send(picture)? {
                return Ok(false);
            }
            classifier.receive().map(|_| true)
        }
        (Classifier::Audio(classifier), TrialInput::Audio(window)) => Ok(classifier.classify(window)?.is_some()),
        _ => Ok(false),
    }
}

/// How long the answers take. The first one does not count: many models prepare themselves then.
#[derive(Debug, Default)]
struct Pace {
    answers: u32,
    /// Answers that took longer than an input takes to arrive.
    slow: u32,
    total: Duration,
}

impl Pace {
    /// `interval`: between two inputs, if it is known.
    fn add(&mut self, took: Duration, interval: Option<Duration>) {
        self.answers += 1;
        if self.answers > 1 {
            self.total += took;
            self.slow += u32::from(interval.is_some_and(|interval| took > allowed(interval)));
        }
    }

    fn mean(&self) -> Duration {
        self.total / self.answers.saturating_sub(1).max(1)
    }

    /// Fails as soon as more than half of the answers that count are slow, and at the end of the trial if all together
    /// took twice the time. A single delay of the machine does not fail a model.
    fn check(&self, inputs: u32, interval: Option<Duration>) -> Result<(), TrialFailure> {
        let Some(interval) = interval else { return Ok(()) };
        let counted = inputs.saturating_sub(1);
        let is_over = self.answers == inputs;
        if self.slow > counted / 2 || is_over && self.mean() > allowed(interval) * 2 {
            return Err(TrialFailure::TooSlow {
                took: self.mean(),
                interval,
            });
        }
        Ok(())
    }
}

/// The time for an answer.
fn allowed(interval: Duration) -> Duration {
    interval.max(LEAST_INTERVAL).mul_f32(1.0 + TOLERANCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Option<Duration> = Some(Duration::from_millis(33));

    fn pace(millis: &[u64], interval: Option<Duration>) -> Pace {
        let mut pace = Pace::default();
        for ms in millis {
            pace.add(Duration::from_millis(*ms), interval);
        }
        pace
    }

    #[test]
    fn a_model_that_takes_longer_than_the_interval_fails_before_its_trial_is_over() {
        let check = |millis: &[u64], inputs| pace(millis, INTERVAL).check(inputs, INTERVAL);
        assert!(check(&[900, 30, 40, 35], 4).is_ok(), "the first does not count");
        assert!(check(&[30, 150, 30, 35, 35, 35], 6).is_ok(), "one delay");
        assert!(check(&[30, 500, 500], 6).is_ok(), "not yet");
        let failure = check(&[30, 500, 500, 500], 6).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "the model is too slow: 500 ms for each input in its trial, and an input comes every 33 ms"
        );
        assert!(check(&[30, 30, 500, 30, 500], 5).is_err(), "too slow altogether");
        assert!(
            pace(&[30, 500, 500], None).check(3, None).is_ok(),
            "no interval is known yet"
        );
    }

    #[test]
    fn an_interval_of_a_fast_source_leaves_time_for_scheduling() {
        let interval = Some(Duration::from_millis(1));
        assert!(pace(&[1, 9, 12, 9], interval).check(4, interval).is_ok());
        assert!(pace(&[1, 19, 19, 19], interval).check(4, interval).is_err());
    }

    #[test]
    fn circumstances_do_not_make_a_model_bad() {
        let bad = TrialFailure::NotStarted(ModelError::Unsendable("x".into()));
        assert!(bad.is_bad_model());
        for failure in [
            TrialFailure::NoInput(Duration::from_secs(1)),
            TrialFailure::Cancelled,
            TrialFailure::NotStarted(ModelError::Interrupted),
        ] {
            assert!(!failure.is_bad_model(), "{failure}");
        }
    }
}
