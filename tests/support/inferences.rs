//! Inference messages on their way: in the file of the spool, and at the broker.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use super::broker::Entry;

/// Payloads in the file, in order. Reads a copy, because opening a database that was not closed changes it.
pub fn on_disk(spool: &Path) -> Vec<String> {
    let copy = tempfile::tempdir().expect("a directory");
    let file = copy.path().join("copy.redb");
    fs::copy(spool, &file).expect("a copy");
    let table: TableDefinition<'_, u64, (&str, u8, &[u8])> = TableDefinition::new("inferences");
    let database = redb::Database::open(file).expect("the file can be opened");
    let messages = database
        .begin_read()
        .expect("begin")
        .open_table(table)
        .expect("a table");
    let mut payloads = Vec::new();
    for entry in messages.iter().expect("entries") {
        payloads.push(String::from_utf8_lossy(entry.expect("an entry").1.value().2).into_owned());
    }
    payloads
}

/// Inferences that the broker received, in the order of arrival and without repeated deliveries.
pub fn inferences(log: &[Entry]) -> Vec<String> {
    let mut seen = HashSet::new();
    let published = log.iter().filter_map(|entry| entry.published());
    published
        .filter(|publish| publish.topic.ends_with("inference/output"))
        .map(|publish| String::from_utf8_lossy(&publish.payload).into_owned())
        .filter(|payload| seen.insert(payload.clone()))
        .collect()
}
