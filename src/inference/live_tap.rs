//! Copies of inferences for viewers, made only while there are viewers.
//!
//! Without a viewer an inference costs one relaxed load here. With one, the result is cloned, and at most
//! [`VIEWS_PER_SECOND`] times a second the picture is copied; everything else happens away from the inference thread.
//! Nothing here waits: a view that is not fetched in time is replaced by a newer one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, watch};

use super::event::{InferenceEvent, OriginalFrame};
use super::threshold_changes::ThresholdChanges;
use super::view::InferenceView;
use crate::capture::Picture;
use crate::model::ModelInfo;
use crate::status::stats::Counter;
use crate::status::{StatusSource, ViewerStatus};

/// Upper limit of views (with or without a picture) per second.
pub const VIEWS_PER_SECOND: u32 = 12;
/// Results that a subscriber may be behind before it misses the oldest.
const RESULTS_BEHIND: usize = 32;

/// A result with a copy of its picture, not encoded yet.
#[derive(Debug)]
pub(crate) struct UnencodedView {
    pub view: Arc<InferenceView>,
    /// `None` for audio, and while no viewer wants pictures.
    pub picture: Option<UnencodedPicture>,
}

/// The picture of a view.
#[derive(Debug)]
pub(crate) enum UnencodedPicture {
    /// The model's input picture.
    ModelInput(Picture),
    /// The camera's frame.
    Original(OriginalFrame),
}

/// Passes inferences on to viewers.
#[derive(Debug)]
pub struct LiveTap {
    viewers: AtomicUsize,
    /// Number of viewers that want pictures.
    picture_viewers: AtomicUsize,
    /// Whether pictures are shown in the camera's resolution.
    original_resolution: bool,
    results: broadcast::Sender<Arc<InferenceView>>,
    next_view_due: Mutex<Option<Instant>>,
    newest: Mutex<Option<UnencodedView>>,
    newest_changed: Notify,
    /// Threshold changes that viewers request.
    pub thresholds: ThresholdChanges,
    /// Pictures encoded as JPEG for viewers.
    pub(crate) encoded: Counter,
    /// The model that was loaded last.
    model: watch::Sender<Option<Arc<ModelInfo>>>,
}

impl Default for LiveTap {
    fn default() -> Self {
        Self::new(false)
    }
}

impl LiveTap {
    /// A live tap without viewers. `original_resolution`: show the camera's frame instead of the model's input picture.
    pub fn new(original_resolution: bool) -> Self {
        Self {
            viewers: AtomicUsize::new(0),
            picture_viewers: AtomicUsize::new(0),
            original_resolution,
            results: broadcast::channel(RESULTS_BEHIND).0,
            next_view_due: Mutex::new(None),
            newest: Mutex::new(None),
            newest_changed: Notify::new(),
            thresholds: ThresholdChanges::default(),
            encoded: Counter::default(),
            model: watch::Sender::new(None),
        }
    }

    /// Whether there is a viewer: one relaxed load. Without one, [`send`](Self::send) need not be called.
    pub fn has_viewers(&self) -> bool {
        self.viewers.load(Ordering::Relaxed) > 0
    }

    /// Whether events must include the camera's frame. The loop asks before the model works, when it is not known yet
    /// whether a view will be due.
    pub fn wants_original_frames(&self) -> bool {
        self.original_resolution && self.picture_viewers.load(Ordering::Relaxed) > 0
    }

    /// Passes an inference on to the viewers.
    pub fn send(&self, mut event: InferenceEvent<'_>) {
        let is_due = self.is_due(Instant::now());
        if !is_due && self.results.receiver_count() == 0 {
            return;
        }
        let (original, picture) = (event.original.take(), event.picture);
        let view = Arc::new(InferenceView::from(event));
        // Fails when there is no subscriber.
        let _ = self.results.send(view.clone());
        if !is_due {
            return;
        }
        let is_wanted = self.picture_viewers.load(Ordering::Relaxed) > 0;
        let picture = match original {
            _ if !is_wanted => None,
            Some(original) => Some(UnencodedPicture::Original(original)),
            // The viewer came after the loop had asked; the next event has the frame.
            None if self.original_resolution => None,
            None => picture.cloned().map(UnencodedPicture::ModelInput),
        };
        *self.newest.lock() = Some(UnencodedView { view, picture });
        self.newest_changed.notify_one();
    }

    /// Registers a viewer until the guard is dropped.
    pub(crate) fn add_viewer(self: &Arc<Self>) -> ViewerGuard {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        ViewerGuard {
            live_tap: self.clone(),
            wants_pictures: false,
        }
    }

