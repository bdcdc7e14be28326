//! Parses a message of Studio in bounded memory: a list of a million numbers would take more than ten times its text.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Most values that are kept of a message. It is far above what a request needs, so that the part that handles the request can
/// say what is too long.
const MAX_VALUES: usize = 30_000;

/// Parses a message. Elements and members after the first 30000 values are left out.
///
/// # Errors
/// It is not JSON.
pub(super) fn parse(text: &[u8]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let mut left = MAX_VALUES;
    let value = BoundedValue { left: &mut left }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

struct BoundedValue<'a> {
    /// Values that may still be kept.
    left: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for BoundedValue<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        *self.left = self.left.saturating_sub(1);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BoundedValue<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut kept = Vec::new();
        while *self.left > 0 {
            match elements.next_element_seed(BoundedValue { left: self.left })? {
                Some(element) => kept.push(element),
                None => return Ok(Value::Array(kept)),
            }
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(kept))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while *self.left > 0 {
            let Some(name) = members.next_key::<String>()? else {
                return Ok(Value::Object(kept));
            };
            kept.insert(name, members.next_value_seed(BoundedValue { left: self.left })?);
        }
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Object(kept))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_parsed_as_they_are() {
        let value = json!({"a": [1, -2, 2.5, "x\n", null, true, {}], "b": {"c": u64::MAX}});
        assert_eq!(parse(value.to_string().as_bytes()).unwrap(), value);
    }

    #[test]
    fn a_long_list_is_cut_wherever_it_is() {
        for text in [
            json!({"first": 1, "a": {"b": vec![0; 100_000]}}),
            json!({"first": 1, "a": vec![vec![0; 300]; 300]}),
        ] {
            let parsed = parse(text.to_string().as_bytes()).unwrap();
            assert_eq!(parsed["first"], 1);
            let kept = parsed.to_string().matches('0').count();
            assert!((20_000..=MAX_VALUES).contains(&kept), "{kept}");
        }
    }

    proptest! {
        #[test]
        fn the_same_texts_are_json_as_for_the_library(text in r#"[\[\]{}",:0-9a-etrufals .-]{0,20}"#) {
            let expected = serde_json::from_str::<Value>(&text).ok();
            prop_assert_eq!(parse(text.as_bytes()).ok(), expected);
        }
    }
}
