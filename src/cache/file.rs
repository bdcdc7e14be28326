//! The local file cache (`enable_cache_to_file`).

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::index::{Index, Pair};
use super::names::{Part, file_name, unfinished_name};
use super::{CacheError, CacheItem, Store};
use crate::config::FileCacheConfig;
use crate::util::atomic_file::{Durability, replace_by_way_of};

/// How long a directory that cannot be used is left alone.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// Only the component's user reads what its camera saw.
const DIRECTORY_MODE: u32 = 0o700;

/// Keeps pairs as files in one directory, the newest up to a number of bytes.
///
/// A message is never there without its picture: the picture is written first and removed last, and each file appears
/// under its name only when it is complete. Files are not forced to the disk one by one (that wears out SD cards): a power
/// cut may cost the last seconds.
#[derive(Debug)]
pub struct FileCache {
    config: FileCacheConfig,
    /// `None`: the directory must be opened first.
    index: Option<Index>,
    /// Not before this is a directory that failed tried again.
    try_again: Option<Instant>,
}

impl FileCache {
    /// A cache in that directory, which is neither made nor read yet.
    pub fn new(config: FileCacheConfig) -> Self {
        Self {
            config,
            index: None,
            try_again: None,
        }
    }

    /// The pairs there are; makes and reads the directory first where that is due.
    fn index(&mut self, now: Instant) -> Result<&mut Index, CacheError> {
        let directory = &self.config.directory;
        let index = match self.index.take() {
            Some(index) => index,
            None if self.try_again.is_some_and(|due| now < due) => {
                return Err(CacheError::Waiting {
                    directory: directory.clone(),
                });
            }
            None => match make_and_scan(directory) {
                Ok(index) => index,
                Err(source) => {
                    self.try_again = Some(now + TRY_AGAIN);
                    return Err(CacheError::Directory {
                        directory: directory.clone(),
                        source,
                    });
                }
            },
        };
        self.try_again = None;
        Ok(self.index.insert(index))
    }

    /// Removes the oldest pairs until `bytes` more fit, then writes the pair.
    fn keep(&mut self, item: &CacheItem, bytes: u64, now: Instant) -> Result<(), CacheError> {
        self.make_room(bytes, now)?;
        let directory = &self.config.directory;
        if let Some(image) = &item.image {
            write_part(directory, item.id, Part::Image, image)?;
        }
        if let Err(error) = write_part(directory, item.id, Part::Json, &item.json) {
            // A picture without its message is of no use to anybody; what cannot be removed is found by the next scan.
            let _ = fs::remove_file(directory.join(file_name(item.id, Part::Image)));
            return Err(error);
        }
        self.index(now)?.add(Pair { id: item.id, bytes });
        Ok(())
    }

    fn make_room(&mut self, bytes: u64, now: Instant) -> Result<(), CacheError> {
        let room = self.config.max_bytes.saturating_sub(bytes);
        loop {
            let index = self.index(now)?;
            let Some(oldest) = index.oldest().filter(|_| index.bytes() > room) else {
                return Ok(());
            };
            // Removed by hand meanwhile is fine too.
            remove_pair(&self.config.directory, oldest.id)?;
            self.index(now)?.forget(oldest.id);
        }
    }
}

impl Store for FileCache {
    fn open(&mut self, now: Instant) -> Result<(), CacheError> {
        self.make_room(0, now)
    }

    fn put(&mut self, item: &CacheItem, now: Instant) -> Result<(), CacheError> {
        let (bytes, max) = (item.size() as u64, self.config.max_bytes);
        if bytes > max {
            return Err(CacheError::TooLarge { bytes, max });
        }
        match self.keep(item, bytes, now) {
            // Somebody removed the directory: make it again, once.
            Err(CacheError::Write { source, .. }) if source.kind() == ErrorKind::NotFound => {
                self.index = None;
                self.keep(item, bytes, now)
            }
            kept => kept,
        }
    }

    /// Removes what the directory holds now, not what the index remembers. A directory that is not there is clear.
    fn clear(&mut self) -> Result<(), CacheError> {
        self.index = None;
        let directory = &self.config.directory;
        let index = match Index::scan(directory) {
            Ok(index) => index,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(source) => {
                return Err(CacheError::Directory {
                    directory: directory.clone(),
                    source,
                });
            }
        };
        let failures: Vec<CacheError> = index
            .iter()
            .filter_map(|pair| remove_pair(directory, pair.id).err())
            .collect();
        failures.into_iter().next().map_or(Ok(()), Err)
    }

    fn clear_one(&mut self, id: Uuid) -> Result<(), CacheError> {
        let was_there = remove_pair(&self.config.directory, id)?;
        if let Some(index) = &mut self.index {
            index.forget(id);
        }
        if was_there {
            Ok(())
        } else {
            Err(CacheError::NoSuchPair { id })
        }
    }
}

fn make_and_scan(directory: &Path) -> io::Result<Index> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)?;
    Index::scan(directory)
}

/// Writes one file; on failure nothing is left.
fn write_part(directory: &Path, id: Uuid, part: Part, bytes: &[u8]) -> Result<(), CacheError> {
    let unfinished = directory.join(unfinished_name(id, part));
    let path = directory.join(file_name(id, part));
    replace_by_way_of(&unfinished, &path, bytes, Durability::Restart)
        .map_err(|source| CacheError::Write { path, source })
}

/// Removes the message, then the picture. `false`: there was neither. Only regular files: a link is not ours.
fn remove_pair(directory: &Path, id: Uuid) -> Result<bool, CacheError> {
    let mut was_there = false;
    for part in [Part::Json, Part::Image] {
        let path = directory.join(file_name(id, part));
        if !fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            continue;
        }
        match fs::remove_file(&path) {
            Ok(()) => was_there = true,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(CacheError::Remove { path, source }),
        }
    }
    Ok(was_there)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
