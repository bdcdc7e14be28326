//! Clips of events.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::stage::{Stage, lines};
use crate::support::daemon::{Daemon, Site};
use crate::support::leftovers::wait_until;
use crate::support::scripts::hello;
use crate::support::small_disk::SmallDisk;
use crate::support::video::Video;

const CAMERA: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=20/1";
const RULES: &str = r#"{"zones":{"all":{"polygon":[[0,0],[1,0],[1,1],[0,1]]}},"rules":{"there":{"zone":"all","enter_after_ms":0,"leave_after_ms":200}}}"#;

/// Answers with nothing, then so many balls, then nothing.
fn model(site: &Site, before: usize, with_balls: usize, balls: i64) -> PathBuf {
    let ball = |n: i64| json!({"label": "ball", "value": 0.9, "x": 10 + 60 * n, "y": 60, "width": 30, "height": 30});
    let nothing = json!({"bounding_boxes": []});
    let full = json!({"bounding_boxes": (0..balls).map(ball).collect::<Vec<_>>()});
    let mut answers = vec![nothing.clone(); before];
    answers.extend(vec![full; with_balls]);
    if with_balls < 1000 {
        answers.push(nothing);
    }
    site.scripted_model(&json!({"hello": hello(160, 160), "answers": answers, "repeat": "last"}))
}

fn run(stage: &Stage, model: &Path, source: &str, directory: &Path, more: &[&str]) -> Daemon {
    let (events, directory) = (
        format!("events={RULES}"),
        format!("cache_file_directory={}", directory.display()),
    );
    let mut sets = vec![
        "publish_inferences=no",
        "enable_cache_to_file=yes",
        &directory,
        &events,
        r#"event_clip={"pre_s":1,"post_s":1,"max_mb":32}"#,
    ];
    sets.extend(more);
    stage.run(model, source, &sets)
}

/// The names of the clips, also of unfinished ones, beside the pairs of the file cache.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    let mut clips: Vec<_> = names.filter(|name| name.contains(".mp4")).collect();
    clips.sort();
    clips
}

fn with_name<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

fn millis(event: &Value, field: &str) -> u64 {
    event[field].as_u64().expect("a time")
}

