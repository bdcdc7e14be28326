//! Types for text that must not be printed, or not completely.

use std::fmt;
use std::ops::Deref;

use super::redact;

/// A secret (API key, password, token). Every format prints `***`; only [`Secret::reveal`] returns the text.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Text that may contain credentials, such as a URL or a pipeline. `Debug` and `Display` show them as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Redacted(String);

impl From<String> for Redacted {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// The text with its credentials.
impl Deref for Redacted {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&redact::credentials(&self.0), f)
    }
}

impl fmt::Display for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact::credentials(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redacted_text_prints_without_its_credentials() {
        let url = Redacted::from("mqtt://me:hush@host:1883".to_owned());
        assert_eq!(
            format!("{url} {url:?}"),
            "mqtt://me:***@host:1883 \"mqtt://me:***@host:1883\""
        );
        assert_eq!(&*url, "mqtt://me:hush@host:1883");
    }

    #[test]
    fn a_secret_prints_as_stars() {
        let secret = Secret::new("ei_123");
        assert_eq!(
            format!("{secret} {secret:?} {:#?}", Some(&secret)),
            "*** *** Some(\n    ***,\n)"
        );
        assert_eq!(secret.reveal(), "ei_123");
    }
}
