//! JSON types that accept any value. They replace and count what they cannot use, instead of failing.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::bounding_box::BoundingBox;

/// Labels are cut to this many bytes.
pub const MAX_LABEL: usize = 256;
/// Boxes, cells or classes beyond this many are left out.
pub const MAX_ITEMS: usize = 10_000;
/// Messages of the model (`error`, `info`) are cut to this many bytes.
const MAX_TEXT: usize = 4096;

/// Cuts `text` to at most `max` bytes, at a character boundary.
pub fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// A non-negative whole number, also when written as a float.
pub fn whole_number(value: Option<&Value>) -> Option<u64> {
    let value = value?;
    value.as_u64().or_else(|| {
        let float = value.as_f64()?;
        (float >= 0.0 && float.fract() == 0.0 && float <= 9e15).then_some(float as u64)
    })
}

/// A number.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum Number {
    #[default]
    Absent,
    Unusable,
    Finite(f64),
}

impl Number {
    pub(super) fn finite(self) -> Option<f64> {
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

/// `true` or `false`; `None`: a value of another type.
pub(super) struct Flag(pub(super) Option<bool>);

/// A message, cut; `None`: a value of another type.
pub(super) struct Text(pub(super) Option<String>);

/// A label and whether it had to be cut or replaced.
#[derive(Default)]
struct Label {
    text: String,
    cut: bool,
}

/// Labels with their values.
#[derive(Default)]
pub(super) struct Scores {
    pub(super) items: Vec<(String, f64)>,
    pub(super) cleaned: u64,
}

/// A list of boxes, objects or cells.
#[derive(Default)]
pub(super) struct Boxes {
    pub(super) items: Vec<BoundingBox>,
    pub(super) cleaned: u64,
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

/// Free-form output.
pub(super) enum Freeform {
    Values { arrays: Vec<Vec<f32>>, cleaned: u64 },
    SharedMemory,
}

/// The replacement for a value of another type.
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

/// Visitor methods for the JSON types that are not expected: they return [`Unusable::unusable`].
macro_rules! unusable_types {
    () => {};
    (bool $($rest:tt)*) => {
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(Self::Value::unusable())
        }
        unusable_types!($($rest)*);
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
        unusable_types!($($rest)*);
    };
    (null $($rest:tt)*) => {
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::unusable())
        }
        unusable_types!($($rest)*);
    };
    (text $($rest:tt)*) => {
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok(Self::Value::unusable())
        }
        unusable_types!($($rest)*);
    };
    (list $($rest:tt)*) => {
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Self::Value::unusable())
        }
        unusable_types!($($rest)*);
    };
    (map $($rest:tt)*) => {
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(Self::Value::unusable())
        }
        unusable_types!($($rest)*);
    };
}

/// Implements `Deserialize` with the visitor methods in the braces.
macro_rules! deserialize_with {
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

deserialize_with!(Number, "a number", {
    fn visit_f64<E>(self, value: f64) -> Result<Number, E> {
        Ok(Number::from_float(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Number, E> {
        Ok(Number::Finite(value as f64))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Number, E> {
        Ok(Number::Finite(value as f64))
    }
    unusable_types!(bool null text list map);
});

deserialize_with!(Flag, "true or false", {
    fn visit_bool<E>(self, value: bool) -> Result<Flag, E> {
        Ok(Flag(Some(value)))
    }
    unusable_types!(number null text list map);
});

deserialize_with!(Text, "a text", {
    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text(Some(cut(text, MAX_TEXT).to_owned())))
    }
    unusable_types!(bool number null list map);
});

deserialize_with!(Label, "a label", {
    fn visit_str<E>(self, text: &str) -> Result<Label, E> {
        Ok(Label {
            text: cut(text, MAX_LABEL).to_owned(),
            cut: text.len() > MAX_LABEL,
        })
    }
    unusable_types!(bool number null list map);
});

deserialize_with!(Scores, "labels and values", {
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scores, A::Error> {
        let mut scores = Scores::default();
        while let Some((label, value)) = map.next_entry::<Label, Number>()? {
            if scores.items.len() == MAX_ITEMS {
                scores.cleaned += 1;
                continue;
            }
            let value = value.finite();
            scores.cleaned += u64::from(label.cut) + u64::from(value.is_none());
            // The label is kept, so that the message keeps its shape.
            scores.items.push((label.text, value.unwrap_or(0.0)));
        }
        Ok(scores)
    }
    unusable_types!(bool number null text list);
});

deserialize_with!(Boxes, "a list of boxes", {
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
    unusable_types!(bool number null text map);
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

deserialize_with!(CleanBox, "a box", {
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
    unusable_types!(bool number null text list);
});

/// Old models send floats. Absent coordinates are 0, as in the existing runner.
fn pixels(number: Number) -> Option<i64> {
    match number {
        Number::Absent => Some(0),
        Number::Unusable => None,
        Number::Finite(value) => Some(value.round().clamp(f64::from(i32::MIN), f64::from(i32::MAX)) as i64),
    }
}

deserialize_with!(Floats, "a list of numbers", {
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
    unusable_types!(bool number null text map);
});

deserialize_with!(Freeform, "lists of numbers or \"shm\"", {
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
    unusable_types!(bool number null map);
});
