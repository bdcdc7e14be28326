//! The live page, its WebSocket and its other paths, against the real binary.

#[path = "support/mod.rs"]
mod support;

#[path = "preview/chromium.rs"]
mod chromium;
#[path = "preview/client.rs"]
mod client;
#[path = "preview/on_demand.rs"]
mod on_demand;
#[path = "preview/page.rs"]
mod page;
#[path = "preview/safety.rs"]
mod safety;
#[path = "preview/socket.rs"]
mod socket;
#[path = "preview/tools.rs"]
mod tools;
