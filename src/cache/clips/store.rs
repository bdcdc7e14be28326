//! The files of clips in a directory.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use bytes::Bytes;
use uuid::Uuid;

use crate::cache::error::CacheError;
use crate::cache::file::{create_and_scan, remove_part};
use crate::cache::file_index::{FileIndex, StoredPair};
use crate::cache::names::{Contents, PairPart, file_name, unfinished_name};
use crate::capture::{ClipCodec, FinishedClip, Haste, VideoError, write_mp4};

/// Only the service user can read the clips.
const MODE: u32 = 0o600;

/// Where clips are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipDirectory {
    /// Created if it is missing. Pairs may be there too.
    pub path: PathBuf,
    /// Most bytes of all clips; beyond it the oldest are removed.
    pub max_bytes: u64,
    /// The clips stay there. Otherwise each is removed when the S3 cache has it.
    pub is_kept: bool,
}

/// A clip that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoredClip {
    pub codec: ClipCodec,
    pub bytes: u64,
    /// Older clips that were removed to make room.
    pub removed: usize,
}

/// Encodes and stores clips. The methods block.
pub(super) trait ClipStore: Send + 'static {
    /// Writes a clip completely or not at all.
    fn put(&mut self, clip: &FinishedClip, haste: &Haste) -> Result<StoredClip, CacheError>;
    /// Reads a clip that was just written.
    fn read(&self, id: Uuid) -> Result<Bytes, CacheError>;
    /// The S3 cache has a clip.
    fn uploaded(&mut self, id: Uuid) -> Result<(), CacheError>;
    /// Removes every clip, and no other files.
    fn clear(&mut self) -> Result<(), CacheError>;
    /// Removes one clip.
    fn clear_one(&mut self, id: Uuid) -> Result<(), CacheError>;
}

/// Keeps clips as files, the newest up to a number of bytes. A file gets its final name only when it is complete.
pub(super) struct ClipFiles {
    directory: ClipDirectory,
    /// `None`: the directory must be read first.
    index: Option<FileIndex>,
}

impl ClipFiles {
    /// Does not create or read the directory yet.
    pub(super) fn new(directory: ClipDirectory) -> Self {
        Self { directory, index: None }
    }

    fn index(&mut self) -> Result<&mut FileIndex, CacheError> {
        let path = &self.directory.path;
        let index = match self.index.take() {
            Some(index) if path.is_dir() => index,
            _ => create_and_scan(path, Contents::Clips).map_err(|source| CacheError::Directory {
                directory: path.clone(),
                source,
            })?,
        };
        Ok(self.index.insert(index))
    }

    /// Drops the oldest clips until `bytes` more fit. Returns their number.
    fn drop_oldest(&mut self, bytes: u64) -> Result<usize, CacheError> {
        let limit = self.directory.max_bytes.saturating_sub(bytes);
        let mut removed = 0;
        loop {
            let index = self.index()?;
            let Some(oldest) = index.oldest().filter(|_| index.bytes() > limit) else {
                return Ok(removed);
            };
            remove_part(&self.directory.path, oldest.id, PairPart::Clip)?;
            self.index()?.remove(oldest.id);
            removed += 1;
        }
    }

    fn path(&self, id: Uuid) -> PathBuf {
        self.directory.path.join(file_name(id, PairPart::Clip))
    }

    fn write_unfinished(
        &self,
        unfinished: &PathBuf,
        clip: &FinishedClip,
        haste: &Haste,
    ) -> Result<StoredClip, VideoError> {
        match fs::remove_file(unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        // `create_new` does not follow a link with this name.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(unfinished)?;
        let codec = write_mp4(clip, &file, haste)?;
        Ok(StoredClip {
            codec,
            bytes: File::metadata(&file)?.len(),
            removed: 0,
        })
    }
}

impl ClipStore for ClipFiles {
    fn put(&mut self, clip: &FinishedClip, haste: &Haste) -> Result<StoredClip, CacheError> {
        let (id, max) = (clip.id, self.directory.max_bytes);
        // Encoding JPEG as H.264 makes it smaller, so this is an upper limit of what is needed, as far as there is room.
        let mut removed = self.drop_oldest((clip.size() as u64).min(max))?;
        let unfinished = self.directory.path.join(unfinished_name(id, PairPart::Clip));
        let failed = |source| CacheError::Clip { id, source };
        let stored = self.write_unfinished(&unfinished, clip, haste).map_err(failed);
        let stored = stored.and_then(|stored| match stored.bytes <= max {
            true => Ok(stored),
            false => Err(CacheError::ClipTooLarge {
                bytes: stored.bytes,
                max,
            }),
        });
        let stored = stored.and_then(|stored| {
            removed += self.drop_oldest(stored.bytes)?;
            fs::rename(&unfinished, self.path(id)).map_err(|error| failed(error.into()))?;
            Ok(StoredClip { removed, ..stored })
        });
        match &stored {
            Ok(StoredClip { bytes, .. }) => self.index()?.add(StoredPair { id, bytes: *bytes }),
            // If it cannot be removed either, the next start removes it.
            Err(_) => drop(fs::remove_file(&unfinished)),
        }
        stored
    }

    fn read(&self, id: Uuid) -> Result<Bytes, CacheError> {
        let path = self.path(id);
        let read = fs::read(&path);
        read.map(Bytes::from)
            .map_err(|source| CacheError::Read { path, source })
    }

    fn uploaded(&mut self, id: Uuid) -> Result<(), CacheError> {
        if self.directory.is_kept {
            return Ok(());
        }
        self.clear_one(id)
    }

    /// A missing directory counts as empty.
    fn clear(&mut self) -> Result<(), CacheError> {
        self.index = None;
        let path = &self.directory.path;
        let index = match FileIndex::scan(path, Contents::Clips) {
            Ok(index) => index,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(source) => {
                return Err(CacheError::Directory {
                    directory: path.clone(),
                    source,
                });
            }
        };
        // After a failure the other clips are removed all the same.
        let removals: Vec<_> = index
            .iter()
            .map(|clip| remove_part(path, clip.id, PairPart::Clip))
            .collect();
        removals.into_iter().try_for_each(|removed| removed.map(|_| ()))
    }

    fn clear_one(&mut self, id: Uuid) -> Result<(), CacheError> {
        let was_there = remove_part(&self.directory.path, id, PairPart::Clip)?;
        if let Some(index) = &mut self.index {
            index.remove(id);
        }
        match was_there {
            true => Ok(()),
            false => Err(CacheError::NoSuchPair { id }),
        }
    }
}
