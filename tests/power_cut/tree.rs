//! The content of a directory, as a value.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Entry {
    Directory { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Symlink { target: String },
}

/// All files and directories below a directory, by their paths relative to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Tree(pub BTreeMap<String, Entry>);

impl Tree {
    /// Reads a directory.
    pub fn read(root: &Path) -> Self {
        let mut tree = Self::default();
        tree.add(root, "");
        tree
    }

    fn add(&mut self, directory: &Path, prefix: &str) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            let relative = if prefix.is_empty() {
                name.into_owned()
            } else {
                format!("{prefix}/{name}")
            };
            let metadata = path.symlink_metadata().expect("metadata");
            let mode = metadata.permissions().mode() & 0o7777;
            let entry = if metadata.is_dir() {
                self.add(&path, &relative);
                Entry::Directory { mode }
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path).expect("a link");
                Entry::Symlink {
                    target: target.to_string_lossy().into_owned(),
                }
            } else {
                let content = fs::read(&path).expect("a file");
                Entry::File { mode, content }
            };
            self.0.insert(relative, entry);
        }
    }

    /// Writes all of it into an existing, empty directory.
    pub fn write(&self, root: &Path) {
        // A directory comes before what is in it.
        for (path, entry) in &self.0 {
            let path = root.join(path);
            let mode = match entry {
                Entry::Directory { mode } => {
                    fs::create_dir(&path).expect("a directory");
                    mode
                }
                Entry::File { mode, content } => {
                    fs::write(&path, content).expect("a file");
                    mode
                }
                Entry::Symlink { target } => {
                    symlink(target, &path).expect("a link");
                    continue;
                }
            };
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).expect("a mode");
        }
    }

    /// A number that differs for different trees.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// Each path with what is there, in short.
    pub fn summary(&self) -> String {
        let line = |(path, entry): (&String, &Entry)| match entry {
            Entry::Directory { .. } => format!("{path}/"),
            Entry::File { content, .. } => format!("{path} ({} bytes)", content.len()),
            Entry::Symlink { target } => format!("{path} -> {target}"),
        };
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}
