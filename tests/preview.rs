//! The live page, its WebSocket and its other paths, against the real binary.

mod chromium;
mod client;
mod on_demand;
mod page;
mod safety;
mod socket;
mod tools;
