//! Secrets that a launch line names with `{{secret:NAME:KEY}}`.
//!
//! A plain word replaces each reference while the line is decoded and rewritten, so that no grammar sees the secret.
//! The secret is inserted last, encoded for its place.

use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::CaptureError;
use super::launch_tokens::{NodeKind, is_assignment, parse_chains};
use super::registry::{PropertyKind, property_kind};
use crate::util::redact::SecretWords;
use crate::util::secret::Secret;
use crate::util::secret_reference::{NOTATION, SecretReference};

/// Everything but the unreserved characters of RFC 3986.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Characters that no part of a URI can contain, and those that have a meaning in a launch line.
const URI: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'\'')
    .add(b'\\')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'!');

/// Gives the values of secrets.
pub trait SecretResolver: fmt::Debug + Send + Sync {
    /// The value of each reference, in order. May block for some seconds.
    ///
    /// # Errors
    /// A sentence that says why a value cannot be read and what to do about it, without any secret.
    fn resolve(&self, references: &[SecretReference]) -> Result<Vec<Secret>, String>;
}

/// The references of a launch line, and the words that replace them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Placeholders {
    words: Vec<String>,
    references: Vec<SecretReference>,
}

impl Placeholders {
    /// The text with a word in place of each reference.
    ///
    /// # Errors
    /// [`CaptureError::SecretReference`], if one is not complete.
    pub fn replace(text: &str) -> Result<(String, Self), CaptureError> {
        let found = SecretReference::find_all(text);
        let mut placeholders = Self::default();
        let mut prefix = "secretvalue".to_owned();
        while text.contains(&prefix) {
            prefix.push('x');
        }
        let mut replaced = String::with_capacity(text.len());
        let mut done = 0;
        for (number, found) in found.into_iter().enumerate() {
            let reference = found.reference.ok_or_else(|| {
                CaptureError::SecretReference(format!(
                    "gst_args has a {{{{secret:...}}}} that names no secret: write {NOTATION}"
                ))
            })?;
            // The letter at the end ensures that no word is the beginning of another one.
            let word = format!("{prefix}{number}z");
            replaced.push_str(&text[done..found.range.start]);
            replaced.push_str(&word);
            done = found.range.end;
            placeholders.words.push(word);
            placeholders.references.push(reference);
        }
        replaced.push_str(&text[done..]);
        Ok((replaced, placeholders))
    }

    pub fn is_empty(&self) -> bool {
        self.references.is_empty()
    }

    pub fn references(&self) -> &[SecretReference] {
        &self.references
    }

    /// Lets `secrets` show the references in place of the words.
    pub fn show_in(&self, secrets: &mut SecretWords) {
        for (word, reference) in self.words.iter().zip(&self.references) {
            secrets.add_replacement(word, &reference.to_string());
        }
    }

    /// The launch line without the properties that hold a placeholder but take no text, which GStreamer would refuse.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn without_numbers(&self, launch: &str) -> Result<String, CaptureError> {
        self.rewrite(launch, |place, value| {
            let takes_text = !matches!(place, Place::Property(_, PropertyKind::Other));
            (takes_text || !self.is_in(value)).then(|| place.assign(value))
        })
    }

    /// The launch line with the secrets. All forms in which they appear in the line are added to `secrets`.
    ///
    /// # Errors
    /// [`CaptureError::SecretReference`], if one does not stand in the value of a property.
    pub fn insert(&self, launch: &str, values: &[Secret], secrets: &mut SecretWords) -> Result<String, CaptureError> {
        for value in values {
            let value = value.reveal();
            secrets.add(value);
            secrets.add(&utf8_percent_encode(value, COMPONENT).to_string());
            secrets.add(&utf8_percent_encode(value, URI).to_string());
            secrets.add(&escape_octal(value));
        }
        self.rewrite(launch, |place, written| {
            if !self.is_in(written) {
                return Some(place.assign(written));
            }
            Some(match place {
                Place::Uri => self.fill(written, values, &|before, after, value| {
                    let set = if is_component(before, after) { COMPONENT } else { URI };
                    utf8_percent_encode(value, set).to_string()
                }),
                Place::Property(_, PropertyKind::Text) => {
                    let text = unquote(written);
                    let text = self.fill(&text, values, &|before, after, value| {
                        if is_component(before, after) {
                            utf8_percent_encode(value, COMPONENT).to_string()
                        } else {
                            value.to_owned()
                        }
                    });
                    place.assign(&quote(&format!("\"{}\"", escape_octal(&text))))
                }
                Place::Property(_, PropertyKind::Other) => {
                    let filled = self.fill(&unquote(written), values, &|before, after, value| {
                        insert_into_structure(before, after, value)
                    });
                    place.assign(&quote(&filled))
                }
            })
        })
    }

    fn is_in(&self, text: &str) -> bool {
        self.words.iter().any(|word| text.contains(word))
    }

    /// The text with `encode(before, after, value)` in place of each placeholder.
    fn fill(&self, text: &str, values: &[Secret], encode: &dyn Fn(&str, &str, &str) -> String) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut done = 0;
        let mut places: Vec<_> = self
            .words
            .iter()
            .zip(values)
            .flat_map(|(word, value)| text.match_indices(word).map(move |(at, _)| (at, word, value)))
            .collect();
        places.sort_by_key(|(at, ..)| *at);
        for (at, word, value) in places {
            filled.push_str(&text[done..at]);
            done = at + word.len();
            filled.push_str(&encode(&text[..at], &text[done..], value.reveal()));
        }
        filled.push_str(&text[done..]);
        filled
    }

    /// The line with each property value replaced by what `replace` returns for it; `None` leaves the property out.
    fn rewrite(
        &self,
        launch: &str,
        replace: impl Fn(&Place<'_>, &str) -> Option<String>,
    ) -> Result<String, CaptureError> {
        let mut branches = Vec::new();
        for chain in parse_chains(launch) {
            let mut nodes = Vec::new();
            for node in &chain.nodes {
                if node.kind() == NodeKind::Caps
                    && let Some(token) = node.tokens.iter().find(|token| self.is_in(token))
                {
                    return Err(self.misplaced(token));
                }
                let element = (node.kind() == NodeKind::Element).then(|| node.name());
                let mut tokens: Vec<String> = Vec::new();
                let mut spaced: Option<&str> = None;
                for (index, token) in node.tokens.iter().enumerate() {
                    // `name = value` has three tokens.
                    let assignment = match (spaced.take(), token.split_once('=')) {
                        (Some(name), Some(("", value))) => Some((name, value)),
                        (Some(name), _) => Some((name, *token)),
                        (None, Some(assignment)) if is_assignment(token) => Some(assignment),
                        (None, _) => None,
                    };
                    if let Some((name, "")) = assignment
                        && index + 1 < node.tokens.len()
                    {
                        spaced = Some(name);
                        continue;
                    }
                    if let Some((name, value)) = assignment {
                        let kind = element.map_or(PropertyKind::Text, |element| property_kind(element, name));
                        tokens.extend(replace(&Place::Property(name, kind), value));
                        continue;
                    }
                    let next = node.tokens.get(index + 1);
                    if next.is_some_and(|next| next.starts_with('=')) {
                        spaced = Some(token);
                    } else if self.is_in(token) {
                        if !token.contains("://") {
                            return Err(self.misplaced(token));
                        }
                        tokens.extend(replace(&Place::Uri, token));
                    } else {
                        tokens.push((*token).to_owned());
                    }
                }
                nodes.push(tokens.join(" "));
            }
            branches.push(nodes.join(" ! "));
        }
        Ok(branches.join(" "))
    }

    fn misplaced(&self, token: &str) -> CaptureError {
        let found = self
            .words
            .iter()
            .zip(&self.references)
            .find(|(word, _)| token.contains(*word));
        let shown = found.map_or_else(String::new, |(_, reference)| reference.to_string());
        CaptureError::SecretReference(format!(
            "{shown} in gst_args is not accepted here: it stands for the value of a property (user-pw={shown}) or for a part of a \
             URI (rtsp://admin:{shown}@camera/), not for elements, caps or a whole pipeline"
        ))
    }
}

