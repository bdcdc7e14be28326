//! The samples that wait for ingestion, on disk: `<number>.data` and, written last and removed first, `<number>.json`. So a
//! SIGKILL leaves whole samples, or data without its JSON, which the next start removes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;

use super::sample::{SampleMetadata, UploadSample};
use crate::util::atomic_file::{Durability, replace_via};
use crate::util::foreign_files;
use crate::util::path_names::file_number;
use crate::util::private_dir;

/// The name of a file that is not complete.
const UNFINISHED: &str = "unfinished";

/// Bounds of the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpoolBounds {
    pub(super) samples: usize,
    pub(super) bytes: u64,
}

/// The samples on disk, by number, oldest first.
#[derive(Debug)]
pub(super) struct SampleSpool {
    directory: PathBuf,
    bounds: SpoolBounds,
    entries: BTreeMap<u64, SampleMetadata>,
    bytes: u64,
    next: u64,
    is_open: bool,
}

impl SampleSpool {
    /// Does not read the directory yet.
    pub(super) fn new(directory: PathBuf, bounds: SpoolBounds) -> Self {
        Self {
            directory,
            bounds,
            entries: BTreeMap::new(),
            bytes: 0,
            next: 0,
            is_open: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A number greater than those of all samples up to now.
    pub(super) fn next_number(&self) -> u64 {
        self.next
    }

    /// Reads the samples of an earlier process, and removes what is incomplete.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn open(&mut self) -> io::Result<()> {
        if self.is_open {
            return Ok(());
        }
        match fs::read_dir(&self.directory) {
            Ok(entries) => self.scan(entries),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if foreign_files::is_foreign(&error) => {
                let kept_as = foreign_files::set_aside(&self.directory)?;
                tracing::error!(
                    kept_as = %kept_as.display(), advice = foreign_files::ADVICE,
                    "The samples that wait for Edge Impulse Studio belong to another user and were renamed"
                );
            }
            Err(error) => return Err(error),
        }
        self.is_open = true;
        Ok(())
    }

    fn scan(&mut self, entries: fs::ReadDir) {
        let mut data = BTreeMap::new();
        for entry in entries.flatten() {
            let path = entry.path();
            let number = path.file_stem().and_then(|stem| file_number(stem.to_str()?));
            match (number, path.extension().and_then(|e| e.to_str())) {
                (Some(number), Some("data")) => drop(data.insert(number, entry.metadata().map_or(0, |m| m.len()))),
                (Some(number), Some("json")) => {
                    let text = fs::read(&path).unwrap_or_default();
                    if let Ok(metadata) = serde_json::from_slice(&text) {
                        self.entries.insert(number, metadata);
                    }
                }
                // If this fails, the next start tries again.
                (_, Some(UNFINISHED)) => drop(fs::remove_file(&path)),
                _ => {}
            }
        }
        self.entries
            .retain(|number, metadata| data.get(number) == Some(&metadata.bytes));
        self.next = self.entries.last_key_value().map_or(0, |(number, _)| number + 1);
        self.bytes = self.entries.values().map(|metadata| metadata.bytes).sum();
        for number in data.into_keys().filter(|number| !self.entries.contains_key(number)) {
            self.remove_files(number);
        }
    }

    /// Writes a sample. Returns its number, and how many older ones were dropped to make room.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn put(&mut self, sample: &UploadSample) -> io::Result<(u64, usize)> {
        self.open()?;
        let metadata = SampleMetadata::of(sample);
        if metadata.bytes > self.bounds.bytes {
            return Err(io::Error::other(format!(
                "a sample of {} bytes is larger than the {} MiB that may wait",
                metadata.bytes,
                self.bounds.bytes >> 20
            )));
        }
        let dropped = self.make_room(metadata.bytes);
        private_dir::create_trusted(&self.directory)?;
        let number = self.next_number();
        let json = serde_json::to_vec(&metadata)?;
        let written = self
            .write(number, "data", &sample.data)
            .and_then(|()| self.write(number, "json", &json));
        if let Err(error) = written {
            self.remove_files(number);
            return Err(error);
        }
        self.bytes += metadata.bytes;
        self.next += 1;
        self.entries.insert(number, metadata);
        Ok((number, dropped))
    }

    fn write(&self, number: u64, extension: &str, content: &[u8]) -> io::Result<()> {
        let unfinished = self.path(number, UNFINISHED);
        replace_via(
            &unfinished,
            &self.path(number, extension),
            content,
            Durability::PowerCut,
        )
    }

    fn make_room(&mut self, bytes: u64) -> usize {
        let mut dropped = 0;
        while self.entries.len() >= self.bounds.samples || self.bytes + bytes > self.bounds.bytes {
            let Some((number, _)) = self.entries.first_key_value() else {
                break;
            };
            self.remove(*number);
            dropped += 1;
        }
        dropped
    }

    /// The number of the oldest sample, without the collected ones that take more than `room` bytes.
    pub(super) fn oldest(&self, room: u64) -> Option<u64> {
        let mut entries = self.entries.iter();
        let oldest = entries.find(|(_, metadata)| metadata.collected.is_none() || metadata.upload_bytes() <= room);
        oldest.map(|(number, _)| *number)
    }

