//! The capture pipeline: started, watched, started again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::generation::{Event, Tagged};
use crate::backoff::{Backoff, BackoffPolicy};
use crate::capture::{Capture, CaptureError, CaptureEvent, FrameSlot, Settings, Stopped};
use crate::config::ShutdownBehavior;
use crate::log_limit::{RepeatGuard, like};
use crate::stats::Stats;

/// Stopping a pipeline can block in a driver; after this long it is abandoned.
const STOP_LIMIT: Duration = Duration::from_secs(1);
/// A start that takes longer than this hangs in a driver.
const START_LIMIT: Duration = Duration::from_secs(30);
/// A source that ends sooner than this is not started again at once.
const SHORT_RUN: Duration = Duration::from_secs(1);
/// Pipelines that hang for good before the program is started anew in place.
const HANGING_LIMIT: u32 = 3;

/// What the pipeline and the threads around it report.
#[derive(Debug)]
pub(super) enum PipelineEvent {
    Started(Result<Capture, CaptureError>),
    Said(CaptureEvent),
    Stopped(Stopped),
}

/// What the generation is to do about an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Consequence {
    Nothing,
    /// The source of this slot generation ended and is not started again.
    Paused(u64),
    /// Too many pipelines hang.
    StartAnew,
}

enum State {
    /// Waits for the model.
    Idle,
    /// Being started since then.
    Starting(Instant),
    Running {
        capture: Capture,
        since: Instant,
    },
    /// Being stopped; then started again after this time, if at all.
    Stopping(Option<Duration>),
    /// Started again at this time.
    Waiting(Instant),
    /// The source ended; waiting for `restart`.
    Paused,
}

/// The supervised capture.
pub(super) struct CapturePart {
    settings: Settings,
    behavior: ShutdownBehavior,
    slot: Arc<FrameSlot>,
    stats: Arc<Stats>,
    events: mpsc::UnboundedSender<Tagged>,
    state: State,
    incarnation: u64,
    /// How the capture ended that is still being started: its watching thread can be faster than the one that starts it.
    early: Option<CaptureEvent>,
    hanging: u32,
    backoff: Backoff,
    failures: RepeatGuard,
}

impl CapturePart {
    pub(super) fn new(
        settings: Settings,
        behavior: ShutdownBehavior,
        slot: Arc<FrameSlot>,
        stats: Arc<Stats>,
        events: mpsc::UnboundedSender<Tagged>,
    ) -> Self {
        Self {
            settings,
            behavior,
            slot,
            stats,
            events,
            state: State::Idle,
            incarnation: 0,
            early: None,
            hanging: 0,
            backoff: Backoff::new(BackoffPolicy::default()),
            failures: RepeatGuard::default(),
        }
    }

    /// The model is there: frames are wanted. Does nothing when the capture is under way already.
    pub(super) fn want(&mut self) {
        if matches!(self.state, State::Idle) {
            self.start();
        }
    }

