//! The wiring of the component: builds the parts, connects them, and runs one session after another.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::config_update::ConfigUpdate;
use super::context::Context;
use super::local_topics;
use super::message_sink::MessageSink;
use super::session::{Session, SessionInputs, event_settings};
use super::session_end::SessionEnd;
use super::setup::Setup;
use super::source_secrets::SourceSecrets;
use super::spool;
use super::studio_link::{self, LinkedModel, StudioLink, StudioLinkSettings};
use crate::commands::refusal_answer;
use crate::device::Topics;
use crate::events::EventRecorder;
use crate::http::live_page;
use crate::inference::LiveTap;
use crate::inference::publisher::WaitingMessages;
use crate::model::{Sandbox, SandboxSupport};
use crate::status::stats::Stats;
use crate::status::{ComponentInfo, StatusRegistry};
use crate::studio::monitor::MonitorTap;
use crate::studio::{StudioUpdates, UpdateRequester};
use crate::uplink::outbox::OutboxBounds;
use crate::uplink::{CommandRefusal, Message, Outbox, ReceivedCommand, Status};
use crate::util::backoff::{Backoff, BackoffPolicy};
use crate::util::clock::rounded;
use crate::util::log_limiter::LogLimiter;

/// Session and message sink stop within this time. Greengrass sends SIGKILL 5 s after SIGTERM. With the time for the spool, a
/// stop takes less than 4 s.
const STOP_LIMIT: Duration = Duration::from_millis(3_200);
/// The part of [`STOP_LIMIT`] for capture, model and caches; the rest is for the final notice to the broker.
const SESSION_STOP_LIMIT: Duration = Duration::from_millis(2_300);
/// Additional time for the spool, which writes undelivered messages.
const SPOOL_STOP_LIMIT: Duration = Duration::from_millis(700);
/// Time for the last local messages, beside the spool. The nucleus is on this machine.
const LOCAL_STOP_LIMIT: Duration = Duration::from_millis(500);

/// Time for the last messages to Edge Impulse Studio, beside the spool.
const STUDIO_STOP_LIMIT: Duration = Duration::from_millis(500);

/// How often freed memory is given back: what an outage took would stay with the process.
const MEMORY_INTERVAL: Duration = Duration::from_secs(60);

/// How a run of the component ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// All parts were stopped.
    Stopped,
    /// The process must be replaced by a new one: too many threads are stuck in drivers, or a new configuration needs it.
    Reexec,
}

