//! The pairs or clips in a directory, oldest first, with their sizes.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::time::SystemTime;
use std::{fs, io};

use uuid::Uuid;

use super::names::{Contents, KnownFile, known_file};

/// The pairs, or the clips, of one directory. Each takes 24 bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FileIndex {
    /// Oldest first.
    pairs: VecDeque<StoredPair>,
    /// Bytes of all pairs.
    bytes: u64,
}

/// A clip; or a pair, or one part of it if the other part is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoredPair {
    /// Id in the file names.
    pub id: Uuid,
    /// Size of the files.
    pub bytes: u64,
}

impl FileIndex {
    /// Reads the directory. Counts only regular files with the name of a pair (or of a clip), never the target of a link. Removes the files of
    /// interrupted writes.
    ///
    /// # Errors
    /// The directory cannot be read. A file that disappears meanwhile is no error.
    pub fn scan(directory: &Path, contents: Contents) -> io::Result<Self> {
        let mut found: HashMap<Uuid, (SystemTime, u64)> = HashMap::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let Some(file) = known_file(&entry.file_name(), contents) else {
                continue;
            };
            // DirEntry::metadata does not follow links.
            let Ok(metadata) = entry.metadata() else { continue };
            if !metadata.is_file() {
                continue;
            }
            match file {
                KnownFile::Unfinished => {
                    if let Err(error) = fs::remove_file(entry.path()) {
                        tracing::warn!(
                            path = %entry.path().display(), %error,
                            "A file of an interrupted write cannot be removed"
                        );
                    }
                }
                KnownFile::Complete(id) => {
                    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    let (newest, bytes) = found.entry(id).or_insert((modified, 0));
                    *newest = modified.max(*newest);
                    *bytes += metadata.len();
                }
            }
        }
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_unstable_by_key(|(id, (modified, _))| (*modified, *id));
        let pairs: VecDeque<StoredPair> = found
            .into_iter()
            .map(|(id, (_, bytes))| StoredPair { id, bytes })
            .collect();
        let bytes = pairs.iter().map(|pair| pair.bytes).sum();
        Ok(Self { pairs, bytes })
    }

    /// Bytes of all pairs.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All pairs, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = StoredPair> {
        self.pairs.iter().copied()
    }

    /// The oldest pair.
    pub fn oldest(&self) -> Option<StoredPair> {
        self.pairs.front().copied()
    }

    /// Adds the newest pair.
    pub fn add(&mut self, pair: StoredPair) {
        self.bytes += pair.bytes;
        self.pairs.push_back(pair);
    }

    /// Removes a pair from the index. The oldest is found at once, others by a search.
    pub fn remove(&mut self, id: Uuid) {
        let at = self.pairs.iter().position(|pair| pair.id == id);
        if let Some(pair) = at.and_then(|at| self.pairs.remove(at)) {
            self.bytes -= pair.bytes;
        }
    }
}