    /// When [`Self::on_due`] is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(at) => Some(at),
            State::Starting(since) => Some(since + START_LIMIT),
            _ => None,
        }
    }

    /// A waiting time is over, or a start took too long.
    pub(super) fn on_due(&mut self) -> Consequence {
        if matches!(self.state, State::Starting(_)) {
            self.hanging += 1;
            // What comes of it later belongs to no incarnation any more.
            self.incarnation += 1;
            self.wait_after(&format!("the source did not start within {} s", START_LIMIT.as_secs()));
            return self.too_many_hang();
        }
        self.start();
        Consequence::Nothing
    }

    pub(super) fn is_current(&self, incarnation: u64) -> bool {
        incarnation == self.incarnation
    }

    fn start(&mut self) {
        self.incarnation += 1;
        self.early = None;
        let (incarnation, events) = (self.incarnation, self.events.clone());
        let (settings, slot, stats) = (self.settings.clone(), self.slot.clone(), self.stats.clone());
        let thread = std::thread::Builder::new().name("capture-start".into()).spawn(move || {
            let sender = events.clone();
            let send = move |event| {
                sender.send(Tagged {
                    incarnation,
                    event: Event::Capture(event),
                })
            };
            let say = send.clone();
            let started = Capture::start(&settings, &slot, &stats, move |event| {
                let _ = say(PipelineEvent::Said(event));
            });
            if let Err(mpsc::error::SendError(Tagged {
                event: Event::Capture(PipelineEvent::Started(Ok(capture))),
                ..
            })) = send(PipelineEvent::Started(started))
            {
                // The generation is over.
                capture.stop(STOP_LIMIT);
            }
        });
        match thread {
            Ok(_) => self.state = State::Starting(Instant::now()),
            Err(e) => self.wait_after(&format!("the system gives no thread for it: {e}")),
        }
    }

    pub(super) fn on_event(&mut self, event: PipelineEvent) -> Consequence {
        match event {
            PipelineEvent::Started(Ok(capture)) => {
                let now = Instant::now();
                self.backoff.succeeded(now);
                tracing::info!(
                    "capture runs{}",
                    if capture.is_live() { "" } else { " (not a live source)" }
                );
                self.state = State::Running { capture, since: now };
                if let Some(event) = self.early.take() {
                    self.say_again(event);
                }
                Consequence::Nothing
            }
            PipelineEvent::Started(Err(e)) => {
                self.wait_after(&super::sentence(&e));
                Consequence::Nothing
            }
            PipelineEvent::Said(event) if matches!(self.state, State::Starting(_)) => {
                self.early = Some(event);
                Consequence::Nothing
            }
            PipelineEvent::Said(CaptureEvent::EndOfStream) => self.on_end(),
            PipelineEvent::Said(CaptureEvent::Error(e)) => self.on_failure(&super::sentence(&e)),
            PipelineEvent::Said(CaptureEvent::Stalled { after }) => {
                self.on_failure(&format!("it delivered no frame for {:.0} s", after.as_secs_f32()))
            }
            PipelineEvent::Stopped(how) => self.on_stopped(how),
        }
    }

    /// Hands an event that came too early to the generation once more.
    fn say_again(&self, event: CaptureEvent) {
        // Nobody listens any more once the generation is over.
        let _ = self.events.send(Tagged {
            incarnation: self.incarnation,
            event: Event::Capture(PipelineEvent::Said(event)),
        });
    }

    fn on_failure(&mut self, reason: &str) -> Consequence {
        let wait = self.say_failure(reason);
        self.stop_running(Some(wait));
        Consequence::Nothing
    }

    /// Frames came to their end: the source is started again at once, or never.
    fn on_end(&mut self) -> Consequence {
        let State::Running { capture, since } = &self.state else {
            return Consequence::Nothing;
        };
        let generation = capture.slot_generation();
        if self.behavior == ShutdownBehavior::WaitForRestart {
            tracing::info!("the source ended; waiting for the command restart (ei_shutdown_behavior)");
            self.stop_running(None);
            return Consequence::Paused(generation);
        }
        let wait = if since.elapsed() < SHORT_RUN {
            self.say_failure("the source ended right after its start")
        } else {
            self.stats.capture_restarts.inc();
            tracing::info!("the source ended and is started again (ei_shutdown_behavior)");
            Duration::ZERO
        };
        self.stop_running(Some(wait));
        Consequence::Nothing
    }

    fn on_stopped(&mut self, how: Stopped) -> Consequence {
        let State::Stopping(then) = self.state else {
            return Consequence::Nothing;
        };
        self.state = then.map_or(State::Paused, |wait| State::Waiting(Instant::now() + wait));
        if how == Stopped::Abandoned {
            self.hanging += 1;
            tracing::warn!("the source could not be stopped: it hangs in its driver and is abandoned");
        }
        self.too_many_hang()
    }

    fn too_many_hang(&self) -> Consequence {
        if self.hanging < HANGING_LIMIT {
            return Consequence::Nothing;
        }
        tracing::error!("{} sources hang in their drivers", self.hanging);
        Consequence::StartAnew
    }

    /// Stops the running pipeline on a thread of its own; `then`: how long after that it is started again.
    fn stop_running(&mut self, then: Option<Duration>) {
        let State::Running { capture, .. } = std::mem::replace(&mut self.state, State::Stopping(then)) else {
            self.state = then.map_or(State::Paused, |wait| State::Waiting(Instant::now() + wait));
            return;
        };
        let (incarnation, events) = (self.incarnation, self.events.clone());
        tokio::task::spawn_blocking(move || {
            let how = capture.stop(STOP_LIMIT);
            let _ = events.send(Tagged {
                incarnation,
                event: Event::Capture(PipelineEvent::Stopped(how)),
            });
        });
    }

    /// Tells of a failure and gives the time to wait.
    fn say_failure(&mut self, reason: &str) -> Duration {
        let now = Instant::now();
        self.stats.capture_restarts.inc();
        let wait = self.backoff.failed(now);
        // Each pipeline's elements have new numbers in their names: identity0, identity1.
        let words: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
        if let Some(more) = self.failures.check(now, &words) {
            tracing::warn!(
                "the source is started again in {:.1} s{}: {reason}",
                wait.as_secs_f32(),
                like(more)
            );
        }
        wait
    }

    fn wait_after(&mut self, reason: &str) {
        let wait = self.say_failure(reason);
        self.state = State::Waiting(Instant::now() + wait);
    }

    /// Stops for good.
    pub(super) async fn stop(&mut self, deadline: tokio::time::Instant) {
        self.incarnation += 1;
        if let State::Running { capture, .. } = std::mem::replace(&mut self.state, State::Paused) {
            let stopping = tokio::task::spawn_blocking(move || capture.stop(STOP_LIMIT));
            match tokio::time::timeout_at(deadline, stopping).await {
                Ok(Ok(Stopped::Clean)) => {}
                _ => tracing::warn!("the source could not be stopped: it hangs in its driver and is abandoned"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceLine;

    #[tokio::test]
    async fn an_end_that_is_told_before_the_start_is_not_forgotten() {
        let (sender, mut events) = mpsc::unbounded_channel();
        let (slot, stats) = (Arc::new(FrameSlot::new()), Arc::new(Stats::default()));
        let line = SourceLine::Launch("videotestsrc num-buffers=1 ! video/x-raw,width=16,height=16".to_owned());
        let mut part = CapturePart::new(
            Settings::new(line),
            ShutdownBehavior::WaitForRestart,
            slot,
            stats,
            sender,
        );
        part.want();
        // The watching thread was faster than the one that starts the pipeline.
        let early = PipelineEvent::Said(CaptureEvent::EndOfStream);
        assert_eq!(part.on_event(early), Consequence::Nothing);
        let limit = Duration::from_secs(20);
        let mut consequences = Vec::new();
        while !matches!(consequences.last(), Some(Consequence::Paused(_))) {
            let tagged = tokio::time::timeout(limit, events.recv()).await.unwrap().unwrap();
            assert!(part.is_current(tagged.incarnation));
            if let Event::Capture(event) = tagged.event {
                consequences.push(part.on_event(event));
            }
        }
        part.stop(tokio::time::Instant::now() + limit).await;
    }
}
