//! Removes what a shell would have removed from a pasted gst-launch command.

use super::launch_tokens::{closing_indices, split_tokens};

/// Characters that people escape for the shell and that need no escape in a launch line.
const SHELL_CHARACTERS: &str = "()!<>;&|";

/// The launch line in a pasted command: without quotes around the whole text, `gst-launch-1.0` and its options, and the
/// backslashes of a shell.
pub(super) fn unquote(text: &str) -> String {
    let text = with_plain_signs(text);
    let mut text = text.trim();
    while let Some(inner) = quoted_whole(text).or_else(|| quoted_with_escapes(text)) {
        text = inner.trim();
    }
    let text = without_escapes(&without_escaped_quotes(text));
    without_shell_rest(without_command(&text)).trim().to_owned()
}

/// With the space and the quotes of a keyboard in place of those that web pages and text editors write. A typographic quote
/// inside a word stays: a password may have it.
fn with_plain_signs(text: &str) -> String {
    let text = text.replace('\u{a0}', " ");
    let is_space = |c: char| c.is_whitespace();
    let begins_value = |before: &str| {
        before.is_empty() || before.ends_with(is_space) || before.ends_with('=') || before.ends_with("!:")
    };
    let ends_value = |after: &str| after.is_empty() || after.starts_with(is_space) || after.starts_with(":!");
    let plain = |(at, c): (usize, char)| {
        let is_at_edge = || begins_value(&text[..at]) || ends_value(&text[at + c.len_utf8()..]);
        match c {
            '\u{201c}' | '\u{201d}' | '\u{201e}' if is_at_edge() => '"',
            '\u{2018}' | '\u{2019}' if is_at_edge() => '\'',
            c => c,
        }
    };
    text.char_indices().map(plain).collect()
}

/// Without the backslashes before quotes, if all double quotes have one and each is closed: the text was escaped twice, or it
/// stood in double quotes.
fn without_escaped_quotes(text: &str) -> String {
    let escaped = text.matches("\\\"").count();
    if escaped > 0 && escaped.is_multiple_of(2) && escaped == text.matches('"').count() {
        text.replace("\\\"", "\"")
    } else {
        text.to_owned()
    }
}

/// Without what a shell reads behind the command: a comment, a redirection, a pipe, `&`.
fn without_shell_rest(text: &str) -> &str {
    let is_rest = |token: &str| {
        let operator = token.trim_start_matches(|c: char| c.is_ascii_digit());
        matches!(token, "#" | "|" | "||" | "&" | "&&") || operator.starts_with('>')
    };
    let rest = tokens_with_start(text).find(|(_, token)| is_rest(token));
    rest.map_or(text, |(start, _)| &text[..start])
}

/// The tokens of the text, each with its index.
fn tokens_with_start(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut end = 0;
    split_tokens(text).into_iter().map(move |token| {
        let start = end + text[end..].find(token).unwrap_or_default();
        end = start + token.len();
        (start, token)
    })
}

/// The text between quotes that enclose all of it.
fn quoted_whole(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inner.contains(quote)).then_some(inner)
}

/// The same for double quotes where all double quotes between them have a backslash.
fn quoted_with_escapes(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let escaped = inner.matches("\\\"").count();
    (escaped.is_multiple_of(2) && escaped == inner.matches('"').count()).then_some(inner)
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

/// Without a leading `gst-launch-1.0`, its options, and what stands before it: a prompt, `sudo`, variables.
fn without_command(text: &str) -> &str {
    const COMMANDS: [&str; 4] = ["gst-launch-1.0", "gst-launch", "gst-launch-1.0.exe", "gst-launch.exe"];
    const OPTIONS_WITH_VALUE: [&str; 8] = [
        "--gst-debug",
        "--gst-debug-level",
        "--gst-plugin-load",
        "--gst-plugin-path",
        "--exclude",
        "--output",
        "-X",
        "-o",
    ];
    let is_separator = |c: char| c == ':' || c.is_ascii_whitespace();
    let Some(at) = text.find("gst-launch").filter(|at| !text[..*at].contains('!')) else {
        return text;
    };
    let start = text[..at].rfind(is_separator).map_or(0, |before| before + 1);
    let end = text[at..].find(is_separator).map_or(text.len(), |length| at + length);
    if !COMMANDS.contains(&&text[at..end])
        || !(start == at || text[start..at].ends_with('/'))
        || text[start..at].contains('=')
    {
        return text;
    }
    // With white space behind the command a colon belongs to an option: `--gst-debug=v4l2*:5`.
    let is_encoded = text[end..].starts_with(':');
    let separates = |c: char| c.is_ascii_whitespace() || (is_encoded && c == ':');
    let split_word = |text: &'_ str| text.find(separates).unwrap_or(text.len());
    let mut rest = text[end..].trim_start_matches(separates);
    while rest.starts_with('-') {
        let option = &rest[..split_word(rest)];
        rest = rest[option.len()..].trim_start_matches(separates);
        if OPTIONS_WITH_VALUE.contains(&option) {
            rest = rest[split_word(rest)..].trim_start_matches(separates);
        }
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
    let mut text = String::with_capacity(line.len());
    let mut done = 0;
    // In `caps = "a, b"` the quotes belong to the value.
    let mut is_value = false;
    for (start, token) in tokens_with_start(line) {
        if let Some(inner) = unquoted(token).filter(|_| !is_value) {
            text.push_str(&line[done..start]);
            text.push_str(&inner);
            done = start + token.len();
        }
        is_value = token.ends_with('=');
    }
    text.push_str(&line[done..]);
    text
}
