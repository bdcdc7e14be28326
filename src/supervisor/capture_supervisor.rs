//! Starts and watches the capture pipeline, and restarts it with backoff.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::event::{EpochEvent, PipelineEvent, SessionEvent};
use super::session_end::SessionEnd;
use super::source_secrets::SourceSecrets;
use super::stuck_threads::StuckThreads;
use crate::capture::{
    AudioFormat, AudioMailbox, Capture, CaptureEvent, CaptureOutput, CaptureSettings, FrameMailbox, StopOutcome,
};
use crate::config::ShutdownBehavior;
use crate::model::ModelInput;
use crate::status::stats::Stats;
use crate::util::backoff::{Backoff, BackoffPolicy};
use crate::util::clock::rounded;
use crate::util::log_limiter::LogLimiter;
use crate::util::panics::caught;
use crate::util::text::sentence;

/// Stopping a pipeline can block in a driver; after this time it is abandoned.
const STOP_LIMIT: Duration = Duration::from_secs(1);
/// A start that takes longer than this is stuck in a driver.
const START_LIMIT: Duration = Duration::from_secs(30);
/// A source that ends sooner than this restarts with backoff instead of at once.
const SHORT_RUN: Duration = Duration::from_secs(1);
/// This many sources stuck at the same time lead to a re-execution of the process.
const STUCK_LIMIT: usize = 3;

enum CapturePhase {
    /// Waits until the model states its input.
    Idle,
    /// Starts since this time.
    Starting(Instant),
    Running {
        capture: Capture,
        since: Instant,
    },
    /// Stops, and restarts after this wait; `None`: stays stopped.
    Stopping(Option<Duration>),
    /// Restarts at this time.
    Waiting(Instant),
    /// Waits for the command `restart` after the end of the source.
    Paused,
}

/// The input that a model expects, with its number of features.
type WantedInput = (ModelInput, usize);

/// The mailboxes for frames and for audio.
type Mailboxes = (Arc<FrameMailbox>, Arc<AudioMailbox>);

/// The supervised capture of one session.
pub(super) struct CaptureSupervisor {
    settings: CaptureSettings,
    behavior: ShutdownBehavior,
    mailboxes: Mailboxes,
    wanted: Option<WantedInput>,
    /// The input for which the current source was started.
    started_for: Option<WantedInput>,
    stats: Arc<Stats>,
    events: mpsc::UnboundedSender<EpochEvent>,
    phase: CapturePhase,
    epoch: u64,
    /// An event of a capture that is still starting: its watching thread can be faster than the thread that starts it.
    early_event: Option<CaptureEvent>,
    /// Set when the source ended and stays stopped: the generation of the mailbox with its last frames.
    paused_generation: Option<u64>,
    /// The threads of this source and of earlier ones that may be stuck.
    stuck_threads: Arc<StuckThreads>,
    secrets: Arc<SourceSecrets>,
    backoff: Backoff,
    log_limiter: LogLimiter,
}

impl CaptureSupervisor {
    pub(super) fn new(
        mut settings: CaptureSettings,
        behavior: ShutdownBehavior,
        mailboxes: Mailboxes,
        stuck_threads: Arc<StuckThreads>,
        secrets: Arc<SourceSecrets>,
        stats: Arc<Stats>,
        events: mpsc::UnboundedSender<EpochEvent>,
    ) -> Self {
        secrets.mark_stale();
        settings.secrets = Some(secrets.clone());
        Self {
            settings,
            behavior,
            mailboxes,
            wanted: None,
            started_for: None,
            stats,
            events,
            phase: CapturePhase::Idle,
            epoch: 0,
            early_event: None,
            paused_generation: None,
            stuck_threads,
            secrets,
            backoff: Backoff::new(BackoffPolicy::default()),
            log_limiter: LogLimiter::default(),
        }
    }

