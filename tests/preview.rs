//! The live page, its WebSocket and its other paths, against the real binary.

pub mod chromium;
pub mod client;
mod crowds;
mod on_demand;
mod page;
mod safety;
mod socket;
mod studio;
mod tools;
mod zones;
mod zones_page;
