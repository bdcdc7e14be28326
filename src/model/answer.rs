//! An answer to a classify request, read straight from the receive buffer and cleaned on the way.
//!
//! Nothing a model can put into a well-formed answer is an error here: numbers that are not finite (models write
//! them as `null`), values of another kind, labels over 256 bytes and lists without end are replaced, cut or left out,
//! and counted.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::protocol::{BoundingBox, InferenceResult};

/// Labels are cut to this many bytes.
pub const MAX_LABEL: usize = 256;
/// Boxes, cells or classes beyond this many are left out.
pub const MAX_ITEMS: usize = 10_000;
/// Messages of the model (`error`, `info`) are cut to this many bytes.
const MAX_TEXT: usize = 4096;

/// An answer, its result cleaned.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// The request it belongs to; an error about the id itself comes without one.
    pub id: Option<i64>,
    /// `Err`: the model's own words.
    pub result: Result<InferenceResult, String>,
    /// The free-form values are in shared memory.
    pub freeform_in_shm: bool,
    /// How many values were replaced, cut or left out.
    pub cleaned: u64,
}

/// Reads one answer.
///
/// # Errors
/// Text that is no JSON object, or whose `result` or `timing` is no object.
pub fn parse(frame: &[u8]) -> Result<Answer, serde_json::Error> {
    match serde_json::from_slice::<RawAnswer>(frame) {
        Ok(raw) => Ok(raw.clean()),
        // Some JSON writers print `nan` and `inf`, or a number beyond the range of a double.
        Err(error) => match without_strange_numbers(frame) {
            Some(repaired) => Ok(serde_json::from_slice::<RawAnswer>(&repaired)?.clean()),
            None => Err(error),
        },
    }
}

/// `timing` of an answer as the model sent it; null when there is none that can be read.
pub fn timing(frame: &[u8]) -> serde_json::Value {
    #[derive(Deserialize)]
    struct Timed {
        #[serde(default)]
        timing: serde_json::Value,
    }
    serde_json::from_slice::<Timed>(frame).map_or(serde_json::Value::Null, |timed| timed.timing)
}

/// Cuts `text` to `max` bytes, at a character boundary.
pub fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
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
    fn clean(self) -> Answer {
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
            return Answer {
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
        let result = InferenceResult {
            classification,
            bounding_boxes,
            object_tracking,
            visual_anomaly_grid,
            visual_anomaly_max: number(raw.visual_anomaly_max),
            visual_anomaly_mean: number(raw.visual_anomaly_mean),
            anomaly: number(raw.anomaly),
            freeform,
            model_ms: self.timing.unwrap_or_default().sum(),
            info: self.info.and_then(|text| text.0),
        };
        Answer {
            id,
            result: Ok(result),
            freeform_in_shm,
            cleaned,
        }
    }
}

impl RawTiming {
    /// Whole milliseconds; what is negative or no number counts as 0.
    fn sum(&self) -> u64 {
        let Self {
            dsp,
            classification,
            postprocessing,
            anomaly,
        } = self;
        let parts = [dsp, classification, postprocessing, anomaly];
        parts.into_iter().fold(0, |sum: u64, part| {
            sum.saturating_add(part.finite().unwrap_or(0.0) as u64)
        })
    }
}

/// A number, or something else in the place of one.
#[derive(Clone, Copy, Default, PartialEq)]
enum Number {
    #[default]
    Absent,
    Unusable,
    Finite(f64),
}

impl Number {
    fn finite(self) -> Option<f64> {
        match self {
            Self::Finite(value) => Some(value),
            Self::Absent | Self::Unusable => None,
        }
    }

    fn from_float(value: f64) -> Self {
        if value.is_finite() {
            Self::Finite(value)
        } else {
            Self::Unusable
        }
    }
}

/// `true`, `false`, or something else.
struct Flag(Option<bool>);

/// A message, cut; `None`: not a string.
struct Text(Option<String>);

/// A label and whether it had to be cut or replaced.
#[derive(Default)]
struct Label {
    text: String,
    cut: bool,
}

#[derive(Default)]
struct Scores {
    items: Vec<(String, f64)>,
    cleaned: u64,
}

