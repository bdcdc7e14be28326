//! Fetches a model: all steps from a project in Studio to a model on disk.

use tokio::sync::watch;

use super::api::{Impulse, Impulses, Project, Projects, Targets, Variants};
use super::client::StudioClient;
use super::deployment::Deployment;
use super::error::StudioError;
use super::machine::Machine;
use super::selection::{self, DeploymentOptions, ModelSelection, choose};
use super::store::{ModelMetadata, ModelOrigin, ModelStore, StoredModel};
use crate::util::text::excerpt;

/// Stage of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchStage {
    /// The model is being selected.
    Selecting,
    /// Studio builds the model.
    Building,
    /// The model is being downloaded.
    Downloading,
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
    stage.send_replace(FetchStage::Downloading);
    deployment.obtain(&metadata, request.store).await
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
