//! Downloaded models on disk: `models/<project>/v<version>-<variant>-<target>-<engine>-impulse<id>/model.eim`.
//!
//! Several processes may share the directory. A process holds a shared lock on the file of a model that it uses, and an
//! exclusive lock on a file that it downloads. Files without a lock may be removed.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::origin::ModelOrigin;
use super::versions::VersionsFile;
use crate::util::atomic_file::{Durability, replace_via};
use crate::util::durable_names;
use crate::util::private_file;

/// Most bytes of the description of a model.
const MAX_ABOUT: u64 = 1 << 20;
/// Time limit for the lock of a model, and the interval in which it is tried.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(20);

pub(super) const MODEL: &str = "model.eim";
pub(super) const ABOUT: &str = "about.json";
/// Prefix of files that are being downloaded.
const UNFINISHED: &str = ".download-";
/// Number of versions of a project that are kept.
const KEPT_VERSIONS: usize = 2;
/// Most characters of a path component.
const MAX_NAME: usize = 128;

/// Describes a model; stored in `about.json` beside the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// Project id.
    pub project_id: u64,
    /// Project name.
    pub project: String,
    /// Project owner.
    pub owner: String,
    /// Impulse id.
    pub impulse_id: u64,
    /// Deployment version.
    pub version: u64,
    /// Model variant.
    pub variant: String,
    /// Deployment target.
    pub target: String,
    /// Inference engine.
    pub engine: String,
    /// The configuration that requested it last.
    pub origin: ModelOrigin,
}

impl ModelMetadata {
    /// The name of the model's directory below `models/`, as [`StoredModel::name`] has it.
    pub(super) fn name(&self) -> String {
        self.directory().to_string_lossy().into_owned()
    }

    /// The directory of the model below `models/`.
    fn directory(&self) -> PathBuf {
        let Self {
            version,
            variant,
            target,
            engine,
            impulse_id,
            ..
        } = self;
        let version = format!("v{version}-{variant}-{target}-{engine}-impulse{impulse_id}");
        Path::new(&path_component(&format!("{}-{}", self.project, self.project_id))).join(path_component(&version))
    }
}

/// The content of `about.json`.
#[derive(Debug, Serialize, Deserialize)]
struct ModelRecord {
    #[serde(flatten)]
    metadata: ModelMetadata,
    /// Size of the model.
    bytes: u64,
    /// SHA-256 of the model when it was downloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// A number that grows with every use of any model. The clock is not used, because it may be wrong after a start.
    used: u64,
}

/// A model on disk. It counts as in use until this is dropped.
#[derive(Debug, Clone)]
pub struct StoredModel {
    /// The executable.
    pub path: PathBuf,
    /// Description of the model.
    pub metadata: ModelMetadata,
    /// Its SHA-256 when it was downloaded, as 64 lower-case hexadecimal digits; `None`: not known.
    pub sha256: Option<String>,
    /// Holds the lock on the file.
    _lock: Arc<File>,
}

impl StoredModel {
    /// The name of its directory below `models/`.
    pub fn name(&self) -> String {
        let parts: Vec<_> = self
            .path
            .iter()
            .rev()
            .skip(1)
            .take(2)
            .map(|part| part.to_string_lossy())
            .collect();
        parts.into_iter().rev().collect::<Vec<_>>().join("/")
    }
}

/// The directory of downloaded models.
#[derive(Debug, Clone)]
pub struct ModelStore {
    root: PathBuf,
}