    /// Sets the input that the model expects, and starts or restarts the source if it does not deliver that input yet.
    pub(super) fn set_input(&mut self, input: ModelInput, features: usize) {
        self.wanted = Some((input, features));
        if let ModelInput::Image { width, height, .. } = input {
            self.settings.devices.model_size = (width, height);
        }
        match self.phase {
            CapturePhase::Idle => self.start(),
            CapturePhase::Running { .. } => self.restart_for_new_input(),
            // A starting source is compared when it runs.
            _ => {}
        }
    }

    fn restart_for_new_input(&mut self) {
        if self.started_for != self.wanted {
            tracing::info!("The model expects another input than the one before; restarting the source");
            self.stop_running(Some(Duration::ZERO));
        }
    }

    /// Where the source delivers. An earlier source can no longer deliver from here on.
    fn output(&self) -> CaptureOutput {
        let format = self
            .wanted
            .and_then(|(input, features)| AudioFormat::of(&input, features));
        match format {
            Some(format) => CaptureOutput::Audio(self.mailboxes.1.reserve(), format),
            None => CaptureOutput::Video(self.mailboxes.0.reserve()),
        }
    }

    /// When [`Self::on_due`] must be called.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.phase {
            CapturePhase::Waiting(at) => Some(at),
            CapturePhase::Starting(since) => Some(since + START_LIMIT),
            _ => None,
        }
    }

    /// A wait is over, or a start took too long.
    pub(super) fn on_due(&mut self) -> ControlFlow<SessionEnd> {
        if matches!(self.phase, CapturePhase::Starting(_)) {
            // What this start delivers later belongs to an old epoch, and finds its mailboxes revoked.
            self.epoch += 1;
            self.mailboxes.0.revoke();
            self.mailboxes.1.revoke();
            self.wait_after(&format!("it did not start within {} s", START_LIMIT.as_secs()));
            return self.reexec_if_too_many_stuck();
        }
        self.start();
        ControlFlow::Continue(())
    }

    pub(super) fn is_current(&self, epoch: u64) -> bool {
        epoch == self.epoch
    }

    /// Whether the source fetches still pictures, one with each start.
    pub(super) fn is_polling(&self) -> bool {
        self.settings.is_poll
    }

    /// Returns once the mailbox generation at whose end the source stays stopped.
    pub(super) fn take_paused_generation(&mut self) -> Option<u64> {
        self.paused_generation.take()
    }

    fn start(&mut self) {
        self.epoch += 1;
        self.early_event = None;
        self.started_for = self.wanted;
        let (epoch, events) = (self.epoch, self.events.clone());
        let (settings, output, stats) = (self.settings.clone(), self.output(), self.stats.clone());
        let stuck_threads = self.stuck_threads.clone();
        let thread = std::thread::Builder::new().name("capture-start".into()).spawn(move || {
            let sender = events.clone();
            let send = move |event| {
                sender.send(EpochEvent {
                    epoch,
                    event: SessionEvent::Capture(event),
                })
            };
            let report = send.clone();
            let start = || {
                Capture::start(&settings, output, &stats, move |event| {
                    let _ = report(PipelineEvent::Reported(event));
                })
            };
            let started = caught(start).unwrap_or_else(|panicked| Err(panicked.into()));
            if let Err(mpsc::error::SendError(EpochEvent {
                event: SessionEvent::Capture(PipelineEvent::Started(Ok(capture))),
                ..
            })) = send(PipelineEvent::Started(started))
            {
                // The session has ended.
                stop(capture, &stuck_threads);
            }
        });
        match thread {
            Ok(thread) => {
                let now = Instant::now();
                self.stuck_threads.watch(thread, now + START_LIMIT);
                self.phase = CapturePhase::Starting(now);
            }
            Err(e) => self.wait_after(&format!("its thread cannot be started: {e}")),
        }
    }

    pub(super) fn on_event(&mut self, event: PipelineEvent) -> ControlFlow<SessionEnd> {
        match event {
            PipelineEvent::Started(Ok(capture)) => self.on_started(capture),
            PipelineEvent::Started(Err(e)) => self.wait_after(&sentence(&e)),
            PipelineEvent::Reported(event) if matches!(self.phase, CapturePhase::Starting(_)) => {
                self.early_event = Some(event);
            }
            PipelineEvent::Reported(CaptureEvent::EndOfStream) => self.on_end_of_stream(),
            PipelineEvent::Reported(CaptureEvent::Error(e)) => self.on_failure(&sentence(&e)),
            PipelineEvent::Reported(CaptureEvent::Stalled { after }) => {
                self.on_failure(&format!("it delivered no frame for {:.0} s", after.as_secs_f32()));
            }
            PipelineEvent::Stopped(how) => return self.on_stopped(how),
        }
        ControlFlow::Continue(())
    }

    fn on_started(&mut self, capture: Capture) {
        let now = Instant::now();
        self.backoff.succeeded(now);
        if !self.is_polling() {
            tracing::info!(is_live = capture.is_live(), "Capture runs");
        }
        self.phase = CapturePhase::Running { capture, since: now };
        if let Some(event) = self.early_event.take() {
            // Sending fails only when the session has ended.
            let _ = self.events.send(EpochEvent {
                epoch: self.epoch,
                event: SessionEvent::Capture(PipelineEvent::Reported(event)),
            });
        }
        self.restart_for_new_input();
    }

    fn on_failure(&mut self, reason: &str) {
        let wait = self.log_failure(reason);
        if matches!(&self.phase, CapturePhase::Running { capture, .. } if capture.has_other_branches()) {
            // GStreamer cannot restart a single branch of a pipeline.
            tracing::warn!("The other branches of the pipeline stop and restart with the source");
        }
        self.stop_running(Some(wait));
    }

    /// Restarts the source at once, or pauses, as `ei_shutdown_behavior` says. A still picture is fetched again.
    fn on_end_of_stream(&mut self) {
        let CapturePhase::Running { capture, since } = &self.phase else {
            return;
        };
        if self.behavior == ShutdownBehavior::WaitForRestart {
            self.paused_generation = Some(capture.mailbox_epoch());
            tracing::info!("The source ended; waiting for the command restart (ei_shutdown_behavior)");
            self.stop_running(None);
            return;
        }
        let was_short = since.elapsed() < SHORT_RUN;
        let is_picture = capture.frames() == 1 || (capture.frames() > 1 && was_short);
        if is_picture && capture.fetches_by_http() {
            if !self.settings.is_poll {
                tracing::info!(interval = ?self.settings.still_interval, "The source is a still picture; fetching it again and again");
            }
            self.settings.is_poll = true;
            self.stop_running(Some(self.settings.still_interval));
            return;
        }
        let wait = if was_short {
            self.log_failure("it ended right after its start")
        } else {
            self.settings.is_poll = false;
            self.stats.capture_restarts.inc();
            tracing::info!("The source ended; restarting it (ei_shutdown_behavior)");
            Duration::ZERO
        };
        self.stop_running(Some(wait));
    }

    fn on_stopped(&mut self, how: StopOutcome) -> ControlFlow<SessionEnd> {
        let CapturePhase::Stopping(wait) = self.phase else {
            return ControlFlow::Continue(());
        };
        self.set_stopped(wait);
        if matches!(how, StopOutcome::Abandoned(_)) {
            log_abandoned();
        }
        self.reexec_if_too_many_stuck()
    }

    fn reexec_if_too_many_stuck(&self) -> ControlFlow<SessionEnd> {
        let count = self.stuck_threads.count(Instant::now());
        if count < STUCK_LIMIT {
            return ControlFlow::Continue(());
        }
        tracing::error!(count, "Too many sources are stuck in their drivers");
        ControlFlow::Break(SessionEnd::Reexec)
    }

    /// Stops a running pipeline on a thread of its own, and restarts it after `wait`; `None`: not at all.
    fn stop_running(&mut self, wait: Option<Duration>) {
        let CapturePhase::Running { capture, .. } = std::mem::replace(&mut self.phase, CapturePhase::Stopping(wait))
        else {
            self.set_stopped(wait);
            return;
        };
        let (epoch, events, stuck_threads) = (self.epoch, self.events.clone(), self.stuck_threads.clone());
        tokio::task::spawn_blocking(move || {
            let how = stop(capture, &stuck_threads);
            let _ = events.send(EpochEvent {
                epoch,
                event: SessionEvent::Capture(PipelineEvent::Stopped(how)),
            });
        });
    }

    fn set_stopped(&mut self, wait: Option<Duration>) {
        self.phase = wait.map_or(CapturePhase::Paused, |wait| {
            CapturePhase::Waiting(Instant::now() + wait)
        });
    }

    fn wait_after(&mut self, reason: &str) {
        let wait = self.log_failure(reason);
        self.set_stopped(Some(wait));
    }

    /// Logs and counts a failure, and returns the wait before the restart.
    fn log_failure(&mut self, reason: &str) -> Duration {
        let now = Instant::now();
        self.settings.is_poll = false;
        // The source may have failed because a password was changed.
        self.secrets.mark_stale();
        self.stats.capture_restarts.inc();
        let wait = self.backoff.failed(now);
        // The elements of each pipeline have other numbers in their names: identity0, identity1.
        if let Some(suppressed) = self.log_limiter.check_words(now, reason) {
            tracing::warn!(
                retry_in = ?rounded(wait),
                suppressed = suppressed.count(),
                %reason,
                "The source failed and restarts"
            );
        }
        wait
    }

    /// Stops for good.
    pub(super) async fn stop(&mut self, deadline: tokio::time::Instant) {
        self.epoch += 1;
        if let CapturePhase::Running { capture, .. } = std::mem::replace(&mut self.phase, CapturePhase::Paused) {
            let stuck_threads = self.stuck_threads.clone();
            let stopping = tokio::task::spawn_blocking(move || stop(capture, &stuck_threads));
            match tokio::time::timeout_at(deadline, stopping).await {
                Ok(Ok(StopOutcome::Clean)) => {}
                _ => log_abandoned(),
            }
        }
    }
}

