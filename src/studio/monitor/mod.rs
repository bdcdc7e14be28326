//! Monitoring of the running model: Edge Impulse Studio sees what it infers.

mod record;

pub use record::{RawData, RawDataKind, Record};
