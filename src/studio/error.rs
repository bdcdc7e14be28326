//! Why there is no model from Studio.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::host::HostError;
use super::machine::UnsupportedMachine;
use crate::aws::secret::SecretError;
use crate::model::ModelFileError;
use crate::util::backoff::Retry;
use crate::util::text::excerpt;

/// Why there is no model from Studio.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no API key.
    #[error("no model can be downloaded without the Edge Impulse API key: {0}")]
    Secret(#[from] SecretError),
    /// `EI_HOST` is wrong.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Studio failed, or the connection to it.
    #[error(transparent)]
    Studio(#[from] StudioError),
}

impl FetchError {
    /// When the fetch can be tried again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Secret(error) => error.retry(),
            Self::Host(_) => Retry::Later,
            Self::Studio(error) => error.retry(),
        }
    }
}

impl FetchError {
    /// Whether Studio has a version that is not accepted here.
    pub fn is_unusable_model(&self) -> bool {
        matches!(
            self,
            Self::Studio(StudioError::NotAModel(_) | StudioError::OtherDigest { .. } | StudioError::KnownBad { .. })
        )
    }

    /// The configured SHA-256, if the file has another one.
    pub fn expected_digest(&self) -> Option<&str> {
        match self {
            Self::Studio(StudioError::OtherDigest { expected, .. }) => Some(expected),
            _ => None,
        }
    }

    /// Whether the version can never run on this machine. An error page in place of the model says nothing about it.
    pub fn is_for_another_machine(&self) -> bool {
        use ModelFileError::{Architecture, Interpreter};
        matches!(
            self,
            Self::Studio(StudioError::NotAModel(Architecture { .. } | Interpreter { .. }))
        )
    }
}

