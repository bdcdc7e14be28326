//! What `tests/fuzz` calls here.

use std::path::Path;
use std::time::Duration;

use super::candidate::CollectReason;
use super::limits::{BEGINNING, FrameLimits, SavedLimits};
use crate::config::{FrameCollectionConfig, SampleCategory, ValueBand};
use crate::util::aged_file::AgedFile;

/// See [`crate::studio::fuzzing::use_frame_limits`].
pub(in crate::studio) fn use_limits(file: &Path, passed: Duration) {
    let config = FrameCollectionConfig {
        band: Some(ValueBand { low: 0.4, high: 0.6 }),
        per_hour: 5,
        every: Some(Duration::from_secs(60)),
        category: SampleCategory::Training,
        bytes_per_day: 1 << 20,
    };
    let mut limits = FrameLimits::default();
    let mut state = AgedFile::new(file.to_owned());
    if let Ok(Some((saved, elapsed))) = state.load::<SavedLimits>() {
        limits.restore(BEGINNING, elapsed, &saved);
    }
    let now = BEGINNING + passed;
    let mut taken = 0;
    for _ in 0..10 {
        taken += u32::from(limits.take(now, &config, CollectReason::Uncertain, None));
    }
    assert!(taken <= 1, "inputs are spread over the hour");
    limits.take(now, &config, CollectReason::Regular, None);
    let _ = state.save(limits.saved(now));
    assert!(state.load::<SavedLimits>().is_ok(), "what was written is read");
}
