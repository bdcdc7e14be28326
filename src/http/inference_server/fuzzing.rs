//! What `tests/fuzz` calls here.

use axum::body::Body;
use axum::extract::{FromRequest, Multipart, Request};
use serde_json::Value;

use super::{features, picture as uploaded, server};
use crate::model::{InferenceResult, ModelInfo};

/// A picture as the model gets it.
#[derive(Debug)]
pub struct Prepared {
    /// The input of the model.
    pub features: Vec<f32>,
    mapping: uploaded::PictureMapping,
}

impl Prepared {
    /// Converts the coordinates of a result to pixels of the picture.
    pub fn map_back(&self, result: &mut InferenceResult, shown: &mut Value) {
        self.mapping.map_back(result);
        self.mapping.describe(shown);
    }
}

/// Prepares an uploaded picture.
///
/// # Errors
/// It cannot be used.
pub fn picture(file: &[u8], info: &ModelInfo) -> Result<Prepared, String> {
    let (features, mapping) = uploaded::prepare(file, info, None).map_err(|error| error.to_string())?;
    Ok(Prepared { features, mapping })
}

/// Reads `{"features": [...]}`.
///
/// # Errors
/// It cannot be used.
pub fn read_features(body: &[u8], expected: usize) -> Result<Vec<f32>, String> {
    features::read(body, expected).map_err(|error| error.to_string())
}

/// Reads the file of a form with this `Content-Type`. `None`: it is refused.
pub async fn read_upload(content_type: &[u8], body: Vec<u8>) -> Option<Vec<u8>> {
    let request = Request::post("/api/image")
        .header("content-type", content_type)
        .body(Body::from(body))
        .ok()?;
    let form = Multipart::from_request(request, &()).await.ok()?;
    server::read_upload(form).await.ok()
}
