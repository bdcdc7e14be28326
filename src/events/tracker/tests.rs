use std::time::Duration;

use super::*;

const SIDE: u32 = 320;

fn found(label: &str, x: i64, y: i64) -> BoundingBox {
    BoundingBox {
        label: label.into(),
        value: 0.9,
        x,
        y,
        width: 20,
        height: 20,
        object_id: None,
    }
}

/// A tracker that gets one inference each thirtieth of a second.
struct Scene {
    tracker: Tracker,
    frame: u32,
    begin: Instant,
}

impl Scene {
    fn new(has_centroids: bool) -> Self {
        let info = DetectorInfo {
            width: SIDE,
            height: SIDE,
            has_centroids,
        };
        Self {
            tracker: Tracker::new(info, 0),
            frame: 0,
            begin: Instant::now(),
        }
    }

    /// The ids and left edges of the objects after this inference.
    fn see(&mut self, detections: &[BoundingBox]) -> Vec<(i64, i64)> {
        self.frame += 1;
        let now = self.begin + Duration::from_secs(1) * self.frame / 30;
        let have_ids = detections.iter().any(|detection| detection.object_id.is_some());
        self.tracker.update(detections, have_ids, now, 0);
        self.tracker.take_fresh().for_each(drop);
        self.tracker
            .objects()
            .map(|track| (track.object_id, track.last.x))
            .collect()
    }
}

#[test]
fn an_object_counts_from_its_third_detection_and_keeps_its_id_through_five_missed_ones() {
    let mut scene = Scene::new(false);
    assert_eq!(scene.see(&[found("ball", 0, 50)]), []);
    assert_eq!(scene.see(&[found("ball", 8, 50)]), []);
    assert_eq!(scene.see(&[found("ball", 16, 50)]), [(1, 16)]);
    for frame in 3..40 {
        let is_missed = (15..20).contains(&frame);
        let ball = found("ball", frame * 8, 50);
        let objects = scene.see(if is_missed { &[] } else { std::slice::from_ref(&ball) });
        assert_eq!(objects.len(), 1, "{frame}");
        assert_eq!(objects[0].0, 1, "{frame}");
    }
}

#[test]
fn all_sightings_before_an_object_counts_are_returned_when_it_does() {
    let mut scene = Scene::new(false);
    for x in [0, 5, 10] {
        scene.frame += 1;
        let now = scene.begin + Duration::from_millis(33) * scene.frame;
        scene.tracker.update(&[found("ball", x, 0)], false, now, 0);
        let fresh: Vec<_> = scene.tracker.take_fresh().map(|(_, fresh)| fresh.len()).collect();
        assert_eq!(fresh, if x == 10 { vec![3] } else { vec![] });
    }
}

#[test]
fn a_lost_object_is_forgotten_and_its_id_is_not_given_again() {
    let mut scene = Scene::new(false);
    for _ in 0..5 {
        scene.see(&[found("ball", 50, 50)]);
    }
    let frames = (1..100).find(|_| scene.see(&[]).is_empty());
    assert_eq!(frames, Some(16), "half a second at 30 inferences a second");
    for _ in 0..3 {
        scene.see(&[found("ball", 50, 50)]);
    }
    assert_eq!(
        scene.tracker.objects().map(|track| track.object_id).collect::<Vec<_>>(),
        [2]
    );
}

#[test]
fn two_objects_that_meet_keep_their_ids() {
    for merged in 0..=5 {
        let mut scene = Scene::new(false);
        for frame in 0..40_i64 {
            let (one, other) = (found("ball", frame * 6, 100), found("ball", 240 - frame * 6, 110));
            // While they overlap, the model sees one box for some frames.
            let objects = if (frame - 20).abs() * 2 < merged {
                scene.see(&[one])
            } else {
                scene.see(&[one, other])
            };
            if frame > 25 {
                let expected = [(1, frame * 6), (2, 240 - frame * 6)];
                assert_eq!(objects, expected, "merged for {merged} frames, frame {frame}");
            }
        }
    }
}

