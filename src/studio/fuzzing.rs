//! What `tests/fuzz` calls here.

use std::path::Path;
use std::time::Duration;

use reqwest::StatusCode;

use super::api::{DeploymentInfo, Impulses, JobOutput, JobStarted, JobStatus, Projects, Targets, Variants};
use super::error::StudioError;
use super::selection::{ModelSelection, choose};
use super::versions::{BadVersion, VersionsFile};
use super::{ModelOrigin, ModelStore, answer};

pub use super::channel::fuzzing::{message_in_log, recognise};
pub use super::monitor::fuzzing::{use_indices, use_records, use_summaries};
pub use super::upload::fuzzing::{use_daily_bytes, use_samples};

/// Parses an answer of the REST API as each of its types. Returns all that is shown of it.
pub fn parse_answer(status: u16, bytes: &[u8]) -> Vec<String> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let mut shown = Vec::new();
    let mut note = |error: Option<StudioError>| shown.extend(error.map(|error| error.to_string()));
    note(parse::<Projects>(status, bytes).err());
    note(parse::<Impulses>(status, bytes).err());
    note(parse::<DeploymentInfo>(status, bytes).err());
    note(parse::<JobStarted>(status, bytes).err());
    note(parse::<JobOutput>(status, bytes).err());
    note(
        parse::<JobStatus>(status, bytes)
            .map(|answer| answer.job.is_finished())
            .err(),
    );
    let variants = parse::<Variants>(status, bytes).map(|answer| answer.model_variants);
    let variants: Vec<_> = variants
        .unwrap_or_default()
        .into_iter()
        .map(|known| known.variant)
        .collect();
    match parse::<Targets>(status, bytes) {
        Ok(Targets { targets }) => {
            for target in &targets {
                let selection = ModelSelection {
                    target: Some(target.format.clone()),
                    ..ModelSelection::default()
                };
                note(choose(target, &variants, &selection).err());
            }
        }
        Err(error) => note(Some(error)),
    }
    shown
}

fn parse<T: serde::de::DeserializeOwned>(status: StatusCode, bytes: &[u8]) -> Result<T, StudioError> {
    answer::parse("the answer", "studio.edgeimpulse.com", status, bytes)
}

/// Reads the models and their versions below `work_dir`, changes the versions and reads them again.
pub fn use_models(work_dir: &Path, origin: &ModelOrigin) {
    let store = ModelStore::new(work_dir);
    if let Some(model) = store.newest(None) {
        store.find(&model.metadata);
        store.remove_old_versions(model.metadata.project_id);
    }
    let versions = VersionsFile::new(store.root());
    versions.needed();
    let bad = BadVersion {
        model: "p-1/v7".to_owned(),
        version: 7,
        reason: "it crashed".to_owned(),
        sha256: None,
    };
    let changed = versions.change(origin, |versions| {
        versions.count_crash();
        versions.try_candidate("p-1/v8");
        versions.begin("p-1/v8", None);
        versions.mark_bad(bad.clone());
        versions.clone()
    });
    if let Ok(changed) = changed {
        assert_eq!(versions.read(origin), changed, "what was written is read");
        assert!(changed.bad.len() <= 33, "the list is bounded");
    }
}

/// A state of the limits for chosen frames that a file has.
pub fn use_frame_limits(file: &Path, now: Duration) {
    super::frames::fuzzing::use_limits(file, now);
}