#[test]
fn an_event_gets_a_clip_with_the_time_before_and_after_it() {
    let stage = Stage::new();
    let directory = stage.site.path().join("clips");
    let model = model(&stage.site, 50, 30, 1);
    let daemon = run(&stage, &model, CAMERA, &directory, &[]);
    let events = stage.observer.wait_for_count("/events", 2);
    let [start, end] = &events[..] else {
        panic!("{events:?}")
    };
    let name = format!("{}.mp4", start["id"].as_str().unwrap());
    assert_eq!((&start["clip"], &end["clip"]), (&json!(name), &json!(name)));
    let figures = stage.wait_for_figures("the clip", |runner| runner["clips_written"] == 1);
    assert_eq!(
        (&figures["clips_failed"], &figures["clips_removed"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(names(&directory), [name.as_str()]);
    for event in [start, end] {
        let picture = event["picture"].as_str().expect("a picture");
        assert!(
            std::fs::read(directory.join(picture))
                .unwrap()
                .starts_with(&[0xff, 0xd8])
        );
        assert_eq!((&event["image"], &event["s3_prefix"]), (&Value::Null, &Value::Null));
    }
    let video = Video::open(&directory.join(&name));
    let expected = Duration::from_millis(millis(end, "ts") - millis(start, "start_ts") + 2_000);
    assert!(
        video.duration.abs_diff(expected) <= Duration::from_millis(400),
        "{video:?}, and not {expected:?}"
    );
    let fps = video.frames as f64 / video.duration.as_secs_f64();
    assert!((5.0..=11.0).contains(&fps), "{fps}");

    let clear = |id: &str| {
        let command = json!({"cmd": "clear_cache_file", "value": id});
        let answer = stage.observer.command(&command, |a| !a["clear_cache_file"].is_null());
        answer["clear_cache_file"]["local"].clone()
    };
    assert_eq!(clear(start["id"].as_str().unwrap()), "OK");
    assert_eq!(names(&directory), [""; 0]);
    daemon.stop();
}

#[test]
fn the_clip_of_a_condition_that_held_before_its_event_shows_when_it_began() {
    let stage = Stage::new();
    let directory = stage.site.path().join("clips");
    let model = model(&stage.site, 50, 70, 1);
    let rules = r#"events={"zones":{"all":{"polygon":[[0,0],[1,0],[1,1],[0,1]]}},"rules":{"queue":{"zone":"all","count_at_least":1,"for_ms":2000,"clear_after_ms":200}}}"#;
    let daemon = run(&stage, &model, CAMERA, &directory, &[rules]);
    let events = stage.observer.wait_for_count("/events", 2);
    let [start, end] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(millis(start, "ts") >= millis(start, "start_ts") + 2_000, "{start}");
    stage.wait_for_figures("the clip", |runner| runner["clips_written"] == 1);
    let video = Video::open(&directory.join(start["clip"].as_str().unwrap()));
    let expected = Duration::from_millis(millis(end, "ts") - millis(start, "start_ts") + 2_000);
    assert!(
        video.duration.abs_diff(expected) <= Duration::from_millis(400),
        "{video:?}, and not {expected:?}"
    );
    daemon.stop();
}

#[test]
fn clips_of_several_events_are_complete_after_a_stop_and_go_over_restarts_of_the_camera() {
    let stage = Stage::new();
    let directory = stage.site.path().join("clips");
    let model = model(&stage.site, 20, 1000, 2);
    // The file ends after two seconds and is played again.
    let source =
        "videotestsrc num-buffers=40 ! video/x-raw,format=I420,width=320,height=240,framerate=20/1 ! jpegenc ! jpegdec";
    let daemon = run(&stage, &model, source, &directory, &[]);
    stage.observer.wait_for_count("/events", 2);
    stage.wait_for_figures("two restarts of the camera", |runner| {
        runner["capture_restarts"].as_u64() >= Some(2)
    });
    assert_eq!(names(&directory), [""; 0], "no half clip is visible");
    let log = daemon.stop();
    stage.settle();
    let events = stage
        .observer
        .all("/events")
        .iter()
        .map(|seen| seen.json())
        .collect::<Vec<_>>();
    let (starts, ends) = (with_name(&events, "start"), with_name(&events, "end"));
    assert_eq!((starts.len(), ends.len()), (2, 2), "{log}");
    let mut clips: Vec<_> = starts
        .iter()
        .map(|start| start["clip"].as_str().unwrap().to_owned())
        .collect();
    clips.sort();
    assert_eq!(names(&directory), clips, "{log}");
    for end in ends {
        assert_eq!(end["reason"], "stop");
        let video = Video::open(&directory.join(end["clip"].as_str().unwrap()));
        let shown = Duration::from_millis(millis(end, "ts") - millis(end, "start_ts"));
        assert!(
            video.duration + Duration::from_secs(1) > shown && video.duration > Duration::from_millis(2_500),
            "{video:?} of {shown:?}"
        );
    }
    assert_eq!(lines(&log, "ERROR", "clip"), [""; 0]);
}

#[test]
fn a_full_disk_loses_the_clip_and_nothing_else() {
    let stage = Stage::new();
    let Some(disk) = SmallDisk::mount(&stage.site.path().join("small"), "16k") else {
        return;
    };
    let model = model(&stage.site, 30, 10, 1);
    let daemon = run(&stage, &model, CAMERA, disk.path(), &[]);
    stage.observer.wait_for_count("/events", 2);
    let figures = stage.wait_for_figures("the loss", |runner| runner["clips_failed"] == 1);
    let inferences = figures["inferences"].as_u64().unwrap();
    stage.wait_for_figures("further inferences", |runner| {
        runner["inferences"].as_u64().unwrap() > inferences + 20
    });
    assert_eq!(names(disk.path()), [""; 0], "no part is left");
    let log = daemon.stop();
    let told = lines(&log, "ERROR", "The clip of an event was not written");
    assert_eq!(told.len(), 1, "{log}");
}

#[test]
fn check_shows_the_clips_and_what_they_lack() {
    let site = Site::new();
    let check = |sets: &[&str]| {
        let mut command = site.command("check");
        command.args([
            "--model",
            "builtin:nop",
            "--gst",
            CAMERA,
            "--mqtt",
            "mqtt://127.0.0.1:1",
        ]);
        for set in sets {
            command.args(["--set", set]);
        }
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let directory = format!("cache_file_directory={}", site.path().join("clips").display());
    let cache = ["enable_cache_to_file=yes", directory.as_str()];
    let report = check(&[cache[0], cache[1], r#"event_clip={"pre_s":3}"#]);
    assert!(report.contains(r#"{"pre_s":3,"post_s":5,"max_mb":512}"#), "{report}");
    let is_limited = ei_greengrass::capture::clip_codec() != Ok(ei_greengrass::capture::ClipCodec::H264);
    assert_eq!(
        report.contains("event_clip: no H.264 encoder is installed"),
        is_limited,
        "{report}"
    );
    let report = check(&["event_clip={}"]);
    assert!(report.contains("has no effect: `enable_cache_to_file` and"), "{report}");
    let report = check(&[cache[0], cache[1], r#"event_clip={"pre":3}"#]);
    assert!(report.contains("did you mean `pre_s`?"), "{report}");
}

#[test]
fn the_oldest_clips_give_way_to_new_ones() {
    let stage = Stage::new();
    let directory = stage.site.path().join("clips");
    std::fs::create_dir(&directory).unwrap();
    // Clips of an earlier run that fill the limit.
    let old: Vec<_> = (0..4)
        .map(|_| directory.join(format!("{}.mp4", uuid::Uuid::new_v4())))
        .collect();
    for file in &old {
        std::fs::write(file, vec![0; 1 << 18]).unwrap();
    }
    let model = model(&stage.site, 30, 10, 1);
    let daemon = run(
        &stage,
        &model,
        CAMERA,
        &directory,
        &[r#"event_clip={"pre_s":0,"post_s":0.5,"max_mb":1}"#],
    );
    let figures = stage.wait_for_figures("the clip", |runner| runner["clips_written"] == 1);
    assert!(figures["clips_removed"].as_u64() >= Some(1), "{figures}");
    assert!(old.iter().any(|file| !file.exists()));
    let bytes = || -> u64 {
        let files = names(&directory);
        files
            .iter()
            .map(|name| std::fs::metadata(directory.join(name)).unwrap().len())
            .sum()
    };
    wait_until("the clips are within their limit", || bytes() <= 1 << 20);
    daemon.stop();
}

#[test]
fn a_machine_without_encoders_says_what_is_missing_and_shows_it_in_the_health() {
    let stage = Stage::new();
    let directory = stage.site.path().join("clips");
    let model = model(&stage.site, 10, 10, 1);
    // The plugins of this machine, except for the one with the muxers.
    let plugins = stage.site.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let mut is_found = false;
    for folder in plugin_folders() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            is_found |= name == "libgstisomp4.so";
            if name != "libgstisomp4.so" {
                let _ = std::os::unix::fs::symlink(entry.path(), plugins.join(name));
            }
        }
    }
    assert!(is_found, "the plugins are elsewhere");
    let (events, cache) = (
        format!("events={RULES}"),
        format!("cache_file_directory={}", directory.display()),
    );
    let sets = [
        "enable_cache_to_file=yes",
        &cache,
        &events,
        r#"event_clip={"pre_s":0,"post_s":0}"#,
    ];
    let mut command = stage.command(&model, &sets);
    command
        .args(["--gst", CAMERA])
        .env("GST_PLUGIN_SYSTEM_PATH_1_0", &plugins)
        .env("XDG_CACHE_HOME", stage.site.path().join("cache"))
        .env_remove("GST_PLUGIN_PATH");
    let daemon = Daemon::start(command);
    let figures = stage.wait_for_figures("the loss", |runner| runner["clips_failed"] == 1);
    assert_eq!(figures["health"]["event_clips"], "failing");
    let problem = figures["problems"][0].as_str().unwrap();
    assert!(
        problem.starts_with("event_clips: ") && problem.contains("gstreamer1.0-plugins-good"),
        "{problem}"
    );
    let log = daemon.stop();
    let told = lines(&log, "ERROR", "The clip of an event was not written");
    assert!(
        told.len() == 1 && told[0].contains("mux\" (in gstreamer1.0-plugins-good)"),
        "{log}"
    );
}

/// Where GStreamer's plugins are on Debian.
fn plugin_folders() -> Vec<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    folders.map(|folder| folder.path().join("gstreamer-1.0")).collect()
}
