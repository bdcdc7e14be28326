//! `{{secret:NAME:KEY}}`: the name of a secret of AWS Secrets Manager in place of the secret itself.

use std::fmt;
use std::ops::Range;

const OPENING: &str = "{{";
const CLOSING: &str = "}}";
/// The first word of a reference.
const PREFIX: &str = "secret";
/// Parts of `arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME`, which colons separate.
const ARN_PARTS: usize = 7;

/// How a reference is written, for messages.
pub(crate) const NOTATION: &str = "{{secret:NAME:KEY}}, or {{secret:NAME}} for a secret that is plain text; NAME is the \
                                   name or the ARN of a secret in AWS Secrets Manager";

/// A secret, or one value of a secret that is a JSON object. Displays as `{{secret:NAME:KEY}}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretReference {
    /// Name or ARN of the secret.
    pub id: String,
    /// The key of the JSON object; `None`: the whole text.
    pub key: Option<String>,
}

/// A place in a text that begins as a reference does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundReference {
    /// Bytes of the text, with the braces.
    pub range: Range<usize>,
    /// `None`: it is not complete or names no secret.
    pub reference: Option<SecretReference>,
}

impl SecretReference {
    /// All references in the text, in order.
    pub(crate) fn find_all(text: &str) -> Vec<FoundReference> {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(start) = text[at..].find(OPENING).map(|index| at + index) {
            let content = start + OPENING.len();
            at = content;
            if !begins_reference(&text[content..]) {
                continue;
            }
            let end = text[content..].find(CLOSING).map(|index| content + index);
            found.push(FoundReference {
                range: start..end.map_or(text.len(), |end| end + CLOSING.len()),
                reference: end.and_then(|end| Self::parse(&text[content..end])),
            });
            at = end.unwrap_or(text.len());
        }
        found
    }

    /// Reads `secret:NAME:KEY`. The name of a secret holds no colon, its ARN holds six.
    fn parse(content: &str) -> Option<Self> {
        let (_, content) = content.split_once(':')?;
        let content = content.trim();
        let id_length = if content.starts_with("arn:") {
            let (at, _) = content
                .match_indices(':')
                .nth(ARN_PARTS - 1)
                .unwrap_or((content.len(), ""));
            let is_complete = content[..at].split(':').filter(|part| !part.is_empty()).count() == ARN_PARTS;
            is_complete.then_some(at)?
        } else {
            content.find(':').unwrap_or(content.len())
        };
        let (id, key) = content.split_at(id_length);
        let (id, key) = (id.trim(), key.trim_start_matches(':').trim());
        let is_id = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-:".contains(c);
        (!id.is_empty() && id.len() <= 2048 && id.chars().all(is_id)).then(|| Self {
            id: id.to_owned(),
            key: (!key.is_empty()).then(|| key.to_owned()),
        })
    }
}

fn begins_reference(content: &str) -> bool {
    let content = content.trim_start();
    let is_prefix = content
        .get(..PREFIX.len())
        .is_some_and(|word| word.eq_ignore_ascii_case(PREFIX));
    is_prefix && content[PREFIX.len()..].trim_start().starts_with(':')
}

impl fmt::Display for SecretReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{{{{secret:{}:{key}}}}}", self.id),
            None => write!(f, "{{{{secret:{}}}}}", self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(String, Option<String>)> {
        let found = SecretReference::find_all(text);
        assert_eq!(found.len(), 1, "{text}");
        let reference = found.into_iter().next()?.reference?;
        Some((reference.id, reference.key))
    }

    #[test]
    fn a_reference_names_a_secret_by_name_or_arn_and_maybe_a_key() {
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:site/cam-AbCdEf";
        for (text, id, key) in [
            ("{{secret:cam:password}}", "cam", Some("password")),
            ("a {{secret:site/cam}} b", "site/cam", None),
            ("{{ Secret : cam : my key }}", "cam", Some("my key")),
            ("{{secret:cam:a:b}}", "cam", Some("a:b")),
            (&format!("{{{{secret:{arn}:password}}}}"), arn, Some("password")),
            (&format!("{{{{secret:{arn}}}}}"), arn, None),
        ] {
            assert_eq!(parsed(text), Some((id.to_owned(), key.map(str::to_owned))), "{text}");
        }
    }

    #[test]
    fn what_names_no_secret_is_found_and_not_read() {
        for text in [
            "{{secret:}}",
            "{{secret:cam:password}",
            "{{secret:cam password}}",
            "{{secret:arn:aws:secretsmanager:eu-west-1:1}}",
            "{{secret::key}}",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
        for text in ["{{cam}}", "{secret:cam:key}", "{{secrets:a}}", "{{", "{{{{"] {
            assert_eq!(SecretReference::find_all(text), [], "{text}");
        }
    }

    #[test]
    fn several_references_are_found_in_order_and_shown_as_they_are_written() {
        let text = "rtsp://{{secret:cam:user}}:{{secret:cam:pw}}@h";
        let found = SecretReference::find_all(text);
        let shown: Vec<_> = found
            .iter()
            .map(|found| {
                (
                    &text[found.range.clone()],
                    found.reference.as_ref().unwrap().to_string(),
                )
            })
            .collect();
        assert_eq!(shown.len(), 2);
        assert!(shown.iter().all(|(written, shown)| written == shown), "{shown:?}");
    }
}
