//! Taking credentials out of text that is about to be shown.

/// What stands in place of a secret.
pub(crate) const STARS: &str = "***";

/// Key names in configuration text whose value is a secret, in any spelling that a person may give them.
const SECRET_WORDS: [&str; 7] = ["token", "secret", "password", "passwd", "api-key", "api_key", "apikey"];

/// Properties of GStreamer elements that hold a secret (`rtspsrc user-pw`, `kvssink secret-key`).
const SECRET_PROPERTIES: [&str; 7] = [
    "user-pw",
    "proxy-pw",
    "password",
    "passphrase",
    "secret-key",
    "access-key",
    "session-token",
];

/// The text with the user info of each URL and the value of each secret element property replaced by `***`.
pub(crate) fn credentials(text: &str) -> String {
    mask_properties(&mask_user_info(text))
}

/// As [`credentials`], of a value that is not usable: it may be a URL without its scheme, so all before the last `@` is hidden.
pub(crate) fn refused(text: &str) -> String {
    match text.rfind('@') {
        Some(at) if !text.contains("://") => format!("{STARS}{}", mask_properties(text.get(at..).unwrap_or_default())),
        _ => credentials(text),
    }
}

/// Whether a key of this name (known or not) may hold a secret, so that its value is not shown.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// `scheme://user:password@host` becomes `scheme://***@host`. A password may hold anything, so everything from the first
/// `://` to the last `@` is hidden: too much of a line with two URLs, never too little.
fn mask_user_info(text: &str) -> String {
    let masked = || {
        let (before, after) = text.split_at_checked(text.find("://")? + 3)?;
        Some(format!("{before}{STARS}{}", after.get(after.rfind('@')?..)?))
    };
    masked().unwrap_or_else(|| text.to_owned())
}

/// `user-pw=abc` becomes `user-pw=***`, up to white space, a quote, or the `:` that ends a word of `gst_args`.
fn mask_properties(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let named = |property| {
        lower
            .match_indices(property)
            .map(|(at, name): (usize, &str)| at + name.len())
    };
    let mut values: Vec<_> = SECRET_PROPERTIES
        .into_iter()
        .flat_map(named)
        .filter_map(|end| property_value(text, end))
        .collect();
    values.sort_unstable();
    let mut shown = String::with_capacity(text.len());
    let mut done = 0;
    for (start, end) in values {
        // A value within one that is hidden already.
        let Some(between) = text.get(done..start) else { continue };
        shown.push_str(between);
        shown.push_str(STARS);
        done = end;
    }
    shown.push_str(text.get(done..).unwrap_or_default());
    shown
}

/// Byte range of the value of the property whose name ends at `name_end`; `None` when no `=` and no value follow.
fn property_value(text: &str, name_end: usize) -> Option<(usize, usize)> {
    let value = text.get(name_end..)?.trim_start().strip_prefix('=')?.trim_start();
    let start = text.len() - value.len();
    (!value.is_empty()).then(|| (start, start + value_length(value)))
}

/// Bytes of a property's value: a quoted text with its quotes, or up to white space or `:`.
fn value_length(value: &str) -> usize {
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value
            .get(1..)
            .and_then(|rest| rest.find(quote))
            .map_or(value.len(), |end| end + 2),
        _ => value
            .find(|c: char| c.is_whitespace() || c == ':')
            .unwrap_or(value.len()),
    }
}

/// The text with everything that may be a secret replaced by as many `*`, so that lines and columns stay where they are.
/// For showing an offending line of text that could not be parsed.
pub(crate) fn in_place(text: &str) -> String {
    let mut hidden = vec![false; text.len()];
    let lower = text.to_ascii_lowercase();
    for word in SECRET_WORDS.iter().chain(&SECRET_PROPERTIES) {
        // What was found so far ends here: names within it are not looked at again.
        let mut done = 0;
        for (at, _) in lower.match_indices(word) {
            if at >= done {
                let (start, end) = secret_after(text, at + word.len());
                hidden[start..end].fill(true);
                done = end;
            }
        }
    }
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        if let (Some(start), Some(end)) = (line.find("://"), line.rfind('@'))
            && start < end
        {
            hidden[line_start + start + 3..line_start + end].fill(true);
        }
        line_start += line.len();
    }
    text.char_indices()
        .map(|(at, c)| if hidden[at] && !c.is_whitespace() { '*' } else { c })
        .collect()
}

/// Byte range of the value that follows a secret's name ending at `name_end`, in whatever notation it is written.
fn secret_after(text: &str, name_end: usize) -> (usize, usize) {
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
    (start, start + length)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn user_info_in_urls_is_hidden_and_the_host_is_not() {
        assert_eq!(credentials("mqtt://me:se@cr/et@host:1883"), "mqtt://***@host:1883");
        assert_eq!(credentials("mqtts://host:8883/a"), "mqtts://host:8883/a");
        assert_eq!(refused("mqtt://me:se@cret@host:1883"), "mqtt://***@host:1883");
        assert_eq!(refused("me:se@cret@host:1883"), "***@host:1883");
        assert_eq!(
            credentials("rtspsrc:location=rtsp://u:p@10.0.0.5:8554/cam:latency=0"),
            "rtspsrc:location=rtsp://***@10.0.0.5:8554/cam:latency=0"
        );
        assert_eq!(credentials("a rtsp://u:p@h/x ! b http://v:q@i"), "a rtsp://***@i");
    }

    #[test]
    fn secret_properties_of_elements_are_hidden() {
        assert_eq!(
            credentials("rtspsrc user-id=me user-pw=hush ! kvssink secret-key=\"a b\" stream-name=s"),
            "rtspsrc user-id=me user-pw=*** ! kvssink secret-key=*** stream-name=s"
        );
        assert_eq!(
            credentials("kvssink:access-key=AK:storage-size=5"),
            "kvssink:access-key=***:storage-size=5"
        );
    }

    #[test]
    fn masking_in_place_keeps_lines_and_columns() {
        let text = "{\n \"preview_token\": \"hush\" \"x\",\n \"iot_endpoint\": \"mqtt://me:pw@h\"\n}";
        let shown = in_place(text);
        assert_eq!(shown.chars().count(), text.chars().count());
        assert!(!shown.contains("hush") && !shown.contains("pw"), "{shown}");
        assert!(shown.contains("\"x\"") && shown.contains("@h\""), "{shown}");
    }

    #[test]
    fn masking_in_place_finds_the_value_in_yaml_and_in_options() {
        for text in [
            "preview_token: hush",
            "preview_token:\n  hush",
            "preview_token: |\n  a\n  hush",
            "\"eiparams\": \"--silent --api-key hush",
            "eiparams: --api-key=hush",
            "eiparams: --api-key 'hush'",
        ] {
            assert!(!in_place(text).contains("hush"), "{text} -> {}", in_place(text));
        }
    }

    #[test]
    fn long_text_full_of_secrets_is_masked_in_linear_time() {
        let start = std::time::Instant::now();
        for text in ["token", "token:", "user-pw=x ", "password = ", "a://b@ ", "://"] {
            let text = text.repeat((1 << 20) / text.len());
            credentials(&text);
            in_place(&text);
        }
        assert!(
            start.elapsed() < std::time::Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
    }

    proptest! {
        #[test]
        fn any_text_can_be_masked(text in "(?s).{0,80}", start in "(token|://|user-pw=|api-key:)?") {
            let text = format!("{start}{text}");
            credentials(&text);
            prop_assert_eq!(in_place(&text).chars().count(), text.chars().count());
        }
    }
}
