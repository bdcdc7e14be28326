//! Events: an object enters a zone, a line is crossed, a label has a high value for some time.
//!
//! [`EventEngine`] takes the results of inferences. The tracker follows objects from inference to inference, `lines` notices
//! crossings, and `rules` decides when events start and end. Nothing in them does I/O; time and ids are arguments.
//! [`EventRecorder`] runs the engine: it publishes the events, and keeps totals and open events on the disk.

mod assignment;
mod clip_names;
mod engine;
mod event;
mod followed_object;
mod kalman;
mod lines;
mod moment;
mod queue;
mod recorder;
mod rule_settings;
mod rules;
mod scores;
mod state;
mod store;
mod tracker;

pub use engine::EventEngine;
pub use event::{EndReason, Event, EventBox, EventKind, LineTotals};
pub use followed_object::FollowedObject;
pub use moment::Moment;
pub use recorder::{EventRecorder, EventSettings};
pub use state::{CountedEvents, EventState};
pub use tracker::DetectorInfo;
