//! Starts the model process (`.eim`), asks it for inferences and ends it. All calls block: use them on the inference
//! thread.
//!
//! [`Model`] is a running model. Its `client` starts the process and exchanges requests and answers with it over a
//! unix socket; its `feature_buffer` writes the values of a request into the shared memory of the process.

mod answer;
mod bounding_box;
pub mod builtin;
mod cache_dir;
mod client;
mod connection;
mod elf;
mod error;
mod executable;
mod feature_buffer;
mod file;
mod framing;
#[doc(hidden)]
pub mod fuzzing;
mod hello;
mod interrupt;
mod lenient;
mod output;
mod process;
pub mod protocol;
mod request;
mod running_model;
mod runtime_dir;
mod sandbox;
mod settings;
mod shm;
mod tvm;

pub use bounding_box::BoundingBox;
pub use error::ModelError;
pub use file::{ModelFileError, ModelTarget, examine};
pub use hello::HelloError;
pub use interrupt::Interrupt;
pub use protocol::{InferenceResult, ModelInfo, ModelInput, ModelTiming};
pub use running_model::Model;
pub use runtime_dir::{sweep, sweep_in};
pub use sandbox::{Sandbox, SandboxError, SandboxSupport};
pub use settings::{ModelSettings, ModelTimeouts};
