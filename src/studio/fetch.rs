//! All steps from the API key to a model on disk.

use std::collections::VecDeque;
use std::time::Instant;

use serde_json::json;
use tokio::sync::watch;

use super::api::{
    Deployment, Impulse, Impulses, JobOutput, JobStarted, JobStatus, Project, Projects, Targets, Variants,
};
use super::build::{Build, KnownJob};
use super::choice::{self, Choice, Wanted, choose};
use super::client::Studio;
use super::download::{download, megabytes};
use super::error::StudioError;
use super::store::{About, Origin, Store, StoredModel};
use super::target::Machine;
use crate::util::backoff::Retry;
use crate::util::text::excerpt;

/// Lines of a failed job that are shown.
const TAIL: usize = 5;
/// Looks at a job in a row that may fail for reasons of the network.
const LOOKS: u32 = 10;
/// How often a build that goes on is mentioned in the log, in looks at it.
const MENTION: u32 = 10;

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Finding out which model it is.
    Looking,
    /// Studio builds it.
    Building,
    /// It is being downloaded.
    Downloading,
}

/// What to fetch.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// What `eiparams` ask for.
    pub wanted: &'a Wanted,
    /// What it is for.
    pub machine: &'a Machine,
    /// Where it goes.
    pub store: &'a Store,
    /// Who asks.
    pub origin: &'a Origin,
}

/// Finds the project's model for this machine, has it built if need be, and downloads it unless it is there already.
///
/// # Errors
/// [`StudioError`]; nothing half-done is left behind.
pub async fn fetch(studio: &Studio, job: Job<'_>, stage: &watch::Sender<Stage>) -> Result<StoredModel, StudioError> {
    let project = first_project(studio).await?;
    let impulse = find_impulse(studio, &project, job.wanted.impulse_id).await?;
    tracing::info!(
        "Edge Impulse project {} / {} ({}), impulse {} {}",
        project.owner,
        project.name,
        project.id,
        impulse.id,
        excerpt(&impulse.name)
    );
    let choice = find_choice(studio, &project, impulse.id, job).await?;
    let site = Site {
        studio,
        project: project.id,
        impulse: impulse.id.to_string(),
        choice: &choice,
    };
    let known_job = site.known_job(job.store);
    let version = match site.version().await? {
        Some(version) => {
            known_job.ended();
            version
        }
        None => {
            stage.send_replace(Stage::Building);
            site.build(&known_job).await?
        }
    };
    let about = About {
        project_id: project.id,
        project: project.name,
        owner: project.owner,
        impulse_id: impulse.id,
        version,
        variant: choice.variant.clone(),
        target: choice.target.clone(),
        engine: choice.engine.clone(),
        origin: job.origin.clone(),
    };
    stage.send_replace(Stage::Downloading);
    site.obtain(&about, job.store).await
}

pub(super) async fn first_project(studio: &Studio) -> Result<Project, StudioError> {
    let answer: Projects = studio.get("the list of projects", "api/projects", &[]).await?;
    let project = answer.projects.into_iter().next().ok_or(StudioError::NoProject)?;
    Ok(Project {
        id: project.id,
        name: excerpt(&project.name),
        owner: excerpt(&project.owner),
    })
}

async fn find_impulse(studio: &Studio, project: &Project, asked: Option<u64>) -> Result<Impulse, StudioError> {
    let path = format!("api/{}/impulses", project.id);
    let Impulses { impulses } = studio.get("the list of impulses", &path, &[]).await?;
    let Some(asked) = asked else {
        return impulses.into_iter().next().ok_or_else(|| StudioError::NoImpulse {
            project: project.name.clone(),
        });
    };
    impulses
        .iter()
        .find(|impulse| impulse.id == asked)
        .cloned()
        .ok_or_else(|| StudioError::UnknownImpulse {
            asked,
            known: impulses
                .iter()
                .map(|impulse| format!("{} {}", impulse.id, impulse.name).trim_end().to_owned())
                .collect(),
        })
}

async fn find_choice(studio: &Studio, project: &Project, impulse: u64, job: Job<'_>) -> Result<Choice, StudioError> {
    let name = match &job.wanted.target {
        Some(forced) => forced.clone(),
        None => job.machine.target()?.to_owned(),
    };
    let impulse = impulse.to_string();
    let query = [("impulseId", &*impulse)];
    let path = format!("api/{}/deployment/targets/data-sources", project.id);
    let targets: Targets = studio.get("the list of deployment targets", &path, &query).await?;
    let target = choice::find(&name, &targets.targets)?;
    let variants = if job.wanted.variant.is_some() {
        Vec::new()
    } else {
        let path = format!("api/{}/model-variants", project.id);
        let answer: Variants = studio.get("the list of model variants", &path, &query).await?;
        answer.model_variants.into_iter().map(|known| known.variant).collect()
    };
    choose(target, &variants, job.wanted)
}

/// One kind of model of one project.
struct Site<'a> {
    studio: &'a Studio,
    project: u64,
    impulse: String,
    choice: &'a Choice,
}

