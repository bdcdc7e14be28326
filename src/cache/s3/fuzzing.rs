//! What `tests/fuzz` calls here.

use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::index::UploadIndex;
use super::pending::{PendingLimits, PendingPairs};
use crate::cache::item::CacheItem;
use crate::cache::s3_location::S3Location;
use crate::status::stats::Stats;

/// Opens the index in `directory`, reads all of it, records one pair and finds it. Returns the number of earlier pairs; `None`:
/// the file cannot be read or written.
pub fn use_index(directory: &Path) -> Option<usize> {
    let mut index = UploadIndex::new(directory, Arc::new(Stats::default()));
    let earlier = index.all().ok()?;
    index.clips().ok()?;
    let id = Uuid::from_u128(7);
    let location = S3Location {
        bucket: "bucket".to_owned(),
        prefix: "prefix".to_owned(),
    };
    let known = index.find(id).ok()?;
    index.record(&location, id).ok()?;
    let found = index.find(id).ok()?;
    let expected = known.or(Some(location.clone()));
    assert_eq!(found, expected, "a recorded pair is found");
    // A pair is left, because an index without pairs has no file.
    index.record(&location, Uuid::from_u128(8)).ok()?;
    index.forget(&[id]).ok()?;
    Some(earlier.iter().map(|(_, ids)| ids.len()).sum())
}

/// Opens the waiting pairs in `directory`, reads each, and adds one. Returns how many could be read.
pub fn use_pending(directory: &Path, pairs: usize, bytes: u64) -> Option<usize> {
    let mut pending = PendingPairs::new(directory.to_owned(), PendingLimits { pairs, bytes });
    pending.open().ok()?;
    assert!(pending.len() <= pairs, "the limit is kept");
    let mut readable = 0;
    let mut last = None;
    while let Some((number, _)) = pending.oldest(|number| last.is_none_or(|last| number > last)) {
        last = Some(number);
        match pending.read(number) {
            Ok(_) => readable += 1,
            Err(_) => pending.remove(number),
        }
    }
    let next = pending.next_number();
    assert!(
        last.is_none_or(|last| next > last) || pending.len() == 0,
        "numbers grow"
    );
    let pair = CacheItem {
        id: Uuid::from_u128(7),
        image: None,
        json: r#"{"s3_prefix":"p"}"#.into(),
    };
    if pending.put(next, &pair).is_ok() {
        assert_eq!(pending.read(next).expect("what was written").pair, pair);
    }
    pending.clear();
    Some(readable)
}
