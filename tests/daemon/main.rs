//! The real binary, from a configuration to messages on a broker.

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod broker_faults;
mod commands;
mod counting;
mod pictures;
