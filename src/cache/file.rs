//! The local file cache (`enable_cache_to_file`).

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::error::CacheError;
use super::file_index::{FileIndex, StoredPair};
use super::item::CacheItem;
use super::names::{Contents, PairPart, file_name, unfinished_name};
use super::store::PairStore;
use crate::config::FileCacheConfig;
use crate::util::atomic_file::{Durability, replace_via};
use crate::util::private_dir;

/// Delay before a directory that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Keeps pairs as files in one directory, the newest up to a number of bytes.
///
/// A message never exists without its picture: the picture is written first and removed last, and a file gets its final name
/// only when it is complete. Files are not synced to the disk one by one, because that wears out SD cards: a power cut can
/// lose the pairs of the last seconds.
#[derive(Debug)]
pub struct FileCache {
    config: FileCacheConfig,
    /// `None`: the directory must be opened first.
    index: Option<FileIndex>,
    /// The directory failed: it is not tried again before this.
    retry_at: Option<Instant>,
}

impl FileCache {
    /// A cache in the configured directory. Does not create or read it yet.
    pub fn new(config: FileCacheConfig) -> Self {
        Self {
            config,
            index: None,
            retry_at: None,
        }
    }

    /// The index; creates and reads the directory first if necessary.
    fn index(&mut self, now: Instant) -> Result<&mut FileIndex, CacheError> {
        let directory = &self.config.directory;
        let index = match self.index.take() {
            Some(index) => index,
            None if self.retry_at.is_some_and(|due| now < due) => {
                return Err(CacheError::DirectoryOnHold {
                    directory: directory.clone(),
                });
            }
            None => match create_and_scan(directory, Contents::Pairs) {
                Ok(index) => index,
                Err(source) => {
                    self.retry_at = Some(now + RETRY_AFTER);
                    return Err(CacheError::Directory {
                        directory: directory.clone(),
                        source,
                    });
                }
            },
        };
        self.retry_at = None;
        Ok(self.index.insert(index))
    }

    /// Drops the oldest pairs until `bytes` more fit, then writes the pair.
    fn keep(&mut self, item: &CacheItem, bytes: u64, now: Instant) -> Result<(), CacheError> {
        self.drop_oldest(bytes, now)?;
        let directory = &self.config.directory;
        if let Some(image) = &item.image {
            write_part(directory, item.id, PairPart::Image, image)?;
        }
        if let Err(error) = write_part(directory, item.id, PairPart::Json, &item.json) {
            // A picture is useless without its message. If it cannot be removed, the next scan finds it.
            let _ = fs::remove_file(directory.join(file_name(item.id, PairPart::Image)));
            return Err(error);
        }
        self.index(now)?.add(StoredPair { id: item.id, bytes });
        Ok(())
    }

    fn drop_oldest(&mut self, bytes: u64, now: Instant) -> Result<(), CacheError> {
        let limit = self.config.max_bytes.saturating_sub(bytes);
        loop {
            let index = self.index(now)?;
            let Some(oldest) = index.oldest().filter(|_| index.bytes() > limit) else {
                return Ok(());
            };
            // A user may have removed the files already; that is no error.
            remove_pair(&self.config.directory, oldest.id)?;
            self.index(now)?.remove(oldest.id);
        }
    }
}

impl PairStore for FileCache {
    fn open(&mut self, now: Instant) -> Result<(), CacheError> {
        self.drop_oldest(0, now)
    }

    fn put(&mut self, item: &CacheItem, now: Instant) -> Result<(), CacheError> {
        let (bytes, max) = (item.size() as u64, self.config.max_bytes);
        if bytes > max {
            return Err(CacheError::TooLarge { bytes, max });
        }
        match self.keep(item, bytes, now) {
            // The directory was removed: create it again, once.
            Err(CacheError::Write { source, .. }) if source.kind() == ErrorKind::NotFound => {
                self.index = None;
                self.keep(item, bytes, now)
            }
            kept => kept,
        }
    }

    /// Removes the pairs that are in the directory now, independent of the index. A missing directory counts as empty.
    fn clear(&mut self) -> Result<(), CacheError> {
        self.index = None;
        let directory = &self.config.directory;
        let index = match FileIndex::scan(directory, Contents::Pairs) {
            Ok(index) => index,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(source) => {
                return Err(CacheError::Directory {
                    directory: directory.clone(),
                    source,
                });
            }
        };
        // After a failure the other pairs are removed all the same.
        let removals: Vec<_> = index.iter().map(|pair| remove_pair(directory, pair.id)).collect();
        removals.into_iter().try_for_each(|removed| removed.map(|_| ()))
    }

    fn clear_one(&mut self, id: Uuid) -> Result<(), CacheError> {
        let was_there = remove_pair(&self.config.directory, id)?;
        if let Some(index) = &mut self.index {
            index.remove(id);
        }
        if was_there {
            Ok(())
        } else {
            Err(CacheError::NoSuchPair { id })
        }
    }
}

/// Creates the directory if necessary, and reads it.
pub(super) fn create_and_scan(directory: &Path, contents: Contents) -> io::Result<FileIndex> {
    private_dir::create(directory)?;
    FileIndex::scan(directory, contents)
}

/// Writes one file completely or not at all.
fn write_part(directory: &Path, id: Uuid, part: PairPart, bytes: &[u8]) -> Result<(), CacheError> {
    let unfinished = directory.join(unfinished_name(id, part));
    let path = directory.join(file_name(id, part));
    replace_via(&unfinished, &path, bytes, Durability::Restart).map_err(|source| CacheError::Write { path, source })
}

/// Removes the message, then the picture. Returns `false` if neither existed.
fn remove_pair(directory: &Path, id: Uuid) -> Result<bool, CacheError> {
    let mut was_there = false;
    for part in [PairPart::Json, PairPart::Image] {
        was_there |= remove_part(directory, id, part)?;
    }
    Ok(was_there)
}

/// Removes a file, but only a regular one: this component writes no links. Returns `false` if it did not exist.
pub(super) fn remove_part(directory: &Path, id: Uuid, part: PairPart) -> Result<bool, CacheError> {
    let path = directory.join(file_name(id, part));
    if !fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
        return Ok(false);
    }
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(CacheError::Remove { path, source }),
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