impl ModelStore {
    /// The store of a work directory.
    pub fn new(work_dir: &Path) -> Self {
        Self {
            root: work_dir.join("models"),
        }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the model if it is stored, and records its use.
    pub fn find(&self, metadata: &ModelMetadata) -> Option<StoredModel> {
        let directory = self.root.join(metadata.directory());
        let (mut record, model) = read(&directory).filter(|(record, _)| is_same(&record.metadata, metadata))?;
        record.metadata = metadata.clone();
        record.used = self.next_use();
        if let Err(e) = write_record(&directory, &record) {
            tracing::warn!(path = %directory.display(), error = %e, "The use of the model cannot be recorded");
        }
        Some(StoredModel {
            metadata: metadata.clone(),
            ..model
        })
    }

    /// Returns the model of this origin that was used last; `None` means any origin.
    pub fn newest(&self, origin: Option<&ModelOrigin>) -> Option<StoredModel> {
        self.newest_where(|metadata, _| origin.is_none_or(|origin| metadata.origin == *origin))
    }

    /// Returns the model that was used last, among those that `is_wanted` accepts by their description and their name.
    pub(super) fn newest_where(&self, is_wanted: impl Fn(&ModelMetadata, &str) -> bool) -> Option<StoredModel> {
        self.all()
            .into_iter()
            .filter(|(record, model)| is_wanted(&record.metadata, &model.name()))
            .max_by_key(|(record, _)| record.used)
            .map(|(_, model)| model)
    }

    /// Which versions are in use and which are bad.
    pub(super) fn versions(&self) -> VersionsFile {
        VersionsFile::new(&self.root)
    }

    /// The model with this [name](StoredModel::name), if it is stored.
    pub(super) fn named(&self, name: &str) -> Option<StoredModel> {
        let (_, model) = read(&self.root.join(name))?;
        Some(model)
    }

    /// Forgets a model whose file is not the one that was downloaded: it counts as not stored, and is downloaded again.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub(super) fn discard(&self, model: &StoredModel) -> io::Result<()> {
        fs::remove_file(self.root.join(model.name()).join(ABOUT))
    }

    /// Creates an empty file for a download.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub(super) fn new_download(&self) -> io::Result<PartialDownload> {
        durable_names::create_directories(&self.root, durable_names::SHARED)?;
        let path = self.root.join(format!("{UNFINISHED}{:016x}", rand::random::<u64>()));
        let file = File::create_new(&path)?;
        let temporary = TemporaryFile {
            path,
            is_installed: false,
        };
        file.try_lock().map_err(io::Error::from)?;
        Ok(PartialDownload { temporary, file })
    }

    /// Turns a checked download with this SHA-256 into a stored model: executable, synced to the disk, and renamed in one
    /// step.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub(super) fn install(
        &self,
        download: PartialDownload,
        metadata: &ModelMetadata,
        sha256: String,
    ) -> io::Result<StoredModel> {
        let PartialDownload { mut temporary, file } = download;
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        // Linux does not execute a file that is open for writing.
        drop(file);
        let directory = self.root.join(metadata.directory());
        durable_names::create_directories(&directory, durable_names::SHARED)?;
        let record = ModelRecord {
            metadata: metadata.clone(),
            bytes,
            sha256: Some(sha256),
            used: self.next_use(),
        };
        write_record(&directory, &record)?;
        let path = directory.join(MODEL);
        fs::rename(&temporary.path, &path)?;
        temporary.is_installed = true;
        for directory in directory.ancestors().take(3) {
            File::open(directory)?.sync_all()?;
        }
        Ok(StoredModel {
            _lock: Arc::new(open_locked(&path)?),
            path,
            metadata: metadata.clone(),
            sha256: record.sha256,
        })
    }

    /// Removes all versions of the project except the last two that are not bad, those that a configuration needs, and
    /// those in use.
    pub(super) fn remove_old_versions(&self, project_id: u64) {
        let (needed, bad) = (self.versions().needed(), self.versions().bad());
        let mut records: Vec<_> = self
            .all()
            .into_iter()
            .filter(|(record, _)| record.metadata.project_id == project_id)
            // The model itself is not kept, because it holds a lock.
            .map(|(record, model)| (record.used, model.name(), model.path))
            .collect();
        records.sort_by_key(|(used, ..)| std::cmp::Reverse(*used));
        let (bad, good): (Vec<_>, Vec<_>) = records.into_iter().partition(|(_, name, _)| bad.contains(name));
        let old = bad.into_iter().chain(good.into_iter().skip(KEPT_VERSIONS));
        for (.., path) in old.filter(|(_, name, _)| !needed.contains(name)) {
            // The file stays locked until it is removed, so that no process starts to use it.
            let lock = File::open(&path).ok().filter(|file| file.try_lock().is_ok());
            let (Some(_lock), Some(directory)) = (lock, path.parent()) else {
                continue;
            };
            // The record is removed first: a directory without it is not a model.
            let removed = fs::remove_file(directory.join(ABOUT)).and_then(|()| fs::remove_dir_all(directory));
            match removed {
                Ok(()) => tracing::info!(path = %directory.display(), "Removed an old model"),
                Err(e) => tracing::warn!(path = %directory.display(), error = %e, "An old model cannot be removed"),
            }
        }
    }

    /// Removes the files of downloads whose process has ended.
    pub fn remove_leftovers(&self) {
        for path in entries(&self.root) {
            let is_unfinished = path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(UNFINISHED));
            if is_unfinished && File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
                let _ = fs::remove_file(&path);
            }
        }
    }

    fn all(&self) -> Vec<(ModelRecord, StoredModel)> {
        entries(&self.root)
            .iter()
            .flat_map(|project| entries(project))
            .filter_map(|directory| read(&directory))
            .collect()
    }

    fn next_use(&self) -> u64 {
        let last = self.all().iter().map(|(record, _)| record.used).max();
        last.unwrap_or(0).saturating_add(1)
    }
}

