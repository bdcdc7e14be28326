//! The real binary, from a configuration to messages on a broker.

mod audio;
mod bad_input;
mod branches;
mod broker_faults;
mod by_hand;
mod cache;
mod camera_faults;
mod cameras;
mod clock;
mod commands;
mod counting;
mod demo;
mod ending;
mod health;
mod kinds;
mod leftovers;
mod libraries;
mod model_faults;
mod options;
mod pictures;
mod saying;
mod shared_memory;
mod sources;
mod stage;
mod verdict;
mod wrong_models;
