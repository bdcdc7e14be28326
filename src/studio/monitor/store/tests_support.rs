//! Records for tests.

use serde_json::json;

use crate::studio::monitor::record::{RawData, RawDataKind, Record};

/// A record with a picture of `bytes` bytes that differ for each index.
pub fn record(index: u64, bytes: usize) -> Record {
    let data: Vec<_> = (0..bytes)
        .map(|at| (index as u8).wrapping_mul(31).wrapping_add((at as u8).wrapping_mul(7)))
        .collect();
    Record {
        index,
        timestamp_ms: 1_736_016_000_000_u64.wrapping_add(index.wrapping_mul(1000)),
        record: json!({"result": {"number": index}, "timing": {}}),
        raw_data: RawData {
            kind: if index.is_multiple_of(2) {
                RawDataKind::Jpg
            } else {
                RawDataKind::Wav
            },
            bytes: data.into(),
        },
    }
}
