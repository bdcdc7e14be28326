//! A small file with what a process must know of the one before, and how long ago that was.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::atomic_file::{Durability, replace_via};
use super::clock::now_ms;
use super::{private_dir, private_file};

/// A state on disk with the time at which it was written.
///
/// The wall clock may jump: a device without a clock starts in the past. A state from the future is taken as just written, and
/// a state never gets an earlier time than the one before it. So a jump can only make a state look younger than it is.
#[derive(Debug)]
pub(crate) struct AgedFile {
    path: PathBuf,
    saved_at: u64,
}

#[derive(Serialize, Deserialize)]
struct Content<T> {
    /// Milliseconds since the Unix epoch.
    saved_at: u64,
    state: T,
}

impl AgedFile {
    /// The file may be missing.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, saved_at: 0 }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the state and how long ago it was written; `None`: there is none.
    ///
    /// # Errors
    /// It cannot be read or parsed.
    pub(crate) fn load<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Duration)>> {
        self.load_at(now_ms())
    }

    fn load_at<T: DeserializeOwned>(&mut self, now: u64) -> io::Result<Option<(T, Duration)>> {
        let text = match private_file::read_state(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let content: Content<T> = serde_json::from_slice(&text)?;
        self.saved_at = content.saved_at;
        let elapsed = Duration::from_millis(now.saturating_sub(content.saved_at));
        Ok(Some((content.state, elapsed)))
    }

    /// Writes the state. It survives a power cut.
    ///
    /// # Errors
    /// It cannot be written; the state before is kept.
    pub(crate) fn save<T: Serialize>(&mut self, state: T) -> io::Result<()> {
        self.save_at(now_ms(), state)
    }

    fn save_at<T: Serialize>(&mut self, now: u64, state: T) -> io::Result<()> {
        self.saved_at = self.saved_at.max(now);
        let content = serde_json::to_vec(&Content {
            saved_at: self.saved_at,
            state,
        })?;
        if let Some(directory) = self.path.parent() {
            private_dir::create_trusted(directory)?;
        }
        let unfinished = self.path.with_extension("unfinished");
        replace_via(&unfinished, &self.path, &content, Durability::PowerCut)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const YEAR: u64 = 365 * 24 * 3600 * 1000;

    #[test]
    fn a_state_is_read_with_its_age() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/state.json");
        assert_eq!(AgedFile::new(path.clone()).load_at::<u8>(5).unwrap(), None);
        AgedFile::new(path.clone()).save_at(1000, 7_u8).unwrap();
        let read = AgedFile::new(path.clone()).load_at::<u8>(4000).unwrap();
        assert_eq!(read, Some((7, Duration::from_secs(3))));
        fs::write(&path, "cut").unwrap();
        assert!(AgedFile::new(path).load::<u8>().is_err());
    }

    #[test]
    fn a_file_of_any_size_is_read_up_to_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let text = format!(r#"{{"saved_at":1,"state":7{}}}"#, " ".repeat(2 << 20));
        fs::write(&path, text).unwrap();
        assert!(AgedFile::new(path).load::<u8>().is_err());
    }

    #[test]
    fn a_clock_that_jumps_makes_no_state_older_than_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let mut before = AgedFile::new(path.clone());
        before.save_at(50 * YEAR, 1_u8).unwrap();
        // The device starts in 1970 and gets its time later.
        let mut early = AgedFile::new(path.clone());
        assert_eq!(early.load_at::<u8>(1).unwrap(), Some((1, Duration::ZERO)));
        early.save_at(2, 2_u8).unwrap();
        let read = AgedFile::new(path).load_at::<u8>(50 * YEAR + 10).unwrap();
        assert_eq!(read, Some((2, Duration::from_millis(10))));
    }
}
