//! Fetches a model: all steps from a project in Studio to a model on disk.

use tokio::sync::watch;

use super::api::{Impulse, Impulses, Project, Projects, Targets, Variants};
use super::client::StudioClient;
use super::deployment::Deployment;
use super::error::StudioError;
use super::machine::Machine;
use super::origin::ModelOrigin;
use super::selection::{self, DeploymentOptions, ModelSelection, choose};
use super::store::{ModelMetadata, ModelStore, StoredModel};
use crate::util::text::excerpt;

/// Stage of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchStage {
    /// The model is being selected.
    Selecting,
    /// Studio builds the model.
    Building,
    /// The model of this version is being downloaded.
    Downloading(u64),
}

/// Which model is accepted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FetchPolicy<'a> {
    /// Only this version, even if it is bad. `None`: any version that is not bad.
    pub(super) wanted: Option<u64>,
    /// The SHA-256 of the file in lower-case hexadecimal digits. `None`: any.
    pub(super) sha256: Option<&'a str>,
    /// The model is tried before it is used.
    pub(super) is_candidate: bool,
}

/// Parameters of a fetch.
#[derive(Debug, Clone, Copy)]
pub struct FetchRequest<'a> {
    /// The options in `eiparams`.
    pub selection: &'a ModelSelection,
    /// The machine that runs the model.
    pub machine: &'a Machine,
    /// Where the model is stored.
    pub store: &'a ModelStore,
    /// The configuration that requests the model.
    pub origin: &'a ModelOrigin,
}

/// Selects the project's model for this machine, builds it in Studio if necessary, and downloads it unless it is stored.
///
/// # Errors
/// [`StudioError`]; no incomplete file is left behind.
pub async fn fetch(
    studio: &StudioClient,
    request: FetchRequest<'_>,
    stage: &watch::Sender<FetchStage>,
) -> Result<StoredModel, StudioError> {
    fetch_accepted(studio, request, FetchPolicy::default(), stage).await
}

/// [`fetch`], with further conditions on the model.
pub(super) async fn fetch_accepted(
    studio: &StudioClient,
    request: FetchRequest<'_>,
    policy: FetchPolicy<'_>,
    stage: &watch::Sender<FetchStage>,
) -> Result<StoredModel, StudioError> {
    let project = first_project(studio).await?;
    let impulse = find_impulse(studio, &project, request.selection.impulse_id).await?;
    tracing::info!(
        owner = project.owner,
        project = project.name,
        project_id = project.id,
        impulse_id = impulse.id,
        impulse = excerpt(&impulse.name),
        "Selected the Edge Impulse project"
    );
    let options = find_options(studio, &project, impulse.id, request).await?;
    let deployment = Deployment {
        studio,
        project: project.id,
        impulse: impulse.id.to_string(),
        options: &options,
    };
    let version = deployment
        .ensure_built(request.store, || {
            stage.send_replace(FetchStage::Building);
        })
        .await?;
    let metadata = ModelMetadata {
        project_id: project.id,
        project: project.name,
        owner: project.owner,
        impulse_id: impulse.id,
        version,
        variant: options.variant.clone(),
        target: options.target.clone(),
        engine: options.engine.clone(),
        origin: request.origin.clone(),
    };
    stage.send_replace(FetchStage::Downloading(version));
    check_version(&metadata, request, policy)?;
    if policy.is_candidate {
        // Recorded before the file is there: no start may take it for a model that has run.
        let recorded = request.store.versions().change(request.origin, |versions| {
            if versions.current.as_deref() != Some(&metadata.name()) {
                versions.announce_candidate(&metadata.name());
            }
        });
        recorded.map_err(|source| StudioError::Store {
            path: request.store.root().to_owned(),
            source,
        })?;
    }
    deployment.obtain(&metadata, request.store, policy.sha256).await
}

/// Refuses a deployment that was not asked for, or that is known to be bad.
fn check_version(
    metadata: &ModelMetadata,
    request: FetchRequest<'_>,
    policy: FetchPolicy<'_>,
) -> Result<(), StudioError> {
    let found = metadata.version;
    if let Some(wanted) = policy.wanted {
        return if wanted == found {
            Ok(())
        } else {
            Err(StudioError::OtherVersion { wanted, found })
        };
    }
    match request
        .store
        .versions()
        .read(request.origin)
        .bad(&metadata.name(), policy.sha256)
    {
        Some(bad) => Err(StudioError::KnownBad {
            version: found,
            reason: bad.reason.clone(),
        }),
        None => Ok(()),
    }
}

/// The project that the API key belongs to.
pub(super) async fn first_project(studio: &StudioClient) -> Result<Project, StudioError> {
    let answer: Projects = studio.get("the list of projects", "api/projects", &[]).await?;
    let project = answer.projects.into_iter().next().ok_or(StudioError::NoProject)?;
    Ok(Project {
        id: project.id,
        name: excerpt(&project.name),
        owner: excerpt(&project.owner),
    })
}

async fn find_impulse(
    studio: &StudioClient,
    project: &Project,
    requested: Option<u64>,
) -> Result<Impulse, StudioError> {
    let path = format!("api/{}/impulses", project.id);
    let Impulses { impulses } = studio.get("the list of impulses", &path, &[]).await?;
    let Some(requested) = requested else {
        return impulses.into_iter().next().ok_or_else(|| StudioError::NoImpulse {
            project: project.name.clone(),
        });
    };
    impulses
        .iter()
        .find(|impulse| impulse.id == requested)
        .cloned()
        .ok_or_else(|| StudioError::UnknownImpulse {
            requested,
            known: impulses
                .iter()
                .map(|impulse| format!("{} {}", impulse.id, impulse.name).trim_end().to_owned())
                .collect(),
        })
}

async fn find_options(
    studio: &StudioClient,
    project: &Project,
    impulse: u64,
    request: FetchRequest<'_>,
) -> Result<DeploymentOptions, StudioError> {
    let name = match &request.selection.target {
        Some(forced) => forced.clone(),
        None => request.machine.target()?.to_owned(),
    };
    let impulse = impulse.to_string();
    let query = [("impulseId", &*impulse)];
    let path = format!("api/{}/deployment/targets/data-sources", project.id);
    let targets: Targets = studio.get("the list of deployment targets", &path, &query).await?;
    let target = selection::find(&name, &targets.targets)?;
    let variants = if request.selection.variant.is_some() {
        Vec::new()
    } else {
        let path = format!("api/{}/model-variants", project.id);
        let answer: Variants = studio.get("the list of model variants", &path, &query).await?;
        answer.model_variants.into_iter().map(|known| known.variant).collect()
    };
    choose(target, &variants, request.selection)
}
