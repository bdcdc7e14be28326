//! Follows objects from inference to inference, as SORT does: a Kalman filter predicts where each object is, and the detections are
//! assigned to the predictions. Boxes are compared by overlap and distance, the centroids of FOMO models by distance. A model that
//! tracks objects itself is believed: its ids are used.

use std::time::Instant;

use super::assignment::assign;
use super::kalman::{BoxFilter, PixelBox};
use crate::config::Anchor;
use crate::model::BoundingBox;
use crate::util::geometry::Point;

/// Most objects that are followed at the same time. More detections in one inference are ignored, the weakest first.
pub(super) const MAX_TRACKS: usize = 128;
/// Detections in a row before an object counts. Fewer are noise.
const CONFIRMED: u32 = 3;
/// An object that is not detected is kept for so many inferences, ...
const KEPT_INFERENCES: u32 = 6;
/// ... and for so many seconds, whichever takes longer.
const KEPT_SECONDS: f64 = 0.5;
/// A new object that does not count yet is kept for so many inferences without a detection.
const NEW_KEPT_INFERENCES: u32 = 1;
/// The part of a new value in the mean value of an object.
const NEW_PART: f64 = 0.3;
/// The shortest time between two inferences for the filter, in seconds. A file that is played faster than real time, and inferences
/// that are late and then follow each other at once, would else look like jumps.
const SHORTEST_STEP: f64 = 1.0 / 30.0;
/// Most labels for which an object counts its detections.
const MAX_VOTES: usize = 4;

/// The least similarity of a prediction and a detection: overlap minus the squared distance of the centres in diagonals of the
/// box around both (Zheng et al. 2019, "Distance-IoU").
const LEAST_SIMILARITY: f64 = -0.3;
/// That while the velocity is not known well: for a new object, and after missed detections.
const LEAST_SIMILARITY_UNSURE: f64 = -0.5;
/// The same as distances for centroids, in sides of their cell.
const MOST_CELLS: f64 = 3.0;
const MOST_CELLS_UNSURE: f64 = 5.0;
/// A detection with another label must overlap so much, and is so much less similar.
const OTHER_LABEL_OVERLAP: f64 = 0.5;
const OTHER_LABEL: f64 = 0.3;

/// What the tracker needs to know of the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectorInfo {
    /// Pixels of the model's input.
    pub width: u32,
    /// Pixels of the model's input.
    pub height: u32,
    /// The boxes are cells around centroids (FOMO): their size says nothing about the object.
    pub has_centroids: bool,
}

/// One detection of an object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sighting {
    /// Position and size as fractions of the picture.
    pub place: FractionBox,
    pub at: Instant,
    /// Milliseconds since the Unix epoch.
    pub ts: u64,
}

/// A box as fractions of the picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FractionBox {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

impl FractionBox {
    /// The point that stands for the object, within the picture: boxes may reach beyond its edges.
    pub fn anchor(&self, anchor: Anchor) -> Point {
        let (x, y) = match anchor {
            Anchor::Bottom => (0.5, 1.0),
            Anchor::Center => (0.5, 0.5),
            Anchor::Top => (0.5, 0.0),
            Anchor::Left => (0.0, 0.5),
            Anchor::Right => (1.0, 0.5),
        };
        Point {
            x: (self.left + x * self.width).clamp(0.0, 1.0),
            y: (self.top + y * self.height).clamp(0.0, 1.0),
        }
    }
}

/// An object.
#[derive(Debug)]
pub(super) struct Track {
    /// Unique since the start of the tracker, or the model's own id.
    pub object_id: i64,
    /// The last detection.
    pub last: BoundingBox,
    /// The mean value, in which the latest detections count more.
    pub mean_value: f64,
    /// The sightings that [`Tracker::take_fresh`] has not returned yet.
    fresh: Vec<Sighting>,
    /// The sum of the values for each label.
    votes: Vec<(String, f64)>,
    filter: BoxFilter,
    hits: u32,
    missed: u32,
    seen: Instant,
    predicted: Instant,
}

