//! The model's answer to the hello request: what it is and what input it takes.
//!
//! Fields were added over the years: all but sizes, labels and sensor may be absent. Models before 2023 name neither a
//! resize mode nor shared memory.

use serde_json::{Map, Value};
use tracing::warn;

use super::lenient::{MAX_ITEMS, MAX_LABEL, cut, whole_number};
use super::protocol::{MAX_FEATURES, MAX_SIDE, ModelInfo, ModelInput, sensor_name};
use crate::config::ResizeMode;

/// Samples per second.
const MAX_FREQUENCY: f64 = 1_000_000.0;
/// `inferencing_engine` of NVIDIA TensorRT.
const ENGINE_TENSORRT: u64 = 6;
/// `inferencing_engine` of the server for vision-language models.
const ENGINE_VISION_LANGUAGE: u64 = 17;

/// Why a model cannot be used after its hello.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HelloError {
    /// The model refused the request.
    #[error("the model refused the hello request: {0}")]
    Refused(String),
    /// A field has an impossible value.
    #[error("the model describes itself as {what}, accepted is {accepted}; build it again in Edge Impulse Studio")]
    Implausible {
        /// The field and its value.
        what: String,
        /// The accepted values.
        accepted: String,
    },
    /// A type of model that this component cannot run.
    #[error("{what}: this component cannot run it, choose a deployment for Linux that {instead}")]
    Unsupported {
        /// The type of the model.
        what: String,
        /// What a supported model does.
        instead: &'static str,
    },
}

/// A shared-memory segment that a model offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// `/shm-...`, as the model sent it: not validated.
    pub name: String,
    /// The number of values.
    pub elements: u64,
    /// The size in bytes, as the model sent it.
    pub size_bytes: u64,
    /// `type` is `float32`, or absent.
    pub is_float32: bool,
}

/// A usable hello.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// The model information.
    pub info: ModelInfo,
    /// The segment for features.
    pub features_shm: Option<SegmentInfo>,
    /// The model's message, if it could not create that segment.
    pub features_shm_error: Option<String>,
    /// The segments of free-form outputs, by index.
    pub freeform_shm: Vec<SegmentInfo>,
}

/// The names of all segments in a hello, usable or not: they are removed after the process has ended.
pub fn segment_names(answer: &Map<String, Value>) -> Vec<String> {
    let freeform = answer
        .get("freeform_output_shm")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let all = answer.get("features_shm").into_iter().chain(freeform);
    all.filter_map(|segment| Some(segment.get("name")?.as_str()?.to_owned()))
        .take(MAX_ITEMS)
        .collect()
}

/// Parses the answer to a hello request.
///
/// # Errors
/// [`HelloError`]
pub fn parse(mut answer: Map<String, Value>) -> Result<Hello, HelloError> {
    if answer.get("success").and_then(Value::as_bool) != Some(true) {
        let reason = answer.get("error").and_then(Value::as_str).unwrap_or("no reason given");
        return Err(HelloError::Refused(cut(reason, 1024).to_owned()));
    }
    let Some(Value::Object(parameters)) = answer.remove("model_parameters") else {
        return Err(implausible("a model without \"model_parameters\"", "an object"));
    };
    let project = match answer.remove("project") {
        Some(Value::Object(project)) => project,
        _ => Map::new(),
    };
    let engine = answer.get("inferencing_engine");
    let engine_type = whole_number(parameters.get("inferencing_engine"))
        .or_else(|| whole_number(engine.and_then(|engine| engine.get("engine_type"))));
    let properties = engine.and_then(|engine| engine.get("properties"));
    check_is_supported(engine_type)?;

    let input = input(&parameters)?;
    let features = features(&parameters, &input)?;
    let text = |key: &str| cut(project.get(key).and_then(Value::as_str).unwrap_or_default(), MAX_LABEL).to_owned();
    let info = ModelInfo {
        project_id: whole_number(project.get("id")).unwrap_or(0),
        name: text("name"),
        owner: text("owner"),
        deploy_version: whole_number(project.get("deploy_version")).unwrap_or(0),
        input,
        features,
        model_type: parameters
            .get("model_type")
            .and_then(Value::as_str)
            .unwrap_or("classification")
            .to_owned(),
        labels: labels(&parameters),
        slow_first_inference: engine_type == Some(ENGINE_TENSORRT) || properties.is_some_and(names_gpu_delegates),
        raw_parameters: parameters,
        raw_project: project,
        raw_engine: answer.get("inferencing_engine").cloned().unwrap_or_default(),
    };
    Ok(Hello {
        info,
        features_shm: answer.get("features_shm").and_then(segment),
        features_shm_error: answer
            .get("features_shm_error")
            .and_then(Value::as_str)
            .map(|e| cut(e, 1024).to_owned()),
        freeform_shm: freeform_segments(&answer),
    })
}

fn check_is_supported(engine: Option<u64>) -> Result<(), HelloError> {
    if engine == Some(ENGINE_VISION_LANGUAGE) {
        return Err(HelloError::Unsupported {
            what: "the model is a vision-language model that needs its own server (inferencing_engine 17)".into(),
            instead: "classifies, detects objects or finds anomalies",
        });
    }
    Ok(())
}

