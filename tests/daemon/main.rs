//! The real binary, from a configuration to messages on a broker.

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod broker_faults;
mod cache;
mod commands;
mod counting;
mod demo;
mod ending;
mod leftovers;
mod model_faults;
mod pictures;
mod sources;
mod stage;
