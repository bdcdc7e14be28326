//! The files of all models below the directory of the store.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::studio::monitor::record::MAX_INDEX;

/// How the name of a file of records ends.
const EXTENSION: &str = "records";
/// Digits of the highest index.
const DIGITS: usize = 20;

/// The name of the file whose first record has this index.
pub(super) fn file_name(first: u64) -> String {
    format!("{first:0DIGITS$}.{EXTENSION}")
}

/// The directory of one version of a model.
#[derive(Debug, Clone)]
pub(super) struct VersionDirectory {
    pub(super) path: PathBuf,
    /// Length in bytes of each file, by the index of its first record.
    pub(super) files: BTreeMap<u64, u64>,
    /// When a record was last written.
    newest: Option<SystemTime>,
}

/// The directories of all versions of all models, the one that was written to longest ago first. What has another name is not
/// touched; what cannot be read is left out.
///
/// # Errors
/// `root` cannot be read.
pub(super) fn versions(root: &Path) -> io::Result<Vec<VersionDirectory>> {
    let mut found = Vec::new();
    for project in numbered_directories(root)? {
        for version in numbered_directories(&project).unwrap_or_default() {
            if let Ok(directory) = version_directory(version) {
                found.push(directory);
            }
        }
    }
    found.sort_by_key(|directory| directory.newest);
    Ok(found)
}

fn numbered_directories(parent: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<_> = fs::read_dir(parent)?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u64>().ok()?, entry.path())))
        .collect();
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn version_directory(path: PathBuf) -> io::Result<VersionDirectory> {
    let (mut files, mut newest) = (BTreeMap::new(), None);
    for entry in fs::read_dir(&path)?.flatten() {
        let name = entry.file_name();
        let first = name
            .to_str()
            .and_then(|name| name.strip_suffix(EXTENSION)?.strip_suffix('.')?.parse().ok())
            .filter(|first| *first <= MAX_INDEX);
        if let (Some(first), Ok(metadata)) = (first, entry.metadata())
            && metadata.is_file()
            && name.to_str() == Some(&file_name(first))
        {
            files.insert(first, metadata.len());
            newest = newest.max(metadata.modified().ok());
        }
    }
    Ok(VersionDirectory { path, files, newest })
}
