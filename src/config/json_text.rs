//! JSON as people write it: with comments and trailing commas, or followed by other text.

use std::borrow::Cow;

use serde_json::Value;

use super::bounded::Budget;
use super::error;

/// Parses the JSON text of a key, of up to `max` bytes.
///
/// # Errors
/// What is wrong with it, as a clause after "which". A name that stands twice in one object is refused too.
pub(super) fn parse_object_text(text: &str, max: usize) -> Result<Value, String> {
    if text.len() > max {
        return Err(format!("has {} bytes, more than {max}", text.len()));
    }
    let mut budget = Budget::new();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = budget
        .read(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|problem| format!("is no JSON object: {problem}"))?;
    match budget.duplicates.first() {
        Some(name) => Err(given_twice(name)),
        None => Ok(value),
    }
}

/// What is wrong with an object that has this name twice, as a clause after "which".
pub(super) fn given_twice(name: &str) -> String {
    format!("has the name `{}` more than once in one object", error::name(name))
}

/// Replaces each comment (`// ...` and `/* ... */`) of a JSON text by blanks, so that lines and columns stay the same. Strict
/// JSON has no slash outside its texts.
pub(super) fn without_comments(text: &str) -> Cow<'_, str> {
    if !text.contains("//") && !text.contains("/*") {
        return text.into();
    }
    let mut plain = text.as_bytes().to_vec();
    let (mut in_text, mut at) = (false, 0);
    while let Some(&byte) = text.as_bytes().get(at) {
        let rest = &text.as_bytes()[at..];
        let length = match byte {
            b'\\' if in_text => 2,
            b'"' => {
                in_text = !in_text;
                1
            }
            b'/' if !in_text && rest.starts_with(b"//") => {
                rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
            }
            b'/' if !in_text && rest.starts_with(b"/*") => {
                let end = rest[2..].windows(2).position(|pair| pair == b"*/");
                end.map_or(rest.len(), |end| end + 4)
            }
            _ => 1,
        };
        if byte == b'/' && length > 1 {
            for byte in &mut plain[at..at + length] {
                if !byte.is_ascii_whitespace() {
                    *byte = b' ';
                }
            }
        }
        at += length;
    }
    // A comment ends at ASCII bytes, so this is still UTF-8.
    String::from_utf8(plain).map_or_else(|_| text.into(), Cow::Owned)
}

/// Replaces each trailing comma of an object or list by a blank, so that lines and columns stay the same.
pub(super) fn without_trailing_commas(text: &str) -> String {
    let mut strict = text.as_bytes().to_vec();
    // The last comma that only white space follows so far, and the last byte that is not white space.
    let (mut pending, mut last) = (None, b'{');
    for (at, byte) in outside_texts(text) {
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
        last = byte;
    }
    // Only ASCII bytes were replaced, so this is still UTF-8.
    String::from_utf8(strict).unwrap_or_else(|_| text.to_owned())
}

/// Bytes of the JSON value at the beginning of the text: up to the bracket that closes it, or one line.
pub(super) fn value_length(text: &str) -> usize {
    let mut open = 0_usize;
    for (at, byte) in outside_texts(text) {
        match byte {
            b'{' | b'[' => open += 1,
            b'}' | b']' if open <= 1 => return at + 1,
            b'}' | b']' => open -= 1,
            b'\n' if open == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

/// The bytes outside the texts of a JSON document, with their offsets. Of a text only the opening quote is included.
fn outside_texts(json: &str) -> impl Iterator<Item = (usize, u8)> {
    let (mut in_text, mut escaped) = (false, false);
    json.bytes().enumerate().filter(move |(_, byte)| {
        if in_text {
            in_text = escaped || *byte != b'"';
            escaped = *byte == b'\\' && !escaped;
            return false;
        }
        in_text = *byte == b'"';
        true
    })
}
