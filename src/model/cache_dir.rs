//! The directory in which a model in a sandbox may keep files: compiled kernels, engines that take an hour to build.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tracing::warn;

use super::executable::copy_program;
use super::settings::ModelSettings;
use crate::util::digest::hex;
use crate::util::private_dir;

/// Below `work_dir`.
const DIRECTORY: &str = "model-cache";

/// The directory.
#[derive(Debug)]
pub(super) struct CacheDir {
    path: PathBuf,
    /// It outlives the process.
    is_kept: bool,
}

impl CacheDir {
    /// The directory in `work_dir`; where nothing may be changed or it cannot be created, the one of the process, which is
    /// removed with it.
    pub(super) fn prepare(settings: &ModelSettings, process_dir: &Path) -> Self {
        let temporary = Self {
            path: process_dir.to_owned(),
            is_kept: false,
        };
        if !settings.may_change_files || !settings.sandbox.hides_files() {
            return temporary;
        }
        let path = settings.work_dir.join(DIRECTORY);
        match private_dir::create_trusted(&path).and_then(|()| std::path::absolute(&path)) {
            Ok(path) => Self { path, is_kept: true },
            Err(error) => {
                warn!(path = %path.display(), %error, "The model has no directory for what it keeps, and makes it again at every start");
                temporary
            }
        }
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A copy of the program in this directory, for models that keep files beside themselves; the program itself if that does
    /// not work.
    pub(super) fn place(&self, program: &Path) -> PathBuf {
        if !self.is_kept {
            return program.to_owned();
        }
        self.copy(program).unwrap_or_else(|error| {
            warn!(path = %self.path.display(), %error, "The model is not copied, and cannot keep the engine that it builds");
            program.to_owned()
        })
    }

    /// Copies the program at every start, because the copy is where the model can change it, and the engines that it has built
    /// beside the original once.
    fn copy(&self, program: &Path) -> io::Result<PathBuf> {
        let program = fs::canonicalize(program)?;
        let (Some(name), Some(stem)) = (program.file_name(), program.file_stem()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // A short name, the same in every version of this program.
        let digest = Sha256::digest(program.as_os_str().as_encoded_bytes());
        let directory = self.path.join(format!("beside-{}", hex(&digest[..8])));
        private_dir::create_trusted(&directory)?;
        let (unfinished, copy) = (directory.join(".model"), directory.join(name));
        let _ = fs::remove_file(&unfinished);
        copy_program(&program, &unfinished)?;
        fs::rename(&unfinished, &copy)?;
        for file in program
            .parent()
            .map(fs::read_dir)
            .into_iter()
            .flatten()
            .flatten()
            .flatten()
        {
            let (sibling, target) = (file.file_name(), directory.join(file.file_name()));
            let is_engine = sibling != name && sibling.as_encoded_bytes().starts_with(stem.as_encoded_bytes());
            if is_engine && file.path().is_file() && !target.exists() {
                fs::copy(file.path(), target)?;
            }
        }
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_made_again_at_every_start_and_engines_stay() {
        let (models, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let program = models.path().join("model.eim");
        fs::write(&program, "program").unwrap();
        fs::write(models.path().join("model-project1-v2-3.engine"), "built before").unwrap();
        fs::write(models.path().join("secret"), "").unwrap();
        let cache = CacheDir {
            path: work.path().to_owned(),
            is_kept: true,
        };
        let copy = cache.place(&program);
        assert!(copy.starts_with(work.path()) && copy.ends_with("model.eim"));
        let engine = copy.with_file_name("model-project1-v2-3.engine");
        assert_eq!(fs::read_to_string(&engine).unwrap(), "built before");
        assert!(!copy.with_file_name("secret").exists());
        fs::write(&copy, "changed by the model").unwrap();
        fs::write(&engine, "built again").unwrap();
        assert_eq!(cache.place(&program), copy);
        assert_eq!(fs::read_to_string(&copy).unwrap(), "program");
        assert_eq!(fs::read_to_string(&engine).unwrap(), "built again");
        assert_eq!(fs::read_to_string(&program).unwrap(), "program");
    }

    #[test]
    fn without_a_directory_that_is_kept_the_program_itself_is_started() {
        let program = Path::new("/models/model.eim");
        let temporary = CacheDir {
            path: "/run".into(),
            is_kept: false,
        };
        assert_eq!(temporary.place(program), program);
    }
}
