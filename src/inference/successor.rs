//! Where the inference loop and the trial of a new model meet: the loop leaves copies of its inputs here, and takes the
//! model from here when it has passed.
//!
//! Without a trial an input costs one relaxed load.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::classifier::Classifier;
use crate::capture::{AudioWindow, Frame};
use crate::config::Threshold;

/// A copy of an input of the running model.
pub(super) enum TrialInput {
    Frame(Frame),
    Audio(AudioWindow),
}

/// A model that has passed its trial.
pub(super) struct ReadyModel {
    pub(super) classifier: Classifier,
    /// The changed thresholds that were set in it.
    pub(super) thresholds: Vec<Threshold>,
}

/// Why a trial gets no input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoInput {
    /// None arrived in time.
    TimedOut,
    /// More audio waits than the capture itself would keep: the model is too slow.
    Overflowed,
    /// The trial was cancelled.
    Cancelled,
}

const IDLE: u8 = 0;
const IN_TRIAL: u8 = 1;
const READY: u8 = 2;

/// Shared by the inference loop of a session and the trials beside it.
#[derive(Default)]
pub struct Successor {
    /// `IDLE`, `IN_TRIAL` or `READY`; changed only with the lock of `state`.
    stage: AtomicU8,
    state: Mutex<SuccessorState>,
    changed: Condvar,
}

#[derive(Default)]
struct SuccessorState {
    inputs: VecDeque<TrialInput>,
    /// Inputs that may wait. Frames: one, and a newer one is not copied before it is taken.
    capacity: usize,
    has_overflowed: bool,
    /// Inputs that the running model got, and when the first and the last of them came.
    observed: u32,
    first: Option<Instant>,
    last: Option<Instant>,
    ready: Option<ReadyModel>,
}

impl Successor {
    /// The loop takes this frame: keeps a copy for the trial, if there is one that waits for it.
    pub(super) fn observe_frame(&self, frame: &Frame) {
        if self.stage.load(Ordering::Relaxed) != IN_TRIAL {
            return;
        }
        {
            let mut state = self.state.lock();
            state.count_input();
            if !state.inputs.is_empty() {
                return;
            }
        }
        // Copied without the lock. The loop is the only one that adds inputs.
        let Some(copy) = frame.detached() else { return };
        self.add(TrialInput::Frame(copy));
    }

    /// The loop takes this window. A trial gets every one, in order.
    pub(super) fn observe_audio(&self, window: &AudioWindow) {
        if self.stage.load(Ordering::Relaxed) == IDLE {
            return;
        }
        self.state.lock().count_input();
        self.add(TrialInput::Audio(window.clone()));
    }

    fn add(&self, input: TrialInput) {
        let mut state = self.state.lock();
        if self.stage.load(Ordering::Relaxed) == IDLE {
            return;
        }
        if state.inputs.len() >= state.capacity {
            state.has_overflowed = true;
            return;
        }
        state.inputs.push_back(input);
        self.changed.notify_all();
    }

    /// Whether a model waits to take over: one relaxed load.
    pub(super) fn is_ready(&self) -> bool {
        self.stage.load(Ordering::Relaxed) == READY
    }

    /// The model that takes over now, with the audio windows that the running model got and this one did not yet.
    pub(super) fn take_ready(&self) -> Option<(ReadyModel, Vec<AudioWindow>)> {
        if !self.is_ready() {
            return None;
        }
        let mut state = self.state.lock();
        let ready = state.ready.take()?;
        self.stage.store(IDLE, Ordering::Relaxed);
        let windows = std::mem::take(&mut state.inputs)
            .into_iter()
            .filter_map(|input| match input {
                TrialInput::Audio(window) => Some(window),
                TrialInput::Frame(_) => None,
            });
        Some((ready, windows.collect()))
    }

    /// Begins a trial for which `capacity` inputs may wait.
    pub(super) fn begin(&self, capacity: usize) {
        let mut state = self.state.lock();
        *state = SuccessorState {
            capacity: capacity.max(1),
            ..SuccessorState::default()
        };
        self.stage.store(IN_TRIAL, Ordering::Relaxed);
    }