#[test]
fn a_label_that_changes_for_a_moment_makes_no_second_object() {
    let mut scene = Scene::new(false);
    for frame in 0..30 {
        let label = if frame % 5 == 4 { "truck" } else { "car" };
        scene.see(&[found(label, frame * 3, 50)]);
    }
    let labels: Vec<_> = scene.tracker.objects().map(|track| track.label().to_owned()).collect();
    assert_eq!(labels, ["car"]);
}

#[test]
fn objects_with_other_labels_in_the_same_place_stay_apart() {
    let mut scene = Scene::new(false);
    for frame in 0..30 {
        let (person, bicycle) = (found("person", frame * 3, 50), found("bicycle", frame * 3, 62));
        let objects = scene.see(&if frame % 6 == 5 {
            vec![bicycle]
        } else {
            vec![person, bicycle]
        });
        assert!(frame < 3 || objects.len() == 2, "{objects:?}");
    }
    assert_eq!(scene.tracker.last_id(), 2);
}

#[test]
fn centroids_are_followed_by_distance() {
    let mut scene = Scene::new(true);
    for frame in 0..30_i64 {
        // Cells of 8 pixels, which do not overlap from frame to frame.
        let cell = |x: i64, y: i64| BoundingBox {
            x: x / 8 * 8,
            y,
            width: 8,
            height: 8,
            ..found("face", 0, 0)
        };
        let missed = (10..15).contains(&frame);
        let mut cells = vec![cell(200 - frame * 6, 160)];
        if !missed {
            cells.push(cell(frame * 10, 80));
        }
        scene.see(&cells);
    }
    assert_eq!((scene.tracker.objects().count(), scene.tracker.last_id()), (2, 2));
}

#[test]
fn the_ids_of_a_model_that_tracks_are_used_at_once() {
    let mut scene = Scene::new(false);
    let tracked = |id: i64, x: i64| BoundingBox {
        object_id: Some(id),
        ..found("car", x, 0)
    };
    assert_eq!(scene.see(&[tracked(7, 0), tracked(3, 100)]), [(7, 0), (3, 100)]);
    // They jump: the model knows better.
    assert_eq!(scene.see(&[tracked(3, 0), tracked(7, 100)]), [(7, 100), (3, 0)]);
    // The same id twice in one answer is one object.
    assert_eq!(scene.see(&[tracked(9, 0), tracked(9, 100)]).len(), 3);
}

#[test]
fn flapping_detections_do_not_accumulate() {
    let mut scene = Scene::new(false);
    for frame in 0..2_000_i64 {
        let noise = |n: i64| found("ball", (frame * 97 + n * 61) % 300, (frame * 53 + n * 31) % 300);
        let detections: Vec<_> = (0..frame % 200).map(noise).collect();
        scene.see(&detections[..detections.len().min(40)]);
        assert!(scene.tracker.tracks.len() <= MAX_TRACKS);
        for track in &scene.tracker.tracks {
            assert!(track.fresh.len() <= CONFIRMED as usize && track.votes.len() <= MAX_VOTES);
        }
    }
    for _ in 0..20 {
        scene.see(&[]);
    }
    assert!(scene.tracker.tracks.is_empty());
}

#[test]
fn more_detections_than_can_be_followed_are_cut_to_the_strongest() {
    let mut scene = Scene::new(false);
    let many: Vec<_> = (0..300_i64)
        .map(|n| BoundingBox {
            value: n as f64 / 300.0,
            ..found("ball", n % 16 * 20, n / 16 * 20)
        })
        .collect();
    for _ in 0..3 {
        scene.see(&many);
    }
    assert_eq!(scene.tracker.objects().count(), MAX_TRACKS);
    assert!(scene.tracker.objects().all(|track| track.last.value >= 172.0 / 300.0));
}
