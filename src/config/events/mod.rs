//! The key `events`: zones, lines and rules that turn detections into events.

mod json;
mod parse;
mod reader;
mod types;

pub use parse::parse_events;
pub use types::{
    Anchor, CountingLine, EventCondition, EventRule, EventsConfig, LabelSet, LineDirections, MovementAxis, Zone,
};

#[cfg(test)]
mod tests;
