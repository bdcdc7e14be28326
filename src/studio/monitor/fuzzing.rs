//! What `tests/fuzz` calls here.

use std::path::Path;

use bytes::Bytes;
use serde_json::json;

use super::indices::IndexFile;
use super::pending::PendingSummaries;
use super::record::MAX_INDEX;
use super::{RawData, RawDataKind, Record, RecordOwner, RecordStore};
use crate::status::stats::Stats;

const OWNER: RecordOwner = RecordOwner {
    project_id: 1,
    version: 1,
};

/// Opens the records below `root`, reads all of them, and appends one.
pub fn use_records(root: &Path, max_bytes: u64) {
    let mut store = RecordStore::new(root.to_owned(), OWNER, max_bytes);
    if store.open().is_err() {
        return;
    }
    let (mut first, mut known) = (0, 0_u64);
    while let Ok(Some(record)) = store.next_in(first, u64::MAX) {
        assert!(record.index >= first, "indices grow");
        first = record.index + 1;
        known += 1;
    }
    assert!(known <= MAX_INDEX);
    let record = Record {
        index: store.last_index() + 1,
        timestamp_ms: 5,
        record: json!({"result": {}}),
        raw_data: RawData {
            kind: RawDataKind::Jpg,
            bytes: Bytes::from_static(b"jpeg"),
        },
    };
    if store.append(&record).is_ok() {
        assert_eq!(
            store.get(record.index).ok().flatten(),
            Some(record),
            "what was written is read"
        );
    }
}

/// Opens the file of used numbers and uses one more.
pub fn use_indices(path: &Path) {
    let (mut file, _) = IndexFile::open(path.to_owned(), &Stats::default());
    let next = file.last(OWNER) + 1;
    if file.reserve(OWNER, next).is_ok() {
        assert!(file.last(OWNER) >= next);
        assert!(IndexFile::open(path.to_owned(), &Stats::default()).0.last(OWNER) >= next);
    }
}

/// Opens the summaries that wait in `directory`, adds one, and reads all.
pub fn use_summaries(directory: &Path) {
    let mut pending = PendingSummaries::new(directory.to_owned());
    let _ = pending.open();
    let _ = pending.put(Bytes::from_static(b"{}"));
    let (mut dropped, mut last) = (0, None);
    while let Some((number, _)) = pending.oldest(&mut dropped) {
        assert!(last.is_none_or(|last| number > last), "summaries are in order");
        last = Some(number);
        pending.remove(number);
    }
    assert!(last.is_some(), "the new one is read");
    assert!(pending.is_empty());
}
