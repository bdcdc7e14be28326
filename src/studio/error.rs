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
    /// No API key.
    #[error("no model can be downloaded without the Edge Impulse API key: {0}")]
    Secret(#[from] SecretError),
    /// `EI_HOST` is wrong.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Studio, the way there, or what came from there.
    #[error(transparent)]
    Studio(#[from] StudioError),
}

impl FetchError {
    /// When trying again makes sense.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Secret(error) => error.retry(),
            Self::Host(_) => Retry::Later,
            Self::Studio(error) => error.retry(),
        }
    }
}

/// A failure of Studio, or of the way there. `what` describes the request, e.g. `the list of projects`.
#[derive(Debug, thiserror::Error)]
pub enum StudioError {
    /// The HTTP client cannot be made.
    #[error("connections to Edge Impulse Studio cannot be made: {0}")]
    Client(String),
    /// The key holds characters that no HTTP header can.
    #[error(
        "the Edge Impulse API key holds characters that cannot be sent: copy it again from Studio (Dashboard, Keys)"
    )]
    UnusableKey,
    /// No answer.
    #[error(
        "Edge Impulse Studio ({host}) could not be asked for {what}: {reason}; check the network, DNS and proxy (HTTPS_PROXY) of this device"
    )]
    Unreachable {
        /// Host asked.
        host: String,
        /// The request.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// 401 or 403.
    #[error(
        "Edge Impulse Studio refuses the API key (HTTP {status} for {what}{}): make a key in Studio (Dashboard, Keys) and store it in the secret",
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
    /// Something else than JSON.
    #[error(
        "what came back for {what} is {looks}, not JSON: is EI_HOST ({host}) Edge Impulse Studio, or does a proxy or login page answer?"
    )]
    NotJson {
        /// The request.
        what: &'static str,
        /// Host asked.
        host: String,
        /// What it seems to be.
        looks: &'static str,
    },
    /// JSON of another shape.
    #[error("the answer of Edge Impulse Studio for {what} is not understood: {detail}")]
    Unexpected {
        /// The request.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// More bytes than accepted.
    #[error("the answer of Edge Impulse Studio for {what} is larger than {} MiB and was dropped", limit >> 20)]
    TooLarge {
        /// The request.
        what: &'static str,
        /// Bytes accepted.
        limit: u64,
    },
    /// A redirect that is not followed.
    #[error("Edge Impulse Studio redirects {what} to {to}, which is not followed: check EI_HOST")]
    Redirected {
        /// The request.
        what: &'static str,
        /// Host named.
        to: String,
    },
    /// The key belongs to no project.
    #[error("the API key belongs to no Edge Impulse project: make a key in the project (Dashboard, Keys)")]
    NoProject,
    /// The project is empty.
    #[error("the Edge Impulse project {project} has no impulse yet: design and train one in Studio")]
    NoImpulse {
        /// Project name.
        project: String,
    },
    /// `--impulse-id` names none.
    #[error("the project has no impulse {asked} (--impulse-id); it has {}", listed(known))]
    UnknownImpulse {
        /// Id asked for.
        asked: u64,
        /// Those that exist, as `id name`.
        known: Vec<String>,
    },
    /// This machine has no target.
    #[error(transparent)]
    Machine(#[from] UnsupportedMachine),
    /// No such target.
    #[error(
        "Edge Impulse Studio does not build this project for {asked}; it builds {} (--force-target in eiparams chooses one)",
        listed(known)
    )]
    NoTarget {
        /// Target asked for.
        asked: String,
        /// The Linux targets that exist.
        known: Vec<String>,
    },
    /// No such engine.
    #[error(
        "the target {target} has no engine {asked} (--force-engine); it has {}",
        listed(known)
    )]
    NoEngine {
        /// The target.
        target: String,
        /// Engine asked for.
        asked: String,
        /// Those that exist.
        known: Vec<String>,
    },
    /// No such variant, or none at all.
    #[error("the target {target} does not run {} of this project's model; it runs {}{}", variant(asked.as_deref()), listed(known), hinted(hint.as_deref()))]
    NoVariant {
        /// The target.
        target: String,
        /// `--force-variant`
        asked: Option<String>,
        /// Those it supports.
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
        /// How long this component waited.
        after: Duration,
    },
    /// The job succeeded, and there is no deployment.
    #[error("Edge Impulse Studio says the model is built (job {job}), but has no deployment of it")]
    BuiltNothing {
        /// Job id.
        job: u64,
    },
    /// The connection ended early.
    #[error("the download of the model stopped after {got} bytes{}: {reason}", expected.map(|all| format!(" of {all}")).unwrap_or_default())]
    Truncated {
        /// Bytes received.
        got: u64,
        /// Bytes announced.
        expected: Option<u64>,
        /// Why.
        reason: String,
    },
    /// The file is no model for this machine.
    #[error("what Edge Impulse Studio sent as model cannot be used: {0}")]
    NotAModel(#[source] ModelFileError),
    /// The file cannot be stored.
    #[error("the model cannot be stored in {}: {source}; it must be writable and have room", path.display())]
    Store {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl StudioError {
    /// When trying again makes sense.
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

fn variant(asked: Option<&str>) -> String {
    asked.map_or_else(
        || "any variant".to_owned(),
        |asked| format!("the variant {asked} (--force-variant, --quantized)"),
    )
}

fn hinted(hint: Option<&str>) -> String {
    hint.map(|hint| format!(" ({hint})")).unwrap_or_default()
}
