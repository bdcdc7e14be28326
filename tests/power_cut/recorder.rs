//! Compiles the recorder, and starts programs under it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::support::daemon::Daemon;

/// The directory that is recorded, and its trace beside it.
pub struct Recorder {
    root: PathBuf,
    trace: PathBuf,
}

impl Recorder {
    /// Records `root`, which must be an existing, empty directory, into the file `trace`, which must not be below it.
    pub fn new(root: &Path, trace: PathBuf) -> Self {
        let root = root.canonicalize().expect("the directory exists");
        assert!(std::fs::read_dir(&root).expect("a directory").next().is_none());
        Self { root, trace }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn trace(&self) -> &Path {
        &self.trace
    }

    /// Bytes of the trace up to now.
    pub fn position(&self) -> u64 {
        self.trace.metadata().map_or(0, |metadata| metadata.len())
    }

    /// The program of `command` is recorded. Several programs, one after the other, continue the same trace.
    pub fn watch(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", library())
            .env("POWER_CUT_ROOT", &self.root)
            .env("POWER_CUT_TRACE", &self.trace);
    }

    /// Kills a watched program, but never between an operation and its record.
    pub fn kill(&self, daemon: Daemon) {
        let trace = File::open(&self.trace).expect("the trace");
        flock(&trace, FlockOperation::LockExclusive).expect("the lock of the trace");
        drop(daemon);
    }
}

/// The compiled `recorder.c`, once for all tests of this process.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // Below the build directory, because nothing removes what a static variable holds.
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let directory = TempDir::new_in(kept).expect("a directory");
        let built = directory.path().join("recorder.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power_cut/recorder.c");
        // Rust itself needs this compiler to link programs.
        let status = Command::new("cc")
            .args([
                "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o",
            ])
            .args([&built, &source])
            .status()
            .expect("cc, the C compiler that Rust links with");
        assert!(status.success(), "recorder.c is compiled");
        let library = kept.join("power-cut-recorder.so");
        std::fs::rename(built, &library).expect("the library gets its name");
        library
    })
}
