//! What `tests/fuzz` calls here.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::daily_bytes::DailyBytes;
use super::spool::{SampleSpool, SpoolBounds};
use super::{SampleKind, UploadSample};

/// Opens the samples that wait in `directory`, adds one, and takes all as an upload does.
pub fn use_samples(directory: &Path, samples: usize, bytes: u64) {
    let mut spool = SampleSpool::new(directory.to_owned(), SpoolBounds { samples, bytes });
    let sample = UploadSample {
        category: "training".to_owned(),
        label: "label".to_owned(),
        kind: SampleKind::Jpeg,
        data: Bytes::from_static(b"jpeg"),
        collected: None,
    };
    let put = spool.put(&sample);
    assert!(spool.len() <= samples.max(1), "the bound is kept");
    spool.collected();
    while let Some(number) = spool.oldest(u64::MAX) {
        if let Some(metadata) = spool.metadata(number) {
            assert!(metadata.encoded_metadata().is_ascii() && metadata.encoded_label().is_ascii());
            assert!(!metadata.file_name().contains(['"', '\r', '\n']));
            metadata.shown_label();
            metadata.labels_file();
        }
        if spool.read(number).is_ok()
            && let Ok((added, _)) = put
        {
            assert!(number <= added, "the new sample is the last");
        }
        spool.remove(number);
    }
    assert_eq!(spool.len(), 0);
}

/// Reads what an earlier process sent, and sends `bytes` after `passed`.
pub fn use_daily_bytes(path: &Path, passed: Duration, bytes: u64) {
    let began = Instant::now();
    let mut sent = DailyBytes::new(path.to_owned(), began, Arc::default());
    sent.load(began);
    let now = began + passed;
    let room = sent.room(now, u64::MAX);
    sent.charge(now, bytes);
    let left = sent.room(now, u64::MAX);
    assert!(left <= room, "what was sent counts");
    sent.refund(now, bytes);
    assert!(sent.room(now, u64::MAX) >= left);
}