impl Site<'_> {
    /// The version that is built; `None`: none is.
    async fn version(&self) -> Result<Option<u64>, StudioError> {
        let query = [
            ("type", &*self.choice.target),
            ("modelType", &self.choice.variant),
            ("engine", &self.choice.engine),
            ("impulseId", &self.impulse),
        ];
        let path = format!("api/{}/deployment", self.project);
        let deployment: Deployment = self.studio.get("the deployment", &path, &query).await?;
        Ok(deployment.version.filter(|_| deployment.has_deployment))
    }

    /// Where the job that builds it is noted.
    fn known_job(&self, store: &Store) -> KnownJob {
        let build = Build {
            studio: self.studio.host(),
            project: self.project,
            impulse: self.impulse.clone(),
            target: self.choice.target.clone(),
            variant: self.choice.variant.clone(),
            engine: self.choice.engine.clone(),
        };
        KnownJob::new(store.root(), build)
    }

    /// Has the model built, and gives its version. A job that goes on since an earlier attempt is waited for.
    async fn build(&self, known_job: &KnownJob) -> Result<u64, StudioError> {
        if let Some(job) = known_job.id() {
            tracing::info!("Edge Impulse Studio was told earlier to build the model: job {job} is waited for");
            match self.built_by(job, known_job).await {
                Err(e) if e.retry() == Retry::Later => tracing::info!("the model is built anew: {e}"),
                result => return result,
            }
        }
        let query = [("type", &*self.choice.target), ("impulseId", &self.impulse)];
        let body = json!({"engine": self.choice.engine, "modelType": self.choice.variant});
        let path = format!("api/{}/jobs/build-ondevice-model", self.project);
        let JobStarted { id: job } = self.studio.post("the build of the model", &path, &query, &body).await?;
        tracing::info!(
            "Edge Impulse Studio builds the model for {} ({}, {}), job {job}",
            self.choice.target,
            self.choice.variant,
            self.choice.engine
        );
        known_job.begun(job);
        self.built_by(job, known_job).await
    }

    /// Waits for a job, and gives the version it built. Forgets the job unless it is to be looked at again.
    async fn built_by(&self, job: u64, known_job: &KnownJob) -> Result<u64, StudioError> {
        let begun = Instant::now();
        let result = match self.wait_for(job, begun).await {
            Ok(()) => self
                .version()
                .await
                .and_then(|version| version.ok_or(StudioError::BuiltNothing { job })),
            Err(e) => Err(e),
        };
        match &result {
            Ok(_) => tracing::info!("the model was built in {} s", begun.elapsed().as_secs()),
            Err(e) if e.retry() == Retry::Soon => return result,
            Err(_) => {}
        }
        known_job.ended();
        result
    }

    async fn wait_for(&self, job: u64, begun: Instant) -> Result<(), StudioError> {
        let limits = self.studio.limits;
        let path = format!("api/{}/jobs/{job}/status", self.project);
        let (mut looks, mut failures) = (0_u32, 0);
        while begun.elapsed() < limits.build {
            tokio::time::sleep(limits.poll).await;
            match self.studio.get::<JobStatus>("the state of the build", &path, &[]).await {
                Ok(JobStatus { job: state }) if state.is_finished() => {
                    if state.finished_successful == Some(true) {
                        return Ok(());
                    }
                    let tail = self.tail(job).await;
                    return Err(StudioError::BuildFailed { job, tail });
                }
                Ok(_) => failures = 0,
                Err(e) if e.retry() == Retry::Soon && failures < LOOKS => {
                    failures += 1;
                    tracing::debug!("the build cannot be looked at: {e}");
                }
                Err(e) => return Err(e),
            }
            looks += 1;
            if looks.is_multiple_of(MENTION) {
                tracing::info!("the model is being built, {} s so far", begun.elapsed().as_secs());
            }
        }
        Err(StudioError::BuildTooLong {
            job,
            after: limits.build,
        })
    }

    /// The last lines a job printed; what cannot be had is no reason to fail in another way.
    async fn tail(&self, job: u64) -> Vec<String> {
        let path = format!("api/{}/jobs/{job}/stdout", self.project);
        match self
            .studio
            .get::<JobOutput>("the output of the build", &path, &[])
            .await
        {
            Ok(mut output) => {
                output.stdout.sort_by(|a, b| a.created.cmp(&b.created));
                last_lines(output.stdout.iter().map(|piece| &*piece.data))
            }
            Err(e) => vec![format!("(its output cannot be had: {e})")],
        }
    }

    async fn obtain(&self, about: &About, store: &Store) -> Result<StoredModel, StudioError> {
        let unwritable = |source| StudioError::Store {
            path: store.root().to_owned(),
            source,
        };
        if let Some(model) = store.find(about) {
            tracing::info!("version {} is already here: {}", about.version, model.path.display());
            return Ok(model);
        }
        tracing::info!(
            "downloading version {} ({}, {}, {})",
            about.version,
            about.target,
            about.variant,
            about.engine
        );
        let query = [
            ("type", &*self.choice.target),
            ("modelType", &self.choice.variant),
            ("impulseId", &self.impulse),
        ];
        let path = format!("api/{}/deployment/download", self.project);
        let file = download(self.studio, &path, &query, store).await?;
        let bytes = std::fs::metadata(file.path()).map_or(0, |meta| meta.len());
        let model = store.place(file, about).map_err(unwritable)?;
        store.tidy(about.project_id);
        tracing::info!(
            "version {} was downloaded ({:.1} MB): {}",
            about.version,
            megabytes(bytes),
            model.path.display()
        );
        Ok(model)
    }
}

fn last_lines<'a>(pieces: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut lines = VecDeque::with_capacity(TAIL + 1);
    for line in pieces
        .flat_map(str::lines)
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        lines.push_back(excerpt(line));
        if lines.len() > TAIL {
            lines.pop_front();
        }
    }
    lines.into()
}