    /// The number of collected samples that wait, and their bytes.
    pub(super) fn collected(&self) -> (usize, u64) {
        let collected = self.entries.values().filter(|metadata| metadata.collected.is_some());
        collected.fold((0, 0), |(count, bytes), metadata| {
            (count + 1, bytes + metadata.upload_bytes())
        })
    }

    pub(super) fn metadata(&self, number: u64) -> Option<&SampleMetadata> {
        self.entries.get(&number)
    }

    /// Reads the data of a sample.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(&self, number: u64) -> io::Result<Bytes> {
        fs::read(self.path(number, "data")).map(Bytes::from)
    }

    /// Removes a sample.
    pub(super) fn remove(&mut self, number: u64) {
        if let Some(metadata) = self.entries.remove(&number) {
            self.bytes -= metadata.bytes;
        }
        self.remove_files(number);
    }

    /// If this fails, ingestion recognises the sample after the next start as one that it has.
    fn remove_files(&self, number: u64) {
        for extension in ["json", "data"] {
            let _ = fs::remove_file(self.path(number, extension));
        }
    }

    fn path(&self, number: u64, extension: &str) -> PathBuf {
        self.directory.join(format!("{number:016}.{extension}"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::studio::upload::sample::{CollectedDetails, SampleKind};

    fn sample(label: &str, bytes: usize) -> UploadSample {
        UploadSample {
            category: "training".to_owned(),
            label: label.to_owned(),
            kind: SampleKind::Jpeg,
            data: vec![7; bytes].into(),
            collected: None,
        }
    }

    fn collected(bytes: usize) -> UploadSample {
        UploadSample {
            collected: Some(CollectedDetails {
                name: "d.1".to_owned(),
                boxes: Vec::new(),
                metadata: Default::default(),
            }),
            ..sample("", bytes)
        }
    }

    #[test]
    fn collected_samples_wait_for_room_and_others_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = spool(directory.path());
        spool.put(&sample("a", 10)).unwrap();
        spool.put(&collected(100)).unwrap();
        spool.put(&collected(20)).unwrap();
        spool.remove(0);
        let (count, bytes) = spool.collected();
        assert_eq!(count, 2);
        let small = bytes / 2;
        assert_eq!(
            (spool.oldest(bytes), spool.oldest(small), spool.oldest(0)),
            (Some(1), Some(2), None)
        );
        spool.put(&sample("b", 10)).unwrap();
        assert_eq!(spool.oldest(0), Some(3));
    }

    #[test]
    fn a_file_with_a_number_that_has_no_next_one_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        spool(directory.path()).put(&sample("a", 4)).unwrap();
        for extension in ["data", "json"] {
            let path = |number: u64| directory.path().join(format!("samples/{number:016}.{extension}"));
            fs::copy(path(0), path(u64::MAX)).unwrap();
        }
        let mut spool = spool(directory.path());
        assert_eq!(spool.put(&sample("b", 4)).unwrap(), (1, 0));
        assert_eq!(spool.len(), 2);
    }

    fn spool(directory: &Path) -> SampleSpool {
        let bounds = SpoolBounds {
            samples: 3,
            bytes: 1000,
        };
        let mut spool = SampleSpool::new(directory.join("samples"), bounds);
        spool.open().unwrap();
        spool
    }

    #[test]
    fn samples_survive_a_restart_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let mut before = spool(directory.path());
        for label in ["a", "b"] {
            before.put(&sample(label, 10)).unwrap();
        }
        let mut after = spool(directory.path());
        let oldest = after.oldest(0).unwrap();
        assert_eq!((after.len(), after.metadata(oldest).unwrap().label.as_str()), (2, "a"));
        assert_eq!(after.read(oldest).unwrap(), vec![7; 10]);
        after.remove(oldest);
        assert_eq!(after.put(&sample("c", 10)).unwrap(), (2, 0));
        assert_eq!(spool(directory.path()).len(), 2);
    }

    #[test]
    fn the_oldest_are_dropped_when_number_or_bytes_are_exceeded() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = spool(directory.path());
        for label in ["a", "b", "c"] {
            spool.put(&sample(label, 300)).unwrap();
        }
        assert_eq!(spool.put(&sample("d", 10)).unwrap().1, 1);
        assert_eq!(spool.put(&sample("e", 900)).unwrap().1, 2);
        assert!(spool.put(&sample("f", 1001)).is_err());
        assert_eq!(fs::read_dir(directory.path().join("samples")).unwrap().count(), 4);
    }

    #[test]
    fn what_a_sigkill_or_a_power_cut_leaves_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let mut before = spool(directory.path());
        for label in ["cut", "whole"] {
            before.put(&sample(label, 10)).unwrap();
        }
        let path = |name: &str| directory.path().join("samples").join(name);
        fs::write(path("0000000000000000.data"), "short").unwrap();
        fs::write(path("0000000000000009.data"), "without JSON").unwrap();
        fs::write(path("0000000000000010.unfinished"), "").unwrap();
        let after = spool(directory.path());
        assert_eq!((after.len(), after.oldest(0)), (1, Some(1)));
        assert_eq!(fs::read_dir(directory.path().join("samples")).unwrap().count(), 2);
    }
}
