//! The component configuration: typed and complete, with the origin of every value. `"__none__"` is known only here.
//!
//! Layers, later ones win: the defaults of the table in `keys`, the configuration text (a file or `CONFIG_PARAMETERS`),
//! `--set key=value`, and flags such as `--model`. A value that is not accepted leads to a [`Warning`] and the default.
//! Only text that cannot be parsed, an unknown `launch` and a flag that cannot be used lead to a [`ConfigError`].

mod bounded;
mod bucket;
mod build;
mod changes;
mod component_details;
mod eiparams;
mod error;
mod event_clip;
mod events;
mod frame_collection;
mod json_text;
mod keys;
mod load;
mod number;
mod resolve;
mod shape;
mod show;
mod sources;
mod spelling;
mod text;
mod types;
mod values;

pub use bucket::S3Bucket;
pub use changes::changed_keys;
pub use eiparams::AppliedOption;
pub use error::{ConfigError, SyntaxProblem, TextOrigin, Warning};
pub use event_clip::EventClipConfig;
pub use events::{
    Anchor, CountingLine, EventCondition, EventRule, EventsConfig, LabelSet, LineDirections, MovementAxis, Zone,
    parse_events,
};
pub use frame_collection::{FrameCollectionConfig, SampleCategory, ValueBand};
pub use keys::{DefaultValue, KEYS, KeyInfo, defaults};
pub use load::{Loaded, get, load};
pub use number::{ThresholdError, as_fraction, parse_threshold};
pub use resolve::{EffectiveValue, Origin};
pub use sources::{Sources, parse_set};
pub use text::{MAX_TEXT_BYTES, read_file};
pub use types::*;

#[cfg(test)]
mod tests;
