//! What the inference loop hands over while somebody looks, and what those who look ask of it.
//!
//! With nobody looking an inference costs one relaxed load here. With somebody, the result is cloned, and at most
//! [`VIEWS_PER_SECOND`] times a second the picture is copied; everything else happens away from the inference thread.
//! Nothing here ever waits: what is not fetched in time is replaced by what is newer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, oneshot};

use super::view::InferenceView;
use crate::capture::{Frame, Picture, Target};
use crate::config::Threshold;
use crate::model::{InferenceResult, ModelError};
use crate::report::Decision;
use crate::status::stats::Counter;

/// Pictures (and results without one) for the page: at most so many a second.
pub const VIEWS_PER_SECOND: u32 = 12;
/// Results that a client may be behind before it misses the oldest.
const RESULTS_BEHIND: usize = 32;
/// Threshold changes that wait for the inference loop.
const MAX_ORDERS: usize = 16;

/// One inference as the loop has it in hand.
#[derive(Debug)]
pub struct InferenceEvent<'a> {
    /// What the model answered.
    pub result: &'a InferenceResult,
    /// What the model saw; `None` for sound.
    pub picture: Option<&'a Picture>,
    /// What the camera saw, where [`LiveTap::wants_original`] said so.
    pub original: Option<Original>,
    /// Loudness of the sound, 0 to 1; `None` for pictures.
    pub level: Option<f32>,
    /// Wall-clock time of the round trip to the model.
    pub wall_ms: f32,
    /// What was decided about it.
    pub decision: Decision,
}

/// The frame of the camera that became the model's picture, in memory of its own.
#[derive(Debug)]
pub struct Original {
    /// The frame.
    pub frame: Frame,
    /// How the model's picture was made of it.
    pub target: Target,
}

/// What is to be shown of an inference.
#[derive(Debug)]
pub(crate) enum RawPicture {
    /// What the model saw.
    Models(Picture),
    /// What the camera saw.
    Cameras(Original),
}

/// A result with a copy of its picture, on its way to the encoder.
#[derive(Debug)]
pub(crate) struct Raw {
    pub seen: Arc<InferenceView>,
    pub picture: Option<RawPicture>,
}

/// A threshold that somebody wants changed.
#[derive(Debug)]
struct Order {
    threshold: Threshold,
    reply: oneshot::Sender<Result<(), String>>,
}

/// Why a threshold was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Too many are waiting.
    #[error("too many threshold changes are waiting; send this one again later")]
    Busy,
    /// The model did not take it up.
    #[error("the model is not running at the moment; send this again when it is")]
    NotRunning,
    /// The model's own words.
    #[error("{0}")]
    Refused(String),
}

/// See the module.
#[derive(Debug)]
pub struct LiveTap {
    /// Everybody who looks at anything.
    viewers: AtomicUsize,
    /// Those of them who want pictures.
    picture_viewers: AtomicUsize,
    /// Pictures are shown in the resolution of the camera.
    original_resolution: bool,
    results: broadcast::Sender<Arc<InferenceView>>,
    next_glance: Mutex<Option<Instant>>,
    raw: Mutex<Option<Raw>>,
    raw_changed: Notify,
    orders: Mutex<VecDeque<Order>>,
    /// Thresholds changed since the last `restart`: a model that is started again gets them too.
    changed: Mutex<Vec<Threshold>>,
    /// Pictures turned into JPEG for those who look.
    pub(crate) encoded: Counter,
}

impl Default for LiveTap {
    fn default() -> Self {
        Self::new(false)
    }
}

impl LiveTap {
    /// A live_tap with nobody who looks. `original_resolution`: pictures are shown as the camera took them, not as the model
    /// gets them.
    pub fn new(original_resolution: bool) -> Self {
        Self {
            viewers: AtomicUsize::new(0),
            picture_viewers: AtomicUsize::new(0),
            original_resolution,
            results: broadcast::channel(RESULTS_BEHIND).0,
            next_glance: Mutex::new(None),
            raw: Mutex::new(None),
            raw_changed: Notify::new(),
            orders: Mutex::default(),
            changed: Mutex::default(),
            encoded: Counter::default(),
        }
    }