impl Track {
    fn new(object_id: i64, detection: &BoundingBox, sighting: Sighting) -> Self {
        Self {
            object_id,
            last: detection.clone(),
            mean_value: detection.value,
            fresh: vec![sighting],
            votes: vec![(detection.label.clone(), detection.value.max(0.0))],
            filter: BoxFilter::new(pixels(detection)),
            hits: 1,
            missed: 0,
            seen: sighting.at,
            predicted: sighting.at,
        }
    }

    /// The label with the most detections; their values count.
    pub fn label(&self) -> &str {
        let best = self.votes.iter().max_by(|one, other| one.1.total_cmp(&other.1));
        best.map_or(&self.last.label, |(label, _)| label)
    }

    fn see(&mut self, detection: &BoundingBox, sighting: Sighting) {
        self.filter.correct(pixels(detection));
        self.hits = self.hits.saturating_add(1);
        self.missed = 0;
        self.seen = sighting.at;
        self.mean_value += NEW_PART * (detection.value - self.mean_value);
        self.fresh.push(sighting);
        let value = detection.value.max(0.0);
        if let Some((_, sum)) = self.votes.iter_mut().find(|(label, _)| *label == detection.label) {
            *sum += value;
        } else if self.votes.len() < MAX_VOTES {
            self.votes.push((detection.label.clone(), value));
        }
        self.last.clone_from(detection);
    }

    fn predict(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.predicted);
        self.predicted = now;
        self.filter.predict(elapsed.as_secs_f64().max(SHORTEST_STEP));
    }

    /// Whether the last inference has found it.
    pub fn is_found(&self) -> bool {
        self.missed == 0
    }

    fn is_confirmed(&self) -> bool {
        self.hits >= CONFIRMED || self.last.object_id.is_some()
    }

    fn is_kept(&self, now: Instant) -> bool {
        if !self.is_confirmed() {
            return self.missed <= NEW_KEPT_INFERENCES;
        }
        self.missed <= KEPT_INFERENCES || now.saturating_duration_since(self.seen).as_secs_f64() <= KEPT_SECONDS
    }

    /// From -1 to 1; `None`: the detection is another object.
    fn similarity(&self, detection: &BoundingBox, has_centroids: bool) -> Option<f64> {
        let (predicted, measured) = (self.filter.estimate(), pixels(detection));
        let is_unsure = self.hits < 2 || self.missed > 0;
        let overlap = overlap(&predicted, &measured);
        let similarity = if has_centroids {
            let most = if is_unsure { MOST_CELLS_UNSURE } else { MOST_CELLS };
            let distance = (predicted.x - measured.x).hypot(predicted.y - measured.y);
            let similarity = 1.0 - distance / (most * measured.length());
            (similarity >= 0.0).then_some(similarity)?
        } else {
            let least = if is_unsure {
                LEAST_SIMILARITY_UNSURE
            } else {
                LEAST_SIMILARITY
            };
            let similarity = overlap - squared_distance(&predicted, &measured);
            (similarity >= least).then_some(similarity)?
        };
        if self.label() == detection.label || self.last.label == detection.label {
            return Some(similarity);
        }
        (overlap >= OTHER_LABEL_OVERLAP).then_some(similarity - OTHER_LABEL)
    }
}

/// The objects of one model process.
#[derive(Debug)]
pub(super) struct Tracker {
    info: DetectorInfo,
    tracks: Vec<Track>,
    last_id: i64,
}

impl Tracker {
    /// A tracker without objects. Its ids are above `last_id`.
    pub fn new(info: DetectorInfo, last_id: i64) -> Self {
        Self {
            info,
            tracks: Vec::new(),
            last_id,
        }
    }

    /// The same tracker without its objects. Ids are not given again.
    pub fn without_objects(self) -> Self {
        Self::new(self.info, self.last_id)
    }

    /// Whether this object is followed and counts.
    pub fn follows(&self, object_id: i64) -> bool {
        self.objects().any(|track| track.object_id == object_id)
    }

    /// The last id that was given to an object.
    pub fn last_id(&self) -> i64 {
        self.last_id
    }

