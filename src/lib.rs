//! `ei-greengrass`: an AWS IoT Greengrass v2 component that runs an Edge Impulse Linux model (`.eim`) on a camera or a microphone
//! and publishes the results to AWS IoT Core.
//!
//! The path of a frame is one line: [`capture`] puts the newest frame into a mailbox, which keeps one value. The thread of
//! [`inference`] takes it, converts it to the input of the model and sends it to the [`model`] process. [`report`] decides which
//! results become messages. [`uplink`] keeps them in an outbox, on disk while it is offline, and publishes them over MQTT.
//! [`cache`] stores pairs of picture and message in files and in S3.
//!
//! A command takes the way back: [`uplink`] receives it, the supervisor passes it to [`commands`], and the answer goes to the
//! outbox.
//!
//! [`supervisor`] builds, connects and restarts these parts. [`status`] holds their health, problems and counters; the live page,
//! the API and the inference server of [`http`] read it. [`studio`] downloads models from Edge Impulse Studio, and [`aws`] holds
//! credentials, endpoints and secrets. [`cli`] parses the command line, [`config`] the configuration; [`lifecycle`] makes the
//! process the only one of its [`device`] and receives stop requests. [`setup`] prepares the machine in the install step.

#![forbid(unsafe_code)]
// The future of the inference server, with all that a stop and a changed configuration await in it, is nested more than 128 deep.
#![recursion_limit = "256"]

pub mod aws;
pub mod cache;
pub mod capture;
pub mod cli;
pub mod commands;
pub mod config;
pub mod device;
pub mod events;
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod inference;
pub mod lifecycle;
pub mod local_topics;
pub mod model;
pub mod nucleus;
pub mod report;
pub mod setup;
#[cfg(test)]
mod simulation;
pub mod status;
pub mod studio;
pub mod supervisor;
pub mod uplink;
pub mod util;