    /// Whether anybody looks: one relaxed load. Nothing needs to be prepared for [`show`](Self::show) when nobody does.
    pub fn is_watched(&self) -> bool {
        self.viewers.load(Ordering::Relaxed) > 0
    }

    /// Whether inferences are to be shown with the frame of the camera. It is asked for before the model works, when nobody
    /// knows yet whether this inference will be due.
    pub fn wants_original(&self) -> bool {
        self.original_resolution && self.picture_viewers.load(Ordering::Relaxed) > 0
    }

    /// Shows one inference to those who look.
    pub fn show(&self, event: InferenceEvent<'_>) {
        let due = self.is_due(Instant::now());
        if !due && self.results.receiver_count() == 0 {
            return;
        }
        let seen = Arc::new(InferenceView::of(&event));
        // Nobody may be listening just now.
        let _ = self.results.send(seen.clone());
        if !due {
            return;
        }
        let wanted = self.picture_viewers.load(Ordering::Relaxed) > 0;
        let picture = match event.original {
            _ if !wanted => None,
            Some(original) => Some(RawPicture::Cameras(original)),
            // Somebody has come since; the next one has it.
            None if self.original_resolution => None,
            None => event.picture.cloned().map(RawPicture::Models),
        };
        *self.raw.lock() = Some(Raw { seen, picture });
        self.raw_changed.notify_one();
    }

