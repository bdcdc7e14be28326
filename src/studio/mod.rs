//! Edge Impulse Studio: models, and the channel over which Studio asks for data.
//!
//! Models: selects the model for this machine, builds it in Studio if necessary, downloads and checks
//! it, and stores it below `models/` of the work directory.
//!
//! The supervisor uses [`Provider`]. An incomplete download never becomes a model: a file is checked, synced to the disk and
//! only then renamed. A file `about.json` beside it describes project and deployment.

mod answer;
mod api;
mod api_key;
mod build_job;
pub mod channel;
mod client;
pub mod collect;
mod deployment;
mod download;
mod error;
mod fetch;
mod foreign_models;
pub mod frames;
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod inference_info;
mod limits;
mod machine;
mod model_update_service;
pub mod monitor;
mod origin;
mod pending_build;
mod provider;
mod selection;
mod store;
mod update;
pub mod upload;
mod versions;

pub use api_key::{ApiKeyReader, ApiKeySource};
pub use client::StudioClient;
pub use error::{FetchError, StudioError};
pub use fetch::{FetchRequest, FetchStage, fetch};
pub use foreign_models::replace_foreign_models;
pub use host::{HostError, StudioService, base_url, service_url};
pub use limits::StudioLimits;
pub use machine::{Machine, UnsupportedMachine};
pub use model_update_service::ModelUpdateService;
pub use origin::ModelOrigin;
pub use provider::{ModelUpdate, Provider};
pub(crate) use provider::{is_missing, missing_file_message, warn_missing_file};
pub use selection::{DeploymentOptions, ModelSelection, choose};
pub use store::{ModelMetadata, ModelStore, StoredModel};
pub use update::{StudioUpdates, UpdateOutcome, UpdateRequest, UpdateRequester};
pub use versions::{BadVersion, Candidate, ModelVersions, Probation};
