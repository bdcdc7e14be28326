//! What integration tests share.

#![allow(dead_code)] // each test binary uses its part

pub mod aws;
pub mod broker;
pub mod clock;
pub mod daemon;
pub mod events;
pub mod exchange;
pub mod http;
pub mod inferences;
pub mod leftovers;
pub mod log;
pub mod mosquitto;
pub mod network;
pub mod nucleus;
pub mod observer;
pub mod ports;
pub mod remote_management;
pub mod s3;
pub mod scripts;
pub mod small_disk;
pub mod studio;
pub mod video;
