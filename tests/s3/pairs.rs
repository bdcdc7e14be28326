//! What arrives, and what the commands remove.

use serde_json::json;

use crate::s3::site::{BUCKET, PREFIX, Place};
use crate::support::daemon::Daemon;
use crate::support::s3::REGION;
use crate::support::scripts::{boxed, frames};

/// Each message is uploaded after its picture.
#[track_caller]
pub fn assert_picture_first(keys: &[String]) {
    for (at, key) in keys.iter().enumerate().filter(|(_, key)| key.ends_with(".json")) {
        let picture = key.replace(".json", ".img");
        let before = keys.iter().position(|key| *key == picture);
        assert!(before.is_some_and(|before| before < at), "{key} in {keys:?}");
    }
}

#[test]
fn pairs_arrive_as_published_in_a_bucket_made_for_them() {
    let place = Place::new();
    let s3 = place.storage.serve();
    let daemon = place.run_pairs(6, &[]);
    let keys = s3.wait_for_pairs(6);
    assert_picture_first(&keys);
    for message in place.observer.all("inference/output") {
        let json = message.json();
        assert_eq!(
            (&json["s3_bucket"], &json["s3_prefix"]),
            (&json!(BUCKET), &json!(PREFIX))
        );
        let path = format!("{BUCKET}/{PREFIX}{}", json["id"].as_str().unwrap());
        assert_eq!(s3.object(&format!("{path}.json")).as_ref(), Some(&message.payload));
        let picture = s3.object(&format!("{path}.img")).expect("a picture");
        let picture = image::load_from_memory_with_format(&picture, image::ImageFormat::Jpeg).expect("a JPEG");
        assert_eq!((picture.width(), picture.height()), (32, 24));
    }
    let made = s3.wait_for("the bucket to be made", |answered| {
        answered
            .iter()
            .find(|a| a.method == "PUT" && a.path.trim_matches('/') == BUCKET)
            .cloned()
    });
    assert!(
        made.body
            .contains(&format!("<LocationConstraint>{REGION}</LocationConstraint>")),
        "{made:?}"
    );
    let looked_up = s3.answered().iter().filter(|a| a.method == "HEAD").count();
    assert_eq!(looked_up, 1, "the bucket is looked up once");

    let log = daemon.stop();
    assert!(
        log.contains(r#"S3 bucket is ready bucket="photos" region="eu-central-1" created=true"#),
        "{log}"
    );
    assert!(!log.contains("not available"), "{log}");
    assert!(place.waiting().is_empty());
}

#[test]
fn the_commands_remove_what_this_device_uploaded_and_nothing_else() {
    let place = Place::new();
    let s3 = place.storage.serve();
    let daemon = place.run_pairs(6, &[]);
    s3.wait_for_pairs(6);
    let directory = s3.root().join(BUCKET).join(PREFIX);
    let foreign = [uuid::Uuid::new_v4().to_string() + ".json", "notes.txt".to_owned()];
    foreign
        .iter()
        .for_each(|name| std::fs::write(directory.join(name), "theirs").unwrap());
    let ids = place.ids();
    let there = |id: &str| ["img", "json"].map(|ending| directory.join(format!("{id}.{ending}")).exists());

    assert_eq!(
        place.clear_file(&ids[2]),
        json!({"local": "OK", "s3": "OK", "uuid": ids[2]})
    );
    assert_eq!((there(&ids[2]), there(&ids[3])), ([false; 2], [true; 2]));
    assert_eq!(place.clear_file(&ids[2])["s3"], "FAILED", "it is not there any more");
    let others = foreign[0].trim_end_matches(".json");
    assert_eq!(place.clear_file(others)["s3"], "FAILED", "it is somebody else's");

    assert_eq!(place.clear(), json!({"local": "OK", "s3": "OK"}));
    let mut left: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let mut expected = foreign.to_vec();
    expected.sort();
    assert_eq!(left, expected);
    daemon.stop();
}

#[test]
fn without_s3_clearing_fails_in_time_and_what_waits_is_removed_all_the_same() {
    let place = Place::new();
    let s3 = place.storage.serve();
    let daemon = place.run_pairs(3, &[]);
    s3.wait_for_pairs(3);
    let ids = place.ids();
    drop(s3);
    assert_eq!(place.clear_file(&ids[0])["s3"], "FAILED");
    assert_eq!(place.clear(), json!({"local": "OK", "s3": "FAILED"}));
    let s3 = place.storage.serve();
    assert_eq!(place.clear(), json!({"local": "OK", "s3": "OK"}));
    assert!(s3.object(&format!("{BUCKET}/{PREFIX}{}.json", ids[0])).is_none());
    daemon.stop();

    let place = Place::new();
    let daemon = place.run_pairs(3, &[]);
    daemon.wait_for_line("S3 request failed");
    assert_eq!(
        place.clear(),
        json!({"local": "OK", "s3": "OK"}),
        "nothing is in the bucket"
    );
    assert!(place.waiting().is_empty());
    daemon.stop();
}

#[test]
fn while_the_cache_is_off_aws_is_asked_nothing() {
    let place = Place::new();
    let s3 = place.storage.serve();
    let sets = ["enable_cache_to_s3=no", "iotcore_backoff=1"];
    let daemon = Daemon::start(place.command(&[boxed(0.9)], &frames(3), &sets));
    let messages = place.observer.wait_for_count("inference/output", 3);
    assert_eq!(
        (&messages[0]["s3_bucket"], &messages[0]["s3_prefix"]),
        (&json!("unset"), &json!("unset"))
    );
    assert_eq!(place.clear(), json!({"local": "OK", "s3": "OK"}));
    daemon.stop();
    assert_eq!(s3.answered(), []);
    assert!(!place.pending().exists());
}
