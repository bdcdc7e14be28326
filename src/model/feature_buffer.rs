//! The values of a request, and their way to the model: its shared memory, else JSON.

use tracing::warn;

use super::error::ModelError;
use super::hello::Hello;
use super::protocol::InferenceResult;
use super::shm::Segment;
use crate::config::ShmBehavior;
use crate::status::health::HealthFlag;

/// The values of the next request, and the model's shared memory.
#[derive(Debug)]
pub(super) struct FeatureBuffer {
    values: Vec<f32>,
    /// The model's segment for features, if it is used.
    segment: Option<Segment>,
    /// Its segments for free-form outputs.
    outputs: Vec<Segment>,
    behavior: ShmBehavior,
    /// Fails while values are sent as JSON although shared memory was wanted.
    health: HealthFlag,
}

/// The values as the request contains them.
pub(super) enum WrittenFeatures<'a> {
    /// In the model's segment.
    Shared,
    /// To be sent as JSON.
    Json(&'a [f32]),
}

impl FeatureBuffer {
    /// Opens the segments of a hello, as far as `behavior` allows.
    ///
    /// # Errors
    /// [`ModelError::SharedMemory`], where shared memory is required and cannot be used.
    pub(super) fn open(behavior: ShmBehavior, hello: &Hello, health: &HealthFlag) -> Result<Self, ModelError> {
        let mut buffer = Self {
            values: Vec::new(),
            segment: None,
            outputs: Vec::new(),
            behavior,
            health: health.clone(),
        };
        match open_segments(behavior, hello) {
            Ok(segments) => {
                (buffer.segment, buffer.outputs) = segments;
                if buffer.segment.is_some() {
                    // The values are zeros at first, as in the segment itself.
                    buffer.values(hello.info.features);
                }
                health.set_ok();
            }
            Err(reason) if behavior == ShmBehavior::Always => return Err(ModelError::SharedMemory(reason)),
            // The answers to JSON requests contain the free-form outputs too.
            Err(reason) => buffer.report_json(&reason),
        }
        Ok(buffer)
    }

    pub(super) fn uses_shared_memory(&self) -> bool {
        self.segment.is_some()
    }

    /// Room for this number of values.
    pub(super) fn values(&mut self, elements: usize) -> &mut [f32] {
        if self.values.len() < elements {
            self.values.resize(elements, 0.0);
        }
        &mut self.values[..elements]
    }

    /// Writes the first `elements` of the values into the model's segment if there is one and it is large enough. A
    /// segment that cannot be written any more is not used again.
    ///
    /// # Errors
    /// [`ModelError::TooManyValues`], or [`ModelError::SegmentLost`] where shared memory is required.
    pub(super) fn write(&mut self, elements: usize) -> Result<WrittenFeatures<'_>, ModelError> {
        let Some(values) = self.values.get(..elements) else {
            return Err(ModelError::TooManyValues {
                elements,
                accepted: self.values.len(),
            });
        };
        match self.segment.as_ref().filter(|segment| segment.elements() >= elements) {
            None => return Ok(WrittenFeatures::Json(values)),
            Some(segment) => match segment.write(values) {
                Ok(()) => return Ok(WrittenFeatures::Shared),
                Err(error) if self.behavior == ShmBehavior::Always => return Err(ModelError::SegmentLost(error)),
                Err(error) => self.report_json(&error.to_string()),
            },
        }
        self.segment = None;
        Ok(WrittenFeatures::Json(&self.values[..elements]))
    }

    /// Copies the free-form outputs into `result`. Returns how many values were not finite and became 0; 1 if there are
    /// no outputs.
    ///
    /// # Errors
    /// [`ModelError::SegmentLost`]
    pub(super) fn copy_outputs(&self, result: &mut InferenceResult) -> Result<u64, ModelError> {
        if self.outputs.is_empty() {
            return Ok(1);
        }
        let mut replaced = 0;
        let arrays: Result<Vec<_>, _> = self.outputs.iter().map(Segment::copy).collect();
        let mut arrays = arrays.map_err(ModelError::SegmentLost)?;
        for value in arrays.iter_mut().flatten().filter(|value| !value.is_finite()) {
            *value = 0.0;
            replaced += 1;
        }
        result.freeform = Some(arrays);
        Ok(replaced)
    }

    fn report_json(&self, reason: &str) {
        // A model that restarts has the same problem again.
        if self.health.failure().is_none() {
            warn!(reason, "Features are sent as JSON, which is slower than shared memory");
        }
        let problem = format!("features are sent as JSON, which is slower: {reason}");
        self.health.set_failing(problem);
    }
}

type Segments = (Option<Segment>, Vec<Segment>);

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
    let features = Segment::open(&segment.name, segment.elements).map_err(|error| error.to_string())?;
    let outputs = hello.freeform_shm.iter();
    let outputs = outputs.map(|segment| Segment::open(&segment.name, segment.elements));
    let outputs = outputs.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    Ok((Some(features), outputs))
}
