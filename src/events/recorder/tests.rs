use serde_json::{Value, json};

use super::*;
use crate::config::parse_events;
use crate::model::BoundingBox;
use crate::status::StatusSource;
use crate::uplink::outbox::OutboxBounds;

/// A recorder with its outbox, which nobody empties.
struct Process {
    recorder: Arc<EventRecorder>,
    outbox: Arc<Outbox>,
}

/// Starts a recorder in the directory, as after a SIGKILL of the one before.
fn start(directory: &Path, deployed: Option<Value>) -> Process {
    let (stats, topics) = (Arc::new(Stats::default()), Arc::new(Topics::new("d")));
    let outbox = Arc::new(Outbox::new(OutboxBounds::default(), stats.clone()));
    let settings = settings(deployed);
    let recorder = EventRecorder::start(directory, topics, outbox.clone(), stats, settings);
    let detector = DetectorInfo {
        width: 320,
        height: 320,
        has_centroids: false,
    };
    recorder.start_model(Some(detector), &["ball".to_owned()]);
    Process { recorder, outbox }
}

fn settings(deployed: Option<Value>) -> EventSettings {
    EventSettings {
        deployed: deployed.map(|deployed| parse_events(&deployed).unwrap()),
        ..EventSettings::default()
    }
}

fn bay() -> Value {
    json!({
        "zones": {"bay": {"polygon": [[0, 0], [1, 0], [1, 1], [0, 1]]}},
        "lines": {"gate": {"from": [0.5, 0], "to": [0.5, 1]}},
        "rules": {"occupied": {"zone": "bay", "enter_after_ms": 0}},
    })
}

impl Drop for Process {
    /// Ends the thread, so that it writes no file after the directory is removed.
    fn drop(&mut self) {
        let finish = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
            runtime.unwrap().block_on(self.recorder.finish(deadline));
        };
        // The thread of the test may belong to a runtime.
        std::thread::scope(|scope| {
            scope.spawn(finish);
        });
    }
}

impl Process {
    /// An inference with a ball.
    fn see(&self, x: i64) {
        let ball = BoundingBox {
            label: "ball".into(),
            value: 0.9,
            x,
            y: 100,
            width: 20,
            height: 20,
            object_id: None,
        };
        let result = InferenceResult {
            bounding_boxes: Some(vec![ball]),
            ..InferenceResult::default()
        };
        self.recorder.update(&result, None, None);
    }

    /// The next message, once the thread has published it. `is_acked`: the broker takes it.
    fn next(&self, is_acked: bool) -> Value {
        let begun = Instant::now();
        loop {
            if let Some((token, message)) = self.outbox.next_to_send() {
                assert_eq!(&*message.topic, "/edgeimpulse/device/d/events");
                if is_acked {
                    assert!(self.outbox.acked(token));
                }
                return serde_json::from_slice(&message.payload).unwrap();
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "no message came");
            std::thread::yield_now();
        }
    }

    fn wait_until(&self, what: &str, is_true: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_true() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
            std::thread::yield_now();
        }
    }
}

#[test]
fn an_event_of_a_process_that_was_killed_ends_with_the_next_one_and_totals_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let first = start(directory.path(), Some(bay()));
    for x in [100, 110, 120] {
        first.see(x);
    }
    let started = first.next(true);
    for x in [130, 140, 150, 160, 170, 180] {
        first.see(x);
    }
    let crossed = first.next(true);
    assert_eq!(
        (&started["event"], &crossed["event"]),
        (&json!("start"), &json!("cross"))
    );
    // The file must say that the broker has both, as it does after a moment.
    let stored = EventStore::new(directory.path().join("events.json"), Arc::default());
    first.wait_until("both settled", || stored.read().unsettled.is_empty());

    // The next process has no configuration any more.
    let second = start(directory.path(), None);
    let ended = second.next(true);
    assert_eq!((&ended["event"], &ended["reason"]), (&json!("end"), &json!("restart")));
    assert_eq!(
        (&ended["id"], &ended["object_id"]),
        (&started["id"], &started["object_id"])
    );
    assert_eq!(ended["start_ts"], started["start_ts"]);

    let third = start(directory.path(), Some(bay()));
    assert_eq!(third.recorder.status().unwrap().rules[0].started, 1);
}

