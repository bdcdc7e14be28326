//! A running model with what turns frames or audio windows into its input.

use std::sync::Arc;

use super::audio_classifier::{AudioClassifier, RefusedSlices};
use super::picture_classifier::PictureClassifier;
use crate::capture::{AudioFormat, PictureTarget};
use crate::config::ResizeMode;
use crate::model::{Model, ModelInfo};

/// A running model, by its input.
pub(super) enum Classifier {
    Pictures(Box<PictureClassifier>),
    Audio(Box<AudioClassifier>),
}

/// How a classifier treats its input.
#[derive(Debug, Clone)]
pub struct ClassifierSettings {
    /// `--force-resize-mode`.
    pub forced_resize: Option<ResizeMode>,
    /// For models that name no resize mode (those before 2024).
    pub unnamed_resize: ResizeMode,
    /// The project and version of the model that refused continuous classification, as it named them.
    pub refused_slices: RefusedSlices,
}

impl Classifier {
    /// # Errors
    /// The model, if it takes neither pictures nor audio.
    pub(super) fn new(model: Model, settings: &ClassifierSettings) -> Result<Self, Box<Model>> {
        let info = model.info();
        if let Some(format) = AudioFormat::of(&info.input, info.features) {
            let classifier = AudioClassifier::new(model, format, settings.refused_slices.clone());
            return Ok(Self::Audio(Box::new(classifier)));
        }
        match PictureTarget::of(&info.input, settings.forced_resize, settings.unnamed_resize) {
            Some(target) => Ok(Self::Pictures(Box::new(PictureClassifier::new(model, target)))),
            None => Err(Box::new(model)),
        }
    }

    pub(super) fn model(&mut self) -> &mut Model {
        match self {
            Self::Pictures(classifier) => classifier.model(),
            Self::Audio(classifier) => classifier.model(),
        }
    }

    pub(super) fn info(&mut self) -> Arc<ModelInfo> {
        self.model().info().clone()
    }

    /// Ends the model.
    pub(super) fn stop(self) {
        match self {
            Self::Pictures(classifier) => classifier.stop(),
            Self::Audio(classifier) => classifier.stop(),
        }
    }

    /// Ends the model on a thread of its own: that may take two seconds, and the next frame does not wait for it.
    pub(super) fn stop_in_background(self) {
        // If there is no thread, the closure is dropped here, which ends the model too.
        let _ = std::thread::Builder::new()
            .name("model-end".into())
            .spawn(move || self.stop());
    }
}
