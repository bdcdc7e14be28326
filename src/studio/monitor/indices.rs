//! How far the numbers of inferences are used, for each deployment version: a number is never used again, even after a SIGKILL.
//!
//! Numbers are reserved on disk in blocks before Studio or the disk sees one of them.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::record::MAX_INDEX;
use super::store::RecordOwner;
use crate::status::damaged_files;
use crate::status::stats::Stats;
use crate::util::atomic_file;
use crate::util::private_dir;
use crate::util::private_file;

/// Numbers that are reserved at once. A process that is killed leaves at most this gap.
const BLOCK: u64 = 1000;
/// Deployment versions that are remembered.
const MOST: usize = 64;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    model: RecordOwner,
    last: u64,
}

/// The last number that may be in use, for each version.
#[derive(Debug)]
pub(super) struct IndexFile {
    path: PathBuf,
    /// The one used last is at the end.
    entries: Vec<Entry>,
}

impl IndexFile {
    /// Reads the file. One that is missing is empty; so is one that is damaged, which is renamed.
    ///
    /// # Errors
    /// It cannot be read; `Self` is empty then.
    pub(super) fn open(path: PathBuf, stats: &Stats) -> (Self, io::Result<()>) {
        let (entries, result) = match private_file::read_state(&path) {
            Ok(text) => match parse(&text) {
                Ok(entries) => (entries, Ok(())),
                Err(error) => {
                    damaged_files::set_aside(&path, &error, stats);
                    (Vec::new(), Err(error))
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), Ok(())),
            Err(error) => {
                if path.is_dir() {
                    damaged_files::set_aside(&path, &error, stats);
                }
                (Vec::new(), Err(error))
            }
        };
        (Self { path, entries }, result)
    }

    /// The last number of this version that may be in use; 0: none.
    pub(super) fn last(&self, model: RecordOwner) -> u64 {
        let entry = self.entries.iter().find(|entry| entry.model == model);
        entry.map_or(0, |entry| entry.last)
    }

    /// Ensures that `index` is reserved, and some after it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn reserve(&mut self, model: RecordOwner, index: u64) -> io::Result<()> {
        if index <= self.last(model) {
            return Ok(());
        }
        self.set(model, index + BLOCK)
    }

    /// The last number that is in use.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn set(&mut self, model: RecordOwner, last: u64) -> io::Result<()> {
        if self.last(model) == last {
            return Ok(());
        }
        let mut entries = self.entries.clone();
        entries.retain(|entry| entry.model != model);
        entries.push(Entry { model, last });
        let forgotten = entries.len().saturating_sub(MOST);
        entries.drain(..forgotten);
        if let Some(directory) = self.path.parent() {
            private_dir::create_trusted(directory)?;
        }
        atomic_file::replace(&self.path, &serde_json::to_vec(&entries)?)?;
        // Not before it is on the disk, so that the next number tries again.
        self.entries = entries;
        Ok(())
    }
}

/// The entries of the file.
fn parse(text: &[u8]) -> io::Result<Vec<Entry>> {
    let entries: Vec<Entry> = serde_json::from_slice(text)?;
    match entries.iter().find(|entry| entry.last > MAX_INDEX) {
        Some(entry) => Err(io::Error::other(format!("the number {} is impossible", entry.last))),
        None => Ok(entries),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MODEL: RecordOwner = RecordOwner {
        project_id: 1,
        version: 7,
    };

    #[test]
    fn a_number_is_reserved_before_it_is_used_and_an_orderly_end_leaves_no_gap() {
        let directory = tempfile::tempdir().unwrap();
        let open = || IndexFile::open(directory.path().join("indices.json"), &Stats::default()).0;
        let mut file = open();
        assert_eq!(file.last(MODEL), 0);
        file.reserve(MODEL, 1).unwrap();
        assert_eq!(open().last(MODEL), 1 + BLOCK);
        file.reserve(MODEL, 500).unwrap();
        file.set(MODEL, 500).unwrap();
        assert_eq!(open().last(MODEL), 500);
        assert_eq!(
            open().last(RecordOwner { version: 8, ..MODEL }),
            0,
            "a new version starts anew"
        );
    }

    #[test]
    fn a_number_that_could_not_be_reserved_is_reserved_with_the_next_one() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("studio-summaries");
        fs::write(&place, "in the way").unwrap();
        let path = place.join("indices.json");
        let mut file = IndexFile::open(path.clone(), &Stats::default()).0;
        assert!(file.reserve(MODEL, 1).is_err());
        fs::remove_file(&place).unwrap();
        file.reserve(MODEL, 2).unwrap();
        assert_eq!(IndexFile::open(path, &Stats::default()).0.last(MODEL), 2 + BLOCK);
        assert_eq!(fs::metadata(place).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_number_after_which_there_is_none_is_damage() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("indices.json");
        let stats = Stats::default();
        fs::write(
            &path,
            format!(r#"[{{"project_id":1,"version":7,"last":{}}}]"#, u64::MAX),
        )
        .unwrap();
        let (mut file, result) = IndexFile::open(path, &stats);
        assert!(result.is_err());
        assert_eq!((file.last(MODEL), stats.files_damaged.get()), (0, 1));
        file.reserve(MODEL, 1).unwrap();
        assert_eq!(file.last(MODEL), 1 + BLOCK);
    }

    #[test]
    fn a_damaged_file_is_told_and_the_versions_used_last_are_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("indices.json");
        fs::write(&path, "[half").unwrap();
        let stats = Stats::default();
        let (mut file, result) = IndexFile::open(path, &stats);
        assert!(result.is_err());
        assert_eq!(stats.files_damaged.get(), 1);
        for version in 1..=100 {
            file.set(RecordOwner { version, ..MODEL }, version).unwrap();
        }
        assert_eq!(file.entries.len(), MOST);
        assert_eq!(file.last(RecordOwner { version: 100, ..MODEL }), 100);
    }
}
