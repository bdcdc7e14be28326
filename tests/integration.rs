//! All integration tests in one program, which is linked once.

mod daemon;
mod documents;
mod inputs;
mod iot_core;
mod local_topics;
mod model;
mod nucleus;
mod other_user;
mod power_cut;
mod preview;
mod recipe;
mod s3;
mod secrets;
mod setup;
mod source_secrets;
mod spool;
mod studio;
mod support;
mod uplink;
