//! `{"features": [...]}`: read without keeping more values than the model takes.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Why features cannot be used. The words are those of the existing runner where it has any.
#[derive(Debug, thiserror::Error)]
pub(super) enum FeaturesError {
    #[error("Missing body on request, accepted is {{\"features\": [1, 2, 3]}}")]
    NoBody,
    #[error("the body is not JSON like {{\"features\": [1, 2, 3]}} with numbers only: {0}")]
    NotJson(#[from] serde_json::Error),
    #[error("Missing \"features\" on body")]
    Missing,
    #[error("Expected {wanted} features, but received {count}")]
    Count { wanted: usize, count: usize },
    #[error("Not every element of the \"features\" array is a number")]
    NotANumber,
}

/// The values of a body, exactly `wanted`.
///
/// # Errors
/// [`FeaturesError`].
pub(super) fn read(body: &[u8], wanted: usize) -> Result<Vec<f32>, FeaturesError> {
    if body.is_empty() {
        return Err(FeaturesError::NoBody);
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let list = Body { wanted }.deserialize(&mut json)?;
    json.end()?;
    let List { values, count, numbers } = list.ok_or(FeaturesError::Missing)?;
    if count != wanted {
        return Err(FeaturesError::Count { wanted, count });
    }
    if !numbers {
        return Err(FeaturesError::NotANumber);
    }
    Ok(values)
}

/// A number, or one as text: what JavaScript's `Number()` takes. `None`: neither, or none that is finite. Anything else is
/// refused where it begins: an untagged enum would first keep all of it, and an array takes many times its text.
struct Feature(Option<f32>);

impl<'de> Deserialize<'de> for Feature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FeatureVisitor)
    }
}

struct FeatureVisitor;

impl Visitor<'_> for FeatureVisitor {
    type Value = Feature;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_f64<E>(self, value: f64) -> Result<Feature, E> {
        let value = value as f32;
        Ok(Feature(value.is_finite().then_some(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Feature, E> {
        Ok(Feature(Some(value as f32)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Feature, E> {
        Ok(Feature(Some(value as f32)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Feature, E> {
        let value: Option<f32> = text.trim().parse().ok();
        Ok(Feature(value.filter(|value| value.is_finite())))
    }
}

/// A key of the body, of which the text is not kept.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Features,
    #[serde(other)]
    Other,
}

/// What was in the array, of which no more than wanted is kept.
#[derive(Default)]
struct List {
    values: Vec<f32>,
    count: usize,
    numbers: bool,
}

/// The object around the array.
#[derive(Clone, Copy)]
struct Body {
    wanted: usize,
}

impl<'de> DeserializeSeed<'de> for Body {
    type Value = Option<List>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Body {
    type Value = Option<List>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with \"features\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key()? {
            match key {
                Key::Features => found = map.next_value_seed(Array { wanted: self.wanted })?,
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// The array; `null` is as good as none.
struct Array {
    wanted: usize,
}

impl<'de> DeserializeSeed<'de> for Array {
    type Value = Option<List>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Array {
    type Value = Option<List>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = List {
            numbers: true,
            ..List::default()
        };
        while let Some(Feature(value)) = seq.next_element()? {
            list.count += 1;
            match value {
                Some(value) if list.count <= self.wanted => list.values.push(value),
                Some(_) => {}
                None => list.numbers = false,
            }
        }
        Ok(Some(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reason(body: &str) -> String {
        read(body.as_bytes(), 2).unwrap_err().to_string()
    }

    #[test]
    fn features_are_numbers_or_numbers_as_text_and_exactly_as_many_as_the_model_takes() {
        assert_eq!(read(br#"{"features": [1, "2.5"]}"#, 2).unwrap(), [1.0, 2.5]);
        for (body, said) in [
            ("", "Missing body"),
            ("[1, 2]", "is not JSON like"),
            ("{}", "Missing \"features\""),
            (r#"{"features": null}"#, "Missing \"features\""),
            (r#"{"features": [1]}"#, "Expected 2 features, but received 1"),
            (r#"{"features": [1, "x"]}"#, "Not every element"),
            (r#"{"features": [1, "inf"]}"#, "Not every element"),
            (r#"{"features": [1, {}]}"#, "is not JSON like"),
            (r#"{"features": [1, 2]} 3"#, "is not JSON like"),
        ] {
            assert!(reason(body).contains(said), "{body}: {}", reason(body));
        }
    }

    #[test]
    fn no_more_values_are_kept_than_the_model_takes() {
        let body = format!(r#"{{"features": [{}0]}}"#, "0,".repeat(100_000));
        let mut json = serde_json::Deserializer::from_str(&body);
        let list = Body { wanted: 2 }.deserialize(&mut json).unwrap().unwrap();
        assert_eq!((list.count, list.values.len()), (100_001, 2));
        assert!(list.values.capacity() < 100);
    }

    #[test]
    fn what_is_no_number_is_refused_where_it_begins() {
        for many in ["[0,0,0,0,0,0,0,0]", r#"{"a": [0,0,0,0,0,0]}"#] {
            let FeaturesError::NotJson(e) = read(format!(r#"{{"features": [{many}]}}"#).as_bytes(), 2).unwrap_err()
            else {
                panic!("{many} is taken");
            };
            assert!(e.column() <= 16, "{many} was read to its end: {e}");
        }
    }

    #[test]
    fn other_keys_are_passed_over() {
        let body = br#"{"a": [{}], "Features": 1, "features": [-1, 2e0], "": null}"#;
        assert_eq!(read(body, 2).unwrap(), [-1.0, 2.0]);
        assert!(reason(r#"{"features": [1, 1e300]}"#).contains("Not every element"));
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body in "[{}\\[\\]\":,a-z0-9. -]{0,60}") {
            let _ = read(body.as_bytes(), 1);
        }
    }
}
