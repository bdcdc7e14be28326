//! File names of pairs and clips. Only files with exactly such a name are counted or removed.

use std::ffi::OsStr;

use uuid::Uuid;

/// Marks a file that is being written: `.<id>.img.part`.
const UNFINISHED: &str = ".part";

/// One of the two files of a pair, or the only file of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairPart {
    /// The JPEG, `<id>.img`.
    Image,
    /// The message, `<id>.json`.
    Json,
    /// The clip of an event, `<id>.mp4`.
    Clip,
}

impl PairPart {
    fn extension(self) -> &'static str {
        match self {
            Self::Image => "img",
            Self::Json => "json",
            Self::Clip => "mp4",
        }
    }
}

/// What files belong to. Pairs and clips may be in the same directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    /// Pairs of picture and message.
    Pairs,
    /// Clips of events.
    Clips,
}

/// A file that this component writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KnownFile {
    /// A part of the pair with this id, or the clip of the event with this id.
    Complete(Uuid),
    /// A file of an interrupted write.
    Unfinished,
}

/// File name of a part, without directory.
pub fn file_name(id: Uuid, part: PairPart) -> String {
    format!("{id}.{}", part.extension())
}

/// Name of a part while it is being written.
pub(super) fn unfinished_name(id: Uuid, part: PairPart) -> String {
    format!(".{}{UNFINISHED}", file_name(id, part))
}

/// Parses the id of a pair: a random (version 4) UUID with four hyphens, in upper or lower case. Returns `None` for everything
/// else, for example a path.
pub fn pair_id(text: &str) -> Option<Uuid> {
    // The parser also accepts forms without hyphens, in braces and as URN; they have other lengths.
    (text.len() == uuid::fmt::Hyphenated::LENGTH)
        .then(|| Uuid::try_parse(text).ok())
        .flatten()
        .filter(|id| id.get_version_num() == 4)
}

/// Recognises a file of this component by its name.
pub(super) fn known_file(name: &OsStr, contents: Contents) -> Option<KnownFile> {
    let name = name.to_str()?;
    if let Some(inner) = name.strip_prefix('.').and_then(|name| name.strip_suffix(UNFINISHED)) {
        return id_of(inner, contents).map(|_| KnownFile::Unfinished);
    }
    id_of(name, contents).map(KnownFile::Complete)
}

/// The id in a name such as `<id>.img`, written as this component writes it, in lower case.
fn id_of(name: &str, contents: Contents) -> Option<Uuid> {
    let (stem, extension) = name.split_once('.')?;
    let is_known = match contents {
        Contents::Pairs => matches!(extension, "img" | "json"),
        Contents::Clips => extension == "mp4",
    };
    pair_id(stem).filter(|id| is_known && id.to_string() == stem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "6f1c2f0e-9a5b-4c3d-8e7f-0123456789ab";

    #[test]
    fn an_id_is_a_random_uuid_with_hyphens_and_nothing_else() {
        assert_eq!(pair_id(ID).unwrap().to_string(), ID);
        assert_eq!(pair_id(&ID.to_uppercase()).unwrap().to_string(), ID);
        for bad in [
            "",
            "../secret",
            "../6f1c2f0e-9a5b-4c3d-8e7f-0123456789ab",
            "6f1c2f0e-9a5b-4c3d-8e7f-0123456789ab.img",
            "6f1c2f0e9a5b4c3d8e7f0123456789ab",
            "{6f1c2f0e-9a5b-4c3d-8e7f-0123456789ab}",
            "6f1c2f0e-9a5b-1c3d-8e7f-0123456789ab",
            "6f1c2f0e-9a5b-4c3d-8e7f-0123456789a/",
        ] {
            assert_eq!(pair_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_names_that_this_component_writes_are_recognised() {
        let id = pair_id(ID).unwrap();
        for (part, own, other) in [
            (PairPart::Image, Contents::Pairs, Contents::Clips),
            (PairPart::Json, Contents::Pairs, Contents::Clips),
            (PairPart::Clip, Contents::Clips, Contents::Pairs),
        ] {
            let (complete, unfinished) = (file_name(id, part), unfinished_name(id, part));
            assert_eq!(known_file(complete.as_ref(), own), Some(KnownFile::Complete(id)));
            assert_eq!(known_file(unfinished.as_ref(), own), Some(KnownFile::Unfinished));
            assert_eq!(known_file(complete.as_ref(), other), None);
            assert_eq!(known_file(unfinished.as_ref(), other), None);
        }
        for foreign in [
            ID.to_owned(),
            format!("{ID}.jpg"),
            format!("{ID}.img.bak"),
            format!("{ID}.mp4.part"),
            format!("{ID}.img.part"),
            format!(".{ID}.img"),
            format!("{}.img", ID.to_uppercase()),
            "notes.json".to_owned(),
            ".part".to_owned(),
        ] {
            for contents in [Contents::Pairs, Contents::Clips] {
                assert_eq!(known_file(foreign.as_ref(), contents), None, "{foreign}");
            }
        }
    }

    proptest! {
        #[test]
        fn only_an_id_is_parsed_as_one(text: String) {
            prop_assert!(pair_id(&text).is_none_or(|id| id.to_string() == text.to_lowercase()));
        }
    }
}
