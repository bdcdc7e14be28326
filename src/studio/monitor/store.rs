//! The records on disk: files of records that are only appended to, below `<project id>/<version>/`, each of at most a 64th of the
//! bound, with a checksum for every record.
//!
//! A database (redb) rewrites pages of its trees with every commit; a file for each record costs the disk an inode and a block
//! each, and the start must read a directory of thousands. Here a record is one write at the end of a file (its own bytes, and
//! 0.1 ms of a processor for 20 KB), and the oldest records go with the removal of one small file. A file is synced to the disk
//! when it is full, not for each record, because that wears out SD cards: a power cut loses what the system had not written yet,
//! seldom more than 30 s.
//!
//! A record that a SIGKILL or a power cut left incomplete is dropped at the next start. What is damaged in the middle of a file
//! is skipped.

mod segment;
mod tree;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) mod tests_support;

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use self::segment::Entry;
use super::record::Record;
use serde::{Deserialize, Serialize};

use crate::util::foreign_files;
use crate::util::private_dir;
use crate::util::write_access;

const FILE_MODE: u32 = 0o600;
/// A file is full at this share of the bound, so that no more than this is removed at once.
const SEGMENTS: u64 = 64;
/// What a file system allocates at once.
const BLOCK: u64 = 4096;
/// The directories of the store, the project and the version.
const OWN_DIRECTORIES: u64 = 3 * BLOCK;

/// Which model the records belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordOwner {
    /// The project of the model.
    pub project_id: u64,
    /// Its deployment version.
    pub version: u64,
}

/// The oldest and the newest record that can be read; all zero if there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AvailableRecords {
    /// Index of the oldest.
    pub first_index: u64,
    /// Its time in milliseconds since 1970.
    pub first_timestamp: u64,
    /// Index of the newest.
    pub last_index: u64,
    /// Its time in milliseconds since 1970.
    pub last_timestamp: u64,
}

/// Why a record is not stored.
#[derive(Debug, thiserror::Error)]
pub enum RecordStoreError {
    /// The record alone exceeds the bound.
    #[error("a record of {bytes} bytes does not fit into a store of {max_bytes} bytes")]
    TooLarge {
        /// Size of the record.
        bytes: u64,
        /// The bound.
        max_bytes: u64,
    },
    /// Indices only increase.
    #[error("the index {index} is not above the last one, {last}")]
    NotNewer {
        /// Index of the record.
        index: u64,
        /// Highest index up to now.
        last: u64,
    },
    /// The system returned an error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The records of all models of this device. Only those of one model, the running one, are read and added to; those of others
/// are the first to be removed when the bound is reached.
#[derive(Debug)]
pub struct RecordStore {
    root: PathBuf,
    owner: RecordOwner,
    max_bytes: u64,
    /// Files of other models, the next to be removed first: path, bytes.
    others: VecDeque<(PathBuf, u64)>,
    /// Length of each file of this model, by the index of its first record.
    segments: BTreeMap<u64, u64>,
    /// The last of them, open for writing.
    active: Option<(u64, File)>,
    /// Bytes of all files and directories on disk, in whole blocks.
    used: u64,
    /// Highest index ever seen, also of records that are removed or damaged.
    last_index: u64,
    available: AvailableRecords,
    is_open: bool,
    /// The file that was read last, by the index of its first record.
    scanned: Option<(u64, Vec<Entry>)>,
    is_damage_reported: bool,
    buffer: Vec<u8>,
}

impl RecordStore {
    /// A store below `root`, of at most `max_bytes`. Does not read the disk yet. There must be only one store for a `root`.
    pub fn new(root: PathBuf, owner: RecordOwner, max_bytes: u64) -> Self {
        Self {
            root,
            owner,
            max_bytes,
            others: VecDeque::new(),
            segments: BTreeMap::new(),
            active: None,
            used: 0,
            last_index: 0,
            available: AvailableRecords::default(),
            is_open: false,
            scanned: None,
            is_damage_reported: false,
            buffer: Vec::new(),
        }
    }

    /// Where the records of all models are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The oldest and the newest record of this model.
    pub fn available(&self) -> AvailableRecords {
        self.available
    }

