//! Keeps pairs that could not be uploaded on disk until they can. [`pending_names`] describes the files.
//!
//! The picture is written first and removed last, a file gets its final name only when it is complete, and the message
//! contains the prefix of its keys. So each file that a SIGKILL leaves behind is complete, or recognised as incomplete; [`pending_seal`]
//! recognises what a power cut has left in part.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Deserialize;
use uuid::Uuid;

use super::pending_names::{self, PendingFile, file_name};
use super::pending_seal;
use crate::cache::error::CacheError;
use crate::cache::item::{CacheItem, is_mp4};
use crate::cache::names::PairPart;
use crate::util::atomic_file::{Durability, replace_via};
use crate::util::foreign_files;
use crate::util::private_dir;
use crate::util::write_access;

/// The first and the last bytes of every JPEG.
const JPEG_START: [u8; 2] = [0xff, 0xd8];
const JPEG_END: [u8; 2] = [0xff, 0xd9];
/// The first bytes of audio, as audio models store it.
const WAV_START: &[u8] = b"RIFF";

/// Limits of the waiting pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PendingLimits {
    /// Number of pairs.
    pub(super) pairs: usize,
    /// Bytes of pictures and messages.
    pub(super) bytes: u64,
}

/// The directory with the waiting pairs.
#[derive(Debug)]
pub(super) struct PendingPairs {
    directory: PathBuf,
    limits: PendingLimits,
    /// By number, oldest first.
    entries: BTreeMap<u64, PendingEntry>,
    bytes: u64,
    /// Whether the directory has been created and read.
    is_open: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PendingEntry {
    id: Uuid,
    image: Option<PairPart>,
    bytes: u64,
}

/// A pair with the prefix of its object keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PendingPair {
    pub(super) prefix: String,
    pub(super) pair: CacheItem,
}

/// The only field of a message that is read here.
#[derive(Deserialize)]
struct MessagePrefix {
    s3_prefix: String,
}

