//! Secrets that are recognised by what they look like, wherever they stand.

use std::ops::Range;

/// Edge Impulse API keys (`ei_...`), private keys in PEM, and long random text such as session tokens.
pub(super) fn find(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    found.extend(pem(text));
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '_' | '-');
    let mut end = 0;
    while let Some(start) = text[end..].find(is_part).map(|at| end + at) {
        end = start + text[start..].find(|c| !is_part(c)).unwrap_or(text.len() - start);
        let run = &text[start..end];
        if is_random(run) {
            found.push(start..end);
        } else {
            found.extend(api_keys(run).map(|key| start + key.start..start + key.end));
        }
    }
    found
}

/// `ei_` and at least six letters and digits. The names of this program's keys (`ei_sm_secret_id`) have no digit.
fn api_keys(run: &str) -> impl Iterator<Item = Range<usize>> {
    run.match_indices("ei_").filter_map(|(at, prefix)| {
        let start = at + prefix.len();
        let rest = &run[start..];
        let key = &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len())];
        let is_whole = !run[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let has_digit = key.contains(|c: char| c.is_ascii_digit());
        (is_whole && (key.len() >= 6 && has_digit || key.len() >= 16)).then_some(at..start + key.len())
    })
}

/// Whether the text is too long and too mixed for a name or a path: base64 of a key or a session token.
fn is_random(run: &str) -> bool {
    let count = |condition: fn(&u8) -> bool| run.as_bytes().iter().filter(|byte| condition(byte)).count();
    run.len() >= 64
        && count(u8::is_ascii_uppercase) >= 4
        && count(u8::is_ascii_lowercase) >= 4
        && count(u8::is_ascii_digit) >= 4
        && count(|byte| matches!(byte, b'/' | b'-' | b'_')) <= run.len() / 16
}

/// From the first `-----BEGIN` to the end of the last `-----END ...-----`, or of the text.
fn pem(text: &str) -> Option<Range<usize>> {
    const BEGIN: &str = "-----BEGIN";
    const DASHES: &str = "-----";
    let start = text.find(BEGIN)?;
    let end = text.rfind("-----END").filter(|end| *end > start).and_then(|at| {
        let label = at + DASHES.len();
        text[label..].find(DASHES).map(|end| label + end + DASHES.len())
    });
    Some(start..end.unwrap_or(text.len()))
}
