//! The types of the model protocol. `hello` and `answer` parse them, `request` writes requests.

use serde::ser::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::bounding_box::BoundingBox;
use super::lenient::whole_number;
use crate::config::Threshold;
use crate::status::{ModelInputSummary, ModelSummary};

/// Pixels of the longest side of a model's input picture.
pub(super) const MAX_SIDE: u64 = 8192;
/// Values of one request.
pub(super) const MAX_FEATURES: u64 = MAX_SIDE * MAX_SIDE;

/// The names of `sensor` 1 to 4, as `get_model_info` returns them.
const SENSORS: [&str; 4] = ["microphone", "accelerometer", "camera", "positional"];

/// `sensor` by name: `camera`, `microphone`, `accelerometer`, `positional` or `unknown`.
pub(super) fn sensor_name(parameters: &Map<String, Value>) -> &'static str {
    let sensor = whole_number(parameters.get("sensor")).and_then(|sensor| usize::try_from(sensor).ok());
    sensor
        .and_then(|sensor| SENSORS.get(sensor.checked_sub(1)?).copied())
        .unwrap_or("unknown")
}

/// Everything known about a model after its hello.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// Project id in Edge Impulse Studio.
    pub project_id: u64,
    /// Project name.
    pub name: String,
    /// Project owner.
    pub owner: String,
    /// Deployment version; shown as `v<version>`.
    pub deploy_version: u64,
    /// The type and size of the input.
    pub input: ModelInput,
    /// Values a classify request must carry.
    pub features: usize,
    /// `model_type`, `classification` when absent.
    pub model_type: String,
    /// Class labels.
    pub labels: Vec<String>,
    /// Whether the first classification may take very long (TensorRT, GPU delegates).
    pub slow_first_inference: bool,
    /// `model_parameters` as the model sent them, with the thresholds that were set after its start.
    pub raw_parameters: Map<String, Value>,
    /// `project` exactly as the model sent it.
    pub raw_project: Map<String, Value>,
    /// `inferencing_engine` of the hello as the model sent it; null if it is missing.
    pub raw_engine: Value,
}

#[cfg(test)]
impl ModelInfo {
    /// A model about which only `raw_parameters` is known.
    pub(crate) fn with_parameters(raw_parameters: Map<String, Value>) -> Self {
        Self {
            project_id: 1,
            name: String::new(),
            owner: String::new(),
            deploy_version: 1,
            input: ModelInput::Unsupported("none"),
            features: 0,
            model_type: String::new(),
            labels: vec![],
            slow_first_inference: false,
            raw_parameters,
            raw_project: Map::new(),
            raw_engine: Value::Null,
        }
    }
}

impl ModelInfo {
    /// `sensor` by name: `camera`, `microphone`, `accelerometer`, `positional` or `unknown`.
    pub fn sensor_name(&self) -> &'static str {
        sensor_name(&self.raw_parameters)
    }

    /// Sets thresholds in the parameters, where the model has them.
    pub fn apply_thresholds(&mut self, changed: &[Threshold]) {
        let Some(Value::Array(blocks)) = self.raw_parameters.get_mut("thresholds") else {
            return;
        };
        for Threshold { id, key, value } in changed {
            let block = blocks.iter_mut().find(|block| block["id"].as_i64() == Some(*id));
            if let Some(current) = block.and_then(|block| block.get_mut(key)) {
                *current = Value::from(*value);
            }
        }
    }

    /// The parameters as the model sent them, plus `sensorType`, for the answer to `get_model_info`.
    pub fn parameters_with_sensor_type(&self) -> Map<String, Value> {
        let mut parameters = self.raw_parameters.clone();
        parameters.insert("sensorType".to_owned(), Value::from(self.sensor_name()));
        parameters
    }

    /// What the status shows of the model.
    pub fn summary(&self) -> ModelSummary {
        let mut input = ModelInputSummary {
            kind: "image",
            width: None,
            height: None,
            frequency: None,
        };
        match self.input {
            ModelInput::Image { width, height, .. } => (input.width, input.height) = (Some(width), Some(height)),
            ModelInput::Audio { frequency, .. } => (input.kind, input.frequency) = ("audio", Some(frequency)),
            ModelInput::SeveralImages(_) => {}
            ModelInput::Unsupported(sensor) => input.kind = sensor,
        }
        ModelSummary {
            name: self.name.clone(),
            owner: self.owner.clone(),
            version: format!("v{}", self.deploy_version),
            model_type: self.model_type.clone(),
            labels: self.labels.clone(),
            input,
        }
    }

    /// `has_anomaly`, the constants `EI_ANOMALY_TYPE_*` of Edge Impulse's inferencing SDK: 0 none, 1 K-means, 2 GMM, 3
    /// visual GMM, 4 visual PatchCore. Old models send a boolean.
    pub fn anomaly_type(&self) -> u64 {
        match self.raw_parameters.get("has_anomaly") {
            Some(Value::Bool(has_anomaly)) => u64::from(*has_anomaly),
            number => whole_number(number).unwrap_or(0),
        }
    }

    /// Whether the model finds anomalies in pictures, as cells of a grid.
    pub fn is_visual_anomaly(&self) -> bool {
        matches!(self.anomaly_type(), 3 | 4)
    }

    /// Whether the scores of the model are probabilities. Those of regression and anomaly detection are not. Studio
    /// gives a regression model one label, which a classification model never has.
    pub fn has_probabilities(&self) -> bool {
        let is_anomaly_only = self.anomaly_type() > 0 && self.labels.is_empty();
        let is_regression =
            self.model_type == "regression" || (self.model_type == "classification" && self.labels.len() == 1);
        !(is_regression || is_anomaly_only || self.is_visual_anomaly())
    }

    /// The thresholds that can be set, as `--thresholds` takes them: `18.min_score=0.5 (object_detection)`.
    pub fn settable_thresholds(&self) -> Vec<String> {
        let all = self.raw_parameters.get("thresholds").and_then(Value::as_array);
        all.into_iter().flatten().map(format_threshold).collect()
    }
}