    /// The highest index of this model, also of records that are removed; 0: none. Later ones must be above it.
    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    /// Continues with the records of another model. [`Self::open`] reads them.
    pub fn switch_to(&mut self, owner: RecordOwner) {
        if owner != self.owner {
            self.end_segment();
            *self = Self::new(std::mem::take(&mut self.root), owner, self.max_bytes);
        }
    }

    /// Creates and reads the directories, drops an incomplete last record, and removes what exceeds the bound.
    ///
    /// # Errors
    /// The directories cannot be created or read. Every other method tries again.
    pub fn open(&mut self) -> io::Result<()> {
        if self.is_open {
            return Ok(());
        }
        match self.create_and_scan() {
            Err(error) if foreign_files::is_foreign(&error) => {
                let Ok(kept_as) = foreign_files::set_aside(&self.root) else {
                    return Err(error);
                };
                tracing::error!(
                    kept_as = %kept_as.display(),
                    advice = "remove that directory; its records are not shown in Edge Impulse Studio any more",
                    "The stored records for Edge Impulse Studio belong to another user and were renamed"
                );
                self.create_and_scan()?;
            }
            opened => opened?,
        }
        self.is_open = true;
        Ok(())
    }

    fn directory(&self) -> PathBuf {
        let RecordOwner { project_id, version } = self.owner;
        self.root.join(project_id.to_string()).join(version.to_string())
    }

    fn create_directory(&self) -> io::Result<()> {
        let directory = self.directory();
        private_dir::create_trusted(&directory)
    }

    fn create_and_scan(&mut self) -> io::Result<()> {
        let directory = self.directory();
        self.create_directory()?;
        match write_access::check_directory(&directory) {
            Err(error) if foreign_files::is_foreign(&error) => return Err(error),
            // Records can still be read from a disk that cannot be written.
            _ => {}
        }
        self.others.clear();
        self.segments.clear();
        (self.active, self.scanned, self.used) = (None, None, OWN_DIRECTORIES);
        for version in tree::versions(&self.root)? {
            self.used += version.files.values().copied().map(blocks).sum::<u64>();
            if version.path == directory {
                self.segments = version.files;
                continue;
            }
            // The directory of the project counts for each of its versions.
            self.used += 2 * BLOCK;
            let path = |first: u64| version.path.join(tree::file_name(first));
            let files = version.files.iter().map(|(first, len)| (path(*first), *len));
            self.others.extend(files);
            if version.files.is_empty() {
                self.remove_other_directory(&version.path);
            }
        }
        self.recover_last_segment()?;
        // What cannot be removed can still be read; the next record tries again.
        let _ = self.make_room(0);
        self.find_available()
    }

    /// Cuts off what follows the last whole record, and continues that file.
    fn recover_last_segment(&mut self) -> io::Result<()> {
        let Some((&first, &len)) = self.segments.last_key_value() else {
            return Ok(());
        };
        // Even if none of its records can be read, a new file must come after it.
        self.last_index = self.last_index.max(first);
        let path = self.path(first);
        let (file, is_writable) = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => (file, true),
            Err(_) => match File::open(&path) {
                Ok(file) => (file, false),
                Err(error) => {
                    self.report_damage(first, &error.to_string());
                    return Ok(());
                }
            },
        };
        let mut entries = segment::scan(&file)?.entries;
        while let Some(last) = entries.last()
            && segment::read(&file, last)?.is_none()
        {
            entries.pop();
        }
        let end = entries.last().map_or(0, Entry::end);
        self.last_index = self.last_index.max(entries.last().map_or(0, |last| last.index));
        if !is_writable {
            return Ok(());
        }
        if end < len {
            tracing::info!(
                path = %path.display(), bytes = len - end,
                "The end of the stored records is incomplete and dropped"
            );
            file.set_len(end)?;
            self.used = self.used - blocks(len) + blocks(end);
            self.segments.insert(first, end);
        }
        self.active = Some((first, file));
        Ok(())
    }

    /// Determines the oldest and the newest record from the files.
    fn find_available(&mut self) -> io::Result<()> {
        self.available = AvailableRecords::default();
        self.find_first()?;
        let firsts: Vec<_> = self.segments.keys().rev().copied().collect();
        for first in firsts {
            if let Some(last) = self.entries(first)?.last().copied() {
                self.available.last_index = last.index;
                self.available.last_timestamp = last.timestamp_ms;
                return Ok(());
            }
        }
        Ok(())
    }

