//! Starts and ends the clips of events, and names them in the messages.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::event::{Event, EventKind};
use crate::cache::EventClips;

/// The clips of the open events.
#[derive(Default)]
pub(super) struct ClipNames {
    clips: Option<Arc<EventClips>>,
    /// By the id of the event, the name of the file.
    open: HashMap<Uuid, String>,
}

impl ClipNames {
    /// Sets what records clips from now on. `delay`: how long a condition may hold before its event starts.
    pub fn set_clips(&mut self, clips: Option<Arc<EventClips>>, delay: Duration) {
        self.clips = clips;
        self.set_delay(delay);
    }

    /// Changes how long a condition may hold before its event starts.
    pub fn set_delay(&self, delay: Duration) {
        if let Some(clips) = &self.clips {
            clips.set_delay(delay);
        }
    }

    /// Starts or ends the clip of an event, and names it in the event.
    pub fn record(&mut self, event: &mut Event, now: Instant) {
        let Some(clips) = &self.clips else { return };
        match event.event {
            EventKind::Start => {
                let age = event.start_ts.map_or(0, |start| event.ts.saturating_sub(start));
                let start = now.checked_sub(Duration::from_millis(age)).unwrap_or(now);
                event.clip = clips.begin(event.id, start);
                if let Some(name) = &event.clip {
                    self.open.insert(event.id, name.clone());
                }
            }
            EventKind::End => {
                if let Some(name) = self.open.remove(&event.id) {
                    clips.finish(event.id, now);
                    event.clip = Some(name);
                }
            }
            EventKind::Update | EventKind::Cross => {}
        }
    }
}