/// Runs the component until `stop` completes. `updates`: configurations that are deployed meanwhile.
pub async fn run(
    setup: Setup,
    device: String,
    stop: impl Future<Output = ()>,
    updates: mpsc::Receiver<ConfigUpdate>,
) -> RunEnd {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %device, "ei-greengrass starts");
    crate::model::sweep(&device);
    let topics = Arc::new(Topics::new(&device));
    let stats = Arc::new(Stats::default());
    let local_topics = local_topics::prepare(&setup.config, &stats);
    let copies = local_topics.as_ref().map(|ends| ends.copies.clone());
    let outbox = Outbox::new(OutboxBounds::default(), stats.clone()).with_copies(copies);
    let outbox = Arc::new(outbox);
    let spool = spool::start(&setup, &device, &outbox);
    let (mut sink, commands) = MessageSink::start(&setup, &device, &topics, &outbox, &stats);
    let sink_closed = sink.closed();
    let mut stop = pin!(async {
        tokio::select! {
            () = stop => {}
            () = sink_closed => {}
        }
    });
    let config = &setup.config;
    let live_tap = Arc::new(LiveTap::new(config.runner.preview_original_resolution));
    let info = ComponentInfo {
        device: device.clone(),
        live_page: config.preview.enabled,
        local_topics: local_topics.is_some(),
    };
    let registry = Arc::new(StatusRegistry::new(
        info,
        sink.status_source(),
        live_tap.clone(),
        outbox.clone(),
        stats.clone(),
    ));
    tokio::spawn(release_memory());
    let device_dir = config.work_dir.join(&device);
    let events = EventRecorder::start(
        &device_dir,
        topics.clone(),
        outbox.clone(),
        stats.clone(),
        event_settings(config),
    );
    registry.set_events(events.clone());
    let _live_page = live_page::start(
        &config.preview,
        device_dir,
        live_tap.clone(),
        registry.clone(),
        Some(events.clone()),
    );
    let wants_channel = config.wants_studio_channel();
    let capture_tap = config.wants_samples().then(Arc::default);
    let studio_updates = StudioUpdates::default();
    let monitor = config
        .monitor
        .map(|settings| Arc::new(MonitorTap::new(settings, studio_updates.clone(), stats.clone())));
    let (frame_selector, frames) = studio_link::frame_selector(config, &device, &stats).unzip();
    let (model_updates, update_requests) = UpdateRequester::new();
    let sandbox = Sandbox::new(config.model_sandbox.clone(), SandboxSupport::detect());
    let context = Context {
        sandbox,
        setup: Arc::new(Mutex::new(Arc::new(setup))),
        device,
        topics,
        stats,
        outbox,
        events,
        live_tap,
        registry,
        stuck_threads: Arc::default(),
        source_secrets: Arc::new(SourceSecrets::new(tokio::runtime::Handle::current())),
        capture_tap,
        frame_selector,
        monitor,
        model_updates,
    };
    let local_topics = local_topics.map(|ends| ends.start(&context, sink.commands()));
    let studio_link = (wants_channel || frames.is_some()).then(|| {
        StudioLink::start(StudioLinkSettings {
            setup: &context.setup,
            device: &context.device,
            stats: &context.stats,
            registry: &context.registry,
            tap: context.capture_tap.as_ref(),
            frames,
            model: wants_channel.then_some(LinkedModel {
                requester: &context.model_updates,
                updates: &studio_updates,
                monitor: context.monitor.as_ref(),
            }),
        })
    });
    let mut inputs = SessionInputs {
        commands,
        updates,
        update_requests,
    };
    let (mut end, deadline) = run_sessions(&context, stop.as_mut(), &mut inputs).await;
    context.events.end_events();
    refuse_commands(&mut inputs.commands, &context);
    let notice = Message::notice(&context.topics, Status::Stopped, context.setup().config.qos);
    let mut finish = pin!(async {
        sink.stop(notice, deadline).await;
        let deadline = deadline + SPOOL_STOP_LIMIT;
        let stop_local_topics = async {
            if let Some(local_topics) = local_topics {
                local_topics.stop(deadline.min(Instant::now() + LOCAL_STOP_LIMIT)).await;
            }
        };
        let stop_studio_link = async {
            if let Some(studio_link) = studio_link {
                studio_link.stop(deadline.min(Instant::now() + STUDIO_STOP_LIMIT)).await;
            }
        };
        tokio::join!(
            spool::finish(spool, &context.outbox, deadline),
            stop_local_topics,
            stop_studio_link
        );
        context.events.finish(deadline).await;
    });
    tokio::select! {
        () = &mut finish => {}
        // A stop request that arrives now cancels the re-execution.
        () = &mut stop, if end == RunEnd::Reexec => {
            end = RunEnd::Stopped;
            finish.await;
        }
    }
    tracing::info!("Stopped");
    end
}

async fn release_memory() {
    loop {
        tokio::time::sleep(MEMORY_INTERVAL).await;
        sandbox_calls::release_free_memory();
    }
}

/// Runs one session after another until a stop, then publishes the messages that still wait for their pictures. Also returns
/// the deadline of the stop.
async fn run_sessions(
    context: &Context,
    stop: Pin<&mut impl Future<Output = ()>>,
    inputs: &mut SessionInputs,
) -> (RunEnd, Instant) {
    let mut waiting = Vec::new();
    let end = run_until_stopped(context, stop, inputs, &mut waiting).await;
    let count: usize = waiting.iter().map(WaitingMessages::publish_without_pictures).sum();
    if count > 0 {
        tracing::warn!(
            count,
            "Messages are published without their pictures, which were still being encoded at the end"
        );
    }
    end
}

