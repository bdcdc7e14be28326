//! The real binary, from a configuration to messages on a broker.

#[path = "../support/mod.rs"]
mod support;

mod audio;
mod branches;
mod cameras;
mod counting;
mod kinds;
mod options;
mod pictures;