/// A file that is being downloaded; removed on drop unless it was installed.
struct TemporaryFile {
    path: PathBuf,
    is_installed: bool,
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.is_installed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A download that is running or not yet installed.
pub(super) struct PartialDownload {
    temporary: TemporaryFile,
    file: File,
}

impl PartialDownload {
    pub(super) fn path(&self) -> &Path {
        &self.temporary.path
    }

    /// Another handle for writing.
    pub(super) fn writer(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

/// Whether both are the same deployment; the origin may differ.
fn is_same(one: &ModelMetadata, other: &ModelMetadata) -> bool {
    let key = |metadata: &ModelMetadata| (metadata.project_id, metadata.impulse_id, metadata.version);
    let kind = |metadata: &ModelMetadata| {
        [
            metadata.variant.clone(),
            metadata.target.clone(),
            metadata.engine.clone(),
        ]
    };
    key(one) == key(other) && kind(one) == kind(other)
}

/// The model in this directory, if it is complete.
fn read(directory: &Path) -> Option<(ModelRecord, StoredModel)> {
    let mut about = Vec::new();
    let file = private_file::open(&directory.join(ABOUT)).ok()?;
    file.take(MAX_ABOUT).read_to_end(&mut about).ok()?;
    let record: ModelRecord = serde_json::from_slice(&about).ok()?;
    let path = directory.join(MODEL);
    let file = open_locked(&path).ok()?;
    if file.metadata().ok()?.len() != record.bytes {
        return None;
    }
    let model = StoredModel {
        path,
        metadata: record.metadata.clone(),
        sha256: record.sha256.clone(),
        _lock: Arc::new(file),
    };
    Some((record, model))
}

/// Opens the model with a shared lock, if it is trusted. Waits while another process holds the exclusive lock, which keeps it from
/// being removed. Other users can lock what they can read, so the model is used without the lock in the end.
fn open_locked(path: &Path) -> io::Result<File> {
    let file = private_file::open(path)?;
    let end = Instant::now() + LOCK_LIMIT;
    while let Err(TryLockError::WouldBlock) = file.try_lock_shared() {
        if Instant::now() >= end {
            tracing::warn!(path = %path.display(), "Another process locks the model, which is used nevertheless");
            break;
        }
        std::thread::sleep(LOCK_POLL);
    }
    Ok(file)
}

fn write_record(directory: &Path, record: &ModelRecord) -> io::Result<()> {
    // A random name, because several processes may write records of the same model.
    let unfinished = directory.join(format!(".about-{:016x}", rand::random::<u64>()));
    let content = serde_json::to_vec_pretty(record)?;
    let path = directory.join(ABOUT);
    replace_via(&unfinished, &path, &content, Durability::PowerCut)?;
    // As the model itself: `model fetch` as root makes a model for the user of the component.
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Converts a name to a path component of letters, digits, `-`, `_` and `.`, which is not hidden and not empty.
fn path_component(name: &str) -> String {
    let clean = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
            c
        } else {
            '-'
        }
    };
    // The end is kept, because it contains the id.
    let all: Vec<char> = name.chars().map(clean).collect();
    let kept = all.len().saturating_sub(MAX_NAME);
    let name: String = all.into_iter().skip(kept).collect();
    let name = name.trim_start_matches(['.', '-']);
    if name.is_empty() {
        "model".to_owned()
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests;
