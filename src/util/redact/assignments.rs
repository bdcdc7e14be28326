//! Values of properties, options and headers whose name says that they are secret.

use std::ops::Range;

use super::STARS;

/// Ends of the names of secrets, in lower case and without `-` and `_`: `user-pw`, `pubPasswd`, `secret-key`, `X-Amz-Signature`.
const SECRET_ENDINGS: [&str; 16] = [
    "pw",
    "pwd",
    "passwd",
    "password",
    "passphrase",
    "psk",
    "token",
    "secret",
    "key",
    "keyid",
    "cookie",
    "cookies",
    "authorization",
    "signature",
    "headers",
    "credential",
];
/// Whole names of secrets.
const SECRET_NAMES: [&str; 11] = [
    "bearer",
    "sig",
    "jwt",
    "pass",
    "credentials",
    "sas",
    "pincode",
    "userpass",
    "loginpass",
    "loginpas",
    "usrpass",
];
/// Values of `pass` that `x264enc` and other encoders take.
const ENCODER_PASSES: [&str; 6] = ["cbr", "quant", "qual", "pass1", "pass2", "pass3"];
/// Words between the name `Authorization` and the secret.
const AUTHORIZATION_SCHEMES: [&str; 6] = ["bearer", "basic", "digest", "token", "apikey", "negotiate"];

/// Whether a property, option or header of this name is secret.
pub(super) fn is_secret(name: &str) -> bool {
    let name = normalized(name);
    SECRET_ENDINGS.iter().any(|ending| name.ends_with(ending)) || SECRET_NAMES.contains(&name.as_str())
}

/// In lower case, without the parts before the last `.` or `:`, and without `-` and `_`.
fn normalized(name: &str) -> String {
    let name = name.rsplit(['.', ':']).next().unwrap_or_default();
    name.chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// Byte ranges of secret values: `name=value` with or without white space and quotes, `"name": value`, `Name: value`,
/// `--name value`, `user-pw value`. No name is looked for in the ranges `skipped`, which are in order.
pub(super) fn values(text: &str, skipped: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut skipped = skipped.iter().peekable();
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut done = 0;
    for (at, sign) in text.match_indices(['=', ':', ' ', '\t', '\n']) {
        while skipped.next_if(|range| range.end <= at).is_some() {}
        if at < done || skipped.peek().is_some_and(|range| range.start <= at) {
            continue;
        }
        let start = match sign {
            "=" => after_equals(text, at),
            ":" => after_colon(text, at),
            _ => after_space(text, at),
        };
        if let Some(start) = start {
            let end = match sign {
                ":" if is_cookie_header(text, at) => line_end(text, start),
                _ => value_end(text, start),
            };
            found.push(start..end);
            done = end;
        }
    }
    found
}

/// The name that ends at the end of `text`, which may be quoted and followed by white space.
fn name_before(text: &str) -> (&str, bool) {
    let text = text.trim_end_matches([' ', '\t']);
    let bare = text.trim_end_matches(['"', '\'', '\\']);
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (&bare[bare.trim_end_matches(is_part).len()..], bare.len() < text.len())
}

fn after_equals(text: &str, at: usize) -> Option<usize> {
    let (name, _) = name_before(&text[..at]);
    if !is_secret(name) {
        return None;
    }
    let start = skip(text, at + 1, |c| c.is_whitespace() || c == '=');
    let value = &text[start..];
    let is_harmless = match normalized(name).as_str() {
        "pass" => {
            let word = value.split([' ', ':', '\t', '\n']).next().unwrap_or_default();
            word.len() < 2 || ENCODER_PASSES.contains(&word)
        }
        // The placeholder in usage texts.
        "key" => name == "KEY" && value.starts_with("VALUE"),
        // The path of a file.
        "iotkey" => value.starts_with(['/', '.']),
        _ => false,
    };
    (!is_harmless && !value.is_empty()).then_some(start)
}

/// `"name": value` of JSON, `Name: value` of HTTP, `name:value`. Prose such as `the key: ...` is none of these.
fn after_colon(text: &str, at: usize) -> Option<usize> {
    let (name, is_quoted) = name_before(&text[..at]);
    let normal = normalized(name);
    if !is_secret(name) || text[at..].starts_with("::") || normal == "iotkey" {
        return None;
    }
    let start = skip(text, at + 1, char::is_whitespace);
    let is_spaced = start > at + 1;
    let is_compound =
        name.contains(['-', '_']) || name.chars().any(|c| c.is_ascii_lowercase()) && has_inner_capital(name);
    let is_header = normal.ends_with("authorization") || normal.ends_with("cookie");
    // `arn:aws:secretsmanager:eu-west-1:123456789012:secret:NAME`, `{{secret:NAME:KEY}}`
    let is_arn = normal == "secret" && !is_quoted;
    let is_value = is_quoted || is_header || is_compound || !is_spaced;
    (is_value && !is_arn && start < text.len() && !text[start..].starts_with('!')).then_some(start)
}

/// Whether the colon at `at` stands behind the name of a header that has several cookies.
fn is_cookie_header(text: &str, at: usize) -> bool {
    let (name, is_quoted) = name_before(&text[..at]);
    !is_quoted && normalized(name).ends_with("cookie")
}

fn line_end(text: &str, start: usize) -> usize {
    text[start..].find('\n').map_or(text.len(), |length| start + length)
}

fn has_inner_capital(name: &str) -> bool {
    name.chars().skip(1).any(|c| c.is_ascii_uppercase())
}

/// `--api-key value`, `user-pw value`, `Bearer value`.
fn after_space(text: &str, at: usize) -> Option<usize> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let before = &text[..at];
    let name = &before[before.trim_end_matches(is_part).len()..];
    let bare = name.trim_start_matches('-');
    let is_option = bare.len() < name.len() && is_secret(bare);
    let is_property = matches!(
        bare,
        "user-pw" | "proxy-pw" | "secret-key" | "access-key" | "session-token"
    );
    let start = skip(text, at, char::is_whitespace);
    let value = &text[start..];
    // `the password "..." was refused`
    let is_quoted_word = matches!(
        normalized(bare).as_str(),
        "password" | "passwd" | "passphrase" | "userpw"
    ) && value.starts_with(['"', '\'']);
    if !(is_option || is_property || is_quoted_word || bare.eq_ignore_ascii_case("bearer")) {
        return None;
    }
    (!value.is_empty() && !value.starts_with(['=', '!', ':']) && !value.starts_with("--")).then_some(start)
}

