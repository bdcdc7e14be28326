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
use crate::util::panics::catch_panic;
use crate::util::text::sentence;

/// Stopping a pipeline can block in a driver. After this time the pipeline is abandoned.
const STOP_LIMIT: Duration = Duration::from_secs(1);
/// A start that takes longer than this is stuck in a driver.
const START_LIMIT: Duration = Duration::from_secs(30);
/// A source that ends within this time restarts with backoff instead of at once.
const SHORT_RUN: Duration = Duration::from_secs(1);
/// This many sources stuck at the same time lead to a re-execution of the process.
const STUCK_LIMIT: usize = 3;

enum CapturePhase {
    /// Waits until the model has described its input.
    Idle,
    /// Has been starting since this time.
    Starting(Instant),
    Running {
        capture: Capture,
        since: Instant,
    },
    /// Stops, and restarts after this delay; `None`: stays stopped.
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
    /// An event of a capture that is still starting: the thread that watches it can be faster than the thread that starts it.
    early_event: Option<CaptureEvent>,
    /// Set if the source ended and stays stopped: the generation of the mailbox with its last frames.
    paused_generation: Option<u64>,
    /// The threads of this source and of earlier ones; they may be stuck.
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

    /// Sets the input that the model expects, and starts or restarts the source if it delivers another input.
    pub(super) fn set_input(&mut self, input: ModelInput, features: usize) {
        self.wanted = Some((input, features));
        if let ModelInput::Image { width, height, .. } = input {
            self.settings.devices.model_size = (width, height);
        }
        match self.phase {
            CapturePhase::Idle => self.start(),
            CapturePhase::Running { .. } => self.restart_for_new_input(),
            // For a starting source this is checked when it runs.
            _ => {}
        }
    }

    /// Another model has taken over, which was tried with inputs of the running source: the source continues.
    pub(super) fn adopt_input(&mut self, input: ModelInput, features: usize) {
        self.wanted = Some((input, features));
        if self.started_for.is_some() {
            self.started_for = self.wanted;
        }
        if let ModelInput::Image { width, height, .. } = input {
            self.settings.devices.model_size = (width, height);
        }
    }

    fn restart_for_new_input(&mut self) {
        if self.started_for != self.wanted {
            tracing::info!("The new model expects another input; restarting the source");
            if let Some(tap) = &self.settings.tap {
                tap.forget_sources();
            }
            self.stop_running(Some(Duration::ZERO));
        }
    }

    /// Creates the output of the source. Earlier sources can no longer deliver after this call.
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

    /// A delay is over, or a start took too long.
    pub(super) fn on_due(&mut self) -> ControlFlow<SessionEnd> {
        if matches!(self.phase, CapturePhase::Starting(_)) {
            // Later events of this start have an old epoch, and its mailboxes are revoked.
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

    /// Whether the source fetches still pictures, one per start.
    pub(super) fn is_polling(&self) -> bool {
        self.settings.is_poll
    }

    /// Returns, once, the mailbox generation with the last frames of a source that stays stopped.
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
            let started = catch_panic(start).unwrap_or_else(|panicked| Err(panicked.into()));
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
            tracing::warn!("The other branches of the pipeline restart together with the source");
        }
        self.stop_running(Some(wait));
    }

    /// Restarts the source or pauses, as set by `ei_shutdown_behavior`. A still picture is fetched again.
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
                tracing::info!(interval = ?self.settings.still_interval, "The source is a still picture; fetching it repeatedly");
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

    /// Stops a running pipeline on its own thread, and restarts it after `wait`; `None`: does not restart it.
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

    /// Logs and counts a failure, and returns the delay before the restart.
    fn log_failure(&mut self, reason: &str) -> Duration {
        let now = Instant::now();
        self.settings.is_poll = false;
        // The source may have failed because a password was changed.
        self.secrets.mark_stale();
        self.stats.capture_restarts.inc();
        let wait = self.backoff.failed(now);
        // The limiter ignores numbers: the elements of each pipeline have other numbers (identity0, identity1).
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

    /// Stops the source. It does not start again.
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
    tracing::warn!("The source could not be stopped; it is stuck in its driver and is abandoned");
}

/// Stops a source. If it does not stop, its thread counts as stuck until it ends. Blocks for at most [`STOP_LIMIT`].
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
#[path = "capture_supervisor_tests.rs"]
mod tests;