fn input(parameters: &Map<String, Value>) -> Result<ModelInput, HelloError> {
    if let Some(frames) = whole_number(parameters.get("image_input_frames")).filter(|frames| *frames > 1) {
        return Ok(ModelInput::SeveralImages(frames));
    }
    let sensor = sensor_name(parameters);
    let has_size = ["image_input_width", "image_input_height"]
        .iter()
        .all(|key| whole_number(parameters.get(*key)).is_some_and(|side| side > 0));
    match sensor {
        "camera" => image(parameters),
        "unknown" if has_size => image(parameters),
        "microphone" => audio(parameters),
        other => Ok(ModelInput::Unsupported(other)),
    }
}

fn image(parameters: &Map<String, Value>) -> Result<ModelInput, HelloError> {
    let side = |key: &str| match whole_number(parameters.get(key)) {
        Some(side) if (1..=MAX_SIDE).contains(&side) => Ok(side as u32),
        _ => Err(implausible(shown(parameters, key), format!("1 to {MAX_SIDE}"))),
    };
    Ok(ModelInput::Image {
        width: side("image_input_width")?,
        height: side("image_input_height")?,
        grey: whole_number(parameters.get("image_channel_count")) == Some(1),
        resize: resize(parameters),
    })
}

fn resize(parameters: &Map<String, Value>) -> Option<ResizeMode> {
    match parameters.get("image_resize_mode")?.as_str() {
        Some("squash") => Some(ResizeMode::Squash),
        Some("fit-shortest") => Some(ResizeMode::FitShortest),
        Some("fit-longest") => Some(ResizeMode::FitLongest),
        Some("none") => Some(ResizeMode::None),
        _ => {
            warn!(
                value = shown(parameters, "image_resize_mode"),
                accepted = "squash, fit-shortest, fit-longest, none",
                "The model names an unknown resize mode, which is ignored"
            );
            None
        }
    }
}

fn audio(parameters: &Map<String, Value>) -> Result<ModelInput, HelloError> {
    let frequency = match parameters.get("frequency").and_then(Value::as_f64) {
        Some(frequency) if (1.0..=MAX_FREQUENCY).contains(&frequency) => frequency.round() as u32,
        _ => {
            return Err(implausible(
                shown(parameters, "frequency"),
                format!("1 to {MAX_FREQUENCY}"),
            ));
        }
    };
    let slice_size = whole_number(parameters.get("slice_size"))
        .filter(|size| *size <= MAX_FEATURES)
        .unwrap_or(0) as usize;
    let continuous = parameters
        .get("use_continuous_mode")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    Ok(ModelInput::Audio {
        frequency,
        slice_size,
        continuous: continuous && slice_size > 0,
    })
}

fn features(parameters: &Map<String, Value>, input: &ModelInput) -> Result<usize, HelloError> {
    let key = "input_features_count";
    let pixels = match input {
        ModelInput::Image { width, height, .. } => Some(u64::from(*width) * u64::from(*height)),
        _ => None,
    };
    match (whole_number(parameters.get(key)), pixels) {
        (None, Some(pixels)) => Ok(pixels as usize),
        (Some(count), Some(pixels)) if count != pixels => Err(implausible(
            shown(parameters, key),
            format!("{pixels}, one value a pixel"),
        )),
        (Some(count), _) if (1..=MAX_FEATURES).contains(&count) => Ok(count as usize),
        (_, None) if !input.is_supported() => Ok(0),
        _ => Err(implausible(shown(parameters, key), format!("1 to {MAX_FEATURES}"))),
    }
}

fn labels(parameters: &Map<String, Value>) -> Vec<String> {
    let labels = parameters.get("labels").and_then(Value::as_array).into_iter().flatten();
    labels
        .filter_map(Value::as_str)
        .take(MAX_ITEMS)
        .map(|label| cut(label, MAX_LABEL).to_owned())
        .collect()
}

/// `properties` is a list of strings today. A key of an object counts as well.
fn names_gpu_delegates(properties: &Value) -> bool {
    match properties {
        Value::String(text) => text == "gpu_delegates",
        Value::Array(list) => list.iter().any(names_gpu_delegates),
        Value::Object(map) => map
            .get("gpu_delegates")
            .is_some_and(|value| !matches!(value, Value::Bool(false) | Value::Null)),
        _ => false,
    }
}

fn segment(value: &Value) -> Option<SegmentInfo> {
    let elements = whole_number(value.get("elements"))?;
    Some(SegmentInfo {
        name: value.get("name")?.as_str()?.to_owned(),
        elements,
        size_bytes: whole_number(value.get("size_bytes")).unwrap_or_else(|| elements.saturating_mul(4)),
        is_float32: value.get("type").is_none_or(|kind| kind == "float32"),
    })
}

fn freeform_segments(answer: &Map<String, Value>) -> Vec<SegmentInfo> {
    let list = answer
        .get("freeform_output_shm")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut segments: Vec<(u64, SegmentInfo)> = list
        .iter()
        .enumerate()
        .take(MAX_ITEMS)
        .filter_map(|(position, value)| {
            Some((
                whole_number(value.get("index")).unwrap_or(position as u64),
                segment(value)?,
            ))
        })
        .collect();
    segments.sort_by_key(|(index, _)| *index);
    segments.into_iter().map(|(_, segment)| segment).collect()
}

fn shown(parameters: &Map<String, Value>, key: &str) -> String {
    match parameters.get(key) {
        Some(value) => format!("{key} {}", cut(&value.to_string(), 60)),
        None => format!("a model without {key}"),
    }
}

fn implausible(what: impl Into<String>, accepted: impl Into<String>) -> HelloError {
    HelloError::Implausible {
        what: what.into(),
        accepted: accepted.into(),
    }
}

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