    /// The next input for the trial; waits at most `limit` for it.
    pub(super) fn next_input(&self, limit: Duration) -> Result<TrialInput, NoInput> {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock();
        loop {
            if self.stage.load(Ordering::Relaxed) != IN_TRIAL {
                return Err(NoInput::Cancelled);
            }
            if state.has_overflowed {
                return Err(NoInput::Overflowed);
            }
            if let Some(input) = state.inputs.pop_front() {
                return Ok(input);
            }
            if self.changed.wait_until(&mut state, deadline).timed_out() && state.inputs.is_empty() {
                return Err(NoInput::TimedOut);
            }
        }
    }

    /// The mean time between two inputs of the running model. `None` until `least` inputs came.
    pub(super) fn input_interval(&self, least: u32) -> Option<Duration> {
        let state = self.state.lock();
        let intervals = state
            .observed
            .checked_sub(1)
            .filter(|_| state.observed >= least.max(2))?;
        Some(state.last?.saturating_duration_since(state.first?) / intervals)
    }

    /// The model has passed: the loop takes it before its next input. Returns it if the trial was cancelled.
    pub(super) fn hand_over(&self, model: ReadyModel) -> Result<(), Box<ReadyModel>> {
        let mut state = self.state.lock();
        if self.stage.load(Ordering::Relaxed) != IN_TRIAL {
            return Err(Box::new(model));
        }
        state.ready = Some(model);
        self.stage.store(READY, Ordering::Relaxed);
        Ok(())
    }

    /// Cancels the trial. Ends a model that waits to take over.
    pub(crate) fn cancel(&self) {
        let mut state = self.state.lock();
        self.stage.store(IDLE, Ordering::Relaxed);
        let ended = std::mem::take(&mut *state);
        drop(state);
        self.changed.notify_all();
        if let Some(ready) = ended.ready {
            ready.classifier.stop_in_background();
        }
    }
}

impl SuccessorState {
    fn count_input(&mut self) {
        let now = Instant::now();
        self.observed = self.observed.saturating_add(1);
        self.first.get_or_insert(now);
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(sample: i16) -> AudioWindow {
        AudioWindow {
            samples: vec![sample],
            feature_count: 1,
            at: Instant::now(),
        }
    }

    fn next(successor: &Successor) -> Result<i16, NoInput> {
        match successor.next_input(Duration::ZERO)? {
            TrialInput::Audio(window) => Ok(window.samples[0]),
            TrialInput::Frame(_) => panic!("a frame"),
        }
    }

    #[test]
    fn audio_comes_in_order_and_too_much_of_it_ends_the_trial() {
        let successor = Successor::default();
        successor.observe_audio(&window(1));
        assert_eq!(next(&successor), Err(NoInput::Cancelled), "no trial");
        successor.begin(2);
        for sample in [2, 3] {
            successor.observe_audio(&window(sample));
        }
        assert_eq!((next(&successor), next(&successor)), (Ok(2), Ok(3)));
        assert_eq!(next(&successor), Err(NoInput::TimedOut));
        for sample in [4, 5, 6] {
            successor.observe_audio(&window(sample));
        }
        assert_eq!(next(&successor), Err(NoInput::Overflowed));
        successor.cancel();
        assert_eq!(next(&successor), Err(NoInput::Cancelled));
    }

    #[test]
    fn the_interval_is_the_mean_of_all_inputs() {
        let successor = Successor::default();
        successor.begin(10);
        assert_eq!(successor.input_interval(2), None);
        for sample in 0..3 {
            successor.observe_audio(&window(sample));
        }
        let begin = Instant::now();
        {
            let mut state = successor.state.lock();
            (state.first, state.last) = (Some(begin), Some(begin + Duration::from_millis(60)));
        }
        assert_eq!(successor.input_interval(3), Some(Duration::from_millis(30)));
        assert_eq!(successor.input_interval(4), None);
    }
}
