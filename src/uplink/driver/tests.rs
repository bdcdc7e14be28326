//! The driver without a broker that answers.

use std::fs::OpenOptions;
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Driver, StopOrder};
use crate::config::Qos;
use crate::device::Topics;
use crate::status::stats::Stats;
use crate::uplink::address::{BrokerAddress, Transport};
use crate::uplink::message::{Message, Status};
use crate::uplink::outbox::{Outbox, OutboxBounds};
use crate::uplink::{ConnectionTimes, Destination, LinkState, RateLimits, Settings};

/// A few hundred are needed for packets, timers and the budget that tokio gives a task.
const MAX_POLLS: u32 = 2000;

fn settings(socket: &std::path::Path) -> Settings {
    Settings {
        address: Destination::from(BrokerAddress {
            transport: Transport::Tcp,
            host: socket.to_string_lossy().into_owned(),
            port: 0,
            path: String::new(),
            credentials: None,
        }),
        client_id: "d".to_owned(),
        topics: Topics::new("d"),
        qos: Qos::AtLeastOnce,
        refusal_answer: |refusal| refusal.to_string().into(),
        ca: None,
        rate_limits: RateLimits::UNLIMITED,
        limits: ConnectionTimes::default(),
    }
}

fn driver(settings: Settings) -> Driver {
    let stats = Arc::new(Stats::default());
    let outbox = Arc::new(Outbox::new(OutboxBounds::default(), stats.clone()));
    let (commands, _) = mpsc::channel(1);
    let (state, _) = watch::channel(LinkState::Connecting { attempt: 1 });
    Driver::new(settings, outbox, stats, commands, state)
}

#[tokio::test(start_paused = true)]
async fn a_stop_before_the_subscription_waits_without_using_the_processor() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("broker");
    // It accepts connections and answers nothing.
    let _listener = UnixListener::bind(&socket).unwrap();
    let driver = driver(settings(&socket));
    let (stop, mut stop_order) = oneshot::channel();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let notice = Message::notice(&Topics::new("d"), Status::Stopped, Qos::AtLeastOnce);
        let limit = Duration::from_secs(3);
        stop.send(StopOrder {
            notice: Some(notice),
            limit,
        })
        .unwrap();
    });
    let mut run = pin!(driver.run(&mut stop_order));
    let mut polls = 0;
    std::future::poll_fn(|context| {
        polls += 1;
        assert!(polls < MAX_POLLS, "the driver is always ready");
        run.as_mut().poll(context)
    })
    .await;
}

#[tokio::test]
async fn a_stop_leaves_half_of_its_time_to_an_attempt_in_progress() {
    let directory = tempfile::tempdir().unwrap();
    // The attempt waits for the certificate until somebody writes into the pipe.
    let pipe = directory.path().join("ca.pem");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let mut settings = settings(&directory.path().join("broker"));
    settings.ca = Some(pipe.clone());
    if let Destination::Broker { address, .. } = &mut settings.address {
        address.transport = Transport::Tls;
    }
    let (stop, mut stop_order) = oneshot::channel();
    let limit = Duration::from_millis(400);
    stop.send(StopOrder { notice: None, limit }).unwrap();
    let begun = Instant::now();
    driver(settings).run(&mut stop_order).await;
    let waited = begun.elapsed();
    // Ends the thread that reads.
    drop(OpenOptions::new().write(true).open(&pipe).unwrap());
    assert!(waited >= limit / 2, "{waited:?}");
}
