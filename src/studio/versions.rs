//! Which versions of the model are in use, were in use before, and are bad: one small file for all configurations that
//! share the work directory. It is replaced in one step, so that a power cut leaves the old content or the new one.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::origin::ModelOrigin;
use crate::util::atomic_file::replace;
use crate::util::damaged_files;
use crate::util::durable_names;
use crate::util::{private_dir, private_file};

/// Below `models/`. A directory of its own, which is also the lock of the file.
const DIRECTORY: &str = "state";
pub(super) const VERSIONS: &str = "versions.json";
/// Bad versions that are remembered for each configuration.
const MAX_BAD: usize = 32;
/// Most configurations in the file. Beyond that, the one whose versions changed longest ago is forgotten, and its models are no
/// longer kept.
const MAX_CONFIGURATIONS: usize = 32;

/// The versions of the model of one configuration. A model is named by its directory below `models/`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelVersions {
    /// The model that was started last.
    pub current: Option<String>,
    /// The model before that, which takes over when the current one is bad.
    pub previous: Option<String>,
    /// Set while the current model has to prove itself.
    pub probation: Option<Probation>,
    /// A model whose download or trial has begun and has not ended.
    pub candidate: Option<Candidate>,
    /// Models that are not used again, the newest last.
    pub bad: Vec<BadVersion>,
}

/// The probation of a model that has replaced another one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probation {
    /// How often the model has failed.
    pub crashes: u32,
}

/// A model that is being tried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its directory.
    pub model: String,
    /// Trials that have begun.
    pub trials: u32,
}

