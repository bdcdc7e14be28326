//! Removes what a shell would have removed from a pasted gst-launch command.

use super::launch_tokens::{closing_indices, split_tokens};

/// Characters that people escape for the shell and that need no escape in a launch line.
const SHELL_CHARACTERS: &str = "()!<>;&|";

/// The launch line in a pasted command: without quotes round the whole, `gst-launch-1.0` and its options, and the backslashes
/// of a shell.
pub(super) fn unquote(text: &str) -> String {
    let mut text = text.trim();
    while let Some(inner) = quoted_whole(text) {
        text = inner.trim();
    }
    without_command(&without_escapes(text)).trim().to_owned()
}

/// What is between quotes that enclose the whole text.
fn quoted_whole(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inner.contains(quote)).then_some(inner)
}

/// Without backslashes before a line break or before a character that is special only to a shell. Quoted text stays.
fn without_escapes(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    let closed_by = closing_indices(text);
    let mut characters = text.char_indices().peekable();
    let mut quoted_until = 0;
    while let Some((at, c)) = characters.next() {
        if matches!(c, '"' | '\'') && at >= quoted_until && closed_by[at] > 0 {
            quoted_until = closed_by[at] + 1;
        }
        let next = characters.peek().map(|(_, next)| *next);
        match next {
            Some(next) if c == '\\' && at >= quoted_until && SHELL_CHARACTERS.contains(next) => {}
            Some('\n' | '\r') if c == '\\' => {
                characters.next();
                line.push(' ');
            }
            Some('\\') if c == '\\' => {
                characters.next();
                line.push_str("\\\\");
            }
            _ => line.push(c),
        }
    }
    line
}

/// Without a leading `gst-launch-1.0`, the variables before it and its options.
fn without_command(text: &str) -> &str {
    let is_separator = |c: char| c == ':' || c.is_ascii_whitespace();
    let first = |text: &str| text.find(is_separator).unwrap_or(text.len());
    let mut rest = text;
    // `sudo`, `GST_DEBUG=3`
    loop {
        let word = &rest[..first(rest)];
        let is_variable = word
            .split_once('=')
            .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
        if !(is_variable || word == "sudo") {
            break;
        }
        rest = rest[word.len()..].trim_start_matches(is_separator);
    }
    let command = &rest[..first(rest)];
    if !command
        .rsplit('/')
        .next()
        .is_some_and(|name| matches!(name, "gst-launch-1.0" | "gst-launch"))
    {
        return text;
    }
    rest = rest[command.len()..].trim_start_matches(is_separator);
    while rest.starts_with('-') {
        rest = rest[first(rest)..].trim_start_matches(is_separator);
    }
    rest
}

/// Without the quotes of words that a shell would have removed: quoted caps, and quoted assignments as a whole.
pub(super) fn unquote_nodes(line: &str) -> String {
    let unquoted = |token: &str| -> Option<String> {
        let inner = quoted_whole(token)?;
        let name = inner.split(['=', ',', '(', ' ']).next()?;
        if name.contains('/') || !inner.contains(['=', ' ']) {
            return Some(inner.to_owned());
        }
        let (name, value) = inner.split_once('=')?;
        Some(if value.contains(|c: char| c.is_ascii_whitespace()) {
            format!("{name}=\"{value}\"")
        } else {
            format!("{name}={value}")
        })
    };
    let mut text = line.to_owned();
    for token in split_tokens(line) {
        if let Some(inner) = unquoted(token) {
            text = text.replacen(token, &inner, 1);
        }
    }
    text
}
