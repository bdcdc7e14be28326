//! File names of pairs that wait for S3: `<number>-<id>.img` (`.mp4` for a clip) and `<number>-<id>.json`, with `.part` added
//! while being written.

use uuid::Uuid;

use crate::cache::names::{self, PairPart, pair_id};
use crate::util::path_names::file_number;

const UNFINISHED: &str = ".part";

/// A file that this component writes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PendingFile {
    Json(u64, Uuid),
    /// The picture or the clip.
    Image(u64, Uuid, PairPart),
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
    let (number, id) = (file_number(number)?, pair_id(id)?);
    match extension {
        "json" => Some(PendingFile::Json(number, id)),
        "img" => Some(PendingFile::Image(number, id, PairPart::Image)),
        "mp4" => Some(PendingFile::Image(number, id, PairPart::Clip)),
        _ => None,
    }
}

/// Name of one part.
pub(super) fn file_name(number: u64, id: Uuid, part: PairPart) -> String {
    format!("{number:012}-{}", names::file_name(id, part))
}

/// Name of a file while it is being written.
pub(super) fn unfinished(name: &str) -> String {
    format!("{name}{UNFINISHED}")
}
