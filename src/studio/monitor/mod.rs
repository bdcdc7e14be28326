//! Monitoring of the running model: Edge Impulse Studio sees what it infers.
//!
//! The inference loop leaves each inference in the [`MonitorTap`]. The thread `monitor` takes from there what is to be stored,
//! streamed or summarised. A task sends the summaries, which wait on disk while there is no connection.
//!
//! [`StoredRecords`] has the stored inferences on disk, [`RecordResponder`] answers the requests of Studio for them.

#[doc(hidden)]
pub mod fuzzing;
mod indices;
mod pending;
mod record;
mod recorder;
mod responder;
mod sender;
mod service;
mod store;
mod stored_records;
mod summary;
mod tap;

pub use record::{RawData, RawDataKind, Record};
pub use responder::RecordResponder;
pub use service::{Monitor, MonitorSettings};
pub use store::{AvailableRecords, RecordOwner, RecordStore, RecordStoreError};
pub use stored_records::StoredRecords;
pub use tap::{InferredInput, MonitorTap};