#[derive(Default)]
struct Boxes {
    items: Vec<BoundingBox>,
    cleaned: u64,
}

/// One box; `None`: without usable coordinates.
#[derive(Default)]
struct CleanBox {
    kept: Option<BoundingBox>,
    cleaned: u64,
}

/// Numbers of one free-form output.
#[derive(Default)]
struct Floats {
    values: Vec<f32>,
    cleaned: u64,
}

enum Freeform {
    Values { arrays: Vec<Vec<f32>>, cleaned: u64 },
    SharedMemory,
}

/// What stands for a value of a kind that is of no use in its place.
trait Unusable {
    fn unusable() -> Self;
}

macro_rules! unusable {
    ($($kind:ty => $value:expr;)*) => {
        $(impl Unusable for $kind {
            fn unusable() -> Self {
                $value
            }
        })*
    };
}

unusable! {
    Number => Self::Unusable;
    Flag => Self(None);
    Text => Self(None);
    Label => Self { text: String::new(), cut: true };
    Scores => Self { items: Vec::new(), cleaned: 1 };
    Boxes => Self { items: Vec::new(), cleaned: 1 };
    CleanBox => Self { kept: None, cleaned: 1 };
    Floats => Self { values: Vec::new(), cleaned: 1 };
    Freeform => Self::Values { arrays: Vec::new(), cleaned: 1 };
}

/// The visitor methods for the kinds of JSON value that are of no use in a place.
macro_rules! no_use_for {
    () => {};
    (bool $($rest:tt)*) => {
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(Self::Value::unusable())
        }
        no_use_for!($($rest)*);
    };
    (number $($rest:tt)*) => {
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok(Self::Value::unusable())
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok(Self::Value::unusable())
        }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok(Self::Value::unusable())
        }
        no_use_for!($($rest)*);
    };
    (null $($rest:tt)*) => {
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::unusable())
        }
        no_use_for!($($rest)*);
    };
    (text $($rest:tt)*) => {
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok(Self::Value::unusable())
        }
        no_use_for!($($rest)*);
    };
    (list $($rest:tt)*) => {
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Self::Value::unusable())
        }
        no_use_for!($($rest)*);
    };
    (map $($rest:tt)*) => {
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(Self::Value::unusable())
        }
        no_use_for!($($rest)*);
    };
}

/// A type read by the visitor methods in the braces.
macro_rules! read_by {
    ($kind:ty, $expecting:literal, { $($methods:tt)* }) => {
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Reader;
                impl<'de> Visitor<'de> for Reader {
                    type Value = $kind;
                    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    $($methods)*
                }
                deserializer.deserialize_any(Reader)
            }
        }
    };
}

