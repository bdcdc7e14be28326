//! What the targets share.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// A word that no output may have, where it was put into the input as a secret.
pub const SECRET: &str = "hUnter2Zq7XvB";

/// Reads values from an input. Missing bytes are 0.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn byte(&mut self) -> u8 {
        let byte = self.0.first().copied().unwrap_or_default();
        self.0 = self.0.get(1..).unwrap_or_default();
        byte
    }

    pub fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        bytes.fill_with(|| self.byte());
        u64::from_le_bytes(bytes)
    }

    /// A small number most of the time, any number else.
    pub fn amount(&mut self) -> u64 {
        match self.byte() {
            255 => self.number(),
            small => u64::from(small),
        }
    }

    /// Up to the next byte 0xff, which is removed; it is in no text.
    pub fn part(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == 0xff);
        let part = &self.0[..end.unwrap_or(self.0.len())];
        self.0 = end.map_or(&[], |end| &self.0[end + 1..]);
        part
    }

    pub fn part_text(&mut self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.part())
    }

    pub fn text(self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

static SCRATCH: OnceLock<PathBuf> = OnceLock::new();

/// Where the targets make their temporary directories. The first call counts.
pub fn scratch_in(directory: PathBuf) {
    let _ = SCRATCH.set(directory);
}

/// A file system in memory, or else the directory of temporary files.
pub fn memory() -> PathBuf {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() {
        shm.to_owned()
    } else {
        std::env::temp_dir()
    }
}

/// A temporary directory in memory, if the machine has a file system in memory.
pub fn scratch() -> TempDir {
    let parent = SCRATCH.get_or_init(memory);
    tempfile::Builder::new()
        .prefix("fuzz-")
        .tempdir_in(parent)
        .expect("a temporary directory")
}

/// Nothing that is shown has the secret.
pub fn assert_hidden<T: AsRef<str>>(shown: impl IntoIterator<Item = T>) {
    for text in shown {
        assert!(
            !text.as_ref().contains(SECRET),
            "the secret is shown: {}",
            text.as_ref()
        );
    }
}

/// The runtime of the targets that need one.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime")
    })
}
