//! The capture pipeline: started, watched, started again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::event::{Event, PipelineEvent, Tagged};
use super::stuck_threads::StuckThreads;
use crate::capture::{
    AudioFormat, AudioMailbox, Capture, CaptureEvent, CaptureOutput, CaptureSettings, FrameMailbox, StopOutcome,
};
use crate::config::ShutdownBehavior;
use crate::model::ModelInput;
use crate::status::stats::Stats;
use crate::util::backoff::{Backoff, BackoffPolicy};
use crate::util::log_limiter::{LogLimiter, like};
use crate::util::panics::caught;

/// Stopping a pipeline can block in a driver; after this long it is abandoned.
const STOP_LIMIT: Duration = Duration::from_secs(1);
/// A start that takes longer than this hangs in a driver.
const START_LIMIT: Duration = Duration::from_secs(30);
/// A source that ends sooner than this is not started again at once.
const SHORT_RUN: Duration = Duration::from_secs(1);
/// Sources that hang at the same time before the program is started anew in place.
const HANGING_LIMIT: usize = 3;

/// What the generation is to do about an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Consequence {
    Nothing,
    /// The source of this slot generation ended and is not started again.
    Paused(u64),
    /// Too many pipelines hang.
    Reexec,
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
    settings: CaptureSettings,
    behavior: ShutdownBehavior,
    slots: (Arc<FrameMailbox>, Arc<AudioMailbox>),
    /// What the model wants to see or hear.
    wanted: Option<(ModelInput, usize)>,
    /// What the source was started for that runs or is being started.
    started_for: Option<(ModelInput, usize)>,
    stats: Arc<Stats>,
    events: mpsc::UnboundedSender<Tagged>,
    state: State,
    epoch: u64,
    /// How the capture ended that is still being started: its watching thread can be faster than the one that starts it.
    early: Option<CaptureEvent>,
    /// The threads of this source and of those before it that may hang.
    stuck_threads: Arc<StuckThreads>,
    backoff: Backoff,
    failures: LogLimiter,
}

impl CapturePart {
    pub(super) fn new(
        settings: CaptureSettings,
        behavior: ShutdownBehavior,
        slots: (Arc<FrameMailbox>, Arc<AudioMailbox>),
        stuck_threads: Arc<StuckThreads>,
        stats: Arc<Stats>,
        events: mpsc::UnboundedSender<Tagged>,
    ) -> Self {
        Self {
            settings,
            behavior,
            slots,
            wanted: None,
            started_for: None,
            stats,
            events,
            state: State::Idle,
            epoch: 0,
            early: None,
            stuck_threads,
            backoff: Backoff::new(BackoffPolicy::default()),
            failures: LogLimiter::default(),
        }
    }

    /// The model is there: frames or sound are wanted. Does nothing when the same is under way already.
    pub(super) fn want(&mut self, input: ModelInput, features: usize) {
        let wanted = Some((input, features));
        self.wanted = wanted;
        if let ModelInput::Image { width, height, .. } = input {
            self.settings.devices.model_size = (width, height);
        }
        match self.state {
            State::Idle => self.start(),
            State::Running { .. } => self.suit(),
            // One that is being started is looked at when it runs.
            _ => {}
        }
    }

    /// Starts a running source again when it was started for another model.
    fn suit(&mut self) {
        if self.started_for != self.wanted {
            tracing::info!("the model wants another input than the one before: the source is started again");
            self.stop_running(Some(Duration::ZERO));
        }
    }

    /// Where the source is to deliver; no source before it can from here on.
    fn output(&self) -> CaptureOutput {
        let format = self
            .wanted
            .and_then(|(input, features)| AudioFormat::of(&input, features));
        match format {
            Some(format) => CaptureOutput::Audio(self.slots.1.reserve(), format),
            None => CaptureOutput::Video(self.slots.0.reserve()),
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
            // What comes of it later belongs to no epoch any more, and finds the slots shut.
            self.epoch += 1;
            self.slots.0.revoke();
            self.slots.1.revoke();
            self.wait_after(&format!("the source did not start within {} s", START_LIMIT.as_secs()));
            return self.too_many_hang();
        }
        self.start();
        Consequence::Nothing
    }

    pub(super) fn is_current(&self, epoch: u64) -> bool {
        epoch == self.epoch
    }