read_by!(Number, "a number", {
    fn visit_f64<E>(self, value: f64) -> Result<Number, E> {
        Ok(Number::from_float(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Number, E> {
        Ok(Number::Finite(value as f64))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Number, E> {
        Ok(Number::Finite(value as f64))
    }
    no_use_for!(bool null text list map);
});

read_by!(Flag, "true or false", {
    fn visit_bool<E>(self, value: bool) -> Result<Flag, E> {
        Ok(Flag(Some(value)))
    }
    no_use_for!(number null text list map);
});

read_by!(Text, "a text", {
    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text(Some(cut(text, MAX_TEXT).to_owned())))
    }
    no_use_for!(bool number null list map);
});

read_by!(Label, "a label", {
    fn visit_str<E>(self, text: &str) -> Result<Label, E> {
        Ok(Label {
            text: cut(text, MAX_LABEL).to_owned(),
            cut: text.len() > MAX_LABEL,
        })
    }
    no_use_for!(bool number null list map);
});

read_by!(Scores, "labels and values", {
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scores, A::Error> {
        let mut scores = Scores::default();
        while let Some((label, value)) = map.next_entry::<Label, Number>()? {
            if scores.items.len() == MAX_ITEMS {
                scores.cleaned += 1;
                continue;
            }
            let value = value.finite();
            scores.cleaned += u64::from(label.cut) + u64::from(value.is_none());
            // The label stays, so that the message keeps its shape.
            scores.items.push((label.text, value.unwrap_or(0.0)));
        }
        Ok(scores)
    }
    no_use_for!(bool number null text list);
});

read_by!(Boxes, "a list of boxes", {
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Boxes, A::Error> {
        let mut boxes = Boxes::default();
        while let Some(CleanBox { kept, cleaned }) = list.next_element::<CleanBox>()? {
            boxes.cleaned += cleaned;
            match kept {
                Some(kept) if boxes.items.len() < MAX_ITEMS => boxes.items.push(kept),
                Some(_) => boxes.cleaned += 1,
                None => {}
            }
        }
        Ok(boxes)
    }
    no_use_for!(bool number null text map);
});

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum BoxField {
    Label,
    Value,
    X,
    Y,
    Width,
    Height,
    ObjectId,
    #[serde(other)]
    Other,
}

read_by!(CleanBox, "a box", {
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<CleanBox, A::Error> {
        let mut label = Label::default();
        let mut object_id = Number::Absent;
        let (mut value, mut x, mut y, mut width, mut height) = <(Number, Number, Number, Number, Number)>::default();
        while let Some(field) = map.next_key::<BoxField>()? {
            match field {
                BoxField::Label => label = map.next_value()?,
                BoxField::Value => value = map.next_value()?,
                BoxField::X => x = map.next_value()?,
                BoxField::Y => y = map.next_value()?,
                BoxField::Width => width = map.next_value()?,
                BoxField::Height => height = map.next_value()?,
                BoxField::ObjectId => object_id = map.next_value()?,
                BoxField::Other => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        let (Some(x), Some(y), Some(width), Some(height)) = (pixels(x), pixels(y), pixels(width), pixels(height))
        else {
            return Ok(CleanBox::unusable());
        };
        let cleaned = u64::from(label.cut) + u64::from(value.finite().is_none());
        let (value, object_id) = (value.finite().unwrap_or(0.0), object_id.finite().map(|id| id as i64));
        Ok(CleanBox {
            kept: Some(BoundingBox {
                label: label.text,
                value,
                x,
                y,
                width,
                height,
                object_id,
            }),
            cleaned,
        })
    }
    no_use_for!(bool number null text list);
});

/// Old models send floats. Absent coordinates are 0, as in the existing runner.
fn pixels(number: Number) -> Option<i64> {
    match number {
        Number::Absent => Some(0),
        Number::Unusable => None,
        Number::Finite(value) => Some(value.round().clamp(f64::from(i32::MIN), f64::from(i32::MAX)) as i64),
    }
}

read_by!(Floats, "a list of numbers", {
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Floats, A::Error> {
        let mut floats = Floats::default();
        while let Some(number) = list.next_element::<Number>()? {
            let value = number
                .finite()
                .map(|value| value as f32)
                .filter(|value| value.is_finite());
            floats.cleaned += u64::from(value.is_none());
            floats.values.push(value.unwrap_or(0.0));
        }
        Ok(floats)
    }
    no_use_for!(bool number null text map);
});

read_by!(Freeform, "lists of numbers or \"shm\"", {
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Freeform, A::Error> {
        let (mut arrays, mut cleaned) = (Vec::new(), 0);
        while let Some(floats) = list.next_element::<Floats>()? {
            cleaned += floats.cleaned;
            if arrays.len() < MAX_ITEMS {
                arrays.push(floats.values);
            } else {
                cleaned += 1;
            }
        }
        Ok(Freeform::Values { arrays, cleaned })
    }
    fn visit_str<E>(self, text: &str) -> Result<Freeform, E> {
        Ok(if text == "shm" {
            Freeform::SharedMemory
        } else {
            Freeform::unusable()
        })
    }
    no_use_for!(bool number null map);
});

/// `frame` with `null` for every number outside strings that JSON or a double cannot hold; `None`: there are none.
fn without_strange_numbers(frame: &[u8]) -> Option<Vec<u8>> {
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
            let word = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
            at += frame[at..].iter().take_while(|byte| word(byte)).count().max(1);
        }
        // Rust reads `nan`, `inf`, `infinity` in any case, with a sign, and `1e999` as infinite.
        let piece = &frame[from..at];
        let strange = std::str::from_utf8(piece)
            .ok()
            .and_then(|text| text.parse::<f64>().ok());
        if strange.is_some_and(|value| !value.is_finite()) {
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
