//! The model process (`.eim`): started, spoken to, ended. Blocking; lives on the inference thread.

mod answer;
pub mod builtin;
mod connection;
mod elf;
mod error;
mod file;
mod framing;
mod hello;
mod interrupt;
mod output;
mod process;
pub mod protocol;
mod request;
mod running;
mod runtime_dir;
mod settings;
mod shm;
mod tvm;

pub use error::ModelError;
pub use file::{FileError, Usable, examine, examine_complete};
pub use hello::HelloError;
pub use interrupt::Interrupt;
pub use protocol::{BoundingBox, InferenceResult, ModelInfo, ModelInput};
pub use running::Model;
pub use runtime_dir::{sweep, sweep_in};
pub use settings::{Limits, Settings};