/// `{"id":18,"type":"object_detection","min_score":0.5}` as `18.min_score=0.5 (object_detection)`, as `--thresholds`
/// takes it.
fn format_threshold(threshold: &Value) -> String {
    let Some(fields) = threshold.as_object() else {
        return threshold.to_string();
    };
    let id = threshold["id"].to_string();
    let mut parts: Vec<_> = fields
        .iter()
        .filter(|(key, _)| !matches!(key.as_str(), "id" | "type"))
        .map(|(key, value)| format!("{id}.{key}={value}"))
        .collect();
    if let Some(kind) = threshold["type"].as_str() {
        parts.push(format!("({kind})"));
    }
    parts.join(" ")
}

/// The input of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ModelInput {
    /// A picture.
    Image {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// `image_channel_count` 1: grey, else RGB.
        grey: bool,
        /// `image_resize_mode`; `None`: the model names none.
        resize: Option<crate::config::ResizeMode>,
    },
    /// Audio.
    Audio {
        /// Samples per second.
        frequency: u32,
        /// Samples of a slice.
        slice_size: usize,
        /// `use_continuous_mode`
        continuous: bool,
    },
    /// Several pictures at a time (`image_input_frames`), which this component does not collect.
    SeveralImages(u64),
    /// A sensor this component cannot read, by its name.
    Unsupported(&'static str),
}

impl ModelInput {
    /// Whether this component can feed the model.
    pub fn is_supported(&self) -> bool {
        self.unsupported_reason().is_none()
    }

    /// Why this component cannot feed the model.
    pub fn unsupported_reason(&self) -> Option<String> {
        match self {
            Self::Image { .. } | Self::Audio { .. } => None,
            Self::SeveralImages(frames) => Some(format!(
                "the model takes {frames} pictures at a time (image_input_frames), and this component feeds one at a time to models"
            )),
            Self::Unsupported(sensor) => Some(format!(
                "the model works on sensor \"{sensor}\", and this component feeds cameras and microphones to models"
            )),
        }
    }
}

/// One answer of the model, cleaned: finite numbers, labels of at most 256 bytes. As JSON it has the model's own field
/// names, and leaves out what the model did not send.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
pub struct InferenceResult {
    /// `classification`: label to value, in the model's order.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_scores")]
    pub classification: Option<Vec<(String, f64)>>,
    /// `bounding_boxes`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounding_boxes: Option<Vec<BoundingBox>>,
    /// `object_tracking`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_tracking: Option<Vec<BoundingBox>>,
    /// `visual_anomaly_grid`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visual_anomaly_grid: Option<Vec<BoundingBox>>,
    /// `visual_anomaly_max`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visual_anomaly_max: Option<f64>,
    /// `visual_anomaly_mean`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visual_anomaly_mean: Option<f64>,
    /// `anomaly`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<f64>,
    /// `freeform`, from the answer or from shared memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeform: Option<Vec<Vec<f32>>>,
    /// dsp + classification + postprocessing + anomaly: whole ms of process CPU time, as the model reports it.
    #[serde(skip)]
    pub model_ms: u64,
    /// The parts of `model_ms`.
    #[serde(skip)]
    pub timing: ModelTiming,
    /// `info`
    #[serde(skip)]
    pub info: Option<String>,
}

/// `timing` of an answer: whole milliseconds of process CPU time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct ModelTiming {
    /// `dsp`
    pub dsp: u64,
    /// `classification`
    pub classification: u64,
    /// `postprocessing`
    pub postprocessing: u64,
    /// `anomaly`
    pub anomaly: u64,
}

impl ModelTiming {
    /// The time of all parts.
    pub fn sum(self) -> u64 {
        [self.dsp, self.classification, self.postprocessing, self.anomaly]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

impl InferenceResult {
    /// The time to show to users: the model's own, in whole milliseconds, at least 1.
    pub fn time_ms(&self) -> u64 {
        self.model_ms.max(1)
    }
}

/// Labels with their values: an object in the model's order.
pub(crate) struct LabelScores<'a>(pub &'a [(String, f64)]);

impl Serialize for LabelScores<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(label, value)| (label, value)))
    }
}

fn serialize_scores<S: Serializer>(scores: &Option<Vec<(String, f64)>>, serializer: S) -> Result<S::Ok, S::Error> {
    LabelScores(scores.as_deref().unwrap_or_default()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_threshold_is_formatted_as_the_option_takes_it() {
        assert_eq!(
            format_threshold(&json!({"id": 18, "type": "object_detection", "min_score": 0.5})),
            "18.min_score=0.5 (object_detection)"
        );
        assert_eq!(format_threshold(&json!(3)), "3");
    }
}
