//! Replaces the directory of models if another user owns it: no new model could be stored in it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::store::{ABOUT, MODEL, ModelStore};
use super::versions::VERSIONS;
use crate::util::foreign_files::{self, all_set_aside, set_aside};
use crate::util::owners::TrustedOwners;

/// Directories that an interrupted copy left behind; they are no models.
const UNFINISHED: &str = ".copy-of-";

/// Renames `models`, or the directory of a project in it, if this process cannot write to it, and copies the models in it that
/// can be read. Those that cannot are taken up at the next start that can.
pub fn replace_foreign_models(work_dir: &Path) {
    let store = ModelStore::new(work_dir);
    let models = store.root();
    replace(models);
    let projects = fs::read_dir(models).into_iter().flatten().flatten();
    for project in projects.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_symlink())) {
        let project = project.path();
        match foreign_files::original(&project) {
            None if is_foreign(&project) => {
                if let Some(aside) = rename(&project) {
                    bring_all(&aside, &project);
                }
            }
            None => {}
            Some(original) => {
                bring_all(&project, &original);
                remove(&project);
            }
        }
    }
}

fn replace(models: &Path) {
    if is_foreign(models) {
        rename(models);
    }
    for aside in all_set_aside(models) {
        if !is_trusted(&aside) {
            continue;
        }
        let projects = fs::read_dir(&aside).into_iter().flatten().flatten();
        for project in projects {
            bring_all(&project.path(), &models.join(project.file_name()));
        }
        remove(&aside);
    }
}

/// Whether the directory is that of another user, a symbolic link, or one that this process cannot use.
fn is_foreign(directory: &Path) -> bool {
    let Ok(metadata) = fs::symlink_metadata(directory) else {
        return false;
    };
    if owners(directory).objection(&metadata).is_some() {
        return true;
    }
    let used = access(directory, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK);
    directory.is_dir() && used == Err(rustix::io::Errno::ACCESS)
}

fn rename(directory: &Path) -> Option<PathBuf> {
    match set_aside(directory) {
        Ok(kept_as) => {
            tracing::warn!(
                path = %directory.display(), kept_as = %kept_as.display(),
                "A directory of models belongs to another user and was renamed; models that can be read are copied"
            );
            Some(kept_as)
        }
        Err(error) => {
            tracing::error!(
                path = %directory.display(), %error, advice = foreign_files::ADVICE,
                "A directory of models belongs to another user; no model can be stored in it"
            );
            None
        }
    }
}

fn owners(entry: &Path) -> TrustedOwners {
    TrustedOwners::of(entry.parent().unwrap_or(entry))
}

/// Whether an entry may be taken up: what another user has put here is not executed.
fn is_trusted(entry: &Path) -> bool {
    fs::symlink_metadata(entry).is_ok_and(|metadata| owners(entry).objection(&metadata).is_none())
}

/// Moves or copies the versions of a project that are missing in `target`.
fn bring_all(project: &Path, target: &Path) {
    if !is_trusted(project) {
        return;
    }
    for version in fs::read_dir(project).into_iter().flatten().flatten() {
        let new = target.join(version.file_name());
        if !is_trusted(&version.path()) {
            continue;
        }
        if version.file_name() == VERSIONS && !new.exists() {
            bring_versions(&version.path(), target, &new);
        }
        if new.exists() || !version.path().join(ABOUT).exists() {
            continue;
        }
        if let Err(error) = bring(&version.path(), target, &new) {
            tracing::warn!(path = %version.path().display(), %error, "A model of another user cannot be copied");
        }
    }
}

/// Moves or copies the list of the model's versions. Without it a bad version could be taken again.
fn bring_versions(list: &Path, target: &Path, new: &Path) {
    let brought =
        fs::create_dir_all(target).and_then(|()| fs::rename(list, new).or_else(|_| fs::copy(list, new).map(drop)));
    if let Err(error) = brought {
        tracing::warn!(path = %list.display(), %error, "The list of the model's versions of another user cannot be read");
    }
}

fn bring(version: &Path, target: &Path, new: &Path) -> io::Result<()> {
    fs::create_dir_all(target)?;
    if fs::rename(version, new).is_ok() {
        return Ok(());
    }
    let unfinished = target.join(format!("{UNFINISHED}{:016x}", rand::random::<u64>()));
    fs::create_dir(&unfinished)?;
    let copied = [(MODEL, 0o755), (ABOUT, 0o644)].iter().try_for_each(|(name, mode)| {
        let file = unfinished.join(name);
        fs::copy(version.join(name), &file)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(*mode))
    });
    copied.and_then(|()| fs::rename(&unfinished, new)).inspect_err(|_| {
        let _ = fs::remove_dir_all(&unfinished);
    })
}

/// Removes a directory whose models were brought. It stays while this process may not write to it.
fn remove(aside: &Path) {
    if is_trusted(aside)
        && !is_foreign(aside)
        && let Err(error) = fs::remove_dir_all(aside)
    {
        tracing::debug!(path = %aside.display(), %error, "A directory of another user cannot be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_model(version: &Path, content: &str) {
        fs::create_dir_all(version).unwrap();
        fs::write(version.join(MODEL), content).unwrap();
        fs::write(version.join(ABOUT), "{}").unwrap();
    }

    #[test]
    fn models_that_were_set_aside_are_taken_up_where_they_are_missing() {
        let work_dir = tempfile::tempdir().unwrap();
        let models = work_dir.path().join("models");
        for version in ["p1/v1", "p1/v2", "p2/v1"] {
            write_model(&models.join(version), "old");
        }
        let versions = models.join("state").join(VERSIONS);
        fs::create_dir_all(versions.parent().unwrap()).unwrap();
        fs::write(&versions, "[]").unwrap();
        set_aside(&models.join("p2")).unwrap();
        let aside = set_aside(&models).unwrap();
        write_model(&models.join("p1/v2"), "new");
        replace_foreign_models(work_dir.path());
        replace_foreign_models(work_dir.path());
        assert!(!aside.exists());
        assert_eq!(fs::read_to_string(versions).unwrap(), "[]");
        for (version, content) in [("p1/v1", "old"), ("p1/v2", "new"), ("p2/v1", "old")] {
            let model = models.join(version).join(MODEL);
            assert_eq!(fs::read_to_string(model).unwrap(), content, "{version}");
        }
    }
}
