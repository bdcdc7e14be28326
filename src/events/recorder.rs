//! Runs the engine for the whole process: publishes its events, and keeps what must outlive the process.
//!
//! The inference thread only asks the engine and puts events into a queue. The thread `events` writes the state to the disk and then
//! puts the messages into the outbox, so that after a SIGKILL every event that was published as started is known and gets an end.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::clip_names::ClipNames;
use super::engine::EventEngine;
use super::event::{EndReason, Event};
use super::followed_object::FollowedObject;
use super::moment::Moment;
use super::queue::{EventQueue, PictureOutputs};
use super::state::CountedEvents;
use super::store::{CommandedConfig, EventStore, StoredEvents};
use super::tracker::DetectorInfo;
use crate::cache::{EventClips, PairDestination};
use crate::capture::Picture;
use crate::config::{EventsConfig, Qos};
use crate::device::Topics;
use crate::model::InferenceResult;
use crate::status::stats::Stats;
use crate::uplink::outbox::Token;
use crate::uplink::{Message, Outbox};
use crate::util::clock::now_ms;
use crate::util::log_limiter::LogLimiter;

/// Interval at which the thread looks whether time alone ends an event.
const TICK: Duration = Duration::from_millis(250);
/// Interval at which the state is written while events are open: after a crash, a dwell time may be too short by so much.
const SNAPSHOT: Duration = Duration::from_secs(10);
/// More events do not wait for the disk.
const MAX_QUEUE: usize = 1024;
/// Messages that are written to the disk until the broker or the spool has them.
const MAX_UNSETTLED: usize = 128;
/// How long a stop waits for pictures that are not encoded yet.
const STOP_ENCODING: Duration = Duration::from_millis(300);
/// Last events that the status shows.
const MAX_RECENT: usize = 20;

/// Settings of the recorder that a deployment changes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventSettings {
    /// Zones, lines and rules of the deployment.
    pub deployed: Option<EventsConfig>,
    /// Quality of service of events.
    pub qos: Qos,
    /// Add the picture to the messages.
    pub with_pictures: bool,
}

/// The events of the process. It outlives sessions.
pub struct EventRecorder {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Whether there are zones, lines or rules: without them an inference costs one load.
    is_on: AtomicBool,
    /// Grows whenever the configuration may be another one.
    revision: AtomicU64,
    store: EventStore,
    topics: Arc<Topics>,
    outbox: Arc<Outbox>,
    stats: Arc<Stats>,
}

struct Inner {
    engine: EventEngine,
    settings: EventSettings,
    command: Option<CommandedConfig>,
    /// The labels of the model; empty: not known, or it has none.
    labels: Vec<String>,
    queue: EventQueue,
    /// The last events, the oldest first.
    recent: VecDeque<Event>,
    /// Messages in the outbox that may be in memory only.
    unsettled: VecDeque<(Token, Event)>,
    /// The state differs from the file.
    is_dirty: bool,
    written: Instant,
    worker: Worker,
    log_limiter: LogLimiter,
    clips: ClipNames,
    /// The caches that get pictures.
    pairs: PairDestination,
}

impl Inner {
    fn picture_outputs(&self) -> PictureOutputs {
        PictureOutputs {
            in_messages: self.settings.with_pictures,
            pairs: self.pairs.clone(),
        }
    }

    /// Logs an event whose picture is left out.
    fn log_missing_picture(&mut self, reason: &str) {
        let Some(suppressed) = self.log_limiter.check_words(Instant::now(), reason) else {
            return;
        };
        let suppressed = suppressed.count();
        match self.pairs.count() {
            0 => tracing::warn!(reason, suppressed, "An event is published without its picture"),
            _ => tracing::error!(reason, suppressed, "The picture of an event is not cached"),
        }
    }

    /// Keeps an event for the status.
    fn remember(&mut self, event: &Event) {
        if self.recent.len() >= MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(event.clone());
    }

    /// The longest time for which a condition holds before its event starts.
    fn longest_delay(&self) -> Duration {
        let delays = self.engine.config().rules.iter().map(|rule| rule.condition.delay());
        delays.max().unwrap_or_default()
    }

    /// Logs the labels of the configuration that the model does not have.
    fn warn_of_labels(&self) {
        for problem in self.engine.config().unknown_labels(&self.labels) {
            tracing::warn!(%problem, known = ?self.labels, "An event waits for a label that the model does not have");
        }
    }
}

/// The state of the thread.
enum Worker {
    /// Nothing has needed it yet.
    Idle,
    Running(oneshot::Receiver<()>),
    Ending,
    /// It cannot be started.
    Missing,
}

