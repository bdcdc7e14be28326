//! Parses configuration text as people paste it: JSON with tabs, trailing commas and comments, YAML, the output of
//! `greengrass-cli`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Map, Value};

use super::bounded::Budget;
use super::component_details;
use super::error::{ConfigError, SyntaxProblem, TextOrigin};
use super::json_text::{without_comments, without_trailing_commas};
use super::shape::{self, FoundParameters};
use crate::util::redact;

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
    /// For each key whose value has a name more than once in one object, that name.
    pub(super) ambiguous: BTreeMap<String, String>,
    /// Known keys outside `Parameters`.
    pub(super) outside: Vec<String>,
    /// Which part of the text is used, where it may contain the configuration of several components.
    pub(super) note: Option<String>,
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
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    // A character of UTF-16 has at least two bytes.
    file.take(2 * MAX_TEXT_BYTES as u64 + 4)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let text = decode(bytes).map_err(failed)?;
    check_length(&TextOrigin::File(path.to_owned()), &text)?;
    Ok(text)
}

/// UTF-8, or UTF-16 with its byte order mark, as PowerShell writes it.
fn decode(bytes: Vec<u8>) -> io::Result<String> {
    let to_unit: fn([u8; 2]) -> u16 = match bytes.as_slice() {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return String::from_utf8(bytes).map_err(|_| not_utf_8()),
    };
    let (pairs, rest) = bytes.as_chunks::<2>();
    let units: Vec<u16> = pairs.iter().map(|pair| to_unit(*pair)).collect();
    String::from_utf16(&units)
        .ok()
        .filter(|_| rest.is_empty() && units.len() > 1)
        .ok_or_else(not_utf_8)
}

fn not_utf_8() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8")
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
    let details = component_details::configuration(text);
    let text = details.as_deref().unwrap_or(text);
    let mut budget = Budget::new();
    let value = document(text, &mut budget).map_err(|problem| ConfigError::Syntax {
        origin: origin.clone(),
        problem,
    })?;
    let shape_error = |found: String| ConfigError::Shape {
        origin: origin.clone(),
        found: redact::credentials(&found),
    };
    // A component that gets no known key from Greengrass has always run with its defaults. A file that the user names
    // is expected to contain one.
    let requires_key = matches!(origin, TextOrigin::File(_));
    if value.is_null() {
        if requires_key {
            return Err(shape_error("no configuration: it is empty".to_owned()));
        }
        return Ok(Parameters {
            empty: Some("empty"),
            ..Parameters::default()
        });
    }
    let (mut duplicates, mut ambiguous) = (Vec::new(), std::mem::take(&mut budget.ambiguous));
    let mut parse = |text: &str| {
        let mut budget = Budget::new();
        let value = document(text, &mut budget).map_err(|problem| {
            let SyntaxProblem {
                line, column, message, ..
            } = problem;
            format!("line {line}, column {column}: {message}")
        })?;
        duplicates.append(&mut budget.duplicates);
        ambiguous.append(&mut budget.ambiguous);
        Ok(value)
    };
    let found = shape::find(value, &mut parse).map_err(shape_error)?;
    if requires_key && !found.has_known_key() {
        return Err(shape_error(format!(
            "no key of this component: it seems to be {}",
            found.describe()
        )));
    }
    let note = found.note();
    let FoundParameters { values, outside, .. } = found;
    let duplicates = budget
        .duplicates
        .into_iter()
        .chain(duplicates)
        .filter(|key| values.contains_key(key))
        .collect();
    Ok(Parameters {
        values,
        duplicates,
        ambiguous,
        outside,
        note,
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

/// Parses the text as JSON if it starts like JSON, else or after a failure as YAML. Text that starts like JSON and is
/// neither is reported as invalid JSON.
fn document(text: &str, budget: &mut Budget) -> Result<Value, SyntaxProblem> {
    if let Some(at) = too_many_open(text) {
        let (line, column) = position(text, at);
        let message = format!("more than {MAX_OPEN_BRACKETS} brackets are open here");
        return Err(SyntaxProblem::new(text, line, column, message));
    }
    let plain = without_comments(text);
    if !plain.trim_start().starts_with(['{', '[']) {
        return yaml(text, budget);
    }
    json(text, &plain, budget).or_else(|problem| {
        *budget = Budget::new();
        yaml(text, budget).map_err(|_| problem)
    })
}

/// `plain`: `text` without comments.
fn json(text: &str, plain: &str, budget: &mut Budget) -> Result<Value, SyntaxProblem> {
    let strict = without_trailing_commas(plain);
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

#[cfg(test)]
mod tests;
