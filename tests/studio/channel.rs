//! The channel to remote management, with short limits.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ei_greengrass::status::stats::Stats;
use ei_greengrass::status::{StudioActivity, StudioState, StudioStateCell};
use ei_greengrass::studio::StudioLimits;
use ei_greengrass::studio::channel::{
    ChannelHandle, ChannelLimits, ChannelService, ChannelSettings, ChannelTask, HelloOffer, Incoming, IncomingKind,
    Outgoing, Sensor, StudioAddresses, channel,
};
use ei_greengrass::util::backoff::BackoffPolicy;
use ei_greengrass::util::secret::Secret;
use parking_lot::Mutex;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::daemon::LIMIT;
use crate::support::events::Events;
use crate::support::exchange::ExchangeStudio;
use crate::support::remote_management::{OnHello, RemoteManagement};

const KEY: &str = "ei_test";

fn limits() -> ChannelLimits {
    ChannelLimits {
        answer: Duration::from_millis(300),
        ping: Duration::from_millis(100),
        pong: Duration::from_millis(200),
        message_bytes: 64 << 10,
        backoff: BackoffPolicy {
            min: Duration::from_millis(10),
            max: Duration::from_millis(40),
            reset_after: Duration::from_secs(60),
        },
        refused: Duration::from_millis(150),
        first_offer: Duration::ZERO,
        ..ChannelLimits::default()
    }
}

/// Records what it is given.
#[derive(Default)]
struct Recorder {
    handled: Events<Incoming>,
    ended: Events<()>,
    sensors: Mutex<Vec<Sensor>>,
}

impl ChannelService for Recorder {
    fn kinds(&self) -> &'static [IncomingKind] {
        &[IncomingKind::StartSnapshot]
    }

    fn add_to_hello(&self, offer: &mut HelloOffer) {
        offer.sensors.clone_from(&self.sensors.lock());
        offer.supports_snapshot_streaming = true;
    }

    fn handle(&self, message: Incoming) {
        self.handled.push(message);
    }

    fn disconnected(&self) {
        self.ended.push(());
    }
}

/// A device with the network card of the exchanges.
struct Device {
    handle: ChannelHandle,
    service: Arc<Recorder>,
    state: StudioStateCell,
    stats: Arc<Stats>,
    task: ChannelTask,
    _root: tempfile::TempDir,
}

impl Device {
    fn start(remote: &RemoteManagement, api: &str, limits: ChannelLimits) -> Self {
        let root = tempfile::tempdir().unwrap();
        write_card(root.path());
        let (handle, ends) = channel();
        let (service, state, stats) = (
            Arc::<Recorder>::default(),
            StudioStateCell::default(),
            Arc::<Stats>::default(),
        );
        let settings = ChannelSettings {
            key: Box::new(|| Box::pin(async { Ok(Secret::new(KEY)) })),
            addresses: StudioAddresses {
                ei_host: Some(api.to_owned()),
                remote_management: Some(remote.url()),
                ingestion: None,
            },
            device_name: "MyEdgeImpulseDevice_020000000001".to_owned(),
            system_root: root.path().to_owned(),
            limits,
            studio_limits: StudioLimits::default(),
            stats: stats.clone(),
            state: state.clone(),
            activity: StudioActivity::default(),
        };
        Self {
            task: ChannelTask::start(settings, ends, vec![service.clone()]),
            handle,
            service,
            state,
            stats,
            _root: root,
        }
    }