impl EventRecorder {
    /// Reads what an earlier process has left in `device_dir`, ends its events, and begins with the settings of the deployment, or
    /// with what a command has set since. The spool of `outbox` must be attached before.
    pub fn start(
        device_dir: &Path,
        topics: Arc<Topics>,
        outbox: Arc<Outbox>,
        stats: Arc<Stats>,
        settings: EventSettings,
    ) -> Arc<Self> {
        let store = EventStore::new(device_dir.join("events.json"), Arc::clone(&stats));
        let stored = store.read();
        let mut engine = EventEngine::new(Uuid::new_v4);
        let mut counts = stored.counts;
        if counts.since_ts == 0 {
            counts.since_ts = now_ms();
        }
        engine.set_counts(counts);
        let recorder = Arc::new(Self {
            inner: Mutex::new(Inner {
                engine,
                settings,
                command: stored.command,
                labels: Vec::new(),
                queue: EventQueue::default(),
                recent: VecDeque::new(),
                unsettled: VecDeque::new(),
                is_dirty: false,
                written: Instant::now(),
                worker: Worker::Idle,
                log_limiter: LogLimiter::default(),
                clips: ClipNames::default(),
                pairs: PairDestination::default(),
            }),
            changed: Condvar::new(),
            is_on: AtomicBool::new(false),
            revision: AtomicU64::new(0),
            store,
            topics,
            outbox,
            stats,
        });
        let mut inner = recorder.inner.lock();
        let ts = now_ms();
        let ended = stored.open.into_iter().map(|event| event.ended_by_restart(ts));
        let leftover: Vec<_> = stored.unsettled.into_iter().chain(ended).collect();
        recorder.enqueue(&mut inner, leftover, None);
        recorder.apply_config(&mut inner);
        drop(inner);
        recorder
    }

    /// The objects that are followed now.
    pub fn objects(&self) -> Vec<FollowedObject> {
        if !self.is_on() {
            return Vec::new();
        }
        self.inner.lock().engine.objects().collect()
    }

    /// Sets all totals to zero.
    pub fn reset_counts(self: &Arc<Self>) {
        let mut inner = self.inner.lock();
        inner.engine.set_counts(CountedEvents {
            since_ts: now_ms(),
            ..CountedEvents::default()
        });
        inner.is_dirty = true;
        self.wake(&mut inner);
    }

    /// A model with these labels has started; `detector`: its input, `None` if it does not look at pictures.
    pub fn start_model(self: &Arc<Self>, detector: Option<DetectorInfo>, labels: &[String]) {
        let mut inner = self.inner.lock();
        inner.labels = labels.to_vec();
        inner.warn_of_labels();
        let events = inner.engine.start_model(detector, now(None));
        self.enqueue(&mut inner, events, None);
    }

    /// Sets what records the clips of events from now on, or none.
    pub fn set_clips(&self, clips: Option<Arc<EventClips>>) {
        let mut inner = self.inner.lock();
        let delay = inner.longest_delay();
        inner.clips.set_clips(clips, delay);
    }

    /// Sets the caches that get the pictures of events from now on.
    pub fn set_pairs(&self, pairs: PairDestination) {
        self.inner.lock().pairs = pairs;
    }

    /// Whether there are zones, lines or rules.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Takes the result of an inference. `inference_id`: of its message, if it is published. `picture`: the model's input, copied
    /// only for an event that shows it.
    pub fn update(self: &Arc<Self>, result: &InferenceResult, inference_id: Option<Uuid>, picture: Option<&Picture>) {
        if !self.is_on() {
            return;
        }
        let mut inner = self.inner.lock();
        let events = inner.engine.update(result, now(inference_id));
        let has_outputs = inner.settings.with_pictures || inner.pairs.count() > 0;
        let Inner { engine, queue, .. } = &mut *inner;
        let is_shown = has_outputs && (!events.is_empty() || queue.shows_any(engine.improved()));
        let copy = picture.filter(|_| is_shown);
        let copy = copy.map(|picture| Arc::new(picture.clone()));
        if let Some(copy) = &copy {
            queue.keep_best(engine.improved(), copy);
        }
        self.enqueue(&mut inner, events, copy.as_ref());
    }

    /// The component stops: ends all events and puts their messages into the outbox. Later results are ignored. Blocks while
    /// pictures are encoded, for a moment. The caches must still run.
    pub fn end_events(self: &Arc<Self>) {
        self.is_on.store(false, Ordering::Relaxed);
        let mut inner = self.inner.lock();
        let mut events = Vec::new();
        inner.engine.end_all(EndReason::Stop, now(None), &mut events);
        self.queue_events(&mut inner, events, None);
        let give_up = Instant::now() + STOP_ENCODING;
        inner
            .queue
            .waiting()
            .take_while(|_| Instant::now() < give_up)
            .for_each(|queued| queued.encode());
        self.push_until(&mut inner, u64::MAX);
        if inner.is_dirty {
            self.wake(&mut inner);
        }
    }

    /// Writes the last state and ends the thread, until the deadline. Call it after the outbox was written to the disk.
    pub async fn finish(&self, deadline: tokio::time::Instant) {
        let ended = {
            let mut inner = self.inner.lock();
            inner.is_dirty = true;
            std::mem::replace(&mut inner.worker, Worker::Ending)
        };
        self.changed.notify_one();
        if let Worker::Running(ended) = ended {
            // After the deadline the file is older than it could be: messages may come twice.
            let _ = tokio::time::timeout_at(deadline, ended).await;
        }
    }

