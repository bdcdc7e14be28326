//! Recognises a tracked object whose label changes from one frame to another.

use std::time::Duration;

use crate::model::BoundingBox;

/// A change of the label counts within this time since the object was seen with the other label.
const MEMORY: Duration = Duration::from_secs(5);
/// Objects that are remembered.
const MOST_OBJECTS: usize = 64;

#[derive(Debug)]
struct TrackedLabel {
    object_id: i64,
    label: String,
    seen: Duration,
}

/// Remembers the labels of the objects that were seen last.
#[derive(Debug, Default)]
pub(super) struct FlickerDetector {
    objects: Vec<TrackedLabel>,
}

impl FlickerDetector {
    /// Whether an object has another label than shortly before. `now`: the time since some beginning.
    pub(super) fn observe(&mut self, now: Duration, tracked: &[BoundingBox]) -> bool {
        self.objects.retain(|object| now.saturating_sub(object.seen) <= MEMORY);
        let mut has_changed = false;
        for found in tracked {
            let Some(object_id) = found.object_id else {
                continue;
            };
            let has_room = self.objects.len() < MOST_OBJECTS;
            match self.objects.iter_mut().find(|object| object.object_id == object_id) {
                Some(object) => {
                    object.seen = now;
                    if object.label != found.label {
                        object.label.clone_from(&found.label);
                        has_changed = true;
                    }
                }
                None if has_room => self.objects.push(TrackedLabel {
                    object_id,
                    label: found.label.clone(),
                    seen: now,
                }),
                None => {}
            }
        }
        has_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracked(object_id: i64, label: &str) -> BoundingBox {
        BoundingBox {
            label: label.to_owned(),
            value: 0.9,
            x: 0,
            y: 0,
            width: 1,
            height: 1,
            object_id: Some(object_id),
        }
    }

    #[test]
    fn an_object_whose_label_changes_within_a_short_time_flickers() {
        let mut detector = FlickerDetector::default();
        let at = Duration::from_millis;
        assert!(!detector.observe(at(0), &[tracked(1, "cat"), tracked(2, "dog")]));
        assert!(!detector.observe(at(100), &[tracked(1, "cat"), tracked(2, "dog")]));
        assert!(detector.observe(at(200), &[tracked(1, "dog"), tracked(2, "dog")]));
        assert!(!detector.observe(at(300), &[tracked(1, "dog")]));
        assert!(!detector.observe(at(400), &[]), "the object is hidden for a moment");
        assert!(detector.observe(at(500), &[tracked(1, "cat")]));
    }

    #[test]
    fn an_id_that_is_used_again_much_later_is_another_object() {
        let mut detector = FlickerDetector::default();
        assert!(!detector.observe(Duration::ZERO, &[tracked(1, "cat")]));
        assert!(!detector.observe(Duration::from_secs(6), &[tracked(1, "dog")]));
        let untracked = BoundingBox {
            object_id: None,
            ..tracked(1, "cat")
        };
        assert!(!detector.observe(Duration::from_secs(6), &[untracked]));
    }

    #[test]
    fn a_model_that_numbers_without_end_takes_no_more_memory() {
        let mut detector = FlickerDetector::default();
        let many: Vec<_> = (0..1000).map(|id| tracked(id, "cat")).collect();
        detector.observe(Duration::ZERO, &many);
        assert_eq!(detector.objects.len(), MOST_OBJECTS);
    }
}
