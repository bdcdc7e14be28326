//! Removes passwords from launch lines and from GStreamer's messages.

/// Element properties whose value is a secret.
const SECRET_PROPERTIES: [&str; 9] = [
    "user-pw=",
    "proxy-pw=",
    "password=",
    "passphrase=",
    "secret-key=",
    "access-key=",
    "session-token=",
    "auth-token=",
    "token=",
];

/// The text with `***` in place of each password in a URI and each value of a secret property.
pub(super) fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(property) = SECRET_PROPERTIES.iter().find(|property| rest.starts_with(**property)) {
            clean.push_str(property);
            clean.push_str("***");
            rest = after_value(&rest[property.len()..]);
        } else if let Some(authority) = rest.strip_prefix("://") {
            clean.push_str("://");
            let end = authority
                .find(|c: char| matches!(c, '/' | '"' | '\'') || c.is_whitespace())
                .unwrap_or(authority.len());
            rest = authority;
            if let Some(at) = authority[..end].rfind('@')
                && let Some(colon) = authority[..at].find(':')
            {
                clean.push_str(&authority[..colon]);
                clean.push_str(":***");
                rest = &authority[at..];
            }
        } else {
            clean.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    clean
}

/// The text after a property's value, which may be quoted.
fn after_value(text: &str) -> &str {
    let (start, closer): (usize, fn(char) -> bool) = match text.chars().next() {
        Some('"') => (1, |c| c == '"'),
        Some('\'') => (1, |c| c == '\''),
        _ => (0, char::is_whitespace),
    };
    let end = text[start..].find(closer).map_or(text.len(), |end| start + end + start);
    &text[end..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (text, clean) in [
            (
                "rtspsrc location=rtsp://u:secret@h:1/x latency=0",
                "rtspsrc location=rtsp://u:***@h:1/x latency=0",
            ),
            ("a user-pw=secret b", "a user-pw=*** b"),
            (
                "kvssink access-key=\"x y\" secret-key='q' z",
                "kvssink access-key=*** secret-key=*** z",
            ),
            ("rtsp://h:554/a:b@c", "rtsp://h:554/a:b@c"),
            ("password=", "password=***"),
        ] {
            assert_eq!(redact(text), clean);
        }
    }
}
