//! Secrets in configuration text that cannot be parsed: YAML, JSON, options.

use std::ops::Range;

use super::assignments::is_secret;

/// Parts of key names in configuration text whose value is a secret, in any spelling that a person may give them.
const SECRET_WORDS: [&str; 11] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "api-key",
    "api_key",
    "apikey",
    "hmac-key",
    "hmackey",
    "-pw",
];
/// Further names, which are common parts of other words.
const SECRET_PROPERTIES: [&str; 7] = [
    "proxy-pw",
    "secret-key",
    "access-key",
    "access_key",
    "authorization",
    "extra-headers",
    "cookies",
];

/// Whether a key of this name (known or not) may hold a secret, so that its value is not shown.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    is_secret(name) || SECRET_WORDS.iter().any(|word| lower.contains(word))
}

/// Values of secrets, and user info up to the end of its line.
pub(super) fn values(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let lower = text.to_ascii_lowercase();
    for word in SECRET_WORDS.iter().chain(&SECRET_PROPERTIES) {
        // What was found so far ends here: names within it are not looked at again.
        let mut done = 0;
        for (at, _) in lower.match_indices(word) {
            if at >= done {
                let value = value_after(text, at + word.len());
                done = value.end;
                found.push(value);
            }
        }
    }
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        if let (Some(start), Some(end)) = (line.find("://"), line.rfind('@'))
            && start < end
        {
            found.push(line_start + start + 3..line_start + end);
        }
        line_start += line.len();
    }
    found
}

/// Byte range of the value that follows a secret's name ending at `name_end`, in whatever notation it is written.
fn value_after(text: &str, name_end: usize) -> Range<usize> {
    let rest = &text[name_end..];
    // The rest of the name itself (`token_2`), the closing quote, the separator.
    let name = rest
        .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-')))
        .unwrap_or(rest.len());
    let skipped = rest[name..]
        .find(|c: char| !(c.is_whitespace() || matches!(c, '"' | '\'' | ':' | '=')))
        .unwrap_or(0);
    let start = name_end + name + skipped;
    let value = &text[start..];
    let opening = text[..start].chars().next_back().filter(|c| matches!(c, '"' | '\''));
    let length = match (opening, value.chars().next()) {
        // A YAML block text has no end that could be found without parsing.
        (None, Some('|' | '>' | '{' | '[' | '&' | '!')) => value.len(),
        _ => value.find('\n').unwrap_or(value.len()),
    };
    let length = match opening {
        Some(quote) => closing_quote(&value[..length], quote).unwrap_or(length),
        None => length,
    };
    start..start + length
}

/// Where the quoted text ends; a quote after a backslash does not end it.
fn closing_quote(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends.then_some(at)
    })
}
