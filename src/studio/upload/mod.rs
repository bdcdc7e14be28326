//! Samples on their way to the ingestion service of Edge Impulse Studio.
//!
//! Every sample is first written to a bounded spool on disk, so that an outage, a restart or a power cut loses none. One task
//! uploads them: the newest that somebody waits for at once, the others oldest first, with backoff while ingestion is away.

mod bounding_boxes;
mod daily_bytes;
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod ingestion;
mod probe;
mod sample;
mod spool;
mod uploader;

pub use bounding_boxes::LabelledBox;
pub use handle::{DailyLimit, UploadError, UploadHandle, UploadLimits, UploadSettings};
pub use probe::{IngestionFault, probe};
pub use sample::{CollectedDetails, SampleKind, UploadSample};
pub use uploader::Uploader;
