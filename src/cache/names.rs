//! File names of a pair. Only files with exactly such a name are counted or removed.

use std::ffi::OsStr;

use uuid::Uuid;

/// Marks a file that is being written: `.<id>.img.part`.
const UNFINISHED: &str = ".part";

/// One of the two files of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairPart {
    /// The JPEG, `<id>.img`.
    Image,
    /// The message, `<id>.json`.
    Json,
}

impl PairPart {
    fn extension(self) -> &'static str {
        match self {
            Self::Image => "img",
            Self::Json => "json",
        }
    }
}

/// A file that this component writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KnownFile {
    /// A part of the pair with this id.
    Pair(Uuid),
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
pub(super) fn known_file(name: &OsStr) -> Option<KnownFile> {
    let name = name.to_str()?;
    if let Some(inner) = name.strip_prefix('.').and_then(|name| name.strip_suffix(UNFINISHED)) {
        return id_of(inner).map(|_| KnownFile::Unfinished);
    }
    id_of(name).map(KnownFile::Pair)
}

/// The id in `<id>.img` or `<id>.json`, written as this component writes it, in lower case.
fn id_of(name: &str) -> Option<Uuid> {
    let (stem, _) = name
        .split_once('.')
        .filter(|(_, extension)| matches!(*extension, "img" | "json"))?;
    pair_id(stem).filter(|id| id.to_string() == stem)
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
        for part in [PairPart::Image, PairPart::Json] {
            assert_eq!(known_file(file_name(id, part).as_ref()), Some(KnownFile::Pair(id)));
            assert_eq!(
                known_file(unfinished_name(id, part).as_ref()),
                Some(KnownFile::Unfinished)
            );
        }
        for foreign in [
            ID.to_owned(),
            format!("{ID}.jpg"),
            format!("{ID}.img.bak"),
            format!("{ID}.img.part"),
            format!(".{ID}.img"),
            format!("{}.img", ID.to_uppercase()),
            "notes.json".to_owned(),
            ".part".to_owned(),
        ] {
            assert_eq!(known_file(foreign.as_ref()), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn only_an_id_is_parsed_as_one(text: String) {
            prop_assert!(pair_id(&text).is_none_or(|id| id.to_string() == text.to_lowercase()));
        }
    }
}