    /// Every result from now on; a slow subscriber misses the oldest.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<InferenceView>> {
        self.results.subscribe()
    }

    /// Waits for the next view.
    pub(crate) async fn next_view(&self) -> UnencodedView {
        loop {
            if let Some(view) = self.newest.lock().take() {
                return view;
            }
            self.newest_changed.notified().await;
        }
    }

    /// The model is loaded and has described itself.
    pub fn set_model(&self, info: Arc<ModelInfo>) {
        self.model.send_replace(Some(info));
    }

    /// Watches which model is loaded.
    pub(crate) fn model(&self) -> watch::Receiver<Option<Arc<ModelInfo>>> {
        self.model.subscribe()
    }

    fn is_due(&self, now: Instant) -> bool {
        let gap = Duration::from_secs(1) / VIEWS_PER_SECOND;
        let mut next = self.next_view_due.lock();
        match *next {
            Some(at) if now < at => false,
            // The interval starts when this view was due. Otherwise some camera rates would be rounded down to half of
            // the limit.
            Some(at) if now < at + gap => {
                *next = Some(at + gap);
                true
            }
            _ => {
                *next = Some(now + gap);
                true
            }
        }
    }
}

impl StatusSource<ViewerStatus> for LiveTap {
    fn status(&self) -> ViewerStatus {
        ViewerStatus {
            viewers: self.viewers.load(Ordering::Relaxed),
            picture_viewers: self.picture_viewers.load(Ordering::Relaxed),
            pictures_encoded: self.encoded.get(),
        }
    }
}

/// Counts as a viewer until it is dropped.
#[derive(Debug)]
pub(crate) struct ViewerGuard {
    live_tap: Arc<LiveTap>,
    wants_pictures: bool,
}

impl ViewerGuard {
    /// Sets whether the viewer wants pictures besides results.
    pub(crate) fn want_pictures(&mut self, wanted: bool) {
        let viewers = &self.live_tap.picture_viewers;
        match (self.wants_pictures, wanted) {
            (false, true) => viewers.fetch_add(1, Ordering::Relaxed),
            (true, false) => viewers.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
        self.wants_pictures = wanted;
    }
}

impl Drop for ViewerGuard {
    fn drop(&mut self) {
        self.want_pictures(false);
        self.live_tap.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::InferenceResult;
    use crate::report::Decision;

    fn send(live_tap: &LiveTap) {
        let result = InferenceResult::default();
        let picture = Picture {
            width: 1,
            height: 1,
            grey: true,
            data: vec![7],
        };
        live_tap.send(InferenceEvent {
            result: &result,
            picture: Some(&picture),
            original: None,
            level: None,
            wall_ms: 1.0,
            decision: Decision::Empty,
            objects: Vec::new(),
        });
    }

    #[test]
    fn a_picture_is_copied_only_while_a_viewer_wants_pictures() {
        let live_tap = Arc::new(LiveTap::default());
        assert!(!live_tap.has_viewers());
        let mut viewer = live_tap.add_viewer();
        assert!(live_tap.has_viewers());
        send(&live_tap);
        assert!(live_tap.newest.lock().take().is_some_and(|view| view.picture.is_none()));

        viewer.want_pictures(true);
        *live_tap.next_view_due.lock() = None;
        send(&live_tap);
        assert!(live_tap.newest.lock().take().is_some_and(|view| view.picture.is_some()));

        drop(viewer);
        assert_eq!(
            (live_tap.status(), live_tap.has_viewers()),
            (ViewerStatus::default(), false)
        );
    }

    #[test]
    fn in_camera_resolution_the_models_input_picture_is_never_shown() {
        let live_tap = Arc::new(LiveTap::new(true));
        assert!(!live_tap.wants_original_frames());
        let mut viewer = live_tap.add_viewer();
        viewer.want_pictures(true);
        send(&live_tap);
        assert!(live_tap.newest.lock().take().is_some_and(|view| view.picture.is_none()));
        // A view may be due by the time the model has answered.
        assert!(live_tap.wants_original_frames());
    }

    #[test]
    fn views_are_as_frequent_as_the_limit_and_no_more() {
        let live_tap = LiveTap::default();
        let begin = Instant::now();
        // Ten seconds of a camera with 30 frames a second.
        let frames = (0..300).map(|n| begin + Duration::from_secs(1) * n / 30);
        let due = frames.filter(|at| live_tap.is_due(*at)).count() as u32;
        assert!(
            (VIEWS_PER_SECOND * 10 - 2..=VIEWS_PER_SECOND * 10 + 1).contains(&due),
            "{due}"
        );
    }
}
