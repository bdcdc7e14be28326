//! The layers of a configuration, as the command line passes them.

use std::path::PathBuf;

use super::error::{ConfigError, TextOrigin};

/// Everything that a configuration is loaded from.
#[derive(Clone, Default)]
pub struct Sources {
    /// The configuration text. `--config` wins over the environment: the caller passes one of them.
    pub text: Option<(TextOrigin, String)>,
    /// `--set key=value`, in the order given, as made by [`parse_set`].
    pub sets: Vec<(String, String)>,
    /// `--model FILE`
    pub model: Option<String>,
    /// `--mqtt URL`
    pub mqtt: Option<String>,
    /// `--gst LINE`
    pub gst: Option<String>,
    /// The current directory: the default of `work_dir`.
    pub current_dir: PathBuf,
}

/// Splits the word of a `--set` at its first `=`.
///
/// # Errors
/// [`ConfigError::Set`] without a `=`, or without a key before it.
pub fn parse_set(word: &str) -> Result<(String, String), ConfigError> {
    match word.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => {
            let end = word
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(word.len());
            Err(ConfigError::Set {
                word: word.get(..end).unwrap_or_default().to_owned(),
            })
        }
    }
}
