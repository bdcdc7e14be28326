//! The HTTP servers: listener, limits and access rules in one place, the live page and the inference server upon them.

mod access;
mod connections;
pub mod inference_server;
mod listener;
pub mod live_page;
