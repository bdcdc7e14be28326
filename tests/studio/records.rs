//! Requests for stored records, over the channel, without the rest of the component.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ei_greengrass::status::stats::Stats;
use ei_greengrass::status::{StudioActivity, StudioStateCell};
use ei_greengrass::studio::StudioLimits;
use ei_greengrass::studio::channel::{
    ChannelLimits, ChannelService, ChannelSettings, ChannelTask, HelloOffer, Incoming, IncomingKind, StudioAddresses,
    channel,
};
use ei_greengrass::studio::monitor::{RawData, RawDataKind, Record, RecordOwner, RecordResponder, StoredRecords};
use ei_greengrass::util::backoff::BackoffPolicy;
use ei_greengrass::util::secret::Secret;
use serde_json::{Value, json};

use crate::support::daemon::LIMIT;
use crate::support::exchange::ExchangeStudio;
use crate::support::remote_management::{Connection, OnHello, RemoteManagement};
use crate::support::small_disk::SmallDisk;

const OWNER: RecordOwner = RecordOwner {
    project_id: 1,
    version: 7,
};
/// The highest whole number that JavaScript knows.
const HUGE: u64 = (1 << 53) - 1;

/// The part of monitoring that has to do with records.
struct RecordService(RecordResponder);

impl ChannelService for RecordService {
    fn kinds(&self) -> &'static [IncomingKind] {
        &[IncomingKind::RecordRequest, IncomingKind::RecordAck]
    }

    fn add_to_hello(&self, _: &mut HelloOffer) {}

    fn handle(&self, message: Incoming) {
        match message {
            Incoming::RecordRequest(request) => self.0.request(request),
            Incoming::RecordAck { index, result } => {
                index.map(|index| self.0.acknowledge(index, &result));
            }
            _ => {}
        }
    }

    fn disconnected(&self) {
        self.0.disconnected();
    }
}

/// A device with stored records.
struct RecordDevice {
    records: StoredRecords,
    _task: ChannelTask,
    _directory: tempfile::TempDir,
}

impl RecordDevice {
    /// With the records of these indices.
    fn start(remote: &RemoteManagement, indices: impl IntoIterator<Item = u64>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("studio-monitor");
        let records = StoredRecords::open(root, OWNER, 64 << 20, Arc::default());
        for index in indices {
            records.keep(&record(index));
        }
        let (handle, ends) = channel();
        let responder = RecordResponder::start(handle, records.clone());
        let settings = ChannelSettings {
            key: Box::new(|| Box::pin(async { Ok(Secret::new("ei_test")) })),
            addresses: StudioAddresses {
                ei_host: Some("http://127.0.0.1:9".to_owned()),
                remote_management: Some(remote.url()),
                ingestion: None,
            },
            device_name: "MyEdgeImpulseDevice".to_owned(),
            system_root: directory.path().to_owned(),
            limits: ChannelLimits {
                first_offer: Duration::ZERO,
                backoff: BackoffPolicy {
                    min: Duration::from_millis(10),
                    ..BackoffPolicy::default()
                },
                ..ChannelLimits::default()
            },
            studio_limits: StudioLimits::default(),
            stats: Arc::default(),
            state: StudioStateCell::default(),
            activity: StudioActivity::default(),
        };
        Self {
            records,
            _task: ChannelTask::start(settings, ends, vec![Arc::new(RecordService(responder))]),
            _directory: directory,
        }
    }
}

fn record(index: u64) -> Record {
    Record {
        index,
        timestamp_ms: 1_736_016_000_000 + index,
        record: json!({"result": {"number": index}, "timing": {}}),
        raw_data: RawData {
            kind: RawDataKind::Jpg,
            bytes: Bytes::from_static(b"JPEG"),
        },
    }
}

fn request(connection: &Connection, request: &Value) {
    connection.send(&json!({ "impulseRecordRequest": request }));
}

fn sent(index: u64) -> Value {
    json!({"impulseRecordsResponse": true, "index": index, "timestamp": 1_736_016_000_000 + index,
           "record": {"result": {"number": index}}, "rawData": {"type": "jpg", "bufferBase64": "SlBFRw=="}})
}

fn refused(index: u64) -> Value {
    json!({"impulseRecordsResponse": false, "index": index, "error": "*"})
}