#[test]
fn totals_survive_and_messages_that_nobody_had_are_published_again() {
    let directory = tempfile::tempdir().unwrap();
    let first = start(directory.path(), Some(bay()));
    for x in (100..200).step_by(10) {
        first.see(x);
    }
    let (started, crossed) = (first.next(false), first.next(false));

    let second = start(directory.path(), Some(bay()));
    assert_eq!((second.next(true), second.next(true)), (started.clone(), crossed));
    let ended = second.next(true);
    assert_eq!((&ended["event"], &ended["id"]), (&json!("end"), &started["id"]));
    let status = second.recorder.status().unwrap();
    assert_eq!(
        status.to_json()["lines"],
        json!({"gate": {"left_to_right": {"ball": 1}}})
    );
    assert_eq!(status.rules[0].started, 1);

    second.recorder.reset_counts();
    let status = second.recorder.status().unwrap();
    assert_eq!(
        (status.to_json()["lines"].clone(), status.rules[0].started),
        (json!({"gate": {}}), 0)
    );
}

#[test]
fn a_commanded_configuration_stays_until_the_deployment_changes() {
    let directory = tempfile::tempdir().unwrap();
    let other = json!({"rules": {"loud": {"label": "ball", "value_at_least": 0.5}}});
    let config = |process: &Process| {
        process.recorder.config()["rules"]
            .as_object()
            .map_or(0, serde_json::Map::len)
    };
    let first = start(directory.path(), Some(bay()));
    first.recorder.set_config(Some(&parse_events(&other).unwrap()));
    assert!(first.recorder.config()["rules"].get("loud").is_some());
    let stored = EventStore::new(directory.path().join("events.json"), Arc::default());
    first.wait_until("it is stored", || stored.read().command.is_some());

    let second = start(directory.path(), Some(bay()));
    assert!(second.recorder.config()["rules"].get("loud").is_some());
    second.recorder.set_settings(EventSettings {
        qos: Qos::AtMostOnce,
        ..settings(Some(bay()))
    });
    assert!(
        second.recorder.config()["rules"].get("loud").is_some(),
        "the same deployment of events"
    );
    second.recorder.set_config(None);
    assert!(!second.recorder.is_on() && second.recorder.config().is_null());
    second.wait_until("it is stored", || {
        stored.read().command.is_some_and(|command| command.events.is_null())
    });

    let third = start(directory.path(), Some(bay()));
    assert!(!third.recorder.is_on());
    third.recorder.use_deployed_config();
    assert!(third.recorder.config()["rules"].get("occupied").is_some());
    third.recorder.set_config(Some(&parse_events(&other).unwrap()));
    let mut changed = bay();
    changed["zones"]["bay"]["anchor"] = json!("bottom");
    third.recorder.set_settings(settings(Some(changed)));
    assert_eq!(
        (config(&third), &third.recorder.config()["zones"]["bay"]["anchor"]),
        (1, &json!("bottom"))
    );
}

#[tokio::test]
async fn a_stop_ends_events_and_leaves_nothing_to_repeat() {
    let directory = tempfile::tempdir().unwrap();
    let first = start(directory.path(), Some(bay()));
    for _ in 0..5 {
        first.see(100);
    }
    assert_eq!(first.next(true)["event"], "start");
    first.recorder.end_events();
    let ended = first.next(true);
    assert_eq!((&ended["event"], &ended["reason"]), (&json!("end"), &json!("stop")));
    first.see(100);
    first
        .recorder
        .finish(tokio::time::Instant::now() + Duration::from_secs(10))
        .await;
    let stored = EventStore::new(directory.path().join("events.json"), Arc::default()).read();
    assert_eq!((stored.open, stored.unsettled), (vec![], vec![]));
    assert_eq!(stored.counts.rules["occupied"], 1);
    assert_eq!(first.outbox.depth(), 0);
}

#[test]
fn without_zones_lines_and_rules_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let process = start(directory.path(), None);
    process.see(100);
    assert_eq!(process.recorder.status(), None);
    assert!(matches!(process.recorder.inner.lock().worker, Worker::Idle));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_disk_that_cannot_be_written_does_not_hold_events_back() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let process = start(&file.join("device"), Some(bay()));
    for _ in 0..5 {
        process.see(100);
    }
    assert_eq!(process.next(true)["event"], "start");
}

