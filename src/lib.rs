//! `ei-greengrass`: an AWS IoT Greengrass v2 component that runs an Edge Impulse Linux model (`.eim`) on a camera
//! and reports what it sees to AWS IoT Core.
//!
//! The way of one frame:
//! [`capture`] puts the newest frame into a one-place slot; [`inference`] converts it and asks the [`model`] process;
//! [`report`] decides what becomes a message; [`uplink`] delivers it over MQTT and brings commands back;
//! [`cache`] keeps pairs of picture and message; [`preview`] shows it all to who looks. [`supervisor`] starts, watches and restarts each part.

#![deny(unsafe_code)]

pub mod aws;
pub mod cache;
pub mod capture;
pub mod cli;
pub mod commands;
pub mod config;
pub mod device;
pub mod http;
pub mod inference;
pub mod lifecycle;
pub mod model;
pub mod report;
pub mod status;
pub mod studio;
pub mod supervisor;
pub mod uplink;
pub mod util;