/// A failure of Studio or of the connection to it. `what` describes the request, for example `the list of projects`.
#[derive(Debug, thiserror::Error)]
pub enum StudioError {
    /// The HTTP client cannot be created.
    #[error("the HTTP client for Edge Impulse Studio cannot be created: {0}")]
    Client(String),
    /// The key contains characters that are not valid in an HTTP header.
    #[error(
        "the Edge Impulse API key contains characters that cannot be sent: copy it again from Studio (Dashboard, Keys)"
    )]
    UnusableKey,
    /// Studio did not answer.
    #[error(
        "the request to Edge Impulse Studio ({host}) for {what} failed: {reason}; check the network, DNS and proxy (HTTPS_PROXY) of this device"
    )]
    Unreachable {
        /// Host of the request.
        host: String,
        /// The request.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// 401 or 403.
    #[error(
        "Edge Impulse Studio refuses the API key (HTTP {status} for {what}{}): create a key in Studio (Dashboard, Keys) and store it in the secret",
        quoted(text)
    )]
    KeyRefused {
        /// The request.
        what: &'static str,
        /// HTTP status.
        status: u16,
        /// Studio's message.
        text: String,
    },
    /// `"success": false`
    #[error("Edge Impulse Studio refuses {what}: {text}")]
    Refused {
        /// The request.
        what: &'static str,
        /// Studio's message.
        text: String,
    },
    /// Another HTTP status.
    #[error("Edge Impulse Studio answers {what} with HTTP {status}{}", quoted(text))]
    Status {
        /// The request.
        what: &'static str,
        /// HTTP status.
        status: u16,
        /// Studio's message.
        text: String,
    },
    /// The answer is not JSON.
    #[error(
        "the answer to the request for {what} is {looks}, not JSON: check that EI_HOST ({host}) is Edge Impulse Studio, and that no proxy or login page answers"
    )]
    NotJson {
        /// The request.
        what: &'static str,
        /// Host of the request.
        host: String,
        /// Description of the answer.
        looks: &'static str,
    },
    /// The answer is JSON without the expected fields.
    #[error("the answer of Edge Impulse Studio for {what} is not understood: {detail}")]
    Unexpected {
        /// The request.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The answer is too large.
    #[error("the answer of Edge Impulse Studio for {what} is larger than {} MiB and was dropped", limit >> 20)]
    TooLarge {
        /// The request.
        what: &'static str,
        /// Most bytes accepted.
        limit: u64,
    },
    /// A redirect that is not followed.
    #[error("Edge Impulse Studio redirects {what} to {to}, which is not followed: check EI_HOST")]
    Redirected {
        /// The request.
        what: &'static str,
        /// Host of the redirect.
        to: String,
    },
    /// The key belongs to no project.
    #[error("the API key belongs to no Edge Impulse project: create a key in the project (Dashboard, Keys)")]
    NoProject,
    /// The project has no impulse.
    #[error("the Edge Impulse project {project} has no impulse yet: design and train one in Studio")]
    NoImpulse {
        /// Project name.
        project: String,
    },
    /// The project has no impulse with the id of `--impulse-id`.
    #[error("the project has no impulse {requested} (--impulse-id); it has {}", listed(known))]
    UnknownImpulse {
        /// Requested id.
        requested: u64,
        /// Existing impulses, as `id name`.
        known: Vec<String>,
    },
    /// There is no target for this machine.
    #[error(transparent)]
    Machine(#[from] UnsupportedMachine),
    /// The requested target does not exist.
    #[error(
        "Edge Impulse Studio does not build this project for {requested}; it builds {} (--force-target in eiparams chooses one)",
        listed(known)
    )]
    NoTarget {
        /// Requested target.
        requested: String,
        /// Existing Linux targets.
        known: Vec<String>,
    },
    /// The requested engine does not exist.
    #[error(
        "the target {target} has no engine {requested} (--force-engine); it has {}",
        listed(known)
    )]
    NoEngine {
        /// The target.
        target: String,
        /// Requested engine.
        requested: String,
        /// Existing engines.
        known: Vec<String>,
    },
    /// The target supports none of the requested variants.
    #[error("the target {target} does not run {} of this project's model; it runs {}{}", variant(requested.as_deref()), listed(known), hinted(hint.as_deref()))]
    NoVariant {
        /// The target.
        target: String,
        /// `--force-variant`
        requested: Option<String>,
        /// Supported variants.
        known: Vec<String>,
        /// Studio's explanation.
        hint: Option<String>,
    },
    /// The build job failed.
    #[error("Edge Impulse Studio could not build the model (job {job}); its last lines: {}", tail.join(" | "))]
    BuildFailed {
        /// Job id.
        job: u64,
        /// End of its output.
        tail: Vec<String>,
    },
    /// The build job takes too long.
    #[error("Edge Impulse Studio has not finished building the model (job {job}) after {} min; the same job is checked again later", after.as_secs() / 60)]
    BuildTooLong {
        /// Job id.
        job: u64,
        /// Time that this component waited.
        after: Duration,
    },
    /// The job succeeded, but there is no deployment.
    #[error("Edge Impulse Studio reports that the model was built (job {job}), but has no deployment")]
    BuiltNothing {
        /// Job id.
        job: u64,
    },
    /// The connection ended early.
    #[error("the download of the model stopped after {got} bytes{}: {reason}", expected.map(|all| format!(" of {all}")).unwrap_or_default())]
    Truncated {
        /// Bytes received.
        got: u64,
        /// Expected bytes.
        expected: Option<u64>,
        /// Why.
        reason: String,
    },
    /// The downloaded file is not a model for this machine.
    #[error("the model from Edge Impulse Studio cannot be used: {0}")]
    NotAModel(#[source] ModelFileError),
    /// The file has another SHA-256 than the configured one.
    #[error(
        "the model version {version} from Edge Impulse Studio has the SHA-256 {got}, and model_sha256 is {expected}: correct the key, or deploy the right model in Studio"
    )]
    OtherDigest {
        /// Deployment version.
        version: u64,
        /// The file's.
        got: String,
        /// The configured one.
        expected: String,
    },
    /// The deployment failed on this device earlier.
    #[error(
        "version {version} is not used again, because {reason}; a newer version is taken, and the command update_model with the value {version} tries it again"
    )]
    KnownBad {
        /// Deployment version.
        version: u64,
        /// Why it failed.
        reason: String,
    },
    /// The requested version is not the one that Studio has.
    #[error("version {wanted} is not on this device, and Edge Impulse Studio has version {found}")]
    OtherVersion {
        /// Requested version.
        wanted: u64,
        /// Version in Studio.
        found: u64,
    },
    /// The file cannot be stored.
    #[error("the model cannot be stored in {}: {source}; the directory must be writable and have free space", path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl StudioError {
    /// When the fetch can be tried again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. } | Self::NotJson { .. } | Self::Truncated { .. } | Self::BuildTooLong { .. } => {
                Retry::Soon
            }
            Self::Status { status, .. } if *status >= 500 || matches!(status, 408 | 425 | 429) => Retry::Soon,
            _ => Retry::Later,
        }
    }
}

fn quoted(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        excerpt(&names.join(", "))
    }
}

fn variant(requested: Option<&str>) -> String {
    requested.map_or_else(
        || "any variant".to_owned(),
        |requested| format!("the variant {requested} (--force-variant, --quantized)"),
    )
}

fn hinted(hint: Option<&str>) -> String {
    hint.map(|hint| format!(" ({hint})")).unwrap_or_default()
}
