//! Helpers shared by the integration tests.

pub mod broker;
pub mod mosquitto;