/// The indices of the answers up to now, in their order; those of refusals are negative.
fn answers(connection: &Connection) -> Vec<i64> {
    connection.messages.with(|all| {
        all.iter()
            .filter_map(|message| {
                let index = message["index"].as_i64()?;
                Some(if message["impulseRecordsResponse"].as_bool()? {
                    index
                } else {
                    -index
                })
            })
            .collect()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_answered_as_in_exchange_g() {
    let studio = ExchangeStudio::new("G");
    let _device = RecordDevice::start(&studio.remote, 1..=5);
    studio.play();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_in_the_order_of_a_list_and_of_the_indices_of_a_range() {
    let remote = RemoteManagement::start(OnHello::Accept);
    let device = RecordDevice::start(&remote, [2, 33, 61]);
    let (connection, _) = remote.hello(0);
    request(&connection, &json!({"list": [61, 2, 40, 2]}));
    request(&connection, &json!({"range": {"first": 1, "last": 61}}));
    request(&connection, &json!({"range": {"first": 33, "last": 33}}));
    request(&connection, &json!({"range": {"first": 9, "last": 3}}));
    request(&connection, &json!({"range": {"first": 3, "last": 32}}));
    request(&connection, &json!({"list": []}));
    request(&connection, &json!({"index": HUGE}));
    connection.wait_for(&refused(HUGE));
    let expected = [61, 2, -40, 2, 2, 33, 61, -1, 33, -9, -3, -(HUGE as i64)];
    assert_eq!(answers(&connection), expected);
    connection.wait_for(&sent(33));
    assert_eq!(device.records.available().last_index, 61);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_range_gets_what_is_stored_and_one_refusal() {
    let remote = RemoteManagement::start(OnHello::Accept);
    let _device = RecordDevice::start(&remote, (1..=100).map(|n| n * 30));
    let (connection, _) = remote.hello(0);
    request(&connection, &json!({"range": {"first": 1, "last": HUGE}}));
    request(&connection, &json!({"range": {"first": 0, "last": u64::MAX}}));
    connection.wait_for(&refused(1));
    connection.wait_for(&refused(0));
    let stored = (1..=100).map(|n| n * 30);
    let expected: Vec<_> = stored.clone().chain([-1]).chain(stored).chain([0]).collect();
    assert_eq!(answers(&connection), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_used_is_refused_and_the_connection_stays() {
    let remote = RemoteManagement::start(OnHello::Accept);
    let _device = RecordDevice::start(&remote, [1]);
    let (connection, _) = remote.hello(0);
    let mut requests = vec![
        json!(null),
        json!("all"),
        json!([1]),
        json!({}),
        json!({"index": -1}),
        json!({"index": 1e300}),
        json!({"index": "1"}),
        json!({"range": {"first": 1}}),
        json!({"range": {"first": [], "last": {}}}),
        json!({"list": "1,2"}),
        json!({"list": vec![1; 1_000_000]}),
    ];
    // A list with entries that are no index gets an answer for the others.
    requests.push(json!({"list": ["x", null, 1]}));
    for (nth, wrong) in requests.iter().enumerate() {
        request(&connection, wrong);
        let answer = connection.wait_for_nth(&json!({"impulseRecordsResponse": false, "error": "*"}), nth);
        assert!(answer.get("index").is_none(), "{answer}");
    }
    assert_eq!(answers(&connection), [1]);
    assert_eq!(remote.connections.with(<[_]>::len), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_is_refused_and_later_requests_are_answered() {
    let remote = RemoteManagement::start(OnHello::Accept);
    let _device = RecordDevice::start(&remote, 1..=3);
    let (connection, _) = remote.hello(0);
    for _ in 0..3000 {
        request(&connection, &json!({"range": {"first": 1, "last": HUGE}}));
    }
    connection.wait_for(&json!({"impulseRecordsResponse": false, "index": 1,
                                "error": "this device has too many requests for records at once"}));
    // What waited is answered; then there is room again.
    let answered = async {
        for nth in 1000.. {
            request(&connection, &json!({"index": nth}));
            tokio::time::sleep(Duration::from_millis(20)).await;
            let not_stored = format!("record {nth} is not stored; stored are some of the inferences 1 to 3");
            if connection.count(&json!({"index": nth, "error": not_stored})) > 0 {
                break;
            }
        }
    };
    tokio::time::timeout(LIMIT, answered).await.expect("an answer");
    assert!(connection.count(&json!({"impulseRecordsResponse": true})) < 3 * 100);
    assert_eq!(remote.connections.with(<[_]>::len), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_ends_its_request_and_no_other() {
    let remote = RemoteManagement::start(OnHello::Accept);
    let _device = RecordDevice::start(&remote, 1..=1000);
    let (connection, _) = remote.hello(0);
    request(&connection, &json!({"range": {"first": 1, "last": 1000}}));
    request(&connection, &json!({"list": [500, 501]}));
    connection.wait_for(&sent(1));
    for index in [77_777, 1] {
        connection.send(&json!({"impulseRecordAck": false, "index": index, "error": "nobody listens"}));
    }
    connection.send(&json!({"impulseRecordAck": false}));
    connection.wait_for(&sent(501));
    let answers = answers(&connection);
    assert!(answers.ends_with(&[500, 501]) && answers.len() < 900, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_ends_with_its_connection() {
    let remote = RemoteManagement::start(OnHello::Accept);
    let _device = RecordDevice::start(&remote, 1..=1000);
    let (connection, _) = remote.hello(0);
    request(&connection, &json!({"range": {"first": 1, "last": 1000}}));
    connection.wait_for(&sent(3));
    connection.close();
    let (connection, _) = remote.hello(1);
    request(&connection, &json!({"list": [7, 8]}));
    connection.wait_for(&sent(8));
    assert_eq!(answers(&connection), [7, 8]);
}

#[test]
fn a_full_and_a_read_only_disk_cost_records_only_until_it_can_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&directory.path().join("disk"), "64k") else {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    };
    let stats = Arc::<Stats>::default();
    let open = || StoredRecords::open(disk.path().join("studio-monitor"), OWNER, 64 << 20, stats.clone());
    let records = open();
    let counted = || (stats.monitor_records.get(), stats.monitor_records_lost.get());
    let large = |index| {
        let mut large = record(index);
        large.raw_data.bytes = vec![7; 20_000].into();
        large
    };
    for index in 1..=6 {
        records.keep(&large(index));
    }
    let (stored, lost) = counted();
    assert!(
        (2..=3).contains(&stored) && stored + lost == 6,
        "{stored} stored, {lost} lost"
    );
    assert_eq!(records.available().last_index, stored);

    disk.remount("size=4m");
    records.keep(&large(7));
    assert_eq!(records.get(7).unwrap(), Some(large(7)));

    // A disk with a file that is open for writing cannot become read-only.
    drop(records);
    disk.remount("ro");
    let records = open();
    records.keep(&large(8));
    assert_eq!(records.get(1).unwrap(), Some(large(1)));
    assert_eq!((records.get(8).unwrap(), records.last_index()), (None, 7));

    disk.remount("rw");
    records.keep(&large(9));
    assert_eq!(records.get(9).unwrap(), Some(large(9)));
    assert_eq!(counted(), (stored + 2, lost + 1));
}