#[test]
fn a_message_carries_the_picture_if_it_is_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let process = start(directory.path(), None);
    let rules = json!({"rules": {"loud": {"label": "ball", "value_at_least": 0.5}}});
    process.recorder.set_settings(EventSettings {
        with_pictures: true,
        ..settings(Some(rules))
    });
    let result = InferenceResult {
        classification: Some(vec![("ball".into(), 0.9)]),
        ..InferenceResult::default()
    };
    let picture = Picture {
        width: 8,
        height: 8,
        grey: false,
        data: vec![7; 192],
    };
    process
        .recorder
        .update(&result, Some(Uuid::from_u128(1)), Some(&picture));
    let started = process.next(true);
    assert!(
        started["image"].as_str().is_some_and(|image| image.starts_with("/9j/")),
        "{started}"
    );
    assert_eq!(started["inference_id"], json!(Uuid::from_u128(1)));
    // The end shows the picture of the highest value.
    let bright = Picture {
        data: vec![250; 192],
        ..picture.clone()
    };
    for (value, picture) in [(0.95, &bright), (0.9, &picture), (0.1, &picture)] {
        let result = InferenceResult {
            classification: Some(vec![("ball".into(), value)]),
            ..InferenceResult::default()
        };
        process.recorder.update(&result, None, Some(picture));
    }
    let ended = process.next(true);
    assert_eq!((&ended["event"], &ended["value"]), (&json!("end"), &json!(0.95)));
    assert!(
        ended["image"].is_string() && ended["image"] != started["image"],
        "{ended}"
    );
}

/// The pairs in a directory: the name of each picture, with its message.
fn pairs_in(directory: &Path) -> Vec<(String, Value)> {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let messages = files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"));
    let read = |path: std::path::PathBuf| {
        let picture = path.with_extension("img");
        assert!(std::fs::read(&picture).unwrap().starts_with(&[0xff, 0xd8]));
        let name = picture.file_name().unwrap().to_string_lossy().into_owned();
        (name, serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
    };
    messages.map(read).collect()
}

#[tokio::test]
async fn the_caches_alone_get_each_picture_once_and_the_messages_name_it() {
    let directory = tempfile::tempdir().unwrap();
    let cached = directory.path().join("pairs");
    let rules = json!({"rules": {"loud": {"label": "ball", "value_at_least": 0.5}}});
    let process = start(directory.path(), Some(rules));
    let files = crate::cache::FileCache::new(crate::config::FileCacheConfig {
        directory: cached.clone(),
        max_bytes: 1 << 20,
    });
    let writer = Arc::new(crate::cache::CacheWriter::start("file", files, Arc::default()).unwrap());
    let caches = crate::cache::Caches {
        files: Some(writer.clone()),
        ..crate::cache::Caches::default()
    };
    process.recorder.set_pairs(PairDestination::new(&caches, None));
    let see = |value: f64, shade: u8| {
        let result = InferenceResult {
            classification: Some(vec![("ball".into(), value)]),
            ..InferenceResult::default()
        };
        let picture = Picture {
            width: 8,
            height: 8,
            grey: false,
            data: vec![shade; 192],
        };
        process.recorder.update(&result, None, Some(&picture));
    };
    // The first moment is the best one of the first event, and not that of the second one.
    see(0.9, 1);
    let first = [process.next(true), {
        see(0.1, 2);
        process.next(true)
    }];
    see(0.8, 3);
    let started = process.next(true);
    see(0.95, 4);
    process.recorder.end_events();
    let ended = process.next(true);
    assert!(
        first[0]["picture"].is_string() && first[0]["picture"] == first[1]["picture"],
        "{first:?}"
    );
    assert!(
        ended["picture"].is_string() && ended["picture"] != started["picture"],
        "{ended}"
    );
    assert_eq!((&ended["reason"], &ended["image"]), (&json!("stop"), &Value::Null));
    assert!(writer.stop(Duration::from_secs(10)).await);
    let mut pairs = pairs_in(&cached);
    pairs.sort_by_key(|(_, message)| message["ts"].as_u64());
    let mut expected: Vec<_> = [first[0].clone(), started, ended]
        .map(|message| (message["picture"].as_str().unwrap().to_owned(), message))
        .into();
    expected.sort_by_key(|(_, message)| message["ts"].as_u64());
    let sorted = |mut pairs: Vec<(String, Value)>| {
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs
    };
    assert_eq!(sorted(pairs), sorted(expected));
}