/// A model that is not used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadVersion {
    /// Its directory.
    pub model: String,
    /// Its deployment version.
    pub version: u64,
    /// Why.
    pub reason: String,
    /// It is bad only while this is the configured SHA-256, which its file does not have. `None`: in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl ModelVersions {
    /// Records that `model` is in use from now on. A model that replaces another one begins a probation. `earlier` is the
    /// model before, where none is recorded. Returns whether it was not the current one already.
    pub fn begin(&mut self, model: &str, earlier: Option<String>) -> bool {
        self.drop_candidate(model);
        self.bad.retain(|bad| bad.model != model);
        if self.current.as_deref() == Some(model) {
            return false;
        }
        self.previous = self.current.take().or(earlier).filter(|earlier| earlier != model);
        self.current = Some(model.to_owned());
        self.probation = self.previous.is_some().then(Probation::default);
        true
    }

    /// Records that the download of a model begins, which is tried then.
    pub fn announce_candidate(&mut self, model: &str) {
        if self.candidate.as_ref().is_none_or(|candidate| candidate.model != model) {
            self.candidate = Some(Candidate {
                model: model.to_owned(),
                trials: 0,
            });
        }
    }

    /// Records that a trial of `model` begins.
    pub fn try_candidate(&mut self, model: &str) {
        self.announce_candidate(model);
        if let Some(candidate) = &mut self.candidate {
            candidate.trials = candidate.trials.saturating_add(1);
        }
    }

    fn drop_candidate(&mut self, model: &str) {
        self.candidate.take_if(|candidate| candidate.model == model);
    }

    /// Counts a failure of the current model, if it is on probation.
    pub fn count_crash(&mut self) {
        if let Some(probation) = &mut self.probation {
            probation.crashes = probation.crashes.saturating_add(1);
        }
    }

    /// Ends the probation: the current model is good.
    pub fn confirm(&mut self) {
        self.probation = None;
    }

    /// Records that a model is bad. If it is the current one, the one before is the current one again.
    pub fn mark_bad(&mut self, bad: BadVersion) {
        self.drop_candidate(&bad.model);
        self.bad.retain(|known| known.model != bad.model);
        if self.current.as_ref() == Some(&bad.model) {
            self.current = self.previous.take();
            self.probation = None;
        }
        self.bad.push(bad);
        let surplus = self.bad.len().saturating_sub(MAX_BAD);
        self.bad.drain(..surplus);
    }

    /// Why a model is bad, if it is. `sha256`: the configured one.
    pub fn bad(&self, model: &str, sha256: Option<&str>) -> Option<&BadVersion> {
        let applies = |bad: &&BadVersion| bad.sha256.is_none() || bad.sha256.as_deref() == sha256;
        self.bad.iter().filter(|bad| bad.model == model).find(applies)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct OriginVersions {
    origin: ModelOrigin,
    #[serde(flatten)]
    versions: ModelVersions,
}

/// The file with the versions of all configurations.
#[derive(Debug, Clone)]
pub(super) struct VersionsFile {
    directory: PathBuf,
}

impl VersionsFile {
    /// The file of the store with this root.
    pub(super) fn new(root: &Path) -> Self {
        Self {
            directory: root.join(DIRECTORY),
        }
    }

    /// The versions of this configuration.
    pub(super) fn read(&self, origin: &ModelOrigin) -> ModelVersions {
        let known = self.all().into_iter().find(|known| known.origin == *origin);
        known.map(|known| known.versions).unwrap_or_default()
    }

    /// The directories of the models that one of the configurations needs.
    pub(super) fn needed(&self) -> Vec<String> {
        let needed = |versions: ModelVersions| {
            let candidate = versions.candidate.map(|candidate| candidate.model);
            [versions.current, versions.previous, candidate]
        };
        let all = self.all().into_iter();
        all.flat_map(|known| needed(known.versions)).flatten().collect()
    }

    /// The directories of the models that are bad for one of the configurations.
    pub(super) fn bad(&self) -> Vec<String> {
        let all = self.all().into_iter();
        all.flat_map(|known| known.versions.bad).map(|bad| bad.model).collect()
    }

    /// Changes the versions of this configuration. Other processes wait meanwhile.
    ///
    /// # Errors
    /// The file cannot be written. It keeps its content.
    pub(super) fn change<T>(
        &self,
        origin: &ModelOrigin,
        change: impl FnOnce(&mut ModelVersions) -> T,
    ) -> io::Result<T> {
        // Others may read models, but not this directory: they could lock it for ever.
        if let Some(models) = self.directory.parent() {
            durable_names::create_directories(models, durable_names::SHARED)?;
        }
        private_dir::create_trusted(&self.directory)?;
        let lock = private_dir::open_trusted(&self.directory)?;
        lock.lock()?;
        let mut all = self.all();
        let known = all.iter().position(|known| known.origin == *origin);
        let mut changed = known.map_or_else(
            || OriginVersions {
                origin: origin.clone(),
                versions: ModelVersions::default(),
            },
            |index| all.remove(index),
        );
        let before = changed.versions.clone();
        let result = change(&mut changed.versions);
        if changed.versions != before {
            all.push(changed);
            let surplus = all.len().saturating_sub(MAX_CONFIGURATIONS);
            all.drain(..surplus);
            replace(&self.directory.join(VERSIONS), &serde_json::to_vec_pretty(&all)?)?;
        }
        Ok(result)
    }

    /// A damaged file counts as empty: the model that was used last runs then, as without the file.
    fn all(&self) -> Vec<OriginVersions> {
        let path = self.directory.join(VERSIONS);
        let content = match private_file::read_state(&path) {
            Ok(content) => content,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    let kept_as = path.is_dir().then(|| damaged_files::set_aside(&path));
                    tracing::warn!(path = %path.display(), %error, ?kept_as, "The list of the model's versions cannot be read");
                }
                return Vec::new();
            }
        };
        serde_json::from_slice(&content).unwrap_or_else(|error| {
            let kept_as = damaged_files::set_aside(&path).ok();
            tracing::warn!(path = %path.display(), %error, ?kept_as, "The list of the model's versions is damaged and is written anew");
            Vec::new()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn origin(secret: &str) -> ModelOrigin {
        ModelOrigin {
            studio: "http://studio/v1".into(),
            secret_id: secret.into(),
            secret_name: "ei_api_key".into(),
            impulse_id: None,
        }
    }

    fn bad(model: &str) -> BadVersion {
        BadVersion {
            model: model.into(),
            version: 4,
            reason: "it crashes".into(),
            sha256: None,
        }
    }

    #[test]
    fn the_first_model_has_no_probation_and_its_successor_has_one() {
        let mut versions = ModelVersions::default();
        assert!(versions.begin("p/v3", None));
        versions.count_crash();
        assert_eq!(versions.probation, None);
        assert!(versions.begin("p/v4", None));
        assert_eq!(versions.previous.as_deref(), Some("p/v3"));
        assert!(!versions.begin("p/v4", None), "a restart changes nothing");
        versions.count_crash();
        versions.count_crash();
        assert_eq!(versions.probation, Some(Probation { crashes: 2 }));
        versions.confirm();
        assert_eq!(versions.probation, None);
    }

    #[test]
    fn an_earlier_model_that_was_not_recorded_is_the_one_before() {
        let mut versions = ModelVersions::default();
        versions.begin("p/v4", Some("p/v3".into()));
        assert_eq!(versions.previous.as_deref(), Some("p/v3"));
        assert_eq!(versions.probation, Some(Probation::default()));
    }

    #[test]
    fn a_bad_current_model_gives_way_to_the_one_before_and_is_good_again_when_it_is_chosen() {
        let mut versions = ModelVersions::default();
        versions.begin("p/v3", None);
        versions.begin("p/v4", None);
        versions.mark_bad(bad("p/v4"));
        assert_eq!(
            (versions.current.as_deref(), versions.previous.as_deref()),
            (Some("p/v3"), None)
        );
        assert!(versions.bad("p/v4", None).is_some() && versions.probation.is_none());
        versions.begin("p/v4", None);
        assert!(versions.bad("p/v4", None).is_none());
    }

    #[test]
    fn a_candidate_that_fails_leaves_the_current_model_and_its_trials_are_counted() {
        let mut versions = ModelVersions::default();
        versions.begin("p/v3", None);
        let trials = |versions: &ModelVersions| versions.candidate.as_ref().map(|candidate| candidate.trials);
        versions.announce_candidate("p/v4");
        versions.try_candidate("p/v4");
        versions.try_candidate("p/v4");
        assert_eq!(trials(&versions), Some(2));
        versions.try_candidate("p/v5");
        assert_eq!(trials(&versions), Some(1));
        versions.mark_bad(bad("p/v5"));
        assert_eq!((versions.current.as_deref(), versions.candidate), (Some("p/v3"), None));
    }

    #[test]
    fn a_file_with_another_digest_is_bad_until_the_configured_digest_changes() {
        let mut versions = ModelVersions::default();
        versions.mark_bad(BadVersion {
            sha256: Some("12ab".into()),
            ..bad("p/v4")
        });
        assert!(versions.bad("p/v4", Some("12ab")).is_some());
        assert!(versions.bad("p/v4", Some("34cd")).is_none() && versions.bad("p/v4", None).is_none());
    }

    #[test]
    fn old_bad_versions_are_forgotten() {
        let mut versions = ModelVersions::default();
        for version in 0..40 {
            versions.mark_bad(bad(&format!("p/v{version}")));
        }
        assert_eq!(versions.bad.len(), MAX_BAD);
        assert!(versions.bad("p/v7", None).is_none() && versions.bad("p/v39", None).is_some());
    }

    #[test]
    fn configurations_that_have_not_changed_for_long_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let file = VersionsFile::new(dir.path());
        let begin = |secret: &str, model: &str| {
            file.change(&origin(secret), |versions| versions.begin(model, None))
                .unwrap()
        };
        for number in 0..MAX_CONFIGURATIONS {
            begin(&number.to_string(), "p/v3");
        }
        begin("0", "p/v4");
        begin("another", "p/v3");
        assert_eq!(file.all().len(), MAX_CONFIGURATIONS);
        assert_eq!(
            file.read(&origin("1")),
            ModelVersions::default(),
            "it changed longest ago"
        );
        assert_eq!(file.read(&origin("0")).current.as_deref(), Some("p/v4"));
        assert_eq!(file.read(&origin("2")).current.as_deref(), Some("p/v3"));
    }

    #[test]
    fn each_configuration_has_its_versions_and_a_damaged_file_counts_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        let file = VersionsFile::new(dir.path());
        assert_eq!(file.read(&origin("a")), ModelVersions::default());
        for (secret, model) in [("a", "p/v3"), ("b", "p/v4")] {
            file.change(&origin(secret), |versions| versions.begin(model, None))
                .unwrap();
        }
        assert_eq!(file.read(&origin("a")).current.as_deref(), Some("p/v3"));
        assert_eq!(file.needed(), ["p/v3", "p/v4"]);
        let path = dir.path().join(DIRECTORY).join(VERSIONS);
        // Also one that is whole and larger than any.
        let endless = [vec![b' '; 2 << 20], fs::read(&path).unwrap()].concat();
        for damaged in [b"[{\"origin\":".to_vec(), endless] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(file.read(&origin("a")), ModelVersions::default());
        }
        file.change(&origin("a"), |versions| versions.begin("p/v3", None))
            .unwrap();
        assert_eq!(file.read(&origin("a")).current.as_deref(), Some("p/v3"));
    }
}
