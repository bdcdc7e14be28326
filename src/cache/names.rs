//! Names of the files of a pair. Only what is named exactly like this is ever counted or removed.

use std::ffi::OsStr;

use uuid::Uuid;

/// Marks a file that is being written: `.<id>.img.part`.
const UNFINISHED: &str = ".part";

/// One of the two files of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The JPEG, `<id>.img`.
    Image,
    /// The message, `<id>.json`.
    Json,
}

impl Part {
    fn extension(self) -> &'static str {
        match self {
            Self::Image => "img",
            Self::Json => "json",
        }
    }
}

/// What a file of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// Part of the pair with that id.
    Pair(Uuid),
    /// Left behind by a write that did not finish.
    Unfinished,
}

/// Name of a part, without a directory.
pub fn file_name(id: Uuid, part: Part) -> String {
    format!("{id}.{}", part.extension())
}

/// Name under which a part is written before it is renamed.
pub(super) fn unfinished_name(id: Uuid, part: Part) -> String {
    format!(".{}{UNFINISHED}", file_name(id, part))
}

/// Reads the id of a pair: a random (version 4) UUID with its four hyphens, in any case. Everything else, paths above
/// all, is `None`.
pub fn pair_id(text: &str) -> Option<Uuid> {
    // The parser also takes forms without hyphens, in braces and as URN; the length leaves only the one.
    (text.len() == uuid::fmt::Hyphenated::LENGTH)
        .then(|| Uuid::try_parse(text).ok())
        .flatten()
        .filter(|id| id.get_version_num() == 4)
}

/// Recognises a file of ours by its name.
pub(super) fn own(name: &OsStr) -> Option<Own> {
    let name = name.to_str()?;
    if let Some(inner) = name.strip_prefix('.').and_then(|name| name.strip_suffix(UNFINISHED)) {
        return finished(inner).map(|_| Own::Unfinished);
    }
    finished(name).map(Own::Pair)
}

/// The id in `<id>.img` or `<id>.json`, written as this component writes it, in lower case.
fn finished(name: &str) -> Option<Uuid> {
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
    fn only_names_this_component_writes_are_its_own() {
        let id = pair_id(ID).unwrap();
        for part in [Part::Image, Part::Json] {
            assert_eq!(own(file_name(id, part).as_ref()), Some(Own::Pair(id)));
            assert_eq!(own(unfinished_name(id, part).as_ref()), Some(Own::Unfinished));
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
            assert_eq!(own(foreign.as_ref()), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn no_text_but_an_id_is_taken_for_one(text: String) {
            prop_assert!(pair_id(&text).is_none_or(|id| id.to_string() == text.to_lowercase()));
        }
    }
}
