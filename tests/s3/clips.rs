//! Clips of events in a bucket.

use serde_json::json;

use crate::s3::site::{BUCKET, PREFIX, Place};
use crate::support::daemon::Daemon;
use crate::support::leftovers::wait_until;
use crate::support::scripts::boxed;
use crate::support::video::Video;

const RULES: &str = r#"events={"rules":{"seen":{"label":"thing","value_at_least":0.5}},"zones":{"all":{"polygon":[[0,0],[1,0],[1,1]]}}}"#;
const CAMERA: &str = "videotestsrc is-live=true ! video/x-raw,format=RGB,width=64,height=48,framerate=20/1";

#[test]
fn a_clip_arrives_in_the_bucket_and_is_removed_by_the_command() {
    let place = Place::new();
    let s3 = place.storage.serve();
    let mut answers = vec![json!({"bounding_boxes": []}); 30];
    answers.extend(vec![boxed(0.9); 10]);
    let sets = [RULES, r#"event_clip={"pre_s":1,"post_s":0.5}"#, "publish_inferences=no"];
    let daemon = Daemon::start(place.command(&answers, CAMERA, &sets));
    let start = place
        .observer
        .wait_for("/events", "a start", |event| event["event"] == "start");
    let name = start["clip"].as_str().expect("a clip").to_owned();
    let object = format!("{BUCKET}/{PREFIX}{name}");
    let picture = start["picture"].as_str().expect("a picture");
    assert_eq!(
        (&start["s3_bucket"], &start["s3_prefix"]),
        (&json!(BUCKET), &json!(PREFIX))
    );
    let picture = format!("{BUCKET}/{PREFIX}{picture}");
    let message = picture.replace(".img", ".json");
    wait_until("the pair is uploaded", || s3.object(&message).is_some());
    assert!(s3.object(&picture).unwrap().starts_with(&[0xff, 0xd8]));
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&s3.object(&message).unwrap()).unwrap(),
        start
    );
    let mut clip = None;
    wait_until("the clip is uploaded", || {
        clip = s3.object(&object);
        clip.is_some()
    });
    let file = place.site.write("clip.mp4", clip.unwrap());
    assert!(Video::open(&file).frames >= 10);
    let staging = place.site.path().join(place.observer.device_name()).join("event-clips");
    wait_until("the file is removed here", || !staging.join(&name).exists());
    let id = start["id"].as_str().unwrap();
    assert_eq!(place.clear_file(id), json!({"local": "OK", "s3": "OK", "uuid": id}));
    assert!(s3.object(&object).is_none());
    assert!(s3.object(&picture).is_some(), "the picture has an id of its own");
    assert_eq!(place.clear(), json!({"local": "OK", "s3": "OK"}));
    assert!(s3.object(&picture).is_none() && s3.object(&message).is_none());
    daemon.stop();
}
