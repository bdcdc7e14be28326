//! Removes secrets from text before it is shown. The only redactor of the program: every way out uses it.
//!
//! It works on raw text (an encoded or decoded launch line, a URL, a message of GStreamer or AWS, configuration text) and
//! needs no parser to succeed, because broken text is what errors repeat. In doubt it hides too much. The time is linear.

mod assignments;
mod notation;
mod tokens;
mod uris;

use std::collections::HashSet;
use std::ops::Range;

pub(crate) use notation::is_secret_name;

/// The replacement of a secret.
pub(crate) const STARS: &str = "***";

/// The text with `***` in place of each password in a URI, each query of a URL, each value of a property or option whose name
/// says that it is secret, each API key and each private key. Scheme, user name and host of a URI stay.
pub(crate) fn credentials(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut done = 0;
    for range in hidden(text) {
        shown.push_str(&text[done..range.start]);
        shown.push_str(STARS);
        done = range.end;
    }
    shown.push_str(&text[done..]);
    shown
}

/// As [`credentials`], of a value that is not usable: it may be a URL without its scheme, so all before the last `@` is hidden.
pub(crate) fn refused(text: &str) -> String {
    match text.rfind('@') {
        Some(at) if !text.contains("://") => format!("{STARS}{}", credentials(&text[at..])),
        _ => credentials(text),
    }
}

/// The text with everything that may be a secret replaced by as many `*`, so that lines and columns stay where they are.
/// For showing an offending line of text that could not be parsed.
pub(crate) fn in_place(text: &str) -> String {
    let mut is_hidden = vec![false; text.len()];
    for range in hidden(text).into_iter().chain(notation::values(text)) {
        is_hidden[range].fill(true);
    }
    text.char_indices()
        .map(|(at, c)| if is_hidden[at] && !c.is_whitespace() { '*' } else { c })
        .collect()
}

/// The words of the secrets in one text, to find them again in what another program says about it. A launch line that is
/// split within a password leaves parts of it that no rule recognises.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SecretWords(HashSet<String>);

impl SecretWords {
    /// Shorter words are too common: they would hide numbers and names.
    const SHORTEST: usize = 3;
    /// The same for words of queries, most of which are no secrets.
    const SHORTEST_IN_QUERY: usize = 8;

    /// The words of everything that [`credentials`] hides in `text`.
    pub fn of(text: &str) -> Self {
        let found = |ranges: Vec<Range<usize>>, shortest: usize| {
            let contents = merged(ranges).into_iter().map(|range| &text[range]);
            contents
                .flat_map(|content| words(content).map(|word| &content[word]))
                .filter(move |word| word.len() >= shortest)
                .map(str::to_owned)
        };
        let secrets = found(secrets(text), Self::SHORTEST);
        Self(
            secrets
                .chain(found(uris::queries(text), Self::SHORTEST_IN_QUERY))
                .collect(),
        )
    }

    /// Whether the text holds one of these words.
    pub fn occur_in(&self, text: &str) -> bool {
        words(text).any(|word| self.0.contains(&text[word]))
    }

    /// The text without secrets that any rule recognises, and without these words.
    pub fn mask(&self, text: &str) -> String {
        let text = credentials(text);
        if self.0.is_empty() {
            return text;
        }
        let mut shown = String::with_capacity(text.len());
        let mut done = 0;
        for word in words(&text) {
            if self.0.contains(&text[word.clone()]) {
                shown.push_str(&text[done..word.start]);
                shown.push_str(STARS);
                done = word.end;
            }
        }
        shown.push_str(&text[done..]);
        shown
    }
}

/// Runs of letters and digits.
fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    std::iter::from_fn(move || {
        let start = end + text[end..].find(char::is_alphanumeric)?;
        end = start
            + text[start..]
                .find(|c: char| !c.is_alphanumeric())
                .unwrap_or(text.len() - start);
        Some(start..end)
    })
}

/// What is hidden, in order and without overlaps.
fn hidden(text: &str) -> Vec<Range<usize>> {
    let mut ranges = secrets(text);
    ranges.extend(uris::queries(text));
    merged(ranges)
}

/// Everything but queries.
fn secrets(text: &str) -> Vec<Range<usize>> {
    let mut ranges = uris::user_infos(text);
    ranges.extend(assignments::values(text));
    ranges.extend(tokens::find(text));
    ranges
}

fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
#[path = "redact/tests.rs"]
mod tests;
