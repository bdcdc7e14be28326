//! A model that takes audio: slices, or whole windows.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value};

use crate::capture::{AudioFormat, AudioWindow};
use crate::model::{InferenceResult, Model, ModelError};

/// The project and version of the model that refused continuous classification, as it named them. Shared by all starts of
/// the model in a session, so that the model is not asked again after each start.
pub type RefusedSlices = Arc<Mutex<Option<Map<String, Value>>>>;

/// A model process that takes audio.
pub(super) struct AudioClassifier {
    model: Model,
    format: AudioFormat,
    /// Slices that the model answered since its start.
    slices: usize,
    refused_slices: RefusedSlices,
}

impl AudioClassifier {
    /// `refused_slices`: the model that refused slices earlier in this session, and gets whole windows at once.
    pub(super) fn new(mut model: Model, format: AudioFormat, refused_slices: RefusedSlices) -> Self {
        if refused_slices.lock().as_ref() == Some(&model.info().raw_project) {
            model.use_whole_windows();
        }
        Self {
            model,
            format,
            slices: 0,
            refused_slices,
        }
    }

    pub(super) fn model(&mut self) -> &mut Model {
        &mut self.model
    }

    /// The audio that the model classifies.
    pub(super) fn format(&self) -> AudioFormat {
        self.format
    }

    /// Ends the model.
    pub(super) fn stop(self) {
        self.model.stop();
    }

    /// Returns `None` until there is a whole window: a model answers the slices before it with zeros. A window begins
    /// again after a start of the model, which has lost its window, and after a start of the capture, whose first
    /// samples do not continue the last ones. As in the existing runner, a gap within a capture does not begin a new
    /// window.
    ///
    /// # Errors
    /// [`ModelError`]; see [`ModelError::is_fatal`].
    pub(super) fn classify(&mut self, window: &AudioWindow) -> Result<Option<InferenceResult>, ModelError> {
        let AudioFormat {
            window: length, step, ..
        } = self.format;
        if self.model.is_continuous() {
            // A window that is not a multiple of the slice: the model rounds down.
            let needed = (length / step).max(1);
            match self.classify_samples(window.features()) {
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
                    *self.refused_slices.lock() = Some(self.model.info().raw_project.clone());
                    self.model.use_whole_windows();
                }
                Err(error) => return Err(error),
            }
        }
        match window.samples.len().checked_sub(length) {
            Some(start) => self.classify_samples(&window.samples[start..]).map(Some),
            None => Ok(None),
        }
    }

    /// [`Model::send`] recognises a slice of continuous mode by its number of samples.
    fn classify_samples(&mut self, samples: &[i16]) -> Result<InferenceResult, ModelError> {
        let features = self.model.features_for(samples.len())?;
        for (feature, sample) in features.iter_mut().zip(samples) {
            *feature = f32::from(*sample);
        }
        self.model.classify(samples.len())
    }
}