    async fn wait_for_state(&self, wanted: impl Fn(&StudioState) -> bool) {
        let reached = async {
            while !wanted(&self.state.get()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let reached = tokio::time::timeout(LIMIT, reached).await;
        assert!(reached.is_ok(), "{:?}", self.state.get());
    }

    async fn wait_until_connected(&self) {
        self.wait_for_state(|state| *state == StudioState::Online).await;
        while !self.handle.is_connected() {
            tokio::task::yield_now().await;
        }
    }
}

fn write_card(root: &Path) {
    let card = root.join("sys/class/net/eth0");
    std::fs::create_dir_all(&card).unwrap();
    for (name, content) in [
        ("address", "02:00:00:00:00:01\n"),
        ("flags", "0x1003\n"),
        ("ifindex", "2\n"),
    ] {
        std::fs::write(card.join(name), content).unwrap();
    }
}

/// No API listens there: the registration after the hello fails, which ends nothing.
const NO_API: &str = "http://127.0.0.1:9";

#[tokio::test(flavor = "multi_thread")]
async fn a_device_registers_and_gets_its_name_as_in_exchange_a() {
    let studio = ExchangeStudio::new("A");
    let device = Device::start(&studio.remote, &studio.http.url(), limits());
    studio.play();
    let (_, hello) = studio.remote.hello(0);
    assert_eq!(hello["hello"]["deviceId"], "02:00:00:00:00:01");
    assert_eq!(hello["hello"]["deviceType"], "EDGE_IMPULSE_LINUX");
    device.wait_until_connected().await;
    for request in studio.http.requests.with(<[_]>::to_vec) {
        assert_eq!(request.headers["x-api-key"], KEY);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_given_in_studio_stays() {
    let studio = ExchangeStudio::new("C");
    let device = Device::start(&studio.remote, &studio.http.url(), limits());
    studio.http.requests.wait_for("the device", LIMIT, |all| {
        all.iter().find(|request| request.path.contains("/device/")).map(drop)
    });
    studio.remote.connection(0).close();
    studio.remote.hello(1);
    device.wait_until_connected().await;
    assert_eq!(studio.http.count("/rename"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_brings_no_storm_of_connections_as_in_exchange_b() {
    let studio = ExchangeStudio::new("B");
    let slow = ChannelLimits {
        refused: Duration::from_secs(3600),
        ..limits()
    };
    let device = Device::start(&studio.remote, &studio.http.url(), slow);
    studio.play();
    device
        .wait_for_state(|state| matches!(state, StudioState::Refused(_)))
        .await;
    assert_eq!(studio.remote.connections.with(<[_]>::len), 1);
    assert_eq!(studio.http.requests.with(<[_]>::len), 0, "nothing is registered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_device_tries_again_slowly() {
    let remote = RemoteManagement::start(OnHello::Refuse("Invalid API key"));
    let device = Device::start(&remote, NO_API, limits());
    device
        .wait_for_state(|state| matches!(state, StudioState::Refused(_)))
        .await;
    let StudioState::Refused(reason) = device.state.get() else {
        panic!("{:?}", device.state.get());
    };
    assert!(
        reason.contains("Invalid API key") && reason.contains("Dashboard, Keys"),
        "{reason}"
    );
    remote.set(OnHello::Accept);
    remote.hello(1);
    device.wait_until_connected().await;
    assert_eq!(device.stats.studio_connects.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_before_the_answer_to_the_hello_leads_to_a_new_hello() {
    for (on_hello, reason) in [
        (OnHello::Silence, "did not answer the hello"),
        (OnHello::Close, "closed the connection"),
        (OnHello::Cut, "closed the connection"),
        (OnHello::CutBeforeHello, "closed the connection"),
        (OnHello::CutBeforeHandshake, "cannot be reached"),
    ] {
        let remote = RemoteManagement::start(on_hello);
        let device = Device::start(&remote, NO_API, limits());
        device
            .wait_for_state(|state| matches!(state, StudioState::Offline(text) if text.contains(reason)))
            .await;
        remote.set(OnHello::Accept);
        device.wait_until_connected().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_studio_that_is_away_is_found_when_it_is_back() {
    let port = crate::support::ports::free_port();
    let remote = RemoteManagement::start_at(port, OnHello::Accept);
    let device = Device::start(&remote, NO_API, limits());
    device.wait_until_connected().await;
    drop(remote);
    device
        .wait_for_state(|state| matches!(state, StudioState::Offline(_)))
        .await;
    let remote = RemoteManagement::start_at(port, OnHello::Accept);
    remote.hello(0);
    device.wait_until_connected().await;
    assert!(
        !device.service.ended.with(<[_]>::is_empty),
        "the service is told of the end"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_is_cut_is_made_again() {
    let remote = RemoteManagement::start(OnHello::Accept);
    let device = Device::start(&remote, NO_API, limits());
    device.wait_until_connected().await;
    remote.connection(0).cut();
    device
        .service
        .ended
        .wait_for("the end", LIMIT, |all| all.first().copied());
    remote.hello(1);
    device.wait_until_connected().await;
    assert_eq!(device.stats.studio_connects.get(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_keep_the_connection_and_one_without_a_pong_ends_it() {
    let remote = RemoteManagement::start(OnHello::Accept);
    let device = Device::start(&remote, NO_API, limits());
    let (connection, _) = remote.hello(0);
    connection
        .pings
        .wait_for("three pings", LIMIT, |all| all.get(2).copied());
    device.wait_until_connected().await;
    assert_eq!(remote.connections.with(<[_]>::len), 1);

    remote.set(OnHello::AcceptAndFreeze);
    connection.cut();
    device
        .wait_for_state(|state| matches!(state, StudioState::Offline(text) if text.contains("did not answer a ping")))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_another_one_replaces_again_and_again_says_so() {
    let remote = RemoteManagement::start(OnHello::AcceptAndClose);
    let short = ChannelLimits {
        short_connection: Duration::from_millis(400),
        ..limits()
    };
    let device = Device::start(&remote, NO_API, short);
    device
        .wait_for_state(|state| matches!(state, StudioState::Contended(_)))
        .await;
    let StudioState::Contended(reason) = device.state.get() else {
        panic!("{:?}", device.state.get());
    };
    assert!(reason.contains("02:00:00:00:00:01"), "{reason}");
    remote.set(OnHello::Accept);
    device.wait_until_connected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_nothing_handles_are_refused_and_unknown_ones_ignored() {
    let remote = RemoteManagement::start(OnHello::Accept);
    let device = Device::start(&remote, NO_API, limits());
    let (connection, _) = remote.hello(0);
    device.wait_until_connected().await;
    for (request, answer) in [
        (
            json!({"sample": {"label": "x"}}),
            json!({"sample": false, "error": "*", "err": "*"}),
        ),
        (json!({"stopSnapshot": true}), json!({"snapshotStopped": true})),
        (
            json!({"startInferenceStream": true}),
            json!({"inferenceStreamStarted": false}),
        ),
        (
            json!({"stopInferenceStream": true}),
            json!({"inferenceStreamStopped": false}),
        ),
        (
            json!({"newModelAvailable": true}),
            json!({"modelUpdateSuccess": false, "error": "*"}),
        ),
        (
            json!({"impulseRecordRequest": {"index": 1}}),
            json!({"impulseRecordsResponse": false, "error": "*"}),
        ),
    ] {
        connection.send(&json!({"something": "else"}));
        connection.send_raw(Message::text("not JSON"));
        connection.send_raw(Message::binary(request.to_string().into_bytes()));
        connection.wait_for(&answer);
    }
    connection.send(&json!({"startSnapshot": true}));
    device
        .service
        .handled
        .wait_for("the request", LIMIT, |all| all.first().cloned());
    assert_eq!(remote.connections.with(<[_]>::len), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_and_a_message_that_is_too_large_are_survived() {
    let remote = RemoteManagement::start(OnHello::Accept);
    let device = Device::start(&remote, NO_API, limits());
    let (connection, _) = remote.hello(0);
    for _ in 0..500 {
        connection.send(&json!({"sample": {"label": "x"}}));
    }
    let refusal = json!({"sample": false});
    connection.wait_for_nth(&refusal, 499);
    connection.send(&json!({"sample": {"label": "x".repeat(1 << 20)}}));
    remote.hello(1);
    device.wait_until_connected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_delivered_or_the_service_hears_that_it_is_not() {
    let remote = RemoteManagement::start(OnHello::Accept);
    let device = Device::start(&remote, NO_API, limits());
    let (connection, _) = remote.hello(0);
    device.wait_until_connected().await;
    device.handle.deliver(Outgoing::SampleStarted).await.unwrap();
    connection.wait_for(&json!({"sampleStarted": true}));
    drop(remote);
    device
        .wait_for_state(|state| matches!(state, StudioState::Offline(_)))
        .await;
    assert!(device.handle.deliver(Outgoing::SampleStarted).await.is_err());
    assert!(!device.handle.send(Outgoing::SampleStarted));
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_of_a_stream_replace_each_other() {
    let remote = RemoteManagement::start(OnHello::Accept);
    let device = Device::start(&remote, NO_API, limits());
    let (connection, _) = remote.hello(0);
    device.wait_until_connected().await;
    for number in 0..1000 {
        device.handle.send_newest(Outgoing::SnapshotFrame {
            jpeg: vec![0; 100_000].into(),
            file_name: format!("{number}.jpg"),
        });
    }
    connection.wait_for(&json!({"snapshotFrame": "*", "fileName": "999.jpg"}));
    assert!(connection.count(&json!({"snapshotFrame": "*"})) < 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_offer_is_told_with_a_new_hello_at_once() {
    let remote = RemoteManagement::start(OnHello::Accept);
    let device = Device::start(&remote, NO_API, limits());
    let (_, hello) = remote.hello(0);
    assert_eq!(hello["hello"]["sensors"], json!([]));
    device.wait_until_connected().await;
    device.handle.offer_changed();
    device.service.sensors.lock().push(Sensor {
        name: "Camera (640x480)".to_owned(),
        frequencies: Vec::new(),
        max_sample_length_s: 60_000,
    });
    device.handle.offer_changed();
    let (_, hello) = remote.hello(1);
    assert_eq!(hello["hello"]["sensors"][0]["name"], "Camera (640x480)");
    assert_eq!(remote.connections.with(<[_]>::len), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_writes_what_waits_and_closes_the_connection() {
    let remote = RemoteManagement::start(OnHello::Accept);
    let device = Device::start(&remote, NO_API, limits());
    let (connection, _) = remote.hello(0);
    device.wait_until_connected().await;
    assert!(device.handle.send(Outgoing::SampleFinished));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    device.task.stop(deadline).await;
    assert!(tokio::time::Instant::now() < deadline);
    connection.wait_for(&json!({"sampleFinished": true}));
}
