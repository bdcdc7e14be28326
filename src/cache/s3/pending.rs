//! Pairs that could not be sent, on disk until they can: `<number>-<id>.img` and `<number>-<id>.json`.
//!
//! The picture is written first and removed last, each file appears under its name only when it is complete, and the
//! message names the prefix of its keys itself. So whatever is there after a SIGKILL is complete or recognised as not.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Deserialize;
use uuid::Uuid;

use crate::cache::names::pair_id;
use crate::cache::{CacheError, CacheItem};
use crate::util::atomic_file::{Durability, replace_by_way_of};

/// Only the component's user reads what its camera saw.
const DIRECTORY_MODE: u32 = 0o700;
/// Marks a file that is being written.
const UNFINISHED: &str = ".part";
/// What every JPEG begins and ends with.
const JPEG_START: [u8; 2] = [0xff, 0xd8];
const JPEG_END: [u8; 2] = [0xff, 0xd9];

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Pairs.
    pub(super) pairs: usize,
    /// Bytes of pictures and messages.
    pub(super) bytes: u64,
}

/// The directory, and what is in it.
#[derive(Debug)]
pub(super) struct Pending {
    directory: PathBuf,
    bounds: Bounds,
    /// By number, oldest first.
    waiting: BTreeMap<u64, Entry>,
    bytes: u64,
    /// Whether the directory was made and read.
    open: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    id: Uuid,
    image: bool,
    bytes: u64,
}

/// A pair with the prefix of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prefixed {
    pub(super) prefix: String,
    pub(super) pair: CacheItem,
}

/// The one field of a message that is needed here.
#[derive(Deserialize)]
struct Place {
    s3_prefix: String,
}

impl Pending {
    /// Nothing is made or read yet.
    pub(super) fn new(directory: PathBuf, bounds: Bounds) -> Self {
        Self {
            directory,
            bounds,
            waiting: BTreeMap::new(),
            bytes: 0,
            open: false,
        }
    }

    /// Where it is.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Pairs that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// A number after all that are taken.
    pub(super) fn next_number(&self) -> u64 {
        self.waiting.last_key_value().map_or(0, |(number, _)| number + 1)
    }

