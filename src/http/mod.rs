//! The HTTP servers: the live page and the inference server. They share a listener with limits.

mod access;
mod connections;
mod html_page;
pub mod inference_server;
mod listener;
pub mod live_page;
