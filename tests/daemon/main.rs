//! The real binary, from a configuration to messages on a broker.

#[path = "../support/mod.rs"]
mod support;

mod audio;
mod counting;
mod pictures;