    /// Makes and reads the directory, and removes what is left of writes that did not finish. Gives how many pairs were
    /// dropped because they are beyond the bounds.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub(super) fn open(&mut self) -> Result<usize, CacheError> {
        if self.open {
            return Ok(0);
        }
        let directory = self.directory.clone();
        let made = DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(&directory);
        made.map_err(|source| CacheError::Write {
            path: directory.clone(),
            source,
        })?;
        self.scan().map_err(|source| CacheError::Read {
            path: directory,
            source,
        })?;
        self.open = true;
        Ok(self.make_room(0))
    }

    fn scan(&mut self) -> std::io::Result<()> {
        let (mut found, mut pictures) = (BTreeMap::new(), BTreeMap::new());
        for entry in fs::read_dir(&self.directory)? {
            let (name, entry) = match entry {
                Ok(entry) => (entry.file_name(), entry),
                Err(_) => continue,
            };
            let (Some(name), Ok(metadata)) = (name.to_str(), entry.metadata()) else {
                continue;
            };
            if !metadata.is_file() {
                continue;
            }
            match own(name) {
                Some(Own::Json(number, id)) => {
                    found.insert(number, (id, metadata.len()));
                }
                Some(Own::Image(number, id)) => {
                    pictures.insert((number, id), metadata.len());
                }
                // Not finished before the process ended; when it cannot be removed, the next start tries again.
                Some(Own::Unfinished) => drop(fs::remove_file(entry.path())),
                None => {}
            }
        }
        for (number, (id, json)) in found {
            let image = pictures.remove(&(number, id));
            let entry = Entry {
                id,
                image: image.is_some(),
                bytes: json + image.unwrap_or(0),
            };
            self.bytes += entry.bytes;
            self.waiting.insert(number, entry);
        }
        for (number, id) in pictures.into_keys() {
            let _ = fs::remove_file(self.path(number, id, "img"));
        }
        Ok(())
    }

    /// Keeps a pair under a number of its own. Gives how many older ones were dropped for it.
    ///
    /// # Errors
    /// When it was not kept.
    pub(super) fn put(&mut self, number: u64, pair: &CacheItem) -> Result<usize, CacheError> {
        let mut dropped = self.open()?;
        let entry = Entry {
            id: pair.id,
            image: pair.image.is_some(),
            bytes: pair.size() as u64,
        };
        if entry.bytes > self.bounds.bytes {
            return Err(CacheError::TooLargeToWait { bytes: entry.bytes });
        }
        dropped += self.make_room(entry.bytes);
        if let Err(error) = self.write(number, pair) {
            let _ = fs::remove_file(self.path(number, pair.id, "img"));
            // Somebody may have removed the directory: it is made anew for the next pair.
            self.open = self.directory.is_dir();
            return Err(error);
        }
        self.bytes += entry.bytes;
        self.waiting.insert(number, entry);
        Ok(dropped)
    }

    fn write(&self, number: u64, pair: &CacheItem) -> Result<(), CacheError> {
        if let Some(image) = &pair.image {
            self.write_file(&self.path(number, pair.id, "img"), image)?;
        }
        self.write_file(&self.path(number, pair.id, "json"), &pair.json)
    }

    fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        replace_by_way_of(&unfinished, path, bytes, Durability::Restart).map_err(|source| CacheError::Write {
            path: path.to_owned(),
            source,
        })
    }

    /// Removes the oldest until one more pair of that size is within the bounds.
    fn make_room(&mut self, bytes: u64) -> usize {
        let mut dropped = 0;
        let one_more = usize::from(bytes > 0);
        while self.waiting.len() + one_more > self.bounds.pairs || self.bytes + bytes > self.bounds.bytes {
            let Some((number, _)) = self.waiting.first_key_value() else {
                break;
            };
            self.remove(*number);
            dropped += 1;
        }
        dropped
    }

    /// The oldest for which `free` holds.
    pub(super) fn oldest(&self, free: impl Fn(u64) -> bool) -> Option<(u64, Uuid)> {
        let mut waiting = self.waiting.iter();
        waiting
            .find(|(number, _)| free(**number))
            .map(|(number, entry)| (*number, entry.id))
    }

    /// Reads a pair.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was written ([`CacheError::Damaged`]): a power cut can do that.
    pub(super) fn read(&self, number: u64) -> Result<Prefixed, CacheError> {
        let Some(entry) = self.waiting.get(&number) else {
            return Err(CacheError::Damaged {
                path: self.directory.clone(),
            });
        };
        let read = |ending| {
            let path = self.path(number, entry.id, ending);
            match fs::read(&path) {
                Ok(bytes) => Ok((Bytes::from(bytes), path)),
                Err(source) => Err(CacheError::Read { path, source }),
            }
        };
        let image = entry.image.then(|| read("img")).transpose()?;
        if let Some((bytes, path)) = &image
            && !(bytes.starts_with(&JPEG_START) && bytes.ends_with(&JPEG_END))
        {
            return Err(CacheError::Damaged { path: path.clone() });
        }
        let (json, path) = read("json")?;
        let place: Place = serde_json::from_slice(&json).map_err(|_| CacheError::Damaged { path })?;
        Ok(Prefixed {
            prefix: place.s3_prefix,
            pair: CacheItem {
                id: entry.id,
                image: image.map(|(bytes, _)| bytes),
                json,
            },
        })
    }

    /// Removes a pair that was sent, or never will be. What cannot be removed is sent again after the next start.
    pub(super) fn remove(&mut self, number: u64) {
        let Some(entry) = self.waiting.remove(&number) else {
            return;
        };
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        let _ = fs::remove_file(self.path(number, entry.id, "json"));
        if entry.image {
            let _ = fs::remove_file(self.path(number, entry.id, "img"));
        }
    }

    /// Removes the pair of that id. `false`: it does not wait here.
    pub(super) fn remove_id(&mut self, id: Uuid) -> bool {
        let number = self.waiting.iter().find(|(_, entry)| entry.id == id).map(|(n, _)| *n);
        if let Some(number) = number {
            self.remove(number);
        }
        number.is_some()
    }

    /// Removes all.
    pub(super) fn clear(&mut self) {
        while let Some((number, _)) = self.waiting.first_key_value() {
            self.remove(*number);
        }
    }

    fn path(&self, number: u64, id: Uuid, ending: &str) -> PathBuf {
        self.directory.join(format!("{number:012}-{id}.{ending}"))
    }
}

/// What a file is.
enum Own {
    Json(u64, Uuid),
    Image(u64, Uuid),
    Unfinished,
}

