//! The HTTP servers: the live page and the inference server. They share the listener, the limits and the access rules.

mod access;
mod connection_table;
mod connections;
#[doc(hidden)]
pub mod fuzzing;
mod html_page;
pub mod inference_server;
mod listener;
pub mod live_page;
mod places;
