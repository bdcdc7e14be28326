//! A model that takes pictures: frame -> picture -> features -> model -> result.

use serde_json::{Map, Value};

use crate::capture::pack::pack_features;
use crate::capture::{ConvertError, Converter, Frame, Picture, PictureTarget};
use crate::config::ResizeMode;
use crate::model::{InferenceResult, Model, ModelError};

/// A model process that takes pictures.
pub(super) struct PictureClassifier {
    model: Model,
    target: PictureTarget,
    converter: Converter,
    /// The size last announced to a model that takes pictures of any size.
    announced_size: Option<(u32, u32)>,
}

impl PictureClassifier {
    pub(super) fn new(model: Model, target: PictureTarget) -> Self {
        Self {
            model,
            target,
            converter: Converter::new(target),
            announced_size: None,
        }
    }

    pub(super) fn model(&mut self) -> &mut Model {
        &mut self.model
    }

    /// How frames are converted.
    pub(super) fn target(&self) -> PictureTarget {
        self.target
    }

    /// Ends the model.
    pub(super) fn stop(self) {
        self.model.stop();
    }

    /// Converts a frame to the input of the model.
    ///
    /// # Errors
    /// The frame cannot be converted.
    pub(super) fn convert(&mut self, frame: &Frame, picture: &mut Picture) -> Result<(), ConvertError> {
        self.converter.convert(frame, picture)
    }

    /// Asks the model to classify a picture. [`Self::receive`] must follow if this returns `true`. `false`: the model does
    /// not take the size of this picture; pictures are squashed from the next frame on.
    ///
    /// # Errors
    /// [`ModelError`]; see [`ModelError::is_fatal`].
    pub(super) fn send(&mut self, picture: &Picture) -> Result<bool, ModelError> {
        if self.target.resize == ResizeMode::None && !self.announce_size(picture)? {
            return Ok(false);
        }
        let elements = picture.pixels();
        pack_features(picture, self.model.features_for(elements)?);
        self.model.send(elements)?;
        Ok(true)
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// [`ModelError`]; see [`ModelError::is_fatal`].
    pub(super) fn receive(&mut self) -> Result<InferenceResult, ModelError> {
        self.model.receive()
    }

    /// Sends the picture's size to a model that takes pictures of any size. `false`: the model refused it.
    fn announce_size(&mut self, picture: &Picture) -> Result<bool, ModelError> {
        let size = (picture.width, picture.height);
        if self.announced_size == Some(size) {
            return Ok(true);
        }
        let channels = if picture.grey { 1 } else { 3 };
        let parameters: Map<String, Value> = [
            ("image_width", size.0),
            ("image_height", size.1),
            ("image_channels", channels),
        ]
        .map(|(key, value)| (key.to_owned(), value.into()))
        .into_iter()
        .collect();
        match self.model.set_parameter(&parameters) {
            Ok(()) => {
                self.announced_size = Some(size);
                return Ok(true);
            }
            Err(e) if e.is_fatal() => return Err(e),
            Err(e) => tracing::warn!(
                width = size.0,
                height = size.1,
                model_width = self.target.width,
                model_height = self.target.height,
                error = %e,
                "The model does not take pictures of this size; pictures are squashed to the model's own size"
            ),
        }
        self.target.resize = ResizeMode::Squash;
        self.converter = Converter::new(self.target);
        Ok(false)
    }
}
