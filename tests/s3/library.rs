//! Numbers too large for pictures of a camera, and regions.

use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use bytes::Bytes;
use ei_greengrass::cache::{CacheError, CacheItem, S3Cache, S3Location, S3Settings};
use ei_greengrass::status::stats::Stats;
use uuid::Uuid;

use crate::s3::site::BUCKET;
use crate::support::s3::{ACCESS_KEY, Answered, Behaviour, REGION, SECRET_KEY, Storage};

const LIMIT: Duration = Duration::from_secs(10);

async fn sdk(storage: &Storage, region: &'static str) -> SdkConfig {
    let credentials = Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test");
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region))
        .endpoint_url(storage.endpoint())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .load()
        .await
}

struct Room {
    directory: tempfile::TempDir,
    storage: Storage,
    stats: Arc<Stats>,
}

impl Room {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            storage: Storage::new(),
            stats: Arc::default(),
        }
    }

    async fn start(&self, region: &'static str) -> S3Cache {
        let settings = S3Settings {
            sdk: Some(sdk(&self.storage, region).await),
            ..S3Settings::new(BUCKET, self.directory.path(), "device")
        };
        S3Cache::start(settings, self.stats.clone(), None).unwrap()
    }
}

fn place() -> S3Location {
    S3Location {
        bucket: BUCKET.to_owned(),
        prefix: "Äpfel & Birnen_v1/".to_owned(),
    }
}

fn pair(picture: usize) -> CacheItem {
    let id = Uuid::new_v4();
    let image = [&[0xff, 0xd8][..], &vec![7; picture], &[0xff, 0xd9]].concat();
    CacheItem {
        id,
        image: Some(image.into()),
        json: Bytes::from(format!(r#"{{"id":"{id}","s3_prefix":"{}"}}"#, place().prefix)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clearing_goes_over_a_thousand_objects_and_survives_a_restart_of_the_process() {
    let room = Room::new();
    let s3 = room.storage.serve();
    let cache = room.start(REGION).await;
    for hundred in 1..=11 {
        (0..100).for_each(|_| assert!(cache.offer(place(), pair(10))));
        tokio::task::block_in_place(|| s3.wait_for_pairs(hundred * 100));
    }
    assert!(cache.stop(LIMIT).await);
    let directory = s3.root().join(BUCKET).join(place().prefix);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 2200);
    std::fs::write(directory.join("theirs.json"), "{}").unwrap();

    let cache = room.start(REGION).await;
    cache.clear().await.unwrap();
    let left: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|f| f.unwrap().file_name())
        .collect();
    assert_eq!(left, ["theirs.json"]);
    let requests = s3.answered().iter().filter(|a| a.method == "POST").count();
    assert_eq!(requests, 4, "two of a thousand, two of a hundred");
    cache.clear().await.unwrap();
    assert_eq!(
        s3.answered().iter().filter(|a| a.method == "POST").count(),
        4,
        "there is nothing left to remove"
    );
    assert!(cache.stop(LIMIT).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_to_an_s3_that_hangs_are_bounded_in_memory_and_wait_on_disk() {
    let room = Room::new();
    let s3 = room.storage.serve();
    s3.behave(Behaviour::Hang);
    let cache = room.start(REGION).await;
    let begun = std::time::Instant::now();
    let taken = (0..100).filter(|_| cache.offer(place(), pair(1 << 20))).count();
    assert!(begun.elapsed() < Duration::from_secs(2), "nobody waits");
    assert!(cache.stop(LIMIT).await);
    assert_eq!(room.stats.cache_failures.get(), 100 - taken as u64);
    let files = std::fs::read_dir(room.directory.path().join("device/s3-pending"))
        .unwrap()
        .count();
    assert_eq!(files, 2 * taken);
    assert!(!cache.offer(place(), pair(10)), "it was stopped");
    assert!(matches!(cache.clear().await, Err(CacheError::Stopped)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_region_gets_no_location_constraint() {
    let room = Room::new();
    let s3 = room.storage.serve();
    let cache = room.start("us-east-1").await;
    assert!(cache.offer(place(), pair(10)));
    tokio::task::block_in_place(|| s3.wait_for_pairs(1));
    let answered = s3.answered();
    let made = answered.iter().find(|a| a.method == "PUT").unwrap();
    assert_eq!(
        (made.path.trim_matches('/'), made.body.contains("LocationConstraint")),
        (BUCKET, false)
    );
    assert!(cache.stop(LIMIT).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_in_another_region_is_used_there() {
    let room = Room::new();
    let s3 = room.storage.serve();
    std::fs::create_dir(s3.root().join(BUCKET)).unwrap();
    s3.behave(Behaviour::InRegion("eu-west-3"));
    let cache = room.start(REGION).await;
    assert!(cache.offer(place(), pair(10)));
    tokio::task::block_in_place(|| s3.wait_for_pairs(1));
    assert!(s3.answered().iter().skip(1).all(|a| a.region == "eu-west-3"));
    assert!(cache.stop(LIMIT).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_s3_never_takes_does_not_hold_up_the_others() {
    let room = Room::new();
    let s3 = room.storage.serve();
    let cache = room.start(REGION).await;
    s3.behave(Behaviour::Refuse("hopeless"));
    let hopeless = S3Location {
        prefix: "hopeless_v1/".to_owned(),
        ..place()
    };
    let json = Bytes::from_static(br#"{"s3_prefix":"hopeless_v1/"}"#);
    assert!(cache.offer(hopeless, CacheItem { json, ..pair(10) }));
    tokio::task::block_in_place(|| {
        let refused = |answered: &[Answered]| answered.iter().any(|a| a.status == 400).then_some(());
        s3.wait_for("a refusal", refused)
    });
    assert!(cache.offer(place(), pair(10)));
    tokio::task::block_in_place(|| s3.wait_for_pairs(1));
    let counted = async {
        // A counter tells nobody when it changes.
        while room.stats.cache_failures.get() < 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(2 * LIMIT, counted)
        .await
        .expect("it is given up and counted");
    assert!(cache.stop(LIMIT).await);
    let files = std::fs::read_dir(room.directory.path().join("device/s3-pending"))
        .unwrap()
        .count();
    assert_eq!((files, room.stats.cache_writes.get()), (0, 1));
}