/// `waiting`: the messages of all sessions that still wait for their pictures.
async fn run_until_stopped(
    context: &Context,
    mut stop: Pin<&mut impl Future<Output = ()>>,
    inputs: &mut SessionInputs,
    waiting: &mut Vec<WaitingMessages>,
) -> (RunEnd, Instant) {
    loop {
        let create = || Session::new(context);
        let Some(mut session) = retry_until_created(create, BackoffPolicy::default(), stop.as_mut()).await else {
            return (RunEnd::Stopped, Instant::now() + STOP_LIMIT);
        };
        let mut end = session.run(stop.as_mut(), inputs).await;
        let mut deadline = Instant::now() + STOP_LIMIT;
        if matches!(end, SessionEnd::Stop | SessionEnd::Reexec) {
            // While there are caches, which get the pictures.
            let events = context.events.clone();
            let _ = tokio::task::spawn_blocking(move || events.end_events()).await;
        }
        let mut stopping = pin!(session.stop(Instant::now() + SESSION_STOP_LIMIT));
        let still_waiting = tokio::select! {
            still_waiting = &mut stopping => still_waiting,
            // A stop request that arrives while the session ends for another reason gets the full time limit.
            () = &mut stop, if end != SessionEnd::Stop => {
                end = SessionEnd::Stop;
                deadline = Instant::now() + STOP_LIMIT;
                stopping.await
            }
        };
        waiting.retain(|earlier| !earlier.is_finished());
        waiting.extend(still_waiting);
        if !waiting.is_empty() && matches!(end, SessionEnd::Restart | SessionEnd::Reconfigure) {
            tracing::warn!("Pictures are still being encoded; their messages follow after the restart");
        }
        match end {
            SessionEnd::Restart => {
                context.outbox.reset_delivered_count();
                context.stats.reset();
                tracing::info!("Restarting on command");
            }
            SessionEnd::Reconfigure => tracing::info!("Restarting with the new configuration"),
            SessionEnd::Stop => return (RunEnd::Stopped, deadline),
            SessionEnd::Reexec => return (RunEnd::Reexec, deadline),
        }
    }
}

/// Calls `create` until the system can start its threads. `None`: `stop` completed first.
async fn retry_until_created<T>(
    mut create: impl FnMut() -> io::Result<T>,
    policy: BackoffPolicy,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Option<T> {
    let (mut backoff, mut log_limiter) = (Backoff::new(policy), LogLimiter::default());
    loop {
        let error = match create() {
            Ok(created) => return Some(created),
            Err(error) => error,
        };
        let now = std::time::Instant::now();
        let wait = backoff.failed(now);
        if let Some(suppressed) = log_limiter.check_words(now, &error.to_string()) {
            tracing::error!(
                %error,
                retry_in = ?rounded(wait),
                suppressed = suppressed.count(),
                "The threads of the model and the caches cannot be started"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.as_mut() => return None,
        }
    }
}

/// Answers the commands that no session handled. The uplink refuses later commands.
fn refuse_commands(commands: &mut mpsc::Receiver<ReceivedCommand>, context: &Context) {
    commands.close();
    while commands.try_recv().is_ok() {
        let answer = refusal_answer(CommandRefusal::Stopping);
        context
            .outbox
            .push(Message::answer(&context.topics, answer, context.setup().config.qos));
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn no_thread<T>() -> io::Result<T> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    #[tokio::test]
    async fn creating_a_session_is_retried_while_there_is_no_thread() {
        let wait = Duration::from_millis(1);
        let policy = BackoffPolicy {
            min: wait,
            max: wait,
            reset_after: wait,
        };
        let mut attempts = 0;
        let create = || {
            attempts += 1;
            if attempts < 4 { no_thread() } else { Ok(attempts) }
        };
        let created = retry_until_created(create, policy, pin!(pending())).await;
        assert_eq!(created, Some(4));
    }

    #[tokio::test]
    async fn a_stop_ends_the_retries_while_there_is_no_thread() {
        let stop = pin!(ready(()));
        let created = retry_until_created(no_thread::<()>, BackoffPolicy::default(), stop).await;
        assert_eq!(created, None);
    }
}
