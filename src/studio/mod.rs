//! The model download from Edge Impulse Studio: which model this machine wants, built there if need be, downloaded,
//! checked, and kept below `models/` of the work directory.
//!
//! [`Provider`] is what the supervisor uses. Half a download never becomes a model: a file is checked, synced and only
//! then renamed to its place, with an `about.json` beside it that says which project and deployment it is.

mod api;
mod build;
mod choice;
mod client;
mod download;
mod error;
mod fetch;
mod host;
mod provider;
mod store;
mod target;

pub use choice::{Choice, Wanted, choose};
pub use client::{Limits, Studio};
pub use error::{FetchError, StudioError};
pub use fetch::{Job, Stage, fetch};
pub use host::{HostError, base_url};
pub use provider::{Found, Provider};
pub(crate) use provider::{is_missing, missing_words, say_missing};
pub use store::{About, Origin, Store, StoredModel};
pub use target::{Machine, UnsupportedMachine};
