//! A damaged index is renamed and counted, and recording goes on.

use std::fs;

use super::*;

const PAGE: usize = 4096;

fn location() -> S3Location {
    S3Location {
        bucket: "photos".to_owned(),
        prefix: "a_v1/".to_owned(),
    }
}

fn names_with(directory: &Path, text: &str) -> usize {
    let entries = fs::read_dir(directory).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains(text)).count()
}

/// Records a pair in an index for which `place` has made the file. Returns what is recorded then, and whether damage was counted.
fn record_after(name: &str, place: impl FnOnce(&Path)) -> (Vec<Uuid>, Uuid, bool) {
    let directory = tempfile::tempdir().unwrap();
    place(&directory.path().join("s3-index.redb"));
    let (stats, id) = (Arc::new(Stats::default()), Uuid::new_v4());
    let mut index = UploadIndex::new(directory.path(), stats.clone());
    index
        .record(&location(), id)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let ids = index.all().unwrap().into_iter().flat_map(|(_, ids)| ids).collect();
    let damaged = stats.files_damaged.get();
    assert_eq!(names_with(directory.path(), ".damaged-"), damaged as usize, "{name}");
    (ids, id, damaged == 1)
}

#[test]
fn an_index_with_any_page_zeroed_or_flipped_is_read_completely_or_renamed_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let old: Vec<_> = (0..30).map(|_| Uuid::new_v4()).collect();
    let mut index = UploadIndex::new(directory.path(), Arc::default());
    old.iter().for_each(|id| index.record(&location(), *id).unwrap());
    let open = fs::read(&index.path).unwrap();
    let path = index.path.clone();
    drop(index);
    let mut damaged = 0;
    for (whole, is_closed) in [(open, false), (fs::read(path).unwrap(), true)] {
        for begin in (0..whole.len()).step_by(PAGE) {
            let end = (begin + PAGE).min(whole.len());
            for change in [|_: u8| 0, |byte: u8| !byte] {
                let mut bytes = whole.clone();
                bytes[begin..end].iter_mut().for_each(|byte| *byte = change(*byte));
                if whole[begin..end].iter().all(|byte| *byte == 0) {
                    continue;
                }
                let name = format!("page {}", begin / PAGE);
                let (found, new, is_damaged) = record_after(&name, |path| fs::write(path, bytes).unwrap());
                // redb takes damage in the last commit of a file that was not closed for a commit that a power cut has interrupted.
                let last = old.len() - usize::from(!is_closed && found.len() == old.len());
                let old = if is_damaged { &[][..] } else { &old[..last] };
                assert_eq!(found, [old, &[new]].concat(), "{name}, closed: {is_closed}");
                damaged += u32::from(is_damaged);
            }
        }
    }
    assert!(damaged > 2, "{damaged}");
}

#[test]
fn what_is_no_index_but_has_its_name_is_renamed_and_counted() {
    for content in ["", "something else", "redb"] {
        let (found, new, is_damaged) = record_after(content, |path| fs::write(path, content).unwrap());
        assert_eq!((found, is_damaged), (vec![new], true), "{content:?}");
    }
    let (found, new, is_damaged) = record_after("a directory", |path| fs::create_dir(path).unwrap());
    assert_eq!((found, is_damaged), (vec![new], true));
}

#[test]
fn a_damaged_index_of_another_user_does_not_cost_the_records_of_this_one() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (Uuid::new_v4(), Uuid::new_v4());
    let stats = Arc::new(Stats::default());
    UploadIndex::new(directory.path(), stats.clone())
        .record(&location(), old)
        .unwrap();
    fs::write(directory.path().join("s3-index.redb.of-uid-1"), "no database").unwrap();
    let mut index = UploadIndex::new(directory.path(), stats.clone());
    index.record(&location(), new).unwrap();
    assert_eq!(index.all().unwrap(), [(location(), vec![old, new])]);
    assert_eq!(stats.files_damaged.get(), 1);
    assert_eq!(names_with(directory.path(), "s3-index.redb.of-uid-1.damaged-"), 1);
}

/// An index with one pair that has this number, at a location with that number.
fn index_with(path: &Path, number: u64, location: u32) {
    let database = database::create(path, FORMAT, |transaction| {
        transaction.open_table(PAIRS)?.insert(5, (number, location))?;
        transaction
            .open_table(LOCATIONS)?
            .insert(location, ("photos", "b_v1/"))?;
        Ok(())
    });
    database.unwrap().close().unwrap();
}

#[test]
fn numbers_after_which_there_is_none_are_damage() {
    for (number, location) in [(!CLIP, 0), (u64::MAX, 0), (7, u32::MAX)] {
        let name = format!("number {number}, location {location}");
        let (ids, id, is_damaged) = record_after(&name, |path| index_with(path, number, location));
        assert_eq!((ids, is_damaged), (vec![id], true), "{name}");
    }
    let (ids, id, is_damaged) = record_after("whole", |path| index_with(path, MAX_NUMBER, 7));
    assert_eq!((ids, is_damaged), (vec![Uuid::from_u128(5), id], false));
}