impl PendingPairs {
    /// Does not create or read the directory yet.
    pub(super) fn new(directory: PathBuf, limits: PendingLimits) -> Self {
        Self {
            directory,
            limits,
            entries: BTreeMap::new(),
            bytes: 0,
            is_open: false,
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A number greater than those of all waiting pairs.
    pub(super) fn next_number(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(number, _)| number + 1)
    }

    /// Creates and reads the directory, and removes the files of interrupted writes. Returns the number of pairs that were
    /// dropped because of the limits.
    ///
    /// # Errors
    /// The directory cannot be created or read.
    pub(super) fn open(&mut self) -> Result<usize, CacheError> {
        if self.is_open {
            return Ok(0);
        }
        match self.create_and_scan() {
            Err(error) if error.is_foreign() => self.set_aside_foreign(error)?,
            opened => opened?,
        }
        self.is_open = true;
        self.take_up();
        Ok(self.drop_oldest(0))
    }

    fn create_and_scan(&mut self) -> Result<(), CacheError> {
        let directory = self.directory.clone();
        let created = private_dir::create_trusted(&directory);
        let writable = created.and_then(|()| write_access::check_directory(&directory).map(|_| ()));
        writable.map_err(|source| CacheError::Write {
            path: directory.clone(),
            source,
        })?;
        self.scan().map_err(|source| CacheError::Read {
            path: directory,
            source,
        })
    }

    /// Renames the directory of another user and creates a new one.
    fn set_aside_foreign(&mut self, error: CacheError) -> Result<(), CacheError> {
        let Ok(kept_as) = foreign_files::set_aside(&self.directory) else {
            return Err(error);
        };
        tracing::error!(
            %error, kept_as = %kept_as.display(), advice = foreign_files::ADVICE,
            "The pairs that wait for S3 belong to another user and were renamed; they wait, and new ones are kept in a new directory"
        );
        self.create_and_scan()
    }

    /// Takes up the pairs of directories that belonged to another user and can be read now.
    fn take_up(&mut self) {
        for aside in foreign_files::all_set_aside(&self.directory) {
            match self.move_from(&aside) {
                Ok(pairs) => {
                    tracing::info!(path = %aside.display(), pairs, "Pairs of another user are uploaded to S3 now")
                }
                Err(error) => tracing::error!(
                    path = %aside.display(), %error, advice = foreign_files::ADVICE,
                    "Pairs of another user that wait for S3 cannot be read"
                ),
            }
        }
    }

    /// Moves the pairs of another directory into this one, under new numbers, and removes that directory.
    fn move_from(&mut self, directory: &Path) -> std::io::Result<usize> {
        let no_limits = PendingLimits {
            pairs: usize::MAX,
            bytes: u64::MAX,
        };
        let mut other = Self::new(directory.to_owned(), no_limits);
        other.scan()?;
        let mut moved = 0;
        while let Some((number, entry)) = other.entries.pop_first() {
            let new_number = self.next_number();
            // The picture first, as when a pair is written.
            let parts = [entry.image, Some(PairPart::Json)];
            for part in parts.into_iter().flatten() {
                fs::rename(
                    other.path(number, entry.id, part),
                    self.path(new_number, entry.id, part),
                )?;
            }
            self.bytes += entry.bytes;
            self.entries.insert(new_number, entry);
            moved += 1;
        }
        fs::remove_dir(directory)?;
        Ok(moved)
    }

    fn scan(&mut self) -> std::io::Result<()> {
        let (mut found, mut pictures) = (BTreeMap::new(), BTreeMap::new());
        for entry in fs::read_dir(&self.directory)? {
            let Ok(entry) = entry else { continue };
            let name = entry.file_name();
            let (Some(name), Ok(metadata)) = (name.to_str(), entry.metadata()) else {
                continue;
            };
            if !metadata.is_file() {
                continue;
            }
            match pending_names::parse(name) {
                Some(PendingFile::Json(number, id)) => {
                    found.insert(number, (id, metadata.len()));
                }
                Some(PendingFile::Image(number, id, part)) => {
                    pictures.insert((number, id), (part, metadata.len()));
                }
                // If this fails, the next start tries again.
                Some(PendingFile::Unfinished) => drop(fs::remove_file(entry.path())),
                None => {}
            }
        }
        for (number, (id, json)) in found {
            let image = pictures.remove(&(number, id));
            let entry = PendingEntry {
                id,
                image: image.map(|(part, _)| part),
                bytes: json + image.map_or(0, |(_, bytes)| bytes),
            };
            self.bytes += entry.bytes;
            self.entries.insert(number, entry);
        }
        for ((number, id), (part, _)) in pictures {
            let _ = fs::remove_file(self.path(number, id, part));
        }
        Ok(())
    }

    /// Writes a pair under its number. Returns the number of older pairs that were dropped to make room.
    ///
    /// # Errors
    /// The pair was not written.
    pub(super) fn put(&mut self, number: u64, pair: &CacheItem) -> Result<usize, CacheError> {
        let mut dropped = self.open()?;
        let entry = PendingEntry {
            id: pair.id,
            image: pair.image.is_some().then(|| pair.picture_part()),
            bytes: pair.size() as u64,
        };
        if entry.bytes > self.limits.bytes {
            return Err(CacheError::TooLargeToWait { bytes: entry.bytes });
        }
        dropped += self.drop_oldest(entry.bytes);
        if let Err(error) = self.write(number, pair) {
            let _ = fs::remove_file(self.path(number, pair.id, pair.picture_part()));
            // If the directory was removed, it is created again for the next pair.
            self.is_open = self.directory.is_dir();
            return Err(error);
        }
        self.bytes += entry.bytes;
        self.entries.insert(number, entry);
        Ok(dropped)
    }

    fn write(&self, number: u64, pair: &CacheItem) -> Result<(), CacheError> {
        if let Some(image) = &pair.image {
            self.write_file(&file_name(number, pair.id, pair.picture_part()), image)?;
        }
        let sealed = pending_seal::seal(&pair.json, pair.image.as_deref());
        self.write_file(&file_name(number, pair.id, PairPart::Json), &sealed)
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), CacheError> {
        let unfinished = self.directory.join(pending_names::unfinished(name));
        let path = self.directory.join(name);
        replace_via(&unfinished, &path, bytes, Durability::Restart).map_err(|source| CacheError::Write { path, source })
    }

    /// Drops the oldest pairs until another pair of `bytes` is within the limits. Returns the number of dropped pairs.
    fn drop_oldest(&mut self, bytes: u64) -> usize {
        let mut dropped = 0;
        let one_more = usize::from(bytes > 0);
        while self.entries.len() + one_more > self.limits.pairs || self.bytes + bytes > self.limits.bytes {
            let Some((number, _)) = self.entries.first_key_value() else {
                break;
            };
            self.remove(*number);
            dropped += 1;
        }
        dropped
    }

    /// The oldest pair that `is_free` accepts.
    pub(super) fn oldest(&self, is_free: impl Fn(u64) -> bool) -> Option<(u64, Uuid)> {
        let mut entries = self.entries.iter();
        entries
            .find(|(number, _)| is_free(**number))
            .map(|(number, entry)| (*number, entry.id))
    }

    /// Reads a pair.
    ///
    /// # Errors
    /// The pair cannot be read, or a power cut has damaged it ([`CacheError::Damaged`]).
    pub(super) fn read(&self, number: u64) -> Result<PendingPair, CacheError> {
        let Some(entry) = self.entries.get(&number) else {
            return Err(CacheError::Damaged {
                path: self.directory.clone(),
            });
        };
        let read = |part| {
            let path = self.path(number, entry.id, part);
            match fs::read(&path) {
                Ok(bytes) => Ok((Bytes::from(bytes), path)),
                Err(source) => Err(CacheError::Read { path, source }),
            }
        };
        let image = entry.image.map(read).transpose()?;
        if let Some((bytes, path)) = &image
            && !is_complete(bytes)
        {
            return Err(CacheError::Damaged { path: path.clone() });
        }
        let (file, path) = read(PairPart::Json)?;
        let damaged = || CacheError::Damaged { path: path.clone() };
        let picture = image.as_ref().map(|(bytes, _)| &**bytes);
        let json = pending_seal::open(&file, picture).ok_or_else(damaged)?;
        let message: MessagePrefix = serde_json::from_slice(&json).map_err(|_| damaged())?;
        Ok(PendingPair {
            prefix: message.s3_prefix,
            pair: CacheItem {
                id: entry.id,
                image: image.map(|(bytes, _)| bytes),
                json,
            },
        })
    }

    /// Leaves a pair on disk and does not offer it again before the next start.
    pub(super) fn skip(&mut self, number: u64) {
        if let Some(entry) = self.entries.remove(&number) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }

    /// Removes a pair. If that fails, the pair is uploaded again after the next start.
    pub(super) fn remove(&mut self, number: u64) {
        let Some(entry) = self.entries.remove(&number) else {
            return;
        };
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        let _ = fs::remove_file(self.path(number, entry.id, PairPart::Json));
        if let Some(part) = entry.image {
            let _ = fs::remove_file(self.path(number, entry.id, part));
        }
    }

    /// Removes the pair with this id. Returns `false` if there is none.
    pub(super) fn remove_id(&mut self, id: Uuid) -> bool {
        let number = self.entries.iter().find(|(_, entry)| entry.id == id).map(|(n, _)| *n);
        if let Some(number) = number {
            self.remove(number);
        }
        number.is_some()
    }

    /// Removes all pairs.
    pub(super) fn clear(&mut self) {
        while let Some((number, _)) = self.entries.first_key_value() {
            self.remove(*number);
        }
    }

    fn path(&self, number: u64, id: Uuid, part: PairPart) -> PathBuf {
        self.directory.join(file_name(number, id, part))
    }
}

/// Whether a picture, a sound or a clip was not cut off by a power cut, as far as its ends show.
fn is_complete(bytes: &[u8]) -> bool {
    let is_jpeg = bytes.starts_with(&JPEG_START) && bytes.ends_with(&JPEG_END);
    is_jpeg || is_mp4(bytes) || bytes.starts_with(WAV_START)
}

#[cfg(test)]
#[path = "pending_tests.rs"]
mod tests;
