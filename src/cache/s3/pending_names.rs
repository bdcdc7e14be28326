//! File names of pairs that wait for S3: `<number>-<id>.img` and `<number>-<id>.json`, with `.part` added while being written.

use uuid::Uuid;

use crate::cache::names::pair_id;

const UNFINISHED: &str = ".part";

/// A file that this component writes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PendingFile {
    Json(u64, Uuid),
    Image(u64, Uuid),
    /// A file of an interrupted write.
    Unfinished,
}

/// Recognises a file by its name.
pub(super) fn parse(name: &str) -> Option<PendingFile> {
    if let Some(inner) = name.strip_suffix(UNFINISHED) {
        return parse(inner).map(|_| PendingFile::Unfinished);
    }
    let (stem, extension) = name.split_once('.')?;
    let (number, id) = stem.split_once('-')?;
    let (number, id) = (number.parse().ok()?, pair_id(id)?);
    match extension {
        "json" => Some(PendingFile::Json(number, id)),
        "img" => Some(PendingFile::Image(number, id)),
        _ => None,
    }
}

/// Name of one part, `img` or `json`.
pub(super) fn file_name(number: u64, id: Uuid, extension: &str) -> String {
    format!("{number:012}-{id}.{extension}")
}

/// Name of a file while it is being written.
pub(super) fn unfinished(name: &str) -> String {
    format!("{name}{UNFINISHED}")
}
