//! Pairs of picture and message in a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use base64::Engine;
use serde_json::{Value, json};

use super::stage::{CAMERA, Stage, lines};
use crate::support::leftovers::wait_until;
use crate::support::scripts::{boxed, frames, script};
use crate::support::small_disk::SmallDisk;

/// The directory of the cache, and the settings that enable it.
struct Cache {
    directory: PathBuf,
    settings: [String; 2],
}

impl Cache {
    fn at(directory: PathBuf) -> Self {
        let settings = [
            "enable_cache_to_file=yes".to_owned(),
            format!("cache_file_directory={}", directory.display()),
        ];
        Self { directory, settings }
    }

    fn sets<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        self.settings
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect()
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// The ids of the pictures.
    fn pictures(&self) -> BTreeSet<String> {
        let names = self
            .files()
            .into_iter()
            .filter_map(|file| Some(file.file_name()?.to_str()?.to_owned()));
        names
            .filter_map(|name| Some(name.strip_suffix(".img")?.to_owned()))
            .collect()
    }

    fn bytes(&self) -> u64 {
        // A file may be removed meanwhile.
        self.files()
            .iter()
            .filter_map(|file| Some(std::fs::metadata(file).ok()?.len()))
            .sum()
    }
}

/// The received inference messages, by their id.
fn published(stage: &Stage) -> BTreeMap<String, Vec<u8>> {
    let id = |payload: &[u8]| {
        serde_json::from_slice::<Value>(payload).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let messages = stage.observer.all("inference/output");
    messages
        .into_iter()
        .map(|seen| (id(&seen.payload), seen.payload))
        .collect()
}

/// Plays `count` pictures and waits for the pause. Returns the running component.
fn play(stage: &Stage, cache: &Cache, count: u32, more: &[&str]) -> crate::support::daemon::Daemon {
    let model = stage.site.scripted_model(&script(&[boxed(0.5)]));
    let mut sets = cache.sets(more);
    sets.push("ei_shutdown_behavior=wait_for_restart");
    let source = format!("{} ! identity sleep-time=5000", frames(count));
    let daemon = stage.run_unthrottled(model, &source, &sets);
    stage.observer.wait_for_status("paused", 1);
    stage.wait_for_figures("all is kept", |runner| {
        runner["cache_writes"] == count && runner["delivered"] == count
    });
    daemon
}

#[test]
fn each_published_inference_is_kept_as_its_message_and_its_picture() {
    let stage = Stage::new();
    let cache = Cache::at(stage.site.path().join("new/cache"));
    let daemon = play(&stage, &cache, 7, &["publish_inference_base64_image=yes"]);
    let messages = published(&stage);
    let expected: Vec<_> = messages
        .keys()
        .flat_map(|id| {
            [
                cache.directory.join(format!("{id}.img")),
                cache.directory.join(format!("{id}.json")),
            ]
        })
        .collect();
    assert_eq!(cache.files(), expected);
    for (id, message) in &messages {
        let path = |ending: &str| cache.directory.join(format!("{id}.{ending}"));
        assert_eq!(&std::fs::read(path("json")).unwrap(), message, "as published");
        let jpeg = std::fs::read(path("img")).unwrap();
        let picture = image::load_from_memory_with_format(&jpeg, image::ImageFormat::Jpeg).expect("a JPEG");
        assert_eq!((picture.width(), picture.height()), (32, 24), "the model's size");
        let json: Value = serde_json::from_slice(message).unwrap();
        let in_message = base64::engine::general_purpose::STANDARD.decode(json["image"].as_str().unwrap());
        assert_eq!(in_message.unwrap(), jpeg, "the same picture");
    }
    daemon.stop();
}

#[test]
fn commands_remove_only_the_pairs_of_the_cache() {
    let stage = Stage::new();
    let cache = Cache::at(stage.site.path().join("cache"));
    std::fs::create_dir(&cache.directory).unwrap();
    let foreign: Vec<_> = ["notes.txt", "photo.img", "not-a-uuid.json", "lock"]
        .map(|name| cache.directory.join(name))
        .into();
    for file in &foreign {
        std::fs::write(file, "precious").unwrap();
    }
    let outside = stage.site.write("x.img", "precious");
    let daemon = play(&stage, &cache, 4, &[]);
    assert_eq!(cache.files().len(), 4 * 2 + foreign.len());
    let clear = |id: &str| {
        stage
            .observer
            .command(&json!({"cmd": "clear_cache_file", "value": id}), |result| {
                result.get("clear_cache_file").is_some()
            })
    };

    let one = published(&stage).keys().next().unwrap().clone();
    let answer = clear(&one);
    assert_eq!(
        answer,
        json!({"clear_cache_file": {"local": "OK", "s3": "OK", "uuid": one}})
    );
    assert_eq!(cache.files().len(), 3 * 2 + foreign.len());
    assert!(!cache.directory.join(format!("{one}.img")).exists());
    let answer = clear(&one);
    assert_eq!(
        answer["clear_cache_file"]["local"], "FAILED",
        "it is not there any more"
    );

    for bad in ["../x", "photo", "", "../cache/photo.img"] {
        let answer = clear(bad);
        assert_eq!(answer["clear_cache_file"]["local"], "FAILED", "{bad:?}: {answer}");
        assert_eq!(answer["clear_cache_file"]["uuid"], bad);
        assert!(
            answer["error"].as_str().is_some_and(|text| text.contains("uuid")),
            "{answer}"
        );
    }
    assert_eq!(cache.files().len(), 3 * 2 + foreign.len());

    let answer = stage.observer.command(&json!({"cmd": "clear_cache"}), |result| {
        result.get("clear_cache").is_some()
    });
    assert_eq!(answer, json!({"clear_cache": {"local": "OK", "s3": "OK"}}));
    let mut expected = foreign.clone();
    expected.sort();
    assert_eq!(cache.files(), expected);
    assert!(outside.exists());
    daemon.stop();
}

#[test]
fn without_a_cache_both_commands_answer_ok() {
    let stage = Stage::new();
    let daemon = stage.run("builtin:nop", CAMERA, &[]);
    stage.observer.wait_for_status("started", 1);
    let answer = stage.observer.command(&json!({"cmd": "clear_cache"}), |result| {
        result.get("clear_cache").is_some()
    });
    assert_eq!(answer, json!({"clear_cache": {"local": "OK", "s3": "OK"}}));
    let id = uuid::Uuid::new_v4().to_string();
    let answer = stage
        .observer
        .command(&json!({"cmd": "clear_cache_file", "value": id}), |result| {
            result.get("clear_cache_file").is_some()
        });
    assert_eq!(
        answer,
        json!({"clear_cache_file": {"local": "OK", "s3": "OK", "uuid": id}})
    );
    daemon.stop();
}

#[test]
fn a_directory_that_cannot_be_created_is_logged_and_publishing_continues() {
    let stage = Stage::new();
    let file = stage.site.write("a-file", "text");
    let cache = Cache::at(file.join("cache"));
    let daemon = stage.run("builtin:nop", CAMERA, &cache.sets(&[]));
    stage.observer.wait_for_count("inference/output", 20);
    let figures = stage.wait_for_figures("failures", |runner| runner["cache_failures"].as_u64() >= Some(10));
    assert_eq!(figures["cache_writes"], 0);
    let answer = stage.observer.command(&json!({"cmd": "clear_cache"}), |result| {
        result.get("clear_cache").is_some()
    });
    assert_eq!(answer["clear_cache"]["local"], "FAILED");
    let log = daemon.stop();
    let told = lines(&log, "ERROR", &cache.directory.display().to_string());
    assert!((1..=2).contains(&told.len()), "said, and not with each frame: {told:?}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "text");
}

#[test]
fn a_small_cache_keeps_the_newest_pairs_within_its_limit() {
    const BOUND: u64 = 1 << 20;
    let stage = Stage::new();
    let cache = Cache::at(stage.site.path().join("cache"));
    // Noise: about 200 kB a picture.
    let noise = "videotestsrc is-live=true pattern=snow ! video/x-raw,format=RGB,width=480,height=480,framerate=4/1";
    let daemon = stage.run("builtin:nop=480x480", noise, &cache.sets(&["cache_file_max_mb=1"]));
    let mut largest = 0;
    let mut seen = BTreeSet::new();
    wait_until("it has written twenty pairs", || {
        largest = largest.max(cache.bytes());
        seen.extend(cache.pictures());
        let metrics = stage.observer.all("model/metrics");
        metrics
            .last()
            .is_some_and(|seen| seen.json()["runner"]["cache_writes"].as_u64() >= Some(20))
    });
    daemon.stop();
    assert!(largest <= BOUND, "{largest}");
    assert!(cache.bytes() > BOUND / 3, "it is used: {}", cache.bytes());
    stage.settle();
    // A busy machine encodes only some of the pictures: the newest of these are there.
    let kept = cache.pictures();
    seen.extend(kept.iter().cloned());
    let messages = stage.observer.all("inference/output");
    let in_order = messages
        .iter()
        .map(|message| message.json()["id"].as_str().unwrap().to_owned());
    let written: Vec<_> = in_order.filter(|id| seen.contains(id)).collect();
    assert!(written.len() > kept.len(), "some are removed: {written:?}");
    let newest = &written[written.len() - kept.len()..];
    assert_eq!(kept, newest.iter().cloned().collect());
    let pairs = cache.files().len() / 2;
    assert_eq!(cache.files().len(), pairs * 2, "no half pairs: {:?}", cache.files());
}

#[test]
fn a_full_disk_is_logged_once_and_publishing_continues() {
    let stage = Stage::new();
    let Some(disk) = SmallDisk::mount(&stage.site.path().join("disk"), "64k") else {
        eprintln!("SKIPPED: a_full_disk_is_told_once_and_holds_nothing_up needs the right to mount a tmpfs");
        return;
    };
    let cache = Cache::at(disk.path().join("cache"));
    let daemon = stage.run("builtin:nop", CAMERA, &cache.sets(&[]));
    let figures = stage.wait_for_figures("failures", |runner| runner["cache_failures"].as_u64() >= Some(10));
    assert!(
        figures["cache_writes"].as_u64() >= Some(1),
        "the first ones fitted: {figures}"
    );
    let seen = stage.observer.all("inference/output").len();
    stage.observer.wait_for_count("inference/output", seen + 10);
    let log = daemon.stop();
    let told = lines(&log, "ERROR", "was not cached");
    assert_eq!(told.len(), 1, "{told:?}");
    let endings = |ending: &str| {
        cache
            .files()
            .iter()
            .filter(|file| file.extension().is_some_and(|e| e == ending))
            .count()
    };
    assert_eq!(endings("img"), endings("json"), "no half pairs: {:?}", cache.files());
    assert_eq!(endings("img") + endings("json"), cache.files().len());
}

#[test]
fn a_read_only_directory_is_logged_once_and_used_again_when_it_is_writable() {
    let stage = Stage::new();
    let Some(disk) = SmallDisk::mount(&stage.site.path().join("disk"), "64k") else {
        eprintln!("SKIPPED: a_directory_that_turns_read_only needs the right to mount a tmpfs");
        return;
    };
    let cache = Cache::at(disk.path().join("cache"));
    std::fs::create_dir(&cache.directory).unwrap();
    disk.remount("ro");
    let daemon = stage.run("builtin:nop", CAMERA, &cache.sets(&[]));
    let figures = stage.wait_for_figures("failures", |runner| runner["cache_failures"].as_u64() >= Some(10));
    assert_eq!(figures["cache_writes"], 0);
    let seen = stage.observer.all("inference/output").len();
    stage.observer.wait_for_count("inference/output", seen + 10);
    disk.remount("rw");
    stage.wait_for_figures("it is used again", |runner| runner["cache_writes"].as_u64() >= Some(1));
    let log = daemon.stop();
    // Afterwards the small disk may be full, which is another fault.
    let told = lines(&log, "ERROR", "Read-only file system");
    assert_eq!(told.len(), 1, "{told:?}");
}
