//! `gst_args`: a gst-launch line with its spaces written as `:`, or any other form in which people paste such a line.
//!
//! A colon ends a word only where what follows can begin a word of a launch line. Everywhere else it belongs to the
//! word: in passwords, URIs, times, device paths and names of sound cards. Where the grammar leaves two readings,
//! GStreamer's registry decides: it knows which words are elements and which are properties of the element before them.

use std::collections::HashSet;

use super::launch_tokens::{closing_indices, has_unquoted_space, split_tokens};
use super::shell_text;

/// Maximum length of a line in bytes. The longest known line has about 600.
pub(super) const MAX_LENGTH: usize = 64 * 1024;

/// Most names in `child::child::property`.
const MAX_CHILD_DEPTH: usize = 4;

/// What is known about elements.
pub(super) trait ElementRegistry {
    /// Whether an element with this factory name is installed.
    fn is_element(&self, name: &str) -> bool;
    /// Whether the element has the property. `None`: the element is not installed.
    fn has_property(&self, element: &str, property: &str) -> Option<bool>;
}

/// Decodes `text` into a launch line. `None` when `text` is empty, `__none__`, or longer than [`MAX_LENGTH`].
///
/// Removes quotes and backslashes that a shell would have removed. If the result is a launch line, it is returned
/// unchanged.
///
/// Otherwise a colon becomes a space before
/// - `!`, and after it;
/// - `name=` or `child::name=`, if `name` can be a property of the current element;
/// - `name.` or `name.pad`, if the line declares `name=name`;
/// - the name of an element, where a chain can begin;
///
/// and after a word that can hold no colon: the name of an element, a reference. After `scheme://` everything up to the
/// last `@` before the next word is user and password. `\:` is a colon that stays.
pub(super) fn decode(text: &str, registry: &dyn ElementRegistry) -> Option<String> {
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed == "__none__" || text.len() > MAX_LENGTH {
        return None;
    }
    let text = shell_text::unquote(trimmed);
    let line = if is_encoded(&text) {
        Decoder::new(&text, registry).decode()
    } else {
        text
    };
    Some(shell_text::unquote_nodes(&line))
}

/// Whether colons separate words in `text`: it has no white space outside quotes and brackets, a link is written `:!:`,
/// or an element's name is followed by a colon.
fn is_encoded(text: &str) -> bool {
    if !has_unquoted_space(text) {
        return true;
    }
    let mut begins_node = true;
    for word in split_tokens(text) {
        if word.contains(":!:") || word.ends_with(":!") || word.starts_with("!:") {
            return true;
        }
        let name = identifier(word);
        let after_name = &word[name.len()..];
        if begins_node
            && !name.is_empty()
            && let Some(rest) = after_name.strip_prefix(':')
            && (begins_with_link(rest) || assigned_property(rest).is_some())
        {
            return true;
        }
        begins_node = word == "!";
    }
    false
}

/// The kind of the current word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WordKind {
    /// An element's name, a reference or a link. It contains no colon.
    Bare,
    /// `name=value`
    Assignment,
    /// Caps. They may contain colons, as in `colorimetry=2:4:7:1`.
    Caps,
}

struct Decoder<'a> {
    text: &'a str,
    registry: &'a dyn ElementRegistry,
    /// See [`closing_indices`].
    closed_by: Vec<usize>,
    /// Names that the line gives to elements with `name=`.
    declared: HashSet<&'a str>,
    line: String,
    /// Start of the current word, in `line`.
    word: usize,
    kind: WordKind,
    /// Whether the current word holds a URI or a colon, so that more colons are likely.
    may_hold_colons: bool,
    has_uri: bool,
    /// The element whose properties are read.
    element: Option<&'a str>,
    /// Whether the current chain has a link.
    is_linked: bool,
    /// Whether the last complete word was a link.
    after_link: bool,
    /// Index of the end of the last URI, as far as it was searched for.
    next_word: usize,
}

impl<'a> Decoder<'a> {
    fn new(text: &'a str, registry: &'a dyn ElementRegistry) -> Self {
        Self {
            text,
            registry,
            closed_by: closing_indices(text),
            declared: declared_names(text),
            line: String::with_capacity(text.len()),
            word: 0,
            kind: WordKind::Bare,
            may_hold_colons: false,
            has_uri: false,
            element: None,
            is_linked: false,
            after_link: false,
            next_word: 0,
        }
    }

