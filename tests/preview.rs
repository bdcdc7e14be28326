//! The live page, its WebSocket and its other paths, against the real binary.

#[path = "support/mod.rs"]
mod support;
