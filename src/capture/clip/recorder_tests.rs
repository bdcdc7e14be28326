use std::sync::mpsc;

use super::super::testing::ms;
use super::*;
use crate::capture::init;

const H264: &str = "video/x-h264,stream-format=avc,alignment=au";
const SETTINGS: ClipSettings = ClipSettings {
    before: Duration::from_secs(2),
    after: Duration::from_secs(1),
};

/// A recorder, and a source with ten frames a second, a key frame each half second.
struct Scene {
    recorder: ClipRecorder,
    complete: mpsc::Receiver<FinishedClip>,
    stats: Arc<Stats>,
    begin: Instant,
}

impl Scene {
    fn new() -> Self {
        init().unwrap();
        let (sender, complete) = mpsc::channel();
        let stats = Arc::<Stats>::default();
        let recorder = ClipRecorder::new(SETTINGS, stats.clone(), HealthFlag::default(), move |clip| {
            sender.send(clip).unwrap()
        });
        Self {
            recorder,
            complete,
            stats,
            begin: Instant::now(),
        }
    }

    fn at(&self, time: u64) -> Instant {
        self.begin + ms(time)
    }

    /// Delivers the frames of this time in milliseconds, whose timestamps begin at `first_timestamp`.
    fn play(&self, time: std::ops::Range<u64>, caps: &str, first_timestamp: u64, bytes: usize) {
        for (index, arrival) in time.step_by(100).enumerate() {
            let mut buffer = gst::Buffer::from_slice(vec![0; bytes]);
            let timestamp = gst::ClockTime::from_mseconds(first_timestamp + index as u64 * 100);
            buffer.get_mut().unwrap().set_dts(timestamp);
            let caps = caps.parse().unwrap();
            self.recorder
                .offer_encoded(&buffer, &[], caps, index % 5 == 0, self.at(arrival));
        }
    }

    fn deliver(&self, time: std::ops::Range<u64>) {
        self.play(time.clone(), H264, time.start, 100);
    }

    /// The times of the frames of the next complete clip.
    fn clip(&self, id: Uuid) -> Vec<u64> {
        let clip = self.complete.try_recv().expect("a complete clip");
        assert_eq!(clip.id, id);
        let time = |frame: &Arc<ClipFrame>| (frame.at - self.begin).as_millis() as u64;
        clip.frames.iter().map(time).collect()
    }
}

#[test]
fn a_clip_begins_before_its_event_and_ends_after_it() {
    let (scene, id) = (Scene::new(), Uuid::new_v4());
    scene.deliver(0..10_000);
    assert!(scene.recorder.start(id, scene.at(9_900)));
    scene.deliver(10_000..13_000);
    scene.recorder.finish(id, scene.at(12_900));
    scene.deliver(13_000..13_800);
    assert!(scene.complete.try_recv().is_err(), "it is not complete");
    scene.deliver(13_800..20_000);
    let expected: Vec<u64> = (7_500..13_900).step_by(100).collect();
    assert_eq!(scene.clip(id), expected, "from the key frame before 7.9 s to 13.9 s");
}

#[test]
fn an_event_that_started_before_its_call_gets_the_time_before_too() {
    let (scene, id) = (Scene::new(), Uuid::new_v4());
    scene.recorder.set_delay(ms(3_000));
    scene.deliver(0..20_000);
    assert!(scene.recorder.start(id, scene.at(17_000)));
    scene.recorder.finish_all(scene.at(20_000));
    let times = scene.clip(id);
    assert_eq!((times[0], *times.last().unwrap()), (15_000, 19_900));
}

#[test]
fn events_at_the_same_time_get_a_clip_each_and_share_the_memory() {
    let (scene, first, second) = (Scene::new(), Uuid::new_v4(), Uuid::new_v4());
    scene.deliver(0..5_000);
    assert!(scene.recorder.start(first, scene.at(4_900)));
    scene.deliver(5_000..6_000);
    assert!(scene.recorder.start(second, scene.at(5_900)));
    scene.recorder.finish(second, scene.at(5_900));
    scene.deliver(6_000..8_000);
    let expected: Vec<u64> = (3_500..6_900).step_by(100).collect();
    assert_eq!(scene.clip(second), expected);
    scene.recorder.finish(first, scene.at(7_900));
    assert!(
        scene.recorder.memory.bytes() <= 100 * 60,
        "each frame is in memory once"
    );
    scene.deliver(8_000..9_500);
    let expected: Vec<u64> = (2_500..8_900).step_by(100).collect();
    assert_eq!(scene.clip(first), expected);
}

#[test]
fn the_clip_of_an_event_that_does_not_end_ends_after_a_minute() {
    let (scene, id) = (Scene::new(), Uuid::new_v4());
    scene.deliver(0..5_000);
    assert!(scene.recorder.start(id, scene.at(4_900)));
    scene.deliver(5_000..70_000);
    let times = scene.clip(id);
    assert_eq!((times[0], *times.last().unwrap()), (2_500, 64_800));
    scene.recorder.finish(id, scene.at(69_000));
    assert!(scene.complete.try_recv().is_err(), "there is no second clip");
}

