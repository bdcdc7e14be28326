//! What `tests/fuzz` calls here.

use super::clip::fuzzing as clip;
use super::launch_line::{PreparedLine, decode_source};
use super::{CaptureError, MediaKind, SecretResolver};
use crate::config::SourceLine;

pub use clip::begins_sequence;

/// A launch line, prepared and not given to GStreamer.
#[derive(Debug)]
pub struct Line {
    /// As decoded, with its secrets.
    pub decoded: String,
    /// As it would be given to GStreamer.
    pub launch: String,
    /// Everything that is shown of it.
    pub shown: Vec<String>,
}

/// Decodes and prepares `text`; `resolver` has the secrets that it names.
///
/// # Errors
/// The line cannot be used.
pub fn prepare(text: &str, kind: MediaKind, resolver: Option<&dyn SecretResolver>) -> Result<Line, CaptureError> {
    let source = decode_source(&SourceLine(text.to_owned()))?;
    let prepare = || {
        let mut prepared = PreparedLine::new(&source, kind)?;
        match resolver {
            Some(_) => prepared.insert_secrets(resolver)?,
            None => prepared.without_secrets()?,
        }
        Ok(prepared)
    };
    let prepared = prepare().map_err(|error| source.with_colon_advice(error))?;
    let mut shown = prepared.changes;
    shown.push(prepared.shown);
    shown.push(source.secrets.mask(&source.line));
    Ok(Line {
        decoded: source.line,
        launch: prepared.launch,
        shown,
    })
}
