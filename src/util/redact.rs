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

use super::secret_reference::SecretReference;

/// The replacement of a secret.
pub(crate) const STARS: &str = "***";

/// The text with `***` in place of each password in a URI, each query of a URL, each value of a property or option whose name
/// says that it is secret, each API key and each private key. Scheme, user name and host of a URI stay, and `{{secret:NAME:KEY}}`,
/// which only names a secret.
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
pub(crate) struct SecretWords {
    words: HashSet<String>,
    /// Whole secrets, which may have no word that is long enough.
    wholes: Vec<String>,
    /// Texts and what is shown in their place.
    replacements: Vec<(String, String)>,
}

impl SecretWords {
    /// Shorter words are too common: they would hide numbers and names.
    const SHORTEST: usize = 3;
    /// The same for words of queries, most of which are no secrets.
    const SHORTEST_IN_QUERY: usize = 8;

    /// The words of everything that [`credentials`] hides in `text`.
    pub fn of(text: &str) -> Self {
        let found = |ranges: Vec<Range<usize>>, shortest: usize| {
            let contents = without_references(text, merged(ranges))
                .into_iter()
                .map(|range| &text[range]);
            contents
                .flat_map(|content| words(content).map(|word| &content[word]))
                .filter(move |word| word.len() >= shortest)
                .map(str::to_owned)
        };
        let mut ranges = named_secrets(text);
        ranges.extend(tokens::find(text));
        let secrets = found(ranges, Self::SHORTEST);
        Self {
            words: secrets
                .chain(found(uris::queries(text), Self::SHORTEST_IN_QUERY))
                .collect(),
            ..Self::default()
        }
    }

    /// Adds a secret, in one of the forms in which it may be repeated.
    pub fn add(&mut self, secret: &str) {
        if secret.len() < Self::SHORTEST {
            return;
        }
        let long_words = words(secret).filter(|word| word.len() >= Self::SHORTEST);
        self.words.extend(long_words.map(|word| secret[word].to_owned()));
        self.wholes.push(secret.to_owned());
        // The longest first: it may hold another one.
        self.wholes.sort_by_key(|whole| std::cmp::Reverse(whole.len()));
    }

    /// Shows `shown` in place of `text`.
    pub fn add_replacement(&mut self, text: &str, shown: &str) {
        self.replacements.push((text.to_owned(), shown.to_owned()));
    }

    /// Whether the text holds one of these words.
    pub fn occur_in(&self, text: &str) -> bool {
        words(text).any(|word| self.words.contains(&text[word])) || self.wholes.iter().any(|whole| text.contains(whole))
    }

    /// The text without secrets that any rule recognises, and without these words.
    pub fn mask(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for whole in &self.wholes {
            text = text.replace(whole, STARS);
        }
        for (replaced, shown) in &self.replacements {
            text = text.replace(replaced, shown);
        }
        let text = credentials(&text);
        if self.words.is_empty() {
            return text;
        }
        let references = references(&text);
        let mut shown = String::with_capacity(text.len());
        let mut done = 0;
        for word in words(&text) {
            let is_in_reference = references.iter().any(|reference| reference.contains(&word.start));
            if !is_in_reference && self.words.contains(&text[word.clone()]) {
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
    let mut ranges = named_secrets(text);
    ranges.extend(uris::queries(text));
    let mut ranges = without_references(text, merged(ranges));
    ranges.extend(tokens::find(text));
    merged(ranges)
}

/// Secrets that are recognised by what stands before them, without queries.
fn named_secrets(text: &str) -> Vec<Range<usize>> {
    let mut ranges = uris::user_infos(text);
    ranges.extend(assignments::values(text, &uris::certain_user_infos(text)));
    ranges
}

/// The complete references to secrets in the text.
fn references(text: &str) -> Vec<Range<usize>> {
    let found = SecretReference::find_all(text).into_iter();
    found
        .filter(|found| found.reference.as_ref().is_some_and(is_only_a_name))
        .map(|found| found.range)
        .collect()
}

/// Whether nothing in the reference looks like a secret itself: in text that ends a reference too late, its key is anything.
fn is_only_a_name(reference: &SecretReference) -> bool {
    let has_secret = |key: &str| !named_secrets(key).is_empty() || !uris::queries(key).is_empty();
    reference.key.as_deref().is_none_or(|key| !has_secret(key))
}

/// The parts of `ranges` outside references to secrets. A part of quotes and signs only is left out.
fn without_references(text: &str, ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let references = references(text);
    if references.is_empty() {
        return ranges;
    }
    let mut parts = Vec::new();
    for range in ranges {
        let first = references.partition_point(|reference| reference.end <= range.start);
        let within = references[first..]
            .iter()
            .take_while(|reference| reference.start < range.end);
        let mut start = range.start;
        for reference in within {
            parts.push(start..reference.start.max(start));
            start = reference.end;
        }
        if start == range.start {
            parts.push(range);
        } else {
            parts.push(start..range.end.max(start));
        }
    }
    parts.retain(|part| text[part.clone()].contains(char::is_alphanumeric) || !touches(&references, part));
    parts
}

/// Whether one of the ranges ends or begins where `part` begins or ends.
fn touches(ranges: &[Range<usize>], part: &Range<usize>) -> bool {
    let next = ranges.partition_point(|range| range.end < part.start);
    let mut neighbours = ranges[next..].iter().take(2);
    neighbours.any(|range| range.end == part.start || range.start == part.end)
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
