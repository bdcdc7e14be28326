//! Starts, watches and restarts each part; carries out commands; stops everything in order.
//!
//! One generation is what lives between two `restart` commands: model, capture, report and cache. The link to the
//! broker outlives generations, so nothing undelivered is lost by a restart.

mod capture_part;
mod commands;
mod event;
mod link;
mod model_part;
mod model_resolver;
mod session;
mod setup;
mod storage;
mod stuck_threads;

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::commands::{Answer, CommandError};
use crate::device::Topics;
use crate::http::live_page;
use crate::inference::LiveTap;
use crate::status::stats::Stats;
use crate::status::{About, StatusRegistry};
use crate::uplink::outbox::Bounds;
use crate::uplink::{Message, Outbox, ReceivedCommand, Status};
use crate::util::backoff::{Backoff, BackoffPolicy};
use crate::util::log_limiter::{LogLimiter, like};
use link::Link;
pub use link::link_settings;
use session::{Next, Session};
pub use setup::{LinkTarget, Setup, SetupError, link_target};
use stuck_threads::StuckThreads;

/// Parts and link stop within this; with what the disk gets an orderly stop stays below 4 s (Greengrass sends SIGKILL 5 s after SIGTERM).
const STOP_LIMIT: Duration = Duration::from_millis(3_200);
/// Of which capture, model and cache writers get this much at most, so that the broker still hears of the end.
const PARTS_STOP_LIMIT: Duration = Duration::from_millis(2_300);

/// More for the disk, which takes what the broker did not.
const SPOOL_STOP_LIMIT: Duration = Duration::from_millis(700);

/// How the daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything was stopped in order.
    Orderly,
    /// Too many threads hang in drivers: the program is to be started anew in place.
    Reexec,
}

/// What outlives a generation.
pub(crate) struct Context {
    pub setup: Setup,
    pub device: String,
    pub topics: Arc<Topics>,
    pub stats: Arc<Stats>,
    pub outbox: Arc<Outbox>,
    pub live_tap: Arc<LiveTap>,
    pub registry: Arc<StatusRegistry>,
    pub stuck_threads: Arc<StuckThreads>,
}

/// Runs the daemon until `stop` completes.
pub async fn run(setup: Setup, device: String, stop: impl Future<Output = ()>) -> Ended {
    let topics = Arc::new(Topics::new(&device));
    let stats = Arc::new(Stats::default());
    let outbox = Arc::new(Outbox::new(Bounds::default(), stats.clone()));
    tracing::info!("ei-greengrass {} starts as device {device}", env!("CARGO_PKG_VERSION"));
    crate::model::sweep(&device);
    let spool = storage::open_spool(&setup, &device, &outbox);
    let (mut link, mut commands) = Link::start(&setup, &device, &topics, &outbox, &stats);
    let abandoned = link.abandoned();
    let mut stop = pin!(async {
        tokio::select! {
            () = stop => {}
            () = abandoned => {}
        }
    });
    let live_tap = Arc::new(LiveTap::new(setup.config.runner.preview_original_resolution));
    let about = About {
        device: device.clone(),
        file_cache: setup.config.file_cache.is_some(),
        s3_cache: setup.config.s3_cache_bucket.clone(),
        page: setup.config.preview.enabled,
    };
    let registry = Arc::new(StatusRegistry::new(
        about,
        link.view(),
        live_tap.clone(),
        outbox.clone(),
        stats.clone(),
    ));
    let device_dir = setup.config.work_dir.join(&device);
    let _preview = live_page::start(&setup.config.preview, device_dir, live_tap.clone(), registry.clone());
    let context = Context {
        setup,
        device,
        topics,
        stats,
        outbox,
        live_tap,
        registry,
        stuck_threads: Arc::default(),
    };
    let (mut ended, deadline) = keep_going(&context, stop.as_mut(), &mut commands).await;
    refuse_commands(&mut commands, &context);
    let notice = Message::notice(&context.topics, Status::Stopped, context.setup.config.qos);
    let mut leaving = pin!(async {
        link.stop(notice, deadline).await;
        storage::report_rest(spool, &context.outbox, deadline + SPOOL_STOP_LIMIT).await;
    });
    tokio::select! {
        () = &mut leaving => {}
        // Whoever asks for the end now wants no new start.
        () = &mut stop, if ended == Ended::Reexec => {
            ended = Ended::Orderly;
            leaving.await;
        }
    }
    tracing::info!("stopped");
    ended
}

/// One generation after the other, up to the end. Also gives by when everything must be over.
async fn keep_going(
    context: &Context,
    mut stop: Pin<&mut impl Future<Output = ()>>,
    commands: &mut mpsc::Receiver<ReceivedCommand>,
) -> (Ended, Instant) {
    loop {
        let make = || Session::new(context);
        let Some(mut generation) = once_possible(make, BackoffPolicy::default(), stop.as_mut()).await else {
            return (Ended::Orderly, Instant::now() + STOP_LIMIT);
        };
        let mut next = generation.run(stop.as_mut(), commands).await;
        let mut deadline = Instant::now() + STOP_LIMIT;
        let mut stopping = pin!(generation.stop(Instant::now() + PARTS_STOP_LIMIT, next));
        tokio::select! {
            () = &mut stopping => {}
            // The end was asked for while the parts stop for another reason: its own time begins now.
            () = &mut stop, if next != Next::Stop => {
                next = Next::Stop;
                deadline = Instant::now() + STOP_LIMIT;
                stopping.await;
            }
        }
        match next {
            Next::Restart => {
                context.outbox.count_anew();
                context.stats.reset();
                tracing::info!("restarting on command");
            }
            Next::Stop => return (Ended::Orderly, deadline),
            Next::Reexec => return (Ended::Reexec, deadline),
        }
    }
}

/// What `make` makes, as soon as the system gives the threads for it. `None`: the end was asked for before that.
async fn once_possible<T>(
    mut make: impl FnMut() -> io::Result<T>,
    waits: BackoffPolicy,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Option<T> {
    let (mut backoff, mut said) = (Backoff::new(waits), LogLimiter::default());
    loop {
        let error = match make() {
            Ok(made) => return Some(made),
            Err(error) => error,
        };
        let now = std::time::Instant::now();
        let wait = backoff.failed(now);
        if let Some(more) = said.check_words(now, &error.to_string()) {
            tracing::error!(
                "the system gives no thread for model and camera, which is tried again in {:.1} s{}: {error}",
                wait.as_secs_f32(),
                like(more)
            );
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.as_mut() => return None,
        }
    }
}

/// Answers the commands that were not carried out any more; those that come from now on are refused by the uplink.
fn refuse_commands(commands: &mut mpsc::Receiver<ReceivedCommand>, context: &Context) {
    commands.close();
    while commands.try_recv().is_ok() {
        let answer = Answer::Error(CommandError::Stopping);
        context
            .outbox
            .push(Message::answer(&context.topics, &answer, context.setup.config.qos));
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
    async fn a_generation_that_gets_no_thread_is_tried_again() {
        let wait = Duration::from_millis(1);
        let waits = BackoffPolicy {
            min: wait,
            max: wait,
            reset_after: wait,
        };
        let mut attempts = 0;
        let make = || {
            attempts += 1;
            if attempts < 4 { no_thread() } else { Ok(attempts) }
        };
        assert_eq!(once_possible(make, waits, pin!(pending())).await, Some(4));
    }

    #[tokio::test]
    async fn the_end_is_heard_while_there_is_no_thread() {
        let stop = pin!(ready(()));
        let made = once_possible(no_thread::<()>, BackoffPolicy::default(), stop).await;
        assert_eq!(made, None);
    }
}
