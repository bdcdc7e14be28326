//! Builds, connects and runs all parts of the component, restarts parts that fail, and stops all parts.
//!
//! A session lasts until the command `restart`, or until a deployment changes a setting that it reads only at its start. It owns the model, the capture, the report and the caches. Model and capture are
//! restarted with backoff after a failure. The message sink and its outbox outlive sessions, so a restart loses no undelivered
//! message.

mod caches;
mod capture_supervisor;
mod clips;
mod collection;
mod config_update;
mod context;
mod event;
mod local_topics;
mod message_sink;
mod model_resolver;
mod model_supervisor;
mod model_updater;
mod run;
mod session;
mod session_end;
mod setup;
mod source_secrets;
mod spool;
mod stuck_threads;
mod studio_link;

pub use collection::run as collect;
pub use config_update::{ConfigChange, ConfigUpdate};
pub use message_sink::uplink_settings;
pub use run::{RunEnd, run};
pub use setup::{Setup, SetupError, SinkTarget, sink_target};