fn own(name: &str) -> Option<Own> {
    if let Some(inner) = name.strip_suffix(UNFINISHED) {
        return own(inner).map(|_| Own::Unfinished);
    }
    let (stem, ending) = name.split_once('.')?;
    let (number, id) = stem.split_once('-')?;
    let (number, id) = (number.parse().ok()?, pair_id(id)?);
    match ending {
        "json" => Some(Own::Json(number, id)),
        "img" => Some(Own::Image(number, id)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const BOUNDS: Bounds = Bounds {
        pairs: 5,
        bytes: 10_000,
    };

    fn pair(picture: usize) -> CacheItem {
        let id = Uuid::new_v4();
        let image = [&JPEG_START[..], &vec![0; picture], &JPEG_END].concat();
        CacheItem {
            id,
            image: Some(image.into()),
            json: format!(r#"{{"id":"{id}","s3_prefix":"m_v1/"}}"#).into(),
        }
    }

    fn pending(directory: &tempfile::TempDir) -> Pending {
        let mut pending = Pending::new(directory.path().join("s3-pending"), BOUNDS);
        pending.open().unwrap();
        pending
    }

    fn files(directory: &tempfile::TempDir) -> usize {
        fs::read_dir(directory.path().join("s3-pending")).unwrap().count()
    }

    fn all(pending: &Pending) -> Vec<Uuid> {
        pending.waiting.values().map(|entry| entry.id).collect()
    }

    #[test]
    fn what_waits_is_there_in_its_order_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b, sound) = (pair(10), pair(20), CacheItem { image: None, ..pair(0) });
        let mut before = pending(&directory);
        before.put(8, &b).unwrap();
        before.put(7, &a).unwrap();
        before.put(9, &sound).unwrap();

        let after = pending(&directory);
        assert_eq!(all(&after), [a.id, b.id, sound.id]);
        assert_eq!(after.next_number(), 10);
        assert_eq!(
            after.read(7).unwrap(),
            Prefixed {
                prefix: "m_v1/".to_owned(),
                pair: a
            }
        );
        assert_eq!(after.read(9).unwrap().pair, sound);
        assert_eq!(after.oldest(|n| n != 7), Some((8, b.id)));
    }

    #[test]
    fn beyond_a_bound_the_oldest_go_with_their_files() {
        let directory = tempfile::tempdir().unwrap();
        let mut pending = pending(&directory);
        let pairs: Vec<_> = (0..7).map(|_| pair(10)).collect();
        let dropped: usize = (0..).zip(&pairs).map(|(n, p)| pending.put(n, p).unwrap()).sum();
        assert_eq!((dropped, files(&directory)), (2, 10));
        assert_eq!(all(&pending), pairs[2..].iter().map(|p| p.id).collect::<Vec<_>>());

        assert_eq!(pending.put(7, &pair(9_900)).unwrap(), 5);
        assert!(matches!(
            pending.put(8, &pair(10_000)),
            Err(CacheError::TooLargeToWait { .. })
        ));
        assert_eq!((pending.len(), files(&directory)), (1, 2));
    }

    #[test]
    fn what_a_sigkill_left_behind_is_cleared_away_and_foreign_files_stay() {
        let directory = tempfile::tempdir().unwrap();
        let whole = pair(10);
        pending(&directory).put(3, &whole).unwrap();
        let path = directory.path().join("s3-pending");
        let id = Uuid::new_v4();
        for name in [format!("000000000004-{id}.img"), format!("000000000005-{id}.json.part")] {
            fs::write(path.join(name), "half").unwrap();
        }
        fs::write(path.join("notes.txt"), "mine").unwrap();

        let after = pending(&directory);
        assert_eq!((all(&after), files(&directory)), (vec![whole.id], 3));
    }

    #[test]
    fn a_picture_that_a_power_cut_emptied_is_not_taken_for_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut pending = pending(&directory);
        let pair = pair(10);
        pending.put(0, &pair).unwrap();
        fs::write(pending.path(0, pair.id, "img"), "").unwrap();
        assert!(matches!(pending.read(0), Err(CacheError::Damaged { .. })));
        fs::write(pending.path(0, pair.id, "json"), "{}").unwrap();
        assert!(matches!(pending.read(0), Err(CacheError::Damaged { .. })));
    }

    #[test]
    fn only_the_service_user_reads_what_waits() {
        let directory = tempfile::tempdir().unwrap();
        let mut pending = pending(&directory);
        let pair = pair(10);
        pending.put(0, &pair).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&pending.directory), 0o700);
        assert_eq!(mode(&pending.path(0, pair.id, "img")), 0o600);
        assert_eq!(mode(&pending.path(0, pair.id, "json")), 0o600);
    }

    #[test]
    fn one_pair_and_all_pairs_can_be_removed() {
        let directory = tempfile::tempdir().unwrap();
        let mut pending = pending(&directory);
        let pairs = [pair(1), pair(2), pair(3)];
        (0..)
            .zip(&pairs)
            .for_each(|(n, p)| assert_eq!(pending.put(n, p).unwrap(), 0));
        assert!(pending.remove_id(pairs[1].id));
        assert!(!pending.remove_id(pairs[1].id));
        assert_eq!((pending.len(), files(&directory)), (2, 4));
        pending.clear();
        assert_eq!((pending.len(), files(&directory), pending.bytes), (0, 0, 0));
    }
}
