//! Parses `{"features": [...]}` without storing more values than the model takes.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};

/// Why features cannot be used. The texts are those of the existing runner, if it has one.
#[derive(Debug, thiserror::Error)]
pub(super) enum FeaturesError {
    #[error("Missing body on request, accepted: {{\"features\": [1, 2, 3]}}")]
    NoBody,
    #[error("the body is not JSON like {{\"features\": [1, 2, 3]}} with numbers only: {0}")]
    NotJson(#[from] serde_json::Error),
    #[error("Missing \"features\" on body")]
    Missing,
    #[error("Expected {expected} features, but received {count}")]
    Count { expected: usize, count: usize },
    #[error("Not every element of the \"features\" array is a number")]
    NotANumber,
}

/// Parses the features of a body, which must contain exactly `expected` values.
///
/// # Errors
/// [`FeaturesError`].
pub(super) fn read(body: &[u8], expected: usize) -> Result<Vec<f32>, FeaturesError> {
    if body.is_empty() {
        return Err(FeaturesError::NoBody);
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let list = BodySeed { expected }.deserialize(&mut json)?;
    json.end()?;
    let FeatureList {
        values,
        count,
        are_numbers,
    } = list.ok_or(FeaturesError::Missing)?;
    if count != expected {
        return Err(FeaturesError::Count { expected, count });
    }
    if !are_numbers {
        return Err(FeaturesError::NotANumber);
    }
    Ok(values)
}

/// A number, or a number as text, like JavaScript's `Number()`. `None`: another value, or not finite. Arrays and objects are
/// refused at their first character. An untagged enum would buffer them first, which takes many times the memory of the text.
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

/// A key of the body.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum BodyKey {
    Features,
    #[serde(other)]
    Other,
}

/// The content of the array. Only the expected number of values is stored.
#[derive(Default)]
struct FeatureList {
    values: Vec<f32>,
    count: usize,
    are_numbers: bool,
}

/// Parses the object around the array.
#[derive(Clone, Copy)]
struct BodySeed {
    expected: usize,
}

impl<'de> DeserializeSeed<'de> for BodySeed {
    type Value = Option<FeatureList>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BodySeed {
    type Value = Option<FeatureList>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with \"features\"")
    }

    /// An error of serde would repeat the whole text.
    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Err(E::invalid_type(Unexpected::Other("text"), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key()? {
            match key {
                BodyKey::Features => {
                    found = map.next_value_seed(ArraySeed {
                        expected: self.expected,
                    })?
                }
                BodyKey::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// Parses the array; `null` counts as missing.
struct ArraySeed {
    expected: usize,
}

impl<'de> DeserializeSeed<'de> for ArraySeed {
    type Value = Option<FeatureList>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ArraySeed {
    type Value = Option<FeatureList>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers")
    }

    /// An error of serde would repeat the whole text.
    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Err(E::invalid_type(Unexpected::Other("text"), &self))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = FeatureList {
            are_numbers: true,
            ..FeatureList::default()
        };
        while let Some(Feature(value)) = seq.next_element()? {
            list.count += 1;
            match value {
                Some(value) if list.count <= self.expected => list.values.push(value),
                Some(_) => {}
                None => list.are_numbers = false,
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
    fn features_are_numbers_or_numbers_as_text_of_the_expected_count() {
        assert_eq!(read(br#"{"features": [1, "2.5"]}"#, 2).unwrap(), [1.0, 2.5]);
        for (body, expected) in [
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
            assert!(reason(body).contains(expected), "{body}: {}", reason(body));
        }
    }

    #[test]
    fn no_more_values_are_stored_than_the_model_takes() {
        let body = format!(r#"{{"features": [{}0]}}"#, "0,".repeat(100_000));
        let mut json = serde_json::Deserializer::from_str(&body);
        let list = BodySeed { expected: 2 }.deserialize(&mut json).unwrap().unwrap();
        assert_eq!((list.count, list.values.len()), (100_001, 2));
        assert!(list.values.capacity() < 100);
    }

    #[test]
    fn a_long_text_in_place_of_the_object_or_the_list_is_not_repeated() {
        let long = "a".repeat(100_000);
        for body in [format!("\"{long}\""), format!("{{\"features\": \"{long}\"}}")] {
            let reason = reason(&body);
            assert!(
                reason.contains("invalid type: text, expected an") && reason.len() < 300,
                "{reason}"
            );
        }
    }

    #[test]
    fn arrays_and_objects_in_the_list_are_refused_at_their_first_character() {
        for many in ["[0,0,0,0,0,0,0,0]", r#"{"a": [0,0,0,0,0,0]}"#] {
            let FeaturesError::NotJson(e) = read(format!(r#"{{"features": [{many}]}}"#).as_bytes(), 2).unwrap_err()
            else {
                panic!("{many} is accepted");
            };
            assert!(e.column() <= 16, "{many} was read to its end: {e}");
        }
    }

    #[test]
    fn other_keys_are_ignored() {
        let body = br#"{"a": [{}], "Features": 1, "features": [-1, 2e0], "": null}"#;
        assert_eq!(read(body, 2).unwrap(), [-1.0, 2.0]);
        assert!(reason(r#"{"features": [1, 1e300]}"#).contains("Not every element"));
    }

    proptest! {
        #[test]
        fn no_body_causes_a_panic(body in "[{}\\[\\]\":,a-z0-9. -]{0,60}") {
            let _ = read(body.as_bytes(), 1);
        }
    }
}
