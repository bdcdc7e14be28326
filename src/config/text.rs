//! Parses configuration text as people paste it: JSON with tabs and trailing commas, YAML, a whole recipe.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use super::bounded::Budget;
use super::error::{ConfigError, SyntaxProblem, TextOrigin};
use super::keys;

/// Longest accepted text, in bytes. A recipe has at most 16,000.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// Most brackets that may be open at once. They are counted first, because the YAML scanner takes quadratic time.
const MAX_OPEN_BRACKETS: usize = 256;

/// The parameters of a text.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    pub(super) values: Map<String, Value>,
    /// Keys that the text gives more than once.
    pub(super) duplicates: Vec<String>,
    /// Known keys outside `Parameters`.
    pub(super) outside: Vec<String>,
    /// Why the text contains no configuration: it is empty, or Greengrass did not replace the recipe's variable.
    pub(super) empty: Option<&'static str>,
}

/// Reads the file of `--config`, or that of a recipe.
///
/// # Errors
/// [`ConfigError::Missing`], [`ConfigError::Unreadable`] (also for text that is not UTF-8) or [`ConfigError::TooLong`].
pub fn read_file(path: impl AsRef<Path>) -> Result<String, ConfigError> {
    let path = path.as_ref();
    let failed = |error| ConfigError::from_io(path, error);
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_TEXT_BYTES as u64 + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    check_length(&TextOrigin::File(path.to_owned()), &text)?;
    Ok(text)
}

/// Finds the parameters in a text of any accepted notation and shape.
pub(super) fn parameters(origin: &TextOrigin, text: &str) -> Result<Parameters, ConfigError> {
    check_length(origin, text)?;
    let text = text.trim_start_matches('\u{feff}');
    // Greengrass leaves a recipe variable that it cannot resolve as it is.
    if text.trim_start().starts_with("{configuration:") {
        return Ok(Parameters {
            empty: Some("a variable that Greengrass did not replace"),
            ..Parameters::default()
        });
    }
    let mut budget = Budget::new();
    let value = document(text, &mut budget).map_err(|problem| ConfigError::Syntax {
        origin: origin.clone(),
        problem,
    })?;
    if value.is_null() {
        return Ok(Parameters {
            empty: Some("empty"),
            ..Parameters::default()
        });
    }
    let (values, outside) = find(value).map_err(|found| ConfigError::Shape {
        origin: origin.clone(),
        found,
    })?;
    let duplicates = budget
        .duplicates
        .into_iter()
        .filter(|key| values.contains_key(key))
        .collect();
    Ok(Parameters {
        values,
        duplicates,
        outside,
        empty: None,
    })
}

fn check_length(origin: &TextOrigin, text: &str) -> Result<(), ConfigError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(ConfigError::TooLong {
            origin: origin.clone(),
            limit: MAX_TEXT_BYTES,
        });
    }
    Ok(())
}

/// Parses the text as JSON if it starts like JSON, else or after a failure as YAML. Text that starts like JSON and is neither
/// is reported as invalid JSON.
fn document(text: &str, budget: &mut Budget) -> Result<Value, SyntaxProblem> {
    if let Some(at) = too_many_open(text) {
        let (line, column) = position(text, at);
        let message = format!("more than {MAX_OPEN_BRACKETS} brackets are open here");
        return Err(SyntaxProblem::new(text, line, column, message));
    }
    if !text.trim_start().starts_with(['{', '[']) {
        return yaml(text, budget);
    }
    json(text, budget).or_else(|problem| {
        *budget = Budget::new();
        yaml(text, budget).map_err(|_| problem)
    })
}

fn json(text: &str, budget: &mut Budget) -> Result<Value, SyntaxProblem> {
    let strict = without_trailing_commas(text);
    let mut deserializer = serde_json::Deserializer::from_str(&strict);
    let value = budget
        .read(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| {
        // serde_json counts columns in bytes.
        let line = text.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
        let before = line
            .char_indices()
            .take_while(|(at, _)| at + 1 < error.column())
            .count();
        SyntaxProblem::new(text, error.line(), before + 1, without_position(&error.to_string()))
    })
}

fn yaml(text: &str, budget: &mut Budget) -> Result<Value, SyntaxProblem> {
    budget.read(serde_yaml::Deserializer::from_str(text)).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |place| (place.line(), place.column()));
        SyntaxProblem::new(text, line, column, without_position(&error.to_string()))
    })
}

/// The parser's message without the position, which is shown separately.
fn without_position(message: &str) -> String {
    message.split(" at line ").next().unwrap_or(message).to_owned()
}

/// Replaces each trailing comma of an object or list by a blank, so that lines and columns stay the same.
fn without_trailing_commas(text: &str) -> String {
    let mut strict = text.as_bytes().to_vec();
    let (mut in_text, mut escaped) = (false, false);
    // The last comma that only white space follows so far, and the last byte that is not white space.
    let (mut pending, mut last) = (None, b'{');
    for (at, byte) in text.bytes().enumerate() {
        if in_text {
            in_text = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
            continue;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            b',' if !matches!(last, b'{' | b'[' | b',' | b':') => pending = Some(at),
            b'}' | b']' => {
                if let Some(comma) = pending.take().and_then(|at: usize| strict.get_mut(at)) {
                    *comma = b' ';
                }
            }
            _ => pending = None,
        }
        in_text = byte == b'"';
        last = byte;
    }
    // Only ASCII bytes were replaced, so this is still UTF-8.
    String::from_utf8(strict).unwrap_or_else(|_| text.to_owned())
}

/// The byte offset at which too many brackets are open.
fn too_many_open(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    text.bytes().position(|byte| {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open > MAX_OPEN_BRACKETS
    })
}

/// Line and column of a byte offset, counted from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// Finds the parameter object in one of the accepted shapes, and the known keys outside it. The error describes what was found
/// instead.
fn find(value: Value) -> Result<(Map<String, Value>, Vec<String>), String> {
    let mut object = as_object(value, "")?;
    if object.contains_key("ComponentConfiguration") || object.contains_key("RecipeFormatVersion") {
        for key in ["ComponentConfiguration", "DefaultConfiguration", "Parameters"] {
            let inner = object.remove(key).ok_or_else(|| format!("a recipe without {key}"))?;
            object = as_object(inner, key)?;
        }
    } else if let Some(inner) = object.remove("Parameters") {
        let outside = object
            .into_iter()
            .map(|(key, _)| key)
            .filter(|key| keys::find(key).is_some())
            .collect();
        return Ok((as_object(inner, "Parameters")?, outside));
    }
    Ok((object, Vec::new()))
}

fn as_object(value: Value, name: &str) -> Result<Map<String, Value>, String> {
    let kind = match value {
        Value::Object(object) => return Ok(object),
        Value::Null if name == "Parameters" => return Ok(Map::new()),
        Value::Null => "nothing",
        Value::Bool(_) => "a switch",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
    };
    Err(if name.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind} as {name}")
    })
}

#[cfg(test)]
mod tests;