/// Where a value is inserted.
enum Place<'a> {
    /// The property of this name.
    Property(&'a str, PropertyKind),
    /// A URI in place of an element.
    Uri,
}

impl Place<'_> {
    fn assign(&self, value: &str) -> String {
        match self {
            Self::Property(name, _) => format!("{name}={value}"),
            Self::Uri => value.to_owned(),
        }
    }
}

/// Whether what stands between `before` and `after` is a user, a password or the value of a query in a URI: there, all
/// reserved characters are percent-encoded.
fn is_component(before: &str, after: &str) -> bool {
    const ENDS: [char; 5] = ['/', '?', '#', ' ', '"'];
    let Some((_, path)) = before.rsplit_once("://") else {
        return false;
    };
    let is_user_info = || {
        let rest = &after[..after.find(ENDS).unwrap_or(after.len())];
        !path.contains(ENDS) && rest.contains('@')
    };
    (path.contains('?') && path.ends_with('=')) || is_user_info()
}

/// The value as a part of a `GstStructure`: escaped within quotes; within quotes of its own where it is a whole field.
fn insert_into_structure(before: &str, after: &str, value: &str) -> String {
    let mut is_quoted = false;
    let mut characters = before.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => drop(characters.next()),
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
    }
    let is_field = before.ends_with(['=', ')']) && (after.is_empty() || after.starts_with([',', ';', ' ']));
    if is_quoted {
        escape_octal(value)
    } else if is_field && before.contains(',') {
        format!("\"{}\"", escape_octal(value))
    } else {
        value.to_owned()
    }
}

/// With `\ooo` in place of each byte that is special in a quoted text of GStreamer (`gst_string_unwrap`).
fn escape_octal(value: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'-' | b'+' | b'/' | b':' | b'.' => {
            char::from(byte).to_string()
        }
        byte => format!("\\{byte:03o}"),
    };
    value.bytes().map(escaped).collect()
}

/// The value as `gst_parse_launch` reads it (`gst_parse_element_set`): without enclosing double quotes, and without
/// backslashes outside quotes.
fn unquote(value: &str) -> String {
    let inner = value
        .strip_prefix('"')
        .and_then(|inner| inner.strip_suffix('"'))
        .unwrap_or(value);
    let mut text = String::with_capacity(inner.len());
    let (mut in_quotes, mut before) = (false, '\0');
    let mut characters = inner.chars();
    while let Some(c) = characters.next() {
        let mut taken = c;
        if c == '\\' && !in_quotes {
            taken = characters.next().unwrap_or_default();
        } else if c == '"' && (!in_quotes || before != '\\') {
            in_quotes = !in_quotes;
        }
        text.push(taken);
        before = taken;
    }
    text
}

/// The reverse of [`unquote`], for a value that does not end in a backslash.
fn quote(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
#[path = "secret_values_tests.rs"]
mod tests;