    fn decode(mut self) -> String {
        let mut at = 0;
        self.begin_word(0);
        while let Some(c) = self.text[at..].chars().next() {
            let rest = &self.text[at..];
            let taken = if rest.starts_with("\\:") {
                self.line.push(':');
                self.may_hold_colons = true;
                at += 2;
                continue;
            } else if c == '\\' {
                1 + rest[1..].chars().next().map_or(0, char::len_utf8)
            } else if self.closed_by[at] > 0 && self.may_open_bracket(at) {
                self.closed_by[at] + 1 - at
            } else if rest.starts_with("://") {
                // A URI may also stand in place of an element.
                self.kind = WordKind::Assignment;
                (self.has_uri, self.may_hold_colons) = (true, true);
                3 + self.authority_length(at + 3)
            } else if c.is_ascii_whitespace() || (c == ':' && self.is_separator(at)) {
                self.line.push(if c == ':' { ' ' } else { c });
                at += 1;
                if !self.text[at..].starts_with(|c: char| c.is_ascii_whitespace()) {
                    self.begin_word(at);
                }
                continue;
            } else {
                self.update_kind(c);
                c.len_utf8()
            };
            self.line.push_str(&rest[..taken]);
            at += taken;
        }
        self.line
    }

    /// Determines the kind of the word that begins at `at`.
    fn begin_word(&mut self, at: usize) {
        self.after_link = self.line[self.word..].trim_end() == "!";
        self.word = self.line.len();
        self.kind = WordKind::Bare;
        (self.may_hold_colons, self.has_uri) = (false, false);
        let rest = &self.text[at..];
        if begins_with_link(rest) {
            self.is_linked = true;
            self.element = None;
            return;
        }
        let name = identifier(rest);
        let after_name = &rest[name.len()..];
        // In caps with white space: `width = 640`.
        let is_spaced_assignment = after_name.trim_start_matches([' ', '\t']).starts_with('=');
        if !name.is_empty() && ends_word(after_name) && !is_spaced_assignment {
            self.is_linked &= self.after_link;
            self.element = Some(name);
        } else if is_reference(rest, &self.declared) {
            self.is_linked &= self.after_link;
            self.element = Some("");
        }
    }

    /// Updates the kind of the current word before `c` is appended.
    fn update_kind(&mut self, c: char) {
        match c {
            '/' if self.kind == WordKind::Bare => self.kind = WordKind::Caps,
            '=' if self.kind == WordKind::Bare => self.kind = WordKind::Assignment,
            ':' => self.may_hold_colons = true,
            _ => {}
        }
    }

    /// Whether the quote or bracket at `at` can open a quoted or bracketed text. Elsewhere it is an ordinary character,
    /// so that a password may contain it.
    fn may_open_bracket(&self, at: usize) -> bool {
        let is_quote = matches!(self.text.as_bytes()[at], b'"' | b'\'');
        let word = &self.line[self.word..];
        !is_quote || word.is_empty() || word.ends_with(['=', ',', '(', ')', '{', '[', ' '])
    }

    /// Whether the colon at `at` ends the current word.
    fn is_separator(&self, at: usize) -> bool {
        let rest = &self.text[at + 1..];
        if &self.line[self.word..] == "!" || begins_with_link(rest) || rest.is_empty() {
            return true;
        }
        // `sink_0::xpos=0`, `?streamid=#!::r=cam`
        let is_doubled = rest.starts_with(':') || self.text[..at].ends_with(':') && !self.text[..at].ends_with("\\:");
        match self.kind {
            WordKind::Bare => !is_doubled,
            WordKind::Caps => !rest.starts_with(|c: char| c.is_ascii_digit()),
            WordKind::Assignment => self.begins_known_property(rest) || (!is_doubled && self.begins_word(rest)),
        }
    }

    /// Whether `rest` begins a word after `name=value`.
    fn begins_word(&self, rest: &str) -> bool {
        if let Some(property) = assigned_property(rest) {
            return self.can_be_property(property, rest);
        }
        if is_reference(rest, &self.declared) {
            return true;
        }
        let name = identifier(rest);
        self.is_linked
            && !name.is_empty()
            && ends_word(&rest[name.len()..])
            && (self.registry.is_element(name) || looks_like_element(&rest[name.len()..]))
    }

    /// Whether `property`, with which `rest` begins, can belong to the current element.
    fn can_be_property(&self, property: &str, rest: &str) -> bool {
        if property.contains("::") {
            return !self.has_uri;
        }
        match self.has_property(property) {
            Some(true) => true,
            // A misspelt property becomes a word, so that GStreamer names it in its error.
            Some(false) => is_lowercase(property) && !self.may_hold_colons,
            // `rtsp://admin:key=9@10.0.0.5`
            None => is_lowercase(property) && !(self.may_hold_colons && user_continues(rest)),
        }
    }