fn log_abandoned() {
    tracing::warn!("The source could not be stopped: it is stuck in its driver and is abandoned");
}

/// Stops a source. If it does not stop, its thread counts as stuck until it ends. Blocks for [`STOP_LIMIT`] at most.
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

    fn supervisor(line: &str) -> (CaptureSupervisor, mpsc::UnboundedReceiver<EpochEvent>) {
        let (sender, events) = mpsc::unbounded_channel();
        let supervisor = CaptureSupervisor::new(
            CaptureSettings::new(SourceLine(line.to_owned())),
            ShutdownBehavior::WaitForRestart,
            (Arc::default(), Arc::default()),
            Arc::default(),
            Arc::new(SourceSecrets::new(tokio::runtime::Handle::current())),
            Arc::default(),
            sender,
        );
        (supervisor, events)
    }

    #[tokio::test]
    async fn only_sources_that_are_stuck_now_are_counted() {
        let (mut supervisor, _events) = supervisor("videotestsrc");
        let abandoned = |supervisor: &mut CaptureSupervisor| {
            supervisor.phase = CapturePhase::Stopping(None);
            supervisor.on_event(PipelineEvent::Stopped(StopOutcome::Abandoned(None)))
        };
        for _ in 0..2 * STUCK_LIMIT {
            let slow = std::thread::spawn(|| {});
            while !slow.is_finished() {
                std::thread::yield_now();
            }
            supervisor.stuck_threads.watch(slow, Instant::now());
            assert_eq!(
                abandoned(&mut supervisor),
                ControlFlow::Continue(()),
                "it was only slow"
            );
        }
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let flows: Vec<_> = (0..STUCK_LIMIT)
            .map(|_| {
                let held = held.clone();
                let stuck = std::thread::spawn(move || assert!(held.lock().unwrap().recv().is_err()));
                supervisor.stuck_threads.watch(stuck, Instant::now());
                abandoned(&mut supervisor)
            })
            .collect();
        assert_eq!(
            flows,
            [
                ControlFlow::Continue(()),
                ControlFlow::Continue(()),
                ControlFlow::Break(SessionEnd::Reexec)
            ]
        );
        drop(release);
    }

    #[tokio::test]
    async fn an_abandoned_start_cannot_take_the_mailbox_from_its_successor() {
        let line = "videotestsrc num-buffers=2 ! video/x-raw,width=16,height=16";
        let (mut supervisor, mut events) = supervisor(line);
        // The output of a start that is stuck.
        let late = supervisor.output();
        supervisor.phase = CapturePhase::Starting(Instant::now());
        assert_eq!(supervisor.on_due(), ControlFlow::Continue(()));
        assert!(matches!(supervisor.phase, CapturePhase::Waiting(_)), "abandoned");
        supervisor.set_input(PICTURES, 64);
        assert_eq!(supervisor.on_due(), ControlFlow::Continue(()));
        let limit = Duration::from_secs(20);
        let mut next = async || tokio::time::timeout(limit, events.recv()).await.unwrap().unwrap().event;
        let SessionEvent::Capture(PipelineEvent::Started(Ok(successor))) = next().await else {
            panic!("the successor starts");
        };
        let settings = supervisor.settings.clone();
        let stats = Arc::default();
        let started = tokio::task::spawn_blocking(move || Capture::start(&settings, late, &stats, |_| {}))
            .await
            .unwrap();
        assert!(matches!(started, Err(crate::capture::CaptureError::GivenUp)));
        // The successor is not live and plays to its end.
        let mailbox = supervisor.mailboxes.0.clone();
        let played =
            tokio::task::spawn_blocking(
                move || while let crate::capture::Received::Value(_) = mailbox.receive(limit) {},
            );
        played.await.unwrap();
        assert!(matches!(
            next().await,
            SessionEvent::Capture(PipelineEvent::Reported(CaptureEvent::EndOfStream))
        ));
        drop(successor);
    }

    #[tokio::test]
    async fn a_source_that_started_for_an_earlier_model_restarts_for_the_new_one() {
        let (mut supervisor, mut events) = supervisor("videotestsrc is-live=true ! video/x-raw,width=16,height=16");
        supervisor.set_input(PICTURES, 64);
        supervisor.set_input(PICTURES, 65);
        let limit = Duration::from_secs(20);
        let tagged = tokio::time::timeout(limit, events.recv()).await.unwrap().unwrap();
        let SessionEvent::Capture(event) = tagged.event else {
            panic!("{tagged:?}")
        };
        assert!(supervisor.on_event(event).is_continue());
        assert!(matches!(supervisor.phase, CapturePhase::Stopping(Some(Duration::ZERO))));
    }

    #[tokio::test]
    async fn an_end_of_stream_that_arrives_before_the_start_event_is_handled() {
        let (mut supervisor, mut events) = supervisor("videotestsrc num-buffers=1 ! video/x-raw,width=16,height=16");
        supervisor.set_input(PICTURES, 64);
        // The watching thread is faster than the thread that starts the pipeline.
        let early = PipelineEvent::Reported(CaptureEvent::EndOfStream);
        assert_eq!(supervisor.on_event(early), ControlFlow::Continue(()));
        let limit = Duration::from_secs(20);
        while supervisor.take_paused_generation().is_none() {
            let tagged = tokio::time::timeout(limit, events.recv()).await.unwrap().unwrap();
            assert!(supervisor.is_current(tagged.epoch));
            if let SessionEvent::Capture(event) = tagged.event {
                assert_eq!(supervisor.on_event(event), ControlFlow::Continue(()));
            }
        }
        supervisor.stop(tokio::time::Instant::now() + limit).await;
    }
}
