//! Parses JSON and YAML into a [`Value`] of bounded size: deep nesting and alias bombs lead to an error instead of using up
//! memory. The bounds of a single number are in [`super::values`].

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Deepest nesting; a whole recipe with its lifecycle needs eight.
const MAX_DEPTH: usize = 32;
/// Most values in one text; an alias counts each time it is used.
const MAX_VALUES: usize = 20_000;
/// Most bytes of text in all values together.
const MAX_TEXT: usize = 4 << 20;

/// The remaining limits while parsing, and the duplicate keys found.
pub(super) struct Budget {
    values: usize,
    text: usize,
    /// Keys that occur more than once in their object; the last value stays.
    pub(super) duplicates: Vec<String>,
    /// For each key with such a key inside its value, one of them.
    pub(super) ambiguous: BTreeMap<String, String>,
    repeated: usize,
    last_repeated: String,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            values: MAX_VALUES,
            text: MAX_TEXT,
            duplicates: Vec::new(),
            ambiguous: BTreeMap::new(),
            repeated: 0,
            last_repeated: String::new(),
        }
    }

    /// Reads one document.
    pub(super) fn read<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<Value, D::Error> {
        ValueSeed { budget: self, depth: 0 }.deserialize(deserializer)
    }

    fn value<E: Error>(&mut self) -> Result<(), E> {
        self.values = self
            .values
            .checked_sub(1)
            .ok_or_else(|| E::custom(format!("more than {MAX_VALUES} values")))?;
        Ok(())
    }

    fn text<E: Error>(&mut self, text: &str) -> Result<(), E> {
        let left = self.text.checked_sub(text.len());
        self.text =
            left.ok_or_else(|| E::custom(format!("more than {MAX_TEXT} bytes of text in all values together")))?;
        Ok(())
    }
}

struct ValueSeed<'b> {
    budget: &'b mut Budget,
    depth: usize,
}

impl ValueSeed<'_> {
    fn child<E: Error>(&mut self) -> Result<ValueSeed<'_>, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(ValueSeed {
            depth: self.depth + 1,
            budget: self.budget,
        })
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.budget.value()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, a list, a text, a number or a switch")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        Ok(Value::String(value.to_string()))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Value, E> {
        Ok(Value::String(value.to_string()))
    }

    /// YAML's `.inf` and `.nan` become text (`inf`, `NaN`), which the parser of their key refuses.
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.budget.text(value)?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        loop {
            let Some(value) = list.next_element_seed(self.child()?)? else {
                return Ok(Value::Array(values));
            };
            values.push(value);
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = object.next_key_seed(MapKey)? {
            self.budget.text(&key)?;
            let before = self.budget.repeated;
            let value = object.next_value_seed(self.child()?)?;
            if self.budget.repeated > before {
                let name = self.budget.last_repeated.clone();
                self.budget.ambiguous.entry(key.clone()).or_insert(name);
            }
            if values.insert(key.clone(), value).is_some() {
                self.budget.repeated += 1;
                self.budget.last_repeated.clone_from(&key);
                if !self.budget.duplicates.contains(&key) {
                    self.budget.duplicates.push(key);
                }
            }
        }
        Ok(Value::Object(values))
    }
}

/// A key: any scalar, as text (a YAML key may be a number).
struct MapKey;

impl<'de> DeserializeSeed<'de> for MapKey {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for MapKey {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<String, E> {
        Ok(key.to_owned())
    }

    fn visit_bool<E: Error>(self, key: bool) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_i64<E: Error>(self, key: i64) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_u64<E: Error>(self, key: u64) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_f64<E: Error>(self, key: f64) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_unit<E: Error>(self) -> Result<String, E> {
        Ok(String::new())
    }
}
