//! The summaries that wait for Studio, on disk: `<number>.json`, in the order in which their windows ended.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;

use crate::util::atomic_file::{Durability, replace_via};
use crate::util::foreign_files;
use crate::util::path_names::file_number;
use crate::util::private_dir;

/// The name of a file that is not complete.
const UNFINISHED: &str = "unfinished";
/// Summaries that may wait: those of a day, at the shortest interval.
const MOST: usize = 1440;
/// Largest file that is read back.
const MAX_BYTES: u64 = 4 << 20;

/// The summaries that wait, by number, oldest first.
#[derive(Debug)]
pub(super) struct PendingSummaries {
    directory: PathBuf,
    /// The content of those that could not be written to the disk.
    entries: BTreeMap<u64, Option<Bytes>>,
    next: u64,
    is_open: bool,
}

/// What came of [`PendingSummaries::put`].
#[derive(Debug)]
pub(super) struct PutSummary {
    /// Older summaries that were dropped to make room.
    pub(super) dropped: u64,
    /// It is in memory only, for this reason.
    pub(super) not_written: Option<io::Error>,
}

impl PendingSummaries {
    /// Does not read the directory yet.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            entries: BTreeMap::new(),
            next: 0,
            is_open: false,
        }
    }

    /// Reads the names of the summaries of an earlier process.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn open(&mut self) -> io::Result<()> {
        if self.is_open {
            return Ok(());
        }
        match fs::read_dir(&self.directory) {
            Ok(files) => {
                for file in files.flatten() {
                    let path = file.path();
                    let number = path.file_stem().and_then(|stem| file_number(stem.to_str()?));
                    match (number, path.extension().and_then(|e| e.to_str())) {
                        (Some(number), Some("json")) => drop(self.entries.insert(number, None)),
                        // If this fails, the next start tries again.
                        (Some(_), Some(UNFINISHED)) => drop(fs::remove_file(&path)),
                        _ => {}
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if foreign_files::is_foreign(&error) => {
                let kept_as = foreign_files::set_aside(&self.directory)?;
                tracing::error!(
                    kept_as = %kept_as.display(), advice = foreign_files::ADVICE,
                    "The summaries that wait for Edge Impulse Studio belong to another user and were renamed"
                );
            }
            Err(error) => return Err(error),
        }
        self.next = self.entries.last_key_value().map_or(0, |(number, _)| number + 1);
        self.is_open = true;
        Ok(())
    }

    /// Adds a summary. One that cannot be written waits in memory.
    pub(super) fn put(&mut self, text: Bytes) -> PutSummary {
        let mut dropped = 0;
        while self.entries.len() >= MOST {
            let Some((oldest, _)) = self.entries.first_key_value() else {
                break;
            };
            self.remove(*oldest);
            dropped += 1;
        }
        let opened = self.open();
        let number = self.next;
        self.next += 1;
        let not_written = opened.and_then(|()| self.write(number, &text)).err();
        self.entries.insert(number, not_written.is_some().then_some(text));
        PutSummary { dropped, not_written }
    }

    fn write(&self, number: u64, text: &[u8]) -> io::Result<()> {
        private_dir::create_trusted(&self.directory)?;
        let unfinished = self.directory.join(format!("{number}.{UNFINISHED}"));
        replace_via(&unfinished, &self.path(number), text, Durability::PowerCut)
    }

    /// The oldest summary. One that cannot be read is removed; `dropped` counts them.
    pub(super) fn oldest(&mut self, dropped: &mut u64) -> Option<(u64, Bytes)> {
        loop {
            let (number, in_memory) = self.entries.first_key_value()?;
            let number = *number;
            if let Some(text) = in_memory {
                return Some((number, text.clone()));
            }
            let path = self.path(number);
            let is_small = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= MAX_BYTES);
            match is_small.then(|| fs::read(&path)) {
                Some(Ok(text)) if serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok() => {
                    return Some((number, text.into()));
                }
                _ => {
                    tracing::error!(path = %path.display(), "A summary for Edge Impulse Studio cannot be read and is dropped");
                    self.remove(number);
                    *dropped += 1;
                }
            }
        }
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Removes a summary: Studio has it.
    pub(super) fn remove(&mut self, number: u64) {
        if let Some(None) = self.entries.remove(&number) {
            // If this fails, the summary is sent again after the next start.
            let _ = fs::remove_file(self.path(number));
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(pending: &mut PendingSummaries, text: &str) -> PutSummary {
        pending.put(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn summaries_are_read_back_in_order_and_numbers_are_not_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let open = || {
            let mut pending = PendingSummaries::new(directory.path().join("s"));
            pending.open().unwrap();
            pending
        };
        let mut pending = open();
        for at in 0..12 {
            put(&mut pending, &at.to_string());
        }
        let mut again = open();
        for at in 0..12 {
            let (number, text) = again.oldest(&mut 0).unwrap();
            assert_eq!(text, at.to_string());
            again.remove(number);
        }
        assert!(again.oldest(&mut 0).is_none());
        assert!(open().entries.is_empty());
    }

    #[test]
    fn the_oldest_is_dropped_when_too_many_wait_and_a_damaged_one_is_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let mut pending = PendingSummaries::new(directory.path().to_owned());
        for at in 0..MOST {
            assert_eq!(put(&mut pending, &at.to_string()).dropped, 0);
        }
        assert_eq!(put(&mut pending, "last").dropped, 1);
        fs::write(directory.path().join("1.json"), "{half").unwrap();
        let mut dropped = 0;
        assert_eq!(pending.oldest(&mut dropped).unwrap().1, "2");
        assert_eq!(dropped, 1);
    }

    #[test]
    fn a_file_with_a_number_that_has_no_next_one_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(format!("{}.json", u64::MAX)), "{}").unwrap();
        let mut pending = PendingSummaries::new(directory.path().to_owned());
        assert!(put(&mut pending, "{\"new\":1}").not_written.is_none());
        assert_eq!(pending.oldest(&mut 0).unwrap(), (0, Bytes::from("{\"new\":1}")));
    }

    #[test]
    fn a_summary_that_cannot_be_written_waits_in_memory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("in the way");
        fs::write(&path, "").unwrap();
        let mut pending = PendingSummaries::new(path);
        assert!(put(&mut pending, "{}").not_written.is_some());
        let (number, text) = pending.oldest(&mut 0).unwrap();
        assert_eq!(text, "{}");
        pending.remove(number);
        assert!(pending.oldest(&mut 0).is_none());
    }
}
