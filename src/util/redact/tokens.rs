//! Secrets that are recognised by what they look like, wherever they stand.

use std::ops::Range;

/// Beginnings of tokens of well-known services, without the characters behind them.
const PREFIXES: [&str; 8] = [
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "whsec_",
];

/// Edge Impulse API keys (`ei_...`), AWS access keys, private keys in PEM, JSON web tokens, and long random text such as session
/// tokens.
pub(super) fn find(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    found.extend(pem(text));
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '_' | '-');
    let mut end = 0;
    while let Some(start) = text[end..].find(is_part).map(|at| end + at) {
        end = start + text[start..].find(|c| !is_part(c)).unwrap_or(text.len() - start);
        let run = &text[start..end];
        if is_random(run) || is_access_key(run) || PREFIXES.iter().any(|prefix| is_token_of(run, prefix)) {
            found.push(start..end);
        } else if is_header_of_web_token(run) && text[end..].starts_with('.') {
            let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            end += text[end..].find(|c| !is_part(c)).unwrap_or(text.len() - end);
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

/// `AKIA...` of a user, `ASIA...` of a role: 20 capitals and digits.
fn is_access_key(run: &str) -> bool {
    (16..=128).contains(&run.len())
        && (run.starts_with("AKIA") || run.starts_with("ASIA"))
        && run
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

fn is_token_of(run: &str, prefix: &str) -> bool {
    run.starts_with(prefix) && run.len() >= prefix.len() + 16
}

/// The base64 of `{"alg"` or of another object.
fn is_header_of_web_token(run: &str) -> bool {
    run.starts_with("eyJ") && run.len() >= 16
}

/// Whether the text is too long and too mixed for a name or a path: base64 of a key or a session token.
fn is_random(run: &str) -> bool {
    // The session of a role is the id of a certificate: `assumed-role/Role/0123...`
    let is_id = |part: &&str| part.len() >= 32 && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let run = run.split('/').filter(|part| !is_id(part)).collect::<Vec<_>>().join("/");
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