    fn find_first(&mut self) -> io::Result<()> {
        let firsts: Vec<_> = self.segments.keys().copied().collect();
        for first in firsts {
            let file = File::open(self.path(first));
            let entry = match file.and_then(|file| segment::first_entry(&file)) {
                Ok(Some(entry)) => Some(entry),
                _ => self.entries(first)?.first().copied(),
            };
            if let Some(entry) = entry {
                self.available.first_index = entry.index;
                self.available.first_timestamp = entry.timestamp_ms;
                return Ok(());
            }
        }
        self.available = AvailableRecords::default();
        Ok(())
    }

    /// Stores a record, after the oldest ones were removed to make room.
    ///
    /// # Errors
    /// [`RecordStoreError`]; the stored records are as before, or the oldest ones are removed.
    pub fn append(&mut self, record: &Record) -> Result<(), RecordStoreError> {
        self.check_active();
        self.open()?;
        if record.index <= self.last_index {
            return Err(RecordStoreError::NotNewer {
                index: record.index,
                last: self.last_index,
            });
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let appended = self.append_encoded(record, &mut buffer);
        self.buffer = buffer;
        appended
    }

    fn append_encoded(&mut self, record: &Record, buffer: &mut Vec<u8>) -> Result<(), RecordStoreError> {
        let max_bytes = self.max_bytes;
        let encoded = segment::encode(record, buffer);
        let bytes = buffer.len() as u64;
        let entry = encoded.filter(|_| OWN_DIRECTORIES + blocks(bytes) <= max_bytes);
        let entry = entry.ok_or(RecordStoreError::TooLarge { bytes, max_bytes })?;
        if self.active_len() > 0 && self.active_len() + bytes > max_bytes / SEGMENTS {
            self.end_segment();
        }
        self.make_room(bytes)?;
        if self.active.is_none() {
            let file = self.create_segment(record.index)?;
            self.segments.insert(record.index, 0);
            self.active = Some((record.index, file));
        }
        let offset = self.active_len();
        let Some((first, file)) = &self.active else {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        };
        if let Err(error) = file.write_all_at(buffer, offset) {
            // The next record is written to the same place, and the next start drops the rest.
            let _ = file.set_len(offset);
            return Err(error.into());
        }
        let first = *first;
        self.used += blocks(offset + bytes) - blocks(offset);
        self.segments.insert(first, offset + bytes);
        self.note_appended(first, entry.moved_to(offset));
        Ok(())
    }

    fn note_appended(&mut self, first: u64, record: Entry) {
        if let Some((scanned, entries)) = &mut self.scanned
            && *scanned == first
        {
            entries.push(record);
        }
        self.last_index = record.index;
        if self.available == AvailableRecords::default() {
            self.available.first_index = record.index;
            self.available.first_timestamp = record.timestamp_ms;
        }
        self.available.last_index = record.index;
        self.available.last_timestamp = record.timestamp_ms;
    }

    fn create_segment(&self, first: u64) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(FILE_MODE);
        match options.open(self.path(first)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create_directory()?;
                options.open(self.path(first))
            }
            opened => opened,
        }
    }

    /// The next record is written to a new file.
    fn end_segment(&mut self) {
        if let Some((_, file)) = self.active.take()
            && let Err(error) = file.sync_data()
        {
            tracing::debug!(%error, "A file of stored records cannot be synced");
        }
    }

    /// If somebody has removed the file that is written to, the directories are read again.
    fn check_active(&mut self) {
        let is_removed = |(_, file): &(u64, File)| file.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
        if self.active.as_ref().is_some_and(is_removed) {
            self.is_open = false;
        }
    }

    fn active_len(&self) -> u64 {
        let len = |(first, _): &(u64, File)| self.segments.get(first).copied();
        self.active.as_ref().and_then(len).unwrap_or_default()
    }

    /// Removes the oldest records until `bytes` more can be appended.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        loop {
            let len = self.active_len();
            let growth = blocks(len + bytes) - blocks(len);
            if self.used + growth <= self.max_bytes || !self.remove_oldest_file()? {
                return Ok(());
            }
        }
    }

    /// `false`: there is none.
    fn remove_oldest_file(&mut self) -> io::Result<bool> {
        if let Some((path, len)) = self.others.front().cloned() {
            remove(&path)?;
            self.others.pop_front();
            self.used -= blocks(len);
            let directory = path.parent().unwrap_or(&self.root).to_owned();
            if !self.others.iter().any(|(other, _)| other.starts_with(&directory)) {
                self.remove_other_directory(&directory);
            }
            return Ok(true);
        }
        let Some((&first, &len)) = self.segments.first_key_value() else {
            return Ok(false);
        };
        remove(&self.path(first))?;
        self.segments.remove(&first);
        self.used -= blocks(len);
        self.active.take_if(|(active, _)| *active == first);
        self.scanned.take_if(|(scanned, _)| *scanned == first);
        self.find_first()?;
        Ok(true)
    }

    /// Removes the directory of another version, and that of its project, if they are empty.
    fn remove_other_directory(&mut self, directory: &Path) {
        if fs::remove_dir(directory).is_ok() {
            self.used -= 2 * BLOCK;
            if let Some(project) = directory.parent() {
                // Other versions may be left in it.
                let _ = fs::remove_dir(project);
            }
        }
    }

    /// Reads one record. `None`: it is not stored.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn get(&mut self, index: u64) -> io::Result<Option<Record>> {
        self.next_in(index, index)
    }

    /// Reads the record with the lowest index from `first` to `last`, both included. `None`: none is stored.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn next_in(&mut self, first: u64, last: u64) -> io::Result<Option<Record>> {
        self.open()?;
        let begins_before = self.segments.range(..=first).next_back();
        let mut cursor = begins_before.map_or(first, |(begin, _)| *begin);
        while cursor <= last {
            let Some((&segment, _)) = self.segments.range(cursor..=last).next() else {
                break;
            };
            if let Some(record) = self.next_in_segment(segment, first, last)? {
                return Ok(Some(record));
            }
            let Some(next) = segment.checked_add(1) else {
                break;
            };
            cursor = next;
        }
        Ok(None)
    }

    fn next_in_segment(&mut self, segment: u64, first: u64, last: u64) -> io::Result<Option<Record>> {
        let entries = self.entries(segment)?;
        let begin = entries.partition_point(|entry| entry.index < first);
        let end = entries.partition_point(|entry| entry.index <= last);
        let wanted = entries.get(begin..end).unwrap_or_default().to_vec();
        if wanted.is_empty() {
            return Ok(None);
        }
        let file = File::open(self.path(segment))?;
        for entry in wanted {
            match segment::read(&file, &entry)? {
                Some(record) => return Ok(Some(record)),
                None => self.report_damage(segment, &format!("the checksum of record {} is wrong", entry.index)),
            }
        }
        Ok(None)
    }

    /// The records of a file; none if it was removed or may not be read.
    fn entries(&mut self, first: u64) -> io::Result<&[Entry]> {
        if self.scanned.as_ref().is_none_or(|(scanned, _)| *scanned != first) {
            let scan = match File::open(self.path(first)).and_then(|file| segment::scan(&file)) {
                Ok(scan) => scan,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                    self.report_damage(first, &error.to_string());
                    segment::Scan::default()
                }
                Err(error) => return Err(error),
            };
            if scan.unreadable > 0 {
                self.report_damage(first, &format!("{} bytes are damaged", scan.unreadable));
            }
            self.scanned = Some((first, scan.entries));
        }
        Ok(self.scanned.as_ref().map_or(&[], |(_, entries)| entries))
    }

    /// Once for each store: a damaged disk damages many files.
    fn report_damage(&mut self, first: u64, error: &str) {
        if !std::mem::replace(&mut self.is_damage_reported, true) {
            tracing::warn!(
                path = %self.path(first).display(), error,
                "Stored records for Edge Impulse Studio cannot be read and are skipped"
            );
        }
    }

    fn path(&self, first: u64) -> PathBuf {
        self.directory().join(tree::file_name(first))
    }
}

/// The bytes that a file of `len` bytes takes on the disk.
fn blocks(len: u64) -> u64 {
    len.next_multiple_of(BLOCK)
}

/// Removes a file; somebody else may have done so.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