    /// `present`: the picture of this moment, if messages have pictures.
    fn enqueue(self: &Arc<Self>, inner: &mut Inner, events: Vec<Event>, present: Option<&Arc<Picture>>) {
        if events.is_empty() {
            return;
        }
        self.queue_events(inner, events, present);
        self.wake(inner);
        if inner.queue.waiting().len() > MAX_QUEUE || !matches!(inner.worker, Worker::Running(_)) {
            self.push_until(inner, u64::MAX);
        }
    }

    fn queue_events(&self, inner: &mut Inner, events: Vec<Event>, present: Option<&Arc<Picture>>) {
        for mut event in events {
            self.stats.events.inc();
            inner.clips.record(&mut event, Instant::now());
            tracing::debug!(event = ?event.event, rule = ?event.rule, line = ?event.line, id = %event.id, "Event");
            inner.remember(&event);
            let outputs = inner.picture_outputs();
            if !inner.queue.push(event, present, &outputs) {
                inner.log_missing_picture("pictures of events come faster than this machine encodes them");
            }
            inner.is_dirty = true;
        }
    }

    /// Wakes the thread, and starts it if it is not running.
    fn wake(self: &Arc<Self>, inner: &mut Inner) {
        if matches!(inner.worker, Worker::Idle) {
            let (done, ended) = oneshot::channel();
            let recorder = self.clone();
            let thread = std::thread::Builder::new().name("events".to_owned());
            inner.worker = match thread.spawn(move || {
                recorder.run();
                // The receiver is gone when nobody waits for the end.
                let _ = done.send(());
            }) {
                Ok(_) => Worker::Running(ended),
                Err(error) => {
                    tracing::error!(%error, "The thread of events cannot be started; events are published, but not kept for a crash");
                    Worker::Missing
                }
            };
        }
        self.changed.notify_one();
    }

    /// Puts queued messages up to this number into the outbox. Those without their picture so far go without it.
    fn push_until(&self, inner: &mut Inner, number: u64) {
        while let Some(queued) = inner.queue.pop_until(number) {
            let written = queued.message_now();
            self.stats.cache_failures.add(written.missing_pairs);
            let message = Message::event(&self.topics, written.json.clone(), inner.settings.qos);
            let token = self.outbox.push(message);
            inner.unsettled.push_back((token, queued.event.clone()));
            if inner.unsettled.len() > MAX_UNSETTLED {
                inner.unsettled.pop_front();
            }
        }
    }

    /// The thread.
    fn run(&self) {
        let mut inner = self.inner.lock();
        loop {
            let is_ending = matches!(inner.worker, Worker::Ending);
            if !inner.is_dirty && !is_ending {
                if inner.engine.needs_time() || !inner.unsettled.is_empty() {
                    self.changed.wait_for(&mut inner, TICK);
                } else {
                    self.changed.wait(&mut inner);
                }
            }
            self.settle(&mut inner);
            let events = inner.engine.pass_time(now(None));
            self.queue_events(&mut inner, events, None);
            let is_due = inner.engine.needs_time() && inner.written.elapsed() >= SNAPSHOT;
            if !inner.is_dirty && !is_due {
                if is_ending {
                    return;
                }
                continue;
            }
            let (stored, batch) = (stored(&inner), Vec::from_iter(inner.queue.waiting().cloned()));
            inner.is_dirty = false;
            inner.written = Instant::now();
            drop(inner);
            for queued in &batch {
                queued.encode();
            }
            let written = self.store.write(stored);
            inner = self.inner.lock();
            if let Err(error) = written
                && let Some(suppressed) = inner.log_limiter.check_words(Instant::now(), &error.to_string())
            {
                tracing::error!(
                    %error,
                    suppressed = suppressed.count(),
                    "The totals of events cannot be written; after a crash, totals are older and events have no end"
                );
            }
            if let Some(last) = batch.last() {
                self.push_until(&mut inner, last.number);
            }
        }
    }

    /// Forgets the messages that the broker or the spool has.
    fn settle(&self, inner: &mut Inner) {
        let before = inner.unsettled.len();
        inner
            .unsettled
            .retain(|(token, _)| self.outbox.is_only_in_memory(*token));
        // Written again when all are settled: a message that comes twice after a crash does no harm.
        if before > 0 && inner.unsettled.is_empty() {
            inner.is_dirty = true;
        }
    }
}

/// What must be on the disk before the queued messages are published.
fn stored(inner: &Inner) -> StoredEvents {
    let state = inner.engine.state();
    let unsettled = inner.unsettled.iter().map(|(_, event)| event);
    let queued = inner.queue.waiting().map(|queued| &queued.event);
    StoredEvents {
        open: state.open,
        unsettled: unsettled.chain(queued).cloned().collect(),
        counts: state.counts,
        command: inner.command.clone(),
        ..StoredEvents::default()
    }
}

fn now(inference_id: Option<Uuid>) -> Moment {
    Moment {
        at: Instant::now(),
        ts: now_ms(),
        inference_id,
    }
}

impl std::fmt::Debug for EventRecorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventRecorder")
            .field("is_on", &self.is_on())
            .finish_non_exhaustive()
    }
}

mod configuration;
mod status;
#[cfg(test)]
mod tests;
