//! Monitoring of the running model: Edge Impulse Studio sees what it infers.
//!
//! [`StoredRecords`] has the stored inferences on disk, [`RecordResponder`] answers the requests of Studio for them.

mod record;
mod responder;
mod store;
mod stored_records;

pub use record::{RawData, RawDataKind, Record};
pub use responder::RecordResponder;
pub use store::{AvailableRecords, RecordOwner, RecordStore, RecordStoreError};
pub use stored_records::StoredRecords;