#[test]
fn a_clip_ends_although_the_source_has_stopped() {
    let (scene, id) = (Scene::new(), Uuid::new_v4());
    assert!(!scene.recorder.start(id, scene.at(0)), "there is no video");
    scene.deliver(0..5_000);
    assert!(scene.recorder.start(id, scene.at(4_900)));
    scene.recorder.finish(id, scene.at(5_500));
    scene.recorder.finish_due(scene.at(6_500));
    assert!(scene.complete.try_recv().is_err(), "frames may still come");
    scene.recorder.finish_due(scene.at(7_600));
    assert_eq!(*scene.clip(id).last().unwrap(), 4_900);
    assert!(
        !scene.recorder.start(id, scene.at(60_000)),
        "the old video does not belong to the event"
    );
    assert_eq!(scene.stats.clips_failed.get(), 0);
}

#[test]
fn a_clip_continues_when_the_source_is_started_again_with_the_same_format() {
    let (scene, id) = (Scene::new(), Uuid::new_v4());
    scene.play(0..5_000, H264, 700_000, 100);
    assert!(scene.recorder.start(id, scene.at(4_900)));
    scene.play(7_000..9_000, H264, 0, 100);
    scene.recorder.finish(id, scene.at(8_000));
    scene.play(9_000..9_500, H264, 2_000, 100);
    let expected: Vec<u64> = (2_500..5_000).chain(7_000..9_000).step_by(100).collect();
    assert_eq!(scene.clip(id), expected);
}

#[test]
fn a_clip_ends_where_the_format_changes() {
    let (scene, id) = (Scene::new(), Uuid::new_v4());
    scene.deliver(0..5_000);
    assert!(scene.recorder.start(id, scene.at(4_900)));
    scene.play(
        5_000..9_000,
        "video/x-h264,stream-format=avc,alignment=au,width=9",
        5_000,
        100,
    );
    assert_eq!(*scene.clip(id).last().unwrap(), 4_900);
}

#[test]
fn all_clips_end_with_what_there_is_when_the_component_stops() {
    let (scene, ids) = (Scene::new(), [Uuid::new_v4(), Uuid::new_v4()]);
    scene.deliver(0..5_000);
    for id in ids {
        assert!(scene.recorder.start(id, scene.at(4_900)));
    }
    scene.recorder.finish_all(scene.at(5_000));
    for id in ids {
        assert_eq!(scene.clip(id).len(), 25);
    }
}

#[test]
fn memory_is_bounded_while_no_clip_is_written() {
    let mut scene = Scene::new();
    scene.recorder = scene.recorder.with_max_bytes(100_000);
    let mut waiting = Vec::new();
    let mut ids = Vec::new();
    for time in (0..100_000).step_by(1_000) {
        scene.play(time..time + 1_000, H264, time, 1_000);
        let id = Uuid::new_v4();
        if scene.recorder.start(id, scene.at(time + 900)) {
            ids.push(id);
        }
        waiting.extend(scene.complete.try_iter());
        assert!(scene.recorder.memory.bytes() <= 130_000, "at {time}");
    }
    assert_eq!(waiting.len(), ids.len(), "the clips in progress ended early");
    assert!(ids.len() < 20 && scene.stats.clips_failed.get() > 80);
    waiting.clear();
    scene.deliver(100_000..103_000);
    assert!(
        scene.recorder.start(Uuid::new_v4(), scene.at(102_900)),
        "when they are written there is room again"
    );
}

#[test]
fn only_some_clips_are_recorded_at_the_same_time() {
    let scene = Scene::new();
    scene.deliver(0..5_000);
    let started = (0..20).filter(|_| scene.recorder.start(Uuid::new_v4(), scene.at(4_900)));
    assert_eq!(started.count(), MAX_CLIPS);
    assert_eq!(scene.stats.clips_failed.get(), 20 - MAX_CLIPS as u64);
}

#[test]
fn jpeg_of_a_fast_camera_is_thinned_out() {
    let (scene, id) = (Scene::new(), Uuid::new_v4());
    for n in 0..300 {
        let buffer = gst::Buffer::from_slice([0; 10]);
        let caps = gst::Caps::new_empty_simple("image/jpeg");
        scene
            .recorder
            .offer_encoded(&buffer, &[], caps, true, scene.begin + ms(1_000) * n / 30);
    }
    assert!(scene.recorder.start(id, scene.at(9_900)));
    scene.recorder.finish_all(scene.at(10_000));
    let count = scene.clip(id).len();
    assert!((20..=22).contains(&count), "2 s with {count} frames");
}

#[test]
fn an_event_that_seems_old_because_the_clock_was_set_gets_a_whole_clip() {
    let (scene, id) = (Scene::new(), Uuid::new_v4());
    scene.deliver(0..20_000);
    let day = Duration::from_secs(86_400);
    let Some(yesterday) = scene.at(19_900).checked_sub(day) else {
        return;
    };
    assert!(scene.recorder.start(id, yesterday));
    scene.deliver(20_000..22_000);
    assert!(scene.complete.try_recv().is_err(), "it is not complete");
    scene.recorder.finish(id, scene.at(21_900));
    scene.deliver(22_000..23_500);
    assert_eq!(*scene.clip(id).last().unwrap(), 22_800);
}

#[test]
fn the_health_fails_while_events_get_no_clip() {
    let scene = Scene::new();
    scene.deliver(0..5_000);
    assert_eq!(scene.recorder.health.failure(), None);
    for _ in 0..=MAX_CLIPS {
        scene.recorder.start(Uuid::new_v4(), scene.at(4_900));
    }
    let failure = scene.recorder.health.failure().unwrap();
    assert!(failure.contains("too many clips"), "{failure}");
}
