//! The answer to a classify request, read straight from the receive buffer.
//!
//! No value in a well-formed answer is an error here: numbers that are not finite (models write them as `null`), values
//! of another type, labels over 256 bytes and endless lists are replaced, cut or left out, and counted
//! ([`super::lenient`]).

use serde::Deserialize;

use super::lenient::{Boxes, Flag, Freeform, Number, Scores, Text};
use super::protocol::{InferenceResult, ModelTiming};

/// An answer with a cleaned result.
#[derive(Debug, PartialEq)]
pub struct ModelAnswer {
    /// The id of the request; an error about the id itself comes without one.
    pub id: Option<i64>,
    /// `Err`: the model's error message.
    pub result: Result<InferenceResult, String>,
    /// Whether the free-form values are in shared memory.
    pub freeform_in_shm: bool,
    /// The number of values that were replaced, cut or left out.
    pub cleaned: u64,
}

/// Parses one answer.
///
/// # Errors
/// Text that is not a JSON object, or whose `result` or `timing` is not an object.
pub fn parse(frame: &[u8]) -> Result<ModelAnswer, serde_json::Error> {
    match serde_json::from_slice::<RawAnswer>(frame) {
        Ok(raw) => Ok(raw.clean()),
        // Some JSON writers print `nan` and `inf`, or a number beyond the range of a double.
        Err(error) => match replace_invalid_numbers(frame) {
            Some(repaired) => Ok(serde_json::from_slice::<RawAnswer>(&repaired)?.clean()),
            None => Err(error),
        },
    }
}

/// `timing` of an answer, as the model sent it; null when it is missing or cannot be read.
pub fn timing(frame: &[u8]) -> serde_json::Value {
    #[derive(Deserialize)]
    struct Timing {
        #[serde(default)]
        timing: serde_json::Value,
    }
    serde_json::from_slice::<Timing>(frame).map_or(serde_json::Value::Null, |answer| answer.timing)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawAnswer {
    id: Number,
    success: Option<Flag>,
    error: Option<Text>,
    result: Option<RawResult>,
    timing: Option<RawTiming>,
    info: Option<Text>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawResult {
    classification: Option<Scores>,
    bounding_boxes: Option<Boxes>,
    object_tracking: Option<Boxes>,
    visual_anomaly_grid: Option<Boxes>,
    visual_anomaly_max: Number,
    visual_anomaly_mean: Number,
    anomaly: Number,
    freeform: Option<Freeform>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawTiming {
    dsp: Number,
    classification: Number,
    postprocessing: Number,
    anomaly: Number,
}

impl RawAnswer {
    fn clean(self) -> ModelAnswer {
        let mut cleaned = 0;
        let id = self.id.finite().map(|id| id as i64);
        let failed = match self.success {
            Some(Flag(success)) => success != Some(true),
            None => self.result.is_none(),
        };
        if failed {
            let error = self
                .error
                .and_then(|text| text.0)
                .unwrap_or_else(|| "no reason given".to_owned());
            return ModelAnswer {
                id,
                result: Err(error),
                freeform_in_shm: false,
                cleaned,
            };
        }
        let raw = self.result.unwrap_or_default();
        let mut boxes = |list: Option<Boxes>| {
            list.map(|list| {
                cleaned += list.cleaned;
                list.items
            })
        };
        let bounding_boxes = boxes(raw.bounding_boxes);
        let object_tracking = boxes(raw.object_tracking);
        let visual_anomaly_grid = boxes(raw.visual_anomaly_grid);
        let classification = raw.classification.map(|scores| {
            cleaned += scores.cleaned;
            scores.items
        });
        let (freeform, freeform_in_shm) = match raw.freeform {
            Some(Freeform::Values {
                arrays,
                cleaned: replaced,
            }) => {
                cleaned += replaced;
                (Some(arrays), false)
            }
            Some(Freeform::SharedMemory) => (None, true),
            None => (None, false),
        };
        let mut number = |number: Number| {
            cleaned += u64::from(number == Number::Unusable);
            number.finite()
        };
        let timing = self.timing.unwrap_or_default().clean();
        let result = InferenceResult {
            classification,
            bounding_boxes,
            object_tracking,
            visual_anomaly_grid,
            visual_anomaly_max: number(raw.visual_anomaly_max),
            visual_anomaly_mean: number(raw.visual_anomaly_mean),
            anomaly: number(raw.anomaly),
            freeform,
            model_ms: timing.sum(),
            timing,
            info: self.info.and_then(|text| text.0),
        };
        ModelAnswer {
            id,
            result: Ok(result),
            freeform_in_shm,
            cleaned,
        }
    }
}

impl RawTiming {
    /// Whole milliseconds; a negative or unusable value counts as 0.
    fn clean(self) -> ModelTiming {
        let whole = |part: Number| part.finite().unwrap_or(0.0) as u64;
        ModelTiming {
            dsp: whole(self.dsp),
            classification: whole(self.classification),
            postprocessing: whole(self.postprocessing),
            anomaly: whole(self.anomaly),
        }
    }
}

/// `frame` with `null` for every number outside strings that JSON or a double cannot represent; `None` if there is
/// none.
fn replace_invalid_numbers(frame: &[u8]) -> Option<Vec<u8>> {
    let mut repaired = Vec::with_capacity(frame.len());
    let (mut at, mut replaced) = (0, false);
    while at < frame.len() {
        let from = at;
        if frame[at] == b'"' {
            at += 1;
            while at < frame.len() && frame[at] != b'"' {
                at += if frame[at] == b'\\' { 2 } else { 1 };
            }
            at = (at + 1).min(frame.len());
        } else {
            let is_number_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
            at += frame[at..]
                .iter()
                .take_while(|byte| is_number_byte(byte))
                .count()
                .max(1);
        }
        // Rust reads `nan`, `inf`, `infinity` in any case, with a sign, and `1e999` as infinite.
        let piece = &frame[from..at];
        let number = std::str::from_utf8(piece)
            .ok()
            .and_then(|text| text.parse::<f64>().ok());
        if number.is_some_and(|value| !value.is_finite()) {
            repaired.extend_from_slice(b"null");
            replaced = true;
        } else {
            repaired.extend_from_slice(piece);
        }
    }
    replaced.then_some(repaired)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