    fn has_property(&self, property: &str) -> Option<bool> {
        self.registry.has_property(self.element?, property)
    }

    /// Length of `user:password@` at `at`, after `://`, and of an IPv6 address that follows.
    fn authority_length(&mut self, at: usize) -> usize {
        if at >= self.next_word {
            self.next_word = self.find_next_word(at);
        }
        let end = self.next_word;
        let authority = &self.text[at..end];
        let user = authority.rfind('@').map_or(0, |index| index + 1);
        let host = &authority[user..];
        // An IPv6 address: `[fe80::1]`.
        let address = if host.starts_with('[') {
            host.find(']').map_or(0, |index| index + 1)
        } else {
            0
        };
        user + address
    }

    /// Index of the colon before the next text that is certainly a word, or of the end of the text.
    fn find_next_word(&self, from: usize) -> usize {
        let ends = |(at, c): &(usize, char)| {
            let rest = &self.text[from + at + 1..];
            match c {
                ':' => begins_with_link(rest) || self.ends_uri(rest),
                c => c.is_ascii_whitespace(),
            }
        };
        let mut candidates = self.text[from..].char_indices().filter(|(_, c)| c.is_ascii());
        candidates.find(ends).map_or(self.text.len(), |(at, _)| from + at)
    }

    /// Whether `rest` begins with a property that the current element has.
    fn begins_known_property(&self, rest: &str) -> bool {
        assigned_property(rest).is_some_and(|property| self.has_property(property) == Some(true))
    }

    /// As [`Self::begins_known_property`], for the end of a URI. An element that is not installed may have the property
    /// too.
    fn ends_uri(&self, rest: &str) -> bool {
        let Some(property) = assigned_property(rest) else {
            return false;
        };
        self.has_property(property)
            .unwrap_or_else(|| is_lowercase(property) && !user_continues(rest))
    }
}

/// Whether the name begins with a lower-case letter, as those of properties do. `CARD=` of a sound card does not.
fn is_lowercase(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
}

/// Whether the text up to the next colon or the end of the word has an `@`: then it may still be the user part of a
/// URI.
fn user_continues(rest: &str) -> bool {
    let end = rest.find([':', ' ', '\t', '\n']).unwrap_or(rest.len());
    rest[..end].contains('@')
}

/// `name` at the start of `text`: letters, digits, `_` and `-`, with a letter or `_` first.
fn identifier(text: &str) -> &str {
    if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return "";
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    &text[..text.find(|c| !is_part(c)).unwrap_or(text.len())]
}

/// The property of `name=` or `child::name=` at the start of `text`.
fn assigned_property(text: &str) -> Option<&str> {
    let mut end = 0;
    for _ in 0..MAX_CHILD_DEPTH {
        let name = identifier(&text[end..]);
        if name.is_empty() {
            return None;
        }
        end += name.len();
        match &text[end..] {
            rest if rest.starts_with("::") => end += 2,
            rest if rest.starts_with('=') => return Some(&text[..end]),
            _ => return None,
        }
    }
    None
}

/// Whether a word ends before `rest`.
fn ends_word(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(':') || rest.starts_with(|c: char| c.is_ascii_whitespace())
}

/// Whether `text` begins with a link: `!` as a word of its own.
fn begins_with_link(text: &str) -> bool {
    text.strip_prefix('!').is_some_and(ends_word)
}

/// Whether a link or a property follows the name of an element that is not installed.
fn looks_like_element(rest: &str) -> bool {
    rest.strip_prefix(':')
        .is_some_and(|rest| begins_with_link(rest) || assigned_property(rest).is_some())
}

/// Whether `text` begins with a reference to one of the declared names: `t.` or `demux.video_0`.
fn is_reference(text: &str, declared: &HashSet<&str>) -> bool {
    let name = identifier(text);
    let Some(pad) = text[name.len()..].strip_prefix('.') else {
        return false;
    };
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '%');
    declared.contains(name) && ends_word(pad.trim_start_matches(is_part))
}

/// The names in `name=...` of the text.
fn declared_names(text: &str) -> HashSet<&str> {
    let assignments = text.match_indices("name=");
    assignments
        .filter(|(at, _)| text[..*at].ends_with([':', ' ', '\t', '\n']))
        .map(|(at, found)| identifier(text[at + found.len()..].trim_start_matches(['"', '\''])))
        .filter(|name| !name.is_empty())
        .collect()
}

#[cfg(test)]
#[path = "gst_args_tests.rs"]
mod tests;
