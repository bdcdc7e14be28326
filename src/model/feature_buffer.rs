//! Where the values of a request go: the model's shared memory, else a buffer that is sent as JSON.

use tracing::warn;

use super::error::ModelError;
use super::hello::Hello;
use super::protocol::InferenceResult;
use super::shm::{FeatureSegment, OutputSegment};
use crate::config::ShmBehavior;
use crate::status::health::HealthFlag;

/// The values of the next request, and the model's free-form outputs in shared memory.
#[derive(Debug, Default)]
pub(super) struct FeatureBuffer {
    /// The model's segment, if it is used.
    segment: Option<FeatureSegment>,
    /// Values that are sent as JSON: all without a segment, else those that the segment is too small for.
    json: Vec<f32>,
    /// Whether the values handed out last are in `json`.
    use_json: bool,
    outputs: Vec<OutputSegment>,
}

/// The written values.
pub(super) enum WrittenFeatures<'a> {
    /// In the model's segment.
    Shared,
    /// To be sent as JSON.
    Json(&'a [f32]),
}

impl FeatureBuffer {
    /// Opens the segments of a hello, as far as `behavior` allows. `health` fails while values are sent as JSON although
    /// shared memory was wanted.
    ///
    /// # Errors
    /// [`ModelError::SharedMemory`], where shared memory is required and cannot be used.
    pub(super) fn open(behavior: ShmBehavior, hello: &Hello, health: &HealthFlag) -> Result<Self, ModelError> {
        let (segment, outputs) = match open_segments(behavior, hello) {
            Ok(segments) => {
                health.set_ok();
                segments
            }
            Err(reason) if behavior == ShmBehavior::Always => return Err(ModelError::SharedMemory(reason)),
            // The answers to JSON requests contain the free-form outputs too.
            Err(reason) => {
                // A model that restarts has the same problem again.
                if health.failure().is_none() {
                    warn!(reason, "Features are sent as JSON, which is slower than shared memory");
                }
                health.set_failing(format!("features are sent as JSON, which is slower: {reason}"));
                Default::default()
            }
        };
        Ok(Self {
            segment,
            outputs,
            ..Self::default()
        })
    }

    pub(super) fn uses_shared_memory(&self) -> bool {
        self.segment.is_some()
    }

    /// Room for this number of values.
    pub(super) fn values(&mut self, elements: usize) -> &mut [f32] {
        let shared = self
            .segment
            .as_mut()
            .map(FeatureSegment::values)
            .filter(|values| values.len() >= elements);
        self.use_json = shared.is_none();
        match shared {
            Some(values) => &mut values[..elements],
            None => {
                if self.json.len() < elements {
                    self.json.resize(elements, 0.0);
                }
                &mut self.json[..elements]
            }
        }
    }

    /// The first `elements` of the values.
    ///
    /// # Errors
    /// [`ModelError::TooManyValues`]
    pub(super) fn written(&mut self, elements: usize) -> Result<WrittenFeatures<'_>, ModelError> {
        match &mut self.segment {
            Some(segment) if !self.use_json => match segment.values().len() {
                accepted if elements > accepted => Err(ModelError::TooManyValues { elements, accepted }),
                _ => Ok(WrittenFeatures::Shared),
            },
            _ => {
                let accepted = self.json.len();
                let values = self.json.get(..elements);
                values
                    .map(WrittenFeatures::Json)
                    .ok_or(ModelError::TooManyValues { elements, accepted })
            }
        }
    }

    /// Copies the free-form outputs into `result`. Returns how many values were not finite and became 0; 1 if there are no
    /// outputs.
    pub(super) fn copy_outputs(&self, result: &mut InferenceResult) -> u64 {
        if self.outputs.is_empty() {
            return 1;
        }
        let mut replaced = 0;
        let mut arrays: Vec<_> = self.outputs.iter().map(OutputSegment::copy).collect();
        for value in arrays.iter_mut().flatten().filter(|value| !value.is_finite()) {
            *value = 0.0;
            replaced += 1;
        }
        result.freeform = Some(arrays);
        replaced
    }
}

type Segments = (Option<FeatureSegment>, Vec<OutputSegment>);

/// The segments of a hello; none where none are wanted or offered. The error is the reason as a sentence.
fn open_segments(behavior: ShmBehavior, hello: &Hello) -> Result<Segments, String> {
    if behavior == ShmBehavior::Never || !hello.info.input.is_supported() {
        return Ok((None, Vec::new()));
    }
    let segment = match (&hello.features_shm, &hello.features_shm_error) {
        (Some(segment), _) => segment,
        (None, Some(error)) => return Err(format!("the model has no shared memory: {error}")),
        (None, None) if behavior == ShmBehavior::Auto => return Ok((None, Vec::new())),
        (None, None) => return Err("the model has no shared memory (built before 2025?)".to_owned()),
    };
    if !segment.is_float32 {
        return Err("the model's shared memory does not hold float32".to_owned());
    }
    if segment.elements < hello.info.features as u64 {
        return Err(format!(
            "the model's shared memory holds {} values of {}",
            segment.elements, hello.info.features
        ));
    }
    if segment.size_bytes / 4 < segment.elements {
        return Err(format!(
            "the model's shared memory has {} bytes for {} values",
            segment.size_bytes, segment.elements
        ));
    }
    let features = FeatureSegment::open(&segment.name, segment.elements).map_err(|error| error.to_string())?;
    let outputs = hello.freeform_shm.iter();
    let outputs = outputs.map(|segment| OutputSegment::open(&segment.name, segment.elements));
    let outputs = outputs.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    Ok((Some(features), outputs))
}
