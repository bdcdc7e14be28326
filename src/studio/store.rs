//! Downloaded models on disk: `models/<project>/v<version>-<variant>-<target>-<engine>-impulse<id>/model.eim`.
//!
//! Several daemons may share the directory. Who uses a model holds a shared lock on its file, who downloads one an
//! exclusive lock on the unfinished file; what nobody holds may be removed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

const MODEL: &str = "model.eim";
const ABOUT: &str = "about.json";
const UNFINISHED: &str = ".download-";
/// Versions of one project that are kept.
const KEPT: usize = 2;
/// Longest part of a path made from a name, in characters.
const NAME: usize = 64;

/// What asked for a model: only a model of the same origin stands in for it without network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Base address of Studio.
    pub studio: String,
    /// Secrets Manager secret id.
    pub secret_id: String,
    /// Key in the secret.
    pub secret_name: String,
    /// `--impulse-id`
    pub impulse_id: Option<u64>,
}

/// Which model it is; `about.json` beside the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
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
    /// What asked for it last.
    pub origin: Origin,
}

impl About {
    /// Its place below `models/`.
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
        Path::new(&path_name(&format!("{}-{}", self.project, self.project_id))).join(path_name(&version))
    }
}

/// `about.json` as written.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    about: About,
    /// Size of the model.
    bytes: u64,
    /// Counts up with every use of any model: the clock of a device without a battery cannot order them.
    used: u64,
}

/// A model on disk, in use while this lives.
#[derive(Debug, Clone)]
pub struct StoredModel {
    /// The executable.
    pub path: PathBuf,
    /// Which one it is.
    pub about: About,
    /// Keeps the file locked.
    _in_use: Arc<File>,
}

/// The directory of downloaded models.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store of a work directory.
    pub fn new(work_dir: &Path) -> Self {
        Self {
            root: work_dir.join("models"),
        }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// This very model, when it was downloaded before. It counts as used, if there is room to write that down.
    pub fn find(&self, about: &About) -> Option<StoredModel> {
        let directory = self.root.join(about.directory());
        let (mut record, model) = read(&directory).filter(|(record, _)| is_same(&record.about, about))?;
        record.about = about.clone();
        record.used = self.next_use();
        if let Err(e) = write_record(&directory, &record) {
            tracing::warn!("the use of the model cannot be noted in {}: {e}", directory.display());
        }
        Some(StoredModel {
            about: about.clone(),
            ..model
        })
    }

    /// The model of this origin that was used last; with `None` of any origin.
    pub fn newest(&self, origin: Option<&Origin>) -> Option<StoredModel> {
        self.all()
            .into_iter()
            .filter(|(record, _)| origin.is_none_or(|origin| record.about.origin == *origin))
            .max_by_key(|(record, _)| record.used)
            .map(|(_, model)| model)
    }

    /// An empty file to download to.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub(super) fn begin(&self) -> io::Result<Download> {
        fs::create_dir_all(&self.root)?;
        let path = self.root.join(format!("{UNFINISHED}{:016x}", rand::random::<u64>()));
        let file = File::create_new(&path)?;
        let at = Unfinished { path, placed: false };
        file.try_lock().map_err(io::Error::from)?;
        Ok(Download { at, file })
    }

    /// Puts a checked download to its place: executable, on disk for good, in one step.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub(super) fn place(&self, unfinished: Download, about: &About) -> io::Result<StoredModel> {
        use std::os::unix::fs::PermissionsExt;
        let Download { mut at, file } = unfinished;
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        // Nobody can execute a file that is open for writing.
        drop(file);
        let directory = self.root.join(about.directory());
        fs::create_dir_all(&directory)?;
        let record = Record {
            about: about.clone(),
            bytes,
            used: self.next_use(),
        };
        write_record(&directory, &record)?;
        let path = directory.join(MODEL);
        fs::rename(&at.path, &path)?;
        at.placed = true;
        for directory in directory.ancestors().take(3) {
            File::open(directory)?.sync_all()?;
        }
        Ok(StoredModel {
            _in_use: Arc::new(hold(&path)?),
            path,
            about: about.clone(),
        })
    }

    /// Removes all but the last two versions of the project that nobody uses.
    pub(super) fn tidy(&self, project_id: u64) {
        let mut records: Vec<_> = self
            .all()
            .into_iter()
            .filter(|(record, _)| record.about.project_id == project_id)
            // The path only: `model` itself would count as use.
            .map(|(record, model)| (record.used, model.path))
            .collect();
        records.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
        for (_, path) in records.into_iter().skip(KEPT) {
            // Locked until it is gone: nobody starts to use it meanwhile.
            let free = File::open(&path).ok().filter(|file| file.try_lock().is_ok());
            let (Some(_free), Some(directory)) = (free, path.parent()) else {
                continue;
            };
            // The record goes first: what is half removed is no model.
            let removed = fs::remove_file(directory.join(ABOUT)).and_then(|()| fs::remove_dir_all(directory));
            match removed {
                Ok(()) => tracing::info!("the old model {} was removed", directory.display()),
                Err(e) => tracing::warn!("the old model {} cannot be removed: {e}", directory.display()),
            }
        }
    }

    /// Removes what downloads left that were cut off by the end of their process.
    pub fn sweep(&self) {
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

    fn all(&self) -> Vec<(Record, StoredModel)> {
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

/// An unfinished file; removed unless it was placed.
struct Unfinished {
    path: PathBuf,
    placed: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.placed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A download that is under way, or waits to be placed.
pub(super) struct Download {
    at: Unfinished,
    file: File,
}

impl Download {
    pub(super) fn path(&self) -> &Path {
        &self.at.path
    }

    /// Another handle to write to.
    pub(super) fn writer(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

/// Whether it is the same deployment, whoever asked for it.
fn is_same(one: &About, other: &About) -> bool {
    let key = |about: &About| (about.project_id, about.impulse_id, about.version);
    let kind = |about: &About| [about.variant.clone(), about.target.clone(), about.engine.clone()];
    key(one) == key(other) && kind(one) == kind(other)
}

/// A complete model in this directory.
fn read(directory: &Path) -> Option<(Record, StoredModel)> {
    let record: Record = serde_json::from_slice(&fs::read(directory.join(ABOUT)).ok()?).ok()?;
    let path = directory.join(MODEL);
    let file = hold(&path).ok()?;
    if file.metadata().ok()?.len() != record.bytes {
        return None;
    }
    let about = record.about.clone();
    let model = StoredModel {
        path,
        about,
        _in_use: Arc::new(file),
    };
    Some((record, model))
}

/// Opens the model and marks it as used. Somebody who looks whether it is in use holds it for a moment.
fn hold(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    file.lock_shared()?;
    Ok(file)
}

fn write_record(directory: &Path, record: &Record) -> io::Result<()> {
    let unfinished = directory.join(format!(".about-{:016x}", rand::random::<u64>()));
    let written = (|| {
        let mut file = File::create_new(&unfinished)?;
        file.write_all(&serde_json::to_vec_pretty(record)?)?;
        file.sync_all()?;
        fs::rename(&unfinished, directory.join(ABOUT))
    })();
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}

/// A name as one part of a path: letters, digits, `-`, `_` and `.`, never hidden, never empty.
fn path_name(name: &str) -> String {
    let clean = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
            c
        } else {
            '-'
        }
    };
    // The end of a name tells more apart (the id) than its middle.
    let all: Vec<char> = name.chars().map(clean).collect();
    let kept = all.len().saturating_sub(2 * NAME);
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