    /// Carries out the threshold changes that were asked for, between two inferences.
    ///
    /// # Errors
    /// A fatal one of `set`; who asked has been told then.
    pub fn carry_out(&self, mut set: impl FnMut(&Threshold) -> Result<(), ModelError>) -> Result<(), ModelError> {
        while let Some(Order { threshold, reply }) = self.next_order() {
            let result = set(&threshold);
            // Who asked may have gone in the meantime.
            let _ = reply.send(result.as_ref().map(|_| ()).map_err(ToString::to_string));
            match result {
                Ok(()) => self.remember(threshold),
                Err(e) if e.is_fatal() => return Err(e),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Thresholds changed since the last [`forget`](Self::forget), for a model that was started again.
    pub fn changed_thresholds(&self) -> Vec<Threshold> {
        self.changed.lock().clone()
    }

    /// A new generation begins with the thresholds of the configuration.
    pub fn forget(&self) {
        self.changed.lock().clear();
    }

    /// Asks the inference loop to change a threshold, and waits at most `limit` for the model's answer.
    pub(crate) async fn set_threshold(&self, threshold: Threshold, limit: Duration) -> Result<(), OrderError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut orders = self.orders.lock();
            orders.retain(|order| !order.reply.is_closed());
            if orders.len() >= MAX_ORDERS {
                return Err(OrderError::Busy);
            }
            orders.push_back(Order { threshold, reply });
        }
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(result)) => result.map_err(OrderError::Refused),
            Ok(Err(_)) | Err(_) => Err(OrderError::NotRunning),
        }
    }

    /// Somebody looks from now on, until the guard is dropped.
    pub(crate) fn look(self: &Arc<Self>) -> ViewerGuard {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        ViewerGuard {
            live_tap: self.clone(),
            pictures: false,
        }
    }

    /// Every result from now on; who falls behind misses the oldest.
    pub(crate) fn results(&self) -> broadcast::Receiver<Arc<InferenceView>> {
        self.results.subscribe()
    }

    /// Waits for the next event.
    pub(crate) async fn next_raw(&self) -> Raw {
        loop {
            if let Some(raw) = self.raw.lock().take() {
                return raw;
            }
            self.raw_changed.notified().await;
        }
    }

    /// How many look at anything, and how many of them at pictures.
    pub(crate) fn viewers(&self) -> (usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        (count(&self.viewers), count(&self.picture_viewers))
    }

    fn is_due(&self, now: Instant) -> bool {
        let gap = Duration::from_secs(1) / VIEWS_PER_SECOND;
        let mut next = self.next_glance.lock();
        match *next {
            Some(at) if now < at => false,
            // The next one is due a gap after this one was, so that no camera rate is rounded down to half of the limit;
            // after a break, a gap after now.
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

    fn next_order(&self) -> Option<Order> {
        let mut orders = self.orders.lock();
        loop {
            let order = orders.pop_front()?;
            if !order.reply.is_closed() {
                return Some(order);
            }
        }
    }

    fn remember(&self, threshold: Threshold) {
        let mut changed = self.changed.lock();
        changed.retain(|known| (known.id, &known.key) != (threshold.id, &threshold.key));
        changed.push(threshold);
    }
}

/// Somebody who looks; dropped when they go.
#[derive(Debug)]
pub(crate) struct ViewerGuard {
    live_tap: Arc<LiveTap>,
    pictures: bool,
}

impl ViewerGuard {
    /// Whether pictures are wanted too.
    pub(crate) fn want_pictures(&mut self, wanted: bool) {
        let viewers = &self.live_tap.picture_viewers;
        match (self.pictures, wanted) {
            (false, true) => viewers.fetch_add(1, Ordering::Relaxed),
            (true, false) => viewers.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
        self.pictures = wanted;
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

    fn show(live_tap: &LiveTap) {
        let result = InferenceResult::default();
        let picture = Picture {
            width: 1,
            height: 1,
            grey: true,
            data: vec![7],
        };
        live_tap.show(InferenceEvent {
            result: &result,
            picture: Some(&picture),
            original: None,
            level: None,
            wall_ms: 1.0,
            decision: Decision::Empty,
        });
    }

    #[test]
    fn a_picture_is_copied_only_for_who_wants_pictures() {
        let live_tap = Arc::new(LiveTap::default());
        assert!(!live_tap.is_watched());
        let mut looking = live_tap.look();
        assert!(live_tap.is_watched());
        show(&live_tap);
        assert!(live_tap.raw.lock().take().is_some_and(|raw| raw.picture.is_none()));

        looking.want_pictures(true);
        *live_tap.next_glance.lock() = None;
        show(&live_tap);
        assert!(live_tap.raw.lock().take().is_some_and(|raw| raw.picture.is_some()));

        drop(looking);
        assert_eq!((live_tap.viewers(), live_tap.is_watched()), ((0, 0), false));
    }

    #[test]
    fn pictures_in_the_cameras_resolution_are_never_the_models() {
        let live_tap = Arc::new(LiveTap::new(true));
        assert!(!live_tap.wants_original());
        let mut looking = live_tap.look();
        looking.want_pictures(true);
        show(&live_tap);
        assert!(live_tap.raw.lock().take().is_some_and(|raw| raw.picture.is_none()));
        // The next one may be due by the time the model has answered.
        assert!(live_tap.wants_original());
    }

    #[test]
    fn glances_are_as_frequent_as_the_limit_and_no_more() {
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

    #[tokio::test]
    async fn a_threshold_is_set_by_the_loop_and_remembered_for_the_next_model() {
        let live_tap = Arc::new(LiveTap::default());
        let threshold = |value| Threshold {
            id: 1,
            key: "min_score".to_owned(),
            value,
        };
        for value in [0.3, 0.4] {
            let (asking, order) = (live_tap.clone(), threshold(value));
            let asked = tokio::spawn(async move { asking.set_threshold(order, Duration::from_secs(10)).await });
            while live_tap.orders.lock().is_empty() {
                tokio::task::yield_now().await;
            }
            live_tap.carry_out(|_| Ok(())).unwrap();
            assert_eq!(asked.await.unwrap(), Ok(()));
        }
        assert_eq!(live_tap.changed_thresholds(), [threshold(0.4)]);
        live_tap.forget();
        assert_eq!(live_tap.changed_thresholds(), []);
    }

    #[tokio::test]
    async fn without_a_model_a_threshold_is_refused_in_time_and_not_set_later() {
        let live_tap = LiveTap::default();
        let order = Threshold {
            id: 1,
            key: "k".to_owned(),
            value: 1.0,
        };
        let answer = live_tap.set_threshold(order, Duration::from_millis(20)).await;
        assert_eq!(answer, Err(OrderError::NotRunning));
        live_tap
            .carry_out(|_| panic!("nobody waits for this one any more"))
            .unwrap();
    }
}