    fn start(&mut self) {
        self.epoch += 1;
        self.early = None;
        self.started_for = self.wanted;
        let (epoch, events) = (self.epoch, self.events.clone());
        let (settings, output, stats) = (self.settings.clone(), self.output(), self.stats.clone());
        let stuck_threads = self.stuck_threads.clone();
        let thread = std::thread::Builder::new().name("capture-start".into()).spawn(move || {
            let sender = events.clone();
            let send = move |event| {
                sender.send(Tagged {
                    epoch,
                    event: Event::Capture(event),
                })
            };
            let say = send.clone();
            let start = || {
                Capture::start(&settings, output, &stats, move |event| {
                    let _ = say(PipelineEvent::Said(event));
                })
            };
            let started = caught(start).unwrap_or_else(|panicked| Err(panicked.into()));
            if let Err(mpsc::error::SendError(Tagged {
                event: Event::Capture(PipelineEvent::Started(Ok(capture))),
                ..
            })) = send(PipelineEvent::Started(started))
            {
                // The generation is over.
                stop(capture, &stuck_threads);
            }
        });
        match thread {
            Ok(thread) => {
                let now = Instant::now();
                self.stuck_threads.watch(thread, now + START_LIMIT);
                self.state = State::Starting(now);
            }
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
                self.suit();
                Consequence::Nothing
            }
            PipelineEvent::Started(Err(e)) => {
                self.wait_after(&crate::util::text::sentence(&e));
                Consequence::Nothing
            }
            PipelineEvent::Said(event) if matches!(self.state, State::Starting(_)) => {
                self.early = Some(event);
                Consequence::Nothing
            }
            PipelineEvent::Said(CaptureEvent::EndOfStream) => self.on_end(),
            PipelineEvent::Said(CaptureEvent::Error(e)) => self.on_failure(&crate::util::text::sentence(&e)),
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
            epoch: self.epoch,
            event: Event::Capture(PipelineEvent::Said(event)),
        });
    }

    fn on_failure(&mut self, reason: &str) -> Consequence {
        let wait = self.say_failure(reason);
        if matches!(&self.state, State::Running { capture, .. } if capture.has_other_branches()) {
            tracing::warn!(
                "the other branches of the line stop with the source and start again with it: GStreamer cannot start one branch of a pipeline anew"
            );
        }
        self.stop_running(Some(wait));
        Consequence::Nothing
    }

    /// Frames came to their end: the source is started again at once, or never.
    fn on_end(&mut self) -> Consequence {
        let State::Running { capture, since } = &self.state else {
            return Consequence::Nothing;
        };
        let generation = capture.mailbox_epoch();
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

    fn on_stopped(&mut self, how: StopOutcome) -> Consequence {
        let State::Stopping(then) = self.state else {
            return Consequence::Nothing;
        };
        self.state = then.map_or(State::Paused, |wait| State::Waiting(Instant::now() + wait));
        if matches!(how, StopOutcome::Abandoned(_)) {
            tracing::warn!("the source could not be stopped: it hangs in its driver and is abandoned");
        }
        self.too_many_hang()
    }

    fn too_many_hang(&self) -> Consequence {
        let stuck_threads = self.stuck_threads.count(Instant::now());
        if stuck_threads < HANGING_LIMIT {
            return Consequence::Nothing;
        }
        tracing::error!("{stuck_threads} sources hang in their drivers");
        Consequence::Reexec
    }

    /// Stops the running pipeline on a thread of its own; `then`: how long after that it is started again.
    fn stop_running(&mut self, then: Option<Duration>) {
        let State::Running { capture, .. } = std::mem::replace(&mut self.state, State::Stopping(then)) else {
            self.state = then.map_or(State::Paused, |wait| State::Waiting(Instant::now() + wait));
            return;
        };
        let (epoch, events, stuck_threads) = (self.epoch, self.events.clone(), self.stuck_threads.clone());
        tokio::task::spawn_blocking(move || {
            let how = stop(capture, &stuck_threads);
            let _ = events.send(Tagged {
                epoch,
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
        if let Some(more) = self.failures.check_words(now, reason) {
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
        self.epoch += 1;
        if let State::Running { capture, .. } = std::mem::replace(&mut self.state, State::Paused) {
            let stuck_threads = self.stuck_threads.clone();
            let stopping = tokio::task::spawn_blocking(move || stop(capture, &stuck_threads));
            match tokio::time::timeout_at(deadline, stopping).await {
                Ok(Ok(StopOutcome::Clean)) => {}
                _ => tracing::warn!("the source could not be stopped: it hangs in its driver and is abandoned"),
            }
        }
    }
}

/// Stops a source, and counts it as stuck_threads for as long as it does. May block for [`STOP_LIMIT`].
pub(super) fn stop(capture: Capture, stuck_threads: &StuckThreads) -> StopOutcome {
    match capture.stop(STOP_LIMIT) {
        StopOutcome::Abandoned(Some(thread)) => {
            stuck_threads.watch(thread, Instant::now());
            StopOutcome::Abandoned(None)
        }
        how => how,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceLine;

    const PICTURES: ModelInput = ModelInput::Image {
        width: 8,
        height: 8,
        grey: false,
        resize: None,
    };

    fn part(line: &str) -> (CapturePart, mpsc::UnboundedReceiver<Tagged>) {
        let (sender, events) = mpsc::unbounded_channel();
        let part = CapturePart::new(
            CaptureSettings::new(SourceLine::Launch(line.to_owned())),
            ShutdownBehavior::WaitForRestart,
            (Arc::default(), Arc::default()),
            Arc::default(),
            Arc::default(),
            sender,
        );
        (part, events)
    }

    #[tokio::test]
    async fn sources_that_hang_now_are_counted_and_not_those_that_once_did() {
        let (mut part, _events) = part("videotestsrc");
        let abandoned = |part: &mut CapturePart| {
            part.state = State::Stopping(None);
            part.on_event(PipelineEvent::Stopped(StopOutcome::Abandoned(None)))
        };
        for _ in 0..2 * HANGING_LIMIT {
            let slow = std::thread::spawn(|| {});
            while !slow.is_finished() {
                std::thread::yield_now();
            }
            part.stuck_threads.watch(slow, Instant::now());
            assert_eq!(abandoned(&mut part), Consequence::Nothing, "it was only slow");
        }
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let consequences: Vec<_> = (0..HANGING_LIMIT)
            .map(|_| {
                let held = held.clone();
                let stuck = std::thread::spawn(move || assert!(held.lock().unwrap().recv().is_err()));
                part.stuck_threads.watch(stuck, Instant::now());
                abandoned(&mut part)
            })
            .collect();
        assert_eq!(
            consequences,
            [Consequence::Nothing, Consequence::Nothing, Consequence::Reexec]
        );
        drop(release);
    }

    #[tokio::test]
    async fn a_start_that_was_given_up_cannot_take_the_slot_from_the_next_one() {
        let line = "videotestsrc num-buffers=2 ! video/x-raw,width=16,height=16";
        let (mut part, mut events) = part(line);
        // As `start` does it for the source that hangs.
        let late = part.output();
        part.state = State::Starting(Instant::now());
        assert_eq!(part.on_due(), Consequence::Nothing);
        assert!(matches!(part.state, State::Waiting(_)), "given up");
        part.want(PICTURES, 64);
        assert_eq!(part.on_due(), Consequence::Nothing);
        let limit = Duration::from_secs(20);
        let mut next = async || tokio::time::timeout(limit, events.recv()).await.unwrap().unwrap().event;
        let Event::Capture(PipelineEvent::Started(Ok(successor))) = next().await else {
            panic!("the successor starts");
        };
        let settings = part.settings.clone();
        let stats = Arc::default();
        let started = tokio::task::spawn_blocking(move || Capture::start(&settings, late, &stats, |_| {}))
            .await
            .unwrap();
        assert!(matches!(started, Err(crate::capture::CaptureError::GivenUp)));
        // The successor, which is not live and has no watchdog, plays to its end.
        let slot = part.slots.0.clone();
        let played =
            tokio::task::spawn_blocking(move || while let crate::capture::Received::Value(_) = slot.receive(limit) {});
        played.await.unwrap();
        assert!(matches!(
            next().await,
            Event::Capture(PipelineEvent::Said(CaptureEvent::EndOfStream))
        ));
        drop(successor);
    }

    #[tokio::test]
    async fn a_source_that_comes_up_for_the_model_before_is_started_again_for_the_new_one() {
        let (mut part, mut events) = part("videotestsrc is-live=true ! video/x-raw,width=16,height=16");
        part.want(PICTURES, 64);
        part.want(PICTURES, 65);
        let limit = Duration::from_secs(20);
        let tagged = tokio::time::timeout(limit, events.recv()).await.unwrap().unwrap();
        let Event::Capture(event) = tagged.event else {
            panic!("{tagged:?}")
        };
        part.on_event(event);
        assert!(matches!(part.state, State::Stopping(Some(Duration::ZERO))));
    }

    #[tokio::test]
    async fn an_end_that_is_told_before_the_start_is_not_forgotten() {
        let (mut part, mut events) = part("videotestsrc num-buffers=1 ! video/x-raw,width=16,height=16");
        part.want(PICTURES, 64);
        // The watching thread was faster than the one that starts the pipeline.
        let early = PipelineEvent::Said(CaptureEvent::EndOfStream);
        assert_eq!(part.on_event(early), Consequence::Nothing);
        let limit = Duration::from_secs(20);
        let mut consequences = Vec::new();
        while !matches!(consequences.last(), Some(Consequence::Paused(_))) {
            let tagged = tokio::time::timeout(limit, events.recv()).await.unwrap().unwrap();
            assert!(part.is_current(tagged.epoch));
            if let Event::Capture(event) = tagged.event {
                consequences.push(part.on_event(event));
            }
        }
        part.stop(tokio::time::Instant::now() + limit).await;
    }
}