    /// Takes the detections of one inference. `have_ids`: the model tracks objects.
    pub fn update(&mut self, detections: &[BoundingBox], have_ids: bool, now: Instant, ts: u64) {
        for track in &mut self.tracks {
            track.predict(now);
        }
        let detections = strongest(detections);
        let tracks_of: Vec<Option<usize>> = if have_ids {
            let find = |id| self.tracks.iter().position(|track| Some(track.object_id) == id);
            detections.iter().map(|detection| find(detection.object_id)).collect()
        } else {
            let similarity = |detection: usize, track: usize| {
                self.tracks[track].similarity(detections[detection], self.info.has_centroids)
            };
            assign(detections.len(), self.tracks.len(), similarity)
        };
        for track in &mut self.tracks {
            track.missed = track.missed.saturating_add(1);
        }
        for (detection, track) in detections.into_iter().zip(tracks_of) {
            let sighting = Sighting {
                place: self.fractions(detection),
                at: now,
                ts,
            };
            match track {
                Some(track) => self.tracks[track].see(detection, sighting),
                None if self.tracks.len() < MAX_TRACKS => {
                    let object_id = detection.object_id.filter(|_| have_ids).unwrap_or_else(|| {
                        self.last_id += 1;
                        self.last_id
                    });
                    let is_new = self.tracks.iter().all(|track| track.object_id != object_id);
                    if is_new {
                        self.tracks.push(Track::new(object_id, detection, sighting));
                    }
                }
                None => {}
            }
        }
        self.tracks.retain(|track| track.is_kept(now));
    }

    /// The objects that count, also those that are not detected at the moment.
    pub fn objects(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter().filter(|track| track.is_confirmed())
    }

    /// The objects that count, each with its sightings since the last call: for one that counts from now on, all of them.
    pub fn take_fresh(&mut self) -> impl Iterator<Item = (&Track, Vec<Sighting>)> {
        let confirmed = self.tracks.iter_mut().filter(|track| track.is_confirmed());
        confirmed.map(|track| {
            let fresh = std::mem::take(&mut track.fresh);
            (&*track, fresh)
        })
    }

    /// Objects for which memory is reserved.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.tracks.capacity()
    }

    fn fractions(&self, detection: &BoundingBox) -> FractionBox {
        let (width, height) = (f64::from(self.info.width.max(1)), f64::from(self.info.height.max(1)));
        FractionBox {
            left: detection.x as f64 / width,
            top: detection.y as f64 / height,
            width: detection.width as f64 / width,
            height: detection.height as f64 / height,
        }
    }
}

/// At most [`MAX_TRACKS`] detections.
fn strongest(detections: &[BoundingBox]) -> Vec<&BoundingBox> {
    let mut detections: Vec<_> = detections.iter().collect();
    if detections.len() > MAX_TRACKS {
        detections.sort_by(|one, other| other.value.total_cmp(&one.value));
        detections.truncate(MAX_TRACKS);
    }
    detections
}

fn pixels(detection: &BoundingBox) -> PixelBox {
    let (width, height) = (detection.width.max(1) as f64, detection.height.max(1) as f64);
    PixelBox {
        x: detection.x as f64 + width / 2.0,
        y: detection.y as f64 + height / 2.0,
        width,
        height,
    }
}

/// The common area as a part of the area of both, from 0 to 1.
fn overlap(one: &PixelBox, other: &PixelBox) -> f64 {
    let common = |one: (f64, f64), other: (f64, f64)| {
        let from = (one.0 - one.1 / 2.0).max(other.0 - other.1 / 2.0);
        let to = (one.0 + one.1 / 2.0).min(other.0 + other.1 / 2.0);
        (to - from).max(0.0)
    };
    let both =
        common((one.x, one.width), (other.x, other.width)) * common((one.y, one.height), (other.y, other.height));
    both / (one.width * one.height + other.width * other.height - both).max(1e-9)
}

/// The squared distance of the centres in diagonals of the box around both, from 0 to 1.
fn squared_distance(one: &PixelBox, other: &PixelBox) -> f64 {
    let span = |one: (f64, f64), other: (f64, f64)| {
        (one.0 + one.1 / 2.0).max(other.0 + other.1 / 2.0) - (one.0 - one.1 / 2.0).min(other.0 - other.1 / 2.0)
    };
    let (width, height) = (
        span((one.x, one.width), (other.x, other.width)),
        span((one.y, one.height), (other.y, other.height)),
    );
    let (x, y) = (one.x - other.x, one.y - other.y);
    (x * x + y * y) / (width * width + height * height).max(1e-9)
}

#[cfg(test)]
mod tests;
