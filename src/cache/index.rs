//! Which pairs are in the directory, oldest first, and how large they are.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::time::SystemTime;
use std::{fs, io};

use uuid::Uuid;

use super::names::{Own, own};

/// The pairs of one directory. 24 bytes a pair.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// Oldest first.
    pairs: VecDeque<Pair>,
    /// Bytes of all of them.
    bytes: u64,
}

/// A pair, or what there is of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    /// Names the files.
    pub id: Uuid,
    /// Of both files.
    pub bytes: u64,
}

impl Index {
    /// Looks through the directory once. Only regular files with our names count, never what a link points to. What
    /// unfinished writes left behind is removed.
    ///
    /// # Errors
    /// When the directory cannot be read. A file that vanishes meanwhile is no error.
    pub fn scan(directory: &Path) -> io::Result<Self> {
        let mut found: HashMap<Uuid, (SystemTime, u64)> = HashMap::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let Some(own) = own(&entry.file_name()) else { continue };
            // DirEntry::metadata does not follow links.
            let Ok(metadata) = entry.metadata() else { continue };
            if !metadata.is_file() {
                continue;
            }
            match own {
                Own::Unfinished => {
                    if let Err(error) = fs::remove_file(entry.path()) {
                        tracing::warn!(
                            "{}, left by an interrupted write, stays: {error}",
                            entry.path().display()
                        );
                    }
                }
                Own::Pair(id) => {
                    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    let (newest, bytes) = found.entry(id).or_insert((modified, 0));
                    *newest = modified.max(*newest);
                    *bytes += metadata.len();
                }
            }
        }
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_unstable_by_key(|(id, (modified, _))| (*modified, *id));
        let pairs: VecDeque<Pair> = found.into_iter().map(|(id, (_, bytes))| Pair { id, bytes }).collect();
        let bytes = pairs.iter().map(|pair| pair.bytes).sum();
        Ok(Self { pairs, bytes })
    }

    /// Bytes of all pairs.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All pairs, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Pair> {
        self.pairs.iter().copied()
    }

    /// The oldest pair.
    pub fn oldest(&self) -> Option<Pair> {
        self.pairs.front().copied()
    }

    /// Adds the newest pair.
    pub fn add(&mut self, pair: Pair) {
        self.bytes += pair.bytes;
        self.pairs.push_back(pair);
    }

    /// Forgets a pair; the oldest is found at once, others by looking through all.
    pub fn forget(&mut self, id: Uuid) {
        let at = self.pairs.iter().position(|pair| pair.id == id);
        if let Some(pair) = at.and_then(|at| self.pairs.remove(at)) {
            self.bytes -= pair.bytes;
        }
    }
}
