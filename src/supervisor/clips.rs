//! Starts and watches the clips of events.

use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::context::Context;
use crate::cache::{ClipDirectory, EventClips};
use crate::capture::ClipSettings;
use crate::config::Config;

/// How often clips are looked at whose source may have stopped.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Starts the clips, if they are configured. Without a file cache they stay on disk only until the S3 cache has them.
///
/// # Errors
/// The system cannot start a thread.
pub(super) fn start(context: &Context, config: &Config) -> io::Result<Option<Arc<EventClips>>> {
    let Some(clip) = config.event_clip else {
        return Ok(None);
    };
    let kept = config.file_cache.as_ref().map(|files| files.directory.clone());
    let directory = ClipDirectory {
        max_bytes: clip.max_bytes,
        is_kept: kept.is_some(),
        path: kept.unwrap_or_else(|| config.work_dir.join(&context.device).join("event-clips")),
    };
    let settings = ClipSettings {
        before: clip.before,
        after: clip.after,
    };
    let clips = Arc::new(EventClips::start(settings, directory, &context.stats)?);
    tokio::spawn(finish_due_clips(Arc::downgrade(&clips)));
    Ok(Some(clips))
}

/// Runs until the clips are dropped.
async fn finish_due_clips(clips: Weak<EventClips>) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let Some(clips) = clips.upgrade() else { return };
        clips.finish_due(Instant::now());
    }
}