fn skip(text: &str, from: usize, skipped: impl Fn(char) -> bool) -> usize {
    text.len() - text[from..].trim_start_matches(skipped).len()
}

/// The end of the value that starts at `start`; with the word behind it where the first one only names a scheme (`Bearer`).
fn value_end(text: &str, start: usize) -> usize {
    let end = start + unmasked_length(&text[start..]);
    let value = text[start..end]
        .trim_start_matches("(string)")
        .trim_matches(['"', '\'']);
    if AUTHORIZATION_SCHEMES
        .iter()
        .any(|scheme| value.eq_ignore_ascii_case(scheme))
    {
        let next = skip(text, end, |c| matches!(c, ' ' | '\t'));
        return next + unmasked_length(&text[next..]);
    }
    end
}

/// As [`value_length`]; a value that is masked already ends behind its stars.
fn unmasked_length(value: &str) -> usize {
    match value.strip_prefix(STARS) {
        Some(rest) if !rest.starts_with(char::is_alphanumeric) => STARS.len(),
        _ => value_length(value),
    }
}

/// Bytes of a property's value: a quoted or bracketed text, or up to white space or a colon of `gst_args` that ends the word.
/// Quotes and brackets after a type count too: `(string)"a b"`. What is never closed goes on to the end of the text.
pub(super) fn value_length(value: &str) -> usize {
    let bytes = value.as_bytes();
    let starts_quoted = value.starts_with(['"', '\'']);
    let (mut at, mut can_open) = (0, true);
    while let Some(&byte) = bytes.get(at) {
        if can_open && let Some(end) = end_of_group(value, at) {
            let is_whole = at == 0 && starts_quoted;
            at = end;
            if is_whole && bytes.get(at).is_some_and(|byte| b",}]):;".contains(byte)) {
                return at;
            }
            can_open = false;
        } else if byte.is_ascii_whitespace() {
            // A list of headers goes on after a comma, and a value after its type.
            let goes_on = value[..at].ends_with(',') || matches!(&value[..at], "(string)" | "(GStrv)");
            if !goes_on {
                break;
            }
            at += 1;
        } else if byte == b':' && begins_word(&bytes[at + 1..]) {
            break;
        } else {
            can_open = matches!(byte, b')' | b'=' | b',');
            // An escaped space belongs to the value.
            at += 1 + usize::from(byte == b'\\' && bytes.get(at + 1).is_some_and(u8::is_ascii));
        }
    }
    let mut end = at.min(bytes.len());
    while !value.is_char_boundary(end) {
        end += 1;
    }
    if starts_quoted {
        return end;
    }
    without_enclosing(value, end)
}

/// The end without quotes and brackets that were opened before the name.
fn without_enclosing(value: &str, mut end: usize) -> usize {
    for _ in 0..4 {
        let opener = match value[..end].chars().next_back() {
            Some('}') => '{',
            Some(']') => '[',
            Some(quote @ ('"' | '\'' | '`')) => quote,
            _ => break,
        };
        if end < 2 || value[..end - 1].contains(opener) {
            break;
        }
        end -= 1;
    }
    end
}

/// Index behind the quoted or bracketed text that begins at `at`, if one does.
fn end_of_group(value: &str, at: usize) -> Option<usize> {
    let bytes = value.as_bytes();
    let closer = match bytes[at] {
        quote @ (b'"' | b'\'') => quote,
        b'{' => b'}',
        b'[' => b']',
        b'<' => b'>',
        b'\\' => {
            let inner = value[at..].strip_prefix("\\\"")?;
            return Some(inner.find("\\\"").map_or(bytes.len(), |end| at + end + 4));
        }
        _ => return None,
    };
    Some(closing(bytes, at, closer))
}

/// Index behind the byte that closes what opens at `at`.
fn closing(bytes: &[u8], at: usize, closer: u8) -> usize {
    let mut end = at + 1;
    while let Some(&byte) = bytes.get(end) {
        match byte {
            b'\\' => end += 1,
            _ if byte == closer => return end + 1,
            _ => {}
        }
        end += 1;
    }
    bytes.len()
}

/// Whether a word of `gst_args` begins here: a link, or `name=` of at least three lower-case letters.
fn begins_word(rest: &[u8]) -> bool {
    if rest.first() == Some(&b'!') {
        return rest
            .get(1)
            .is_none_or(|byte| *byte == b':' || byte.is_ascii_whitespace());
    }
    let name = rest
        .iter()
        .take(64)
        .take_while(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
        .count();
    name >= 3 && rest[0].is_ascii_lowercase() && rest.get(name) == Some(&b'=')
}
