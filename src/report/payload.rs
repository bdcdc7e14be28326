//! Builds the inference message.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::detections::Detections;
use super::image::EncodedPicture;
use crate::model::protocol::LabelScores;
use crate::model::{BoundingBox, InferenceResult};
use crate::status::stats::Stats;

/// Most bytes of a message to AWS IoT Core ("Message broker and protocol limits": maximum payload 128 KiB).
pub const MAX_MESSAGE: usize = 131_072;

/// The text before and after a picture at the end of a message. It replaces the last `}`.
const IMAGE_BEFORE: &str = r#","image":""#;
const IMAGE_AFTER: &str = r#""}"#;
const IMAGE_OMITTED: &str = r#","image_omitted":true}"#;

/// The number of detections in a result, and since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InferenceCounts {
    /// Detections in this result: see [`Detections::count`].
    pub inference_count: u64,
    /// Sum of the detections of all results since the start, including this one and those that were not published.
    pub total_inferences: u64,
}

/// Where the pair of a message is stored in S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct S3Fields<'a> {
    /// `s3_bucket`
    pub bucket: &'a str,
    /// `s3_prefix`
    pub prefix: &'a str,
}

/// Builds an inference message.
#[derive(Debug, Clone, Copy)]
pub struct MessageBuilder<'a> {
    /// The model's answer.
    pub result: &'a InferenceResult,
    /// From [`super::Report::accept`].
    pub counts: InferenceCounts,
    /// Id of the message, and of its pair in the caches.
    pub id: Uuid,
    /// Time of the inference, ms since the Unix epoch.
    pub ts: u64,
    /// `None`: the S3 cache is off.
    pub s3: Option<S3Fields<'a>>,
}

/// The picture of a message.
#[derive(Debug, Clone, Copy)]
pub enum PictureInMessage<'a> {
    /// Messages of this device have no picture.
    NotWanted,
    /// There is no picture although there should be one: the message gets `image_omitted`.
    Missing,
    /// The picture to add. It is made smaller if the message would be too large.
    Encoded(&'a EncodedPicture<'a>),
}

/// How a message fits into the limit of AWS IoT Core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageFit {
    /// Publish it. It has its picture, if there is one, possibly made smaller.
    Complete,
    /// Publish it without its picture.
    ImageOmitted,
    /// Cache it, but do not publish it: without a picture it is still larger than [`MAX_MESSAGE`].
    Oversized,
}

/// An inference message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferenceMessage {
    /// The JSON text, for the broker and for the caches.
    pub json: Bytes,
    /// Whether it may be published.
    pub fit: MessageFit,
    /// How many cells, freeform values, boxes or labels are left out because the message would be too large.
    pub omitted: usize,
}

/// The fields of the message in their order. At most one of `freeform`, `grid`, `box` and `c` is set; none of them for a
/// model that returns only an anomaly score. [`MessageBuilder::build`] adds `image` and `image_omitted` as text at the end.
#[derive(Serialize)]
struct Payload<'a> {
    time_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a str>,
    inference_count: u64,
    total_inferences: u64,
    id: Uuid,
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    freeform: Option<&'a [Vec<f32>]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grid: Option<Cells<'a>>,
    #[serde(rename = "box", skip_serializing_if = "Option::is_none")]
    boxes: Option<Cells<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    c: Option<LabelScores<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anomaly: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    visual_anomaly_max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    visual_anomaly_mean: Option<f64>,
    s3_bucket: &'a str,
    s3_prefix: &'a str,
    /// Number of cells, or of freeform values, that are omitted because the message would be too large.
    #[serde(skip_serializing_if = "Option::is_none")]
    grid_omitted: Option<usize>,
    /// Boxes that are left out for that reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    box_omitted: Option<usize>,
    /// Labels that are left out for that reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    c_omitted: Option<usize>,
}

/// The cells of a grid, or boxes: all, or the strongest.
#[derive(Serialize)]
#[serde(untagged)]
enum Cells<'a> {
    All(&'a [BoundingBox]),
    Strongest(&'a [&'a BoundingBox]),
}

impl MessageBuilder<'_> {
    /// Builds the message with its picture so that it fits into the limit of AWS IoT Core. May encode the picture
    /// several times, so call it on another thread than the inference thread. A result that is too large is cut.
    /// Counts `published`, `oversized`, `results_cut` and `images_omitted`.
    ///
    /// # Errors
    /// A field cannot be written as JSON; no result causes that.
    pub fn build(&self, picture: PictureInMessage<'_>, stats: &Stats) -> Result<InferenceMessage, serde_json::Error> {
        let (mut json, mut omitted) = (serde_json::to_string(&self.payload())?, 0);
        if json.len() > MAX_MESSAGE
            && let Some(cut) = self.cut()?
        {
            (json, omitted) = cut;
            stats.results_cut.inc();
        }
        let fit = if json.len() > MAX_MESSAGE {
            MessageFit::Oversized
        } else {
            add_picture_to(&mut json, picture)
        };
        match fit {
            MessageFit::Complete => {}
            MessageFit::ImageOmitted => stats.images_omitted.inc(),
            MessageFit::Oversized => stats.oversized.inc(),
        }
        if fit != MessageFit::Oversized {
            stats.published.inc();
        }
        Ok(InferenceMessage {
            json: json.into(),
            fit,
            omitted,
        })
    }

    /// A message with as many of the strongest cells, boxes or labels as fit, and the number of those that are left out. The
    /// position of a freeform value has a meaning, so the first values are kept of those. `None`: there is no room for any, or
    /// the result is one score.
    fn cut(&self) -> Result<Option<(String, usize)>, serde_json::Error> {
        match Detections::of(self.result) {
            Detections::Grid(cells) => {
                let strongest = strongest(cells);
                self.fit(&json_lengths(&strongest)?, |count, omitted| {
                    serde_json::to_string(&Payload {
                        grid: Some(Cells::Strongest(&strongest[..count])),
                        grid_omitted: Some(omitted),
                        ..self.payload()
                    })
                })
            }
            Detections::Boxes(boxes) => {
                let strongest = strongest(boxes);
                self.fit(&json_lengths(&strongest)?, |count, omitted| {
                    serde_json::to_string(&Payload {
                        boxes: Some(Cells::Strongest(&strongest[..count])),
                        box_omitted: Some(omitted),
                        ..self.payload()
                    })
                })
            }
            Detections::Classes(classes) => {
                let strongest = strongest_labels(classes);
                // Each is serialised as a pair here, whose brackets the message does not have.
                let lengths = json_lengths(&strongest)?.into_iter().map(|length| length - 2);
                self.fit(&lengths.collect::<Vec<_>>(), |count, omitted| {
                    serde_json::to_string(&Payload {
                        c: Some(LabelScores(&strongest[..count])),
                        c_omitted: Some(omitted),
                        ..self.payload()
                    })
                })
            }
            Detections::Freeform(arrays) => self.fit(&json_lengths(arrays.iter().flatten())?, |count, omitted| {
                serde_json::to_string(&Payload {
                    freeform: Some(&first_values(arrays, count)),
                    grid_omitted: Some(omitted),
                    ..self.payload()
                })
            }),
            Detections::VisualAnomaly(_) | Detections::Anomaly(_) | Detections::Nothing => Ok(None),
        }
    }

    /// The text of a message with the first parts of the result that fit, and the number of parts left out. `lengths`: bytes of
    /// each part. `write` writes a message with `count` parts and the number of those left out.
    fn fit(
        &self,
        lengths: &[usize],
        write: impl Fn(usize, usize) -> Result<String, serde_json::Error>,
    ) -> Result<Option<(String, usize)>, serde_json::Error> {
        // The picture does not fit either: there is room for the note that it is left out.
        let without = write(0, lengths.len())?.len() + IMAGE_OMITTED.len();
        let mut room = MAX_MESSAGE.saturating_sub(without);
        let has_room = |length: &&usize| match room.checked_sub(**length + 1) {
            Some(left) => {
                room = left;
                true
            }
            None => false,
        };
        match lengths.iter().take_while(has_room).count() {
            0 => Ok(None),
            count => {
                let omitted = lengths.len() - count;
                Ok(Some((write(count, omitted)?, omitted)))
            }
        }
    }

    fn payload(&self) -> Payload<'_> {
        let result = self.result;
        let mut payload = Payload {
            time_ms: result.time_ms(),
            info: result.info.as_deref(),
            inference_count: self.counts.inference_count,
            total_inferences: self.counts.total_inferences,
            id: self.id,
            ts: self.ts,
            freeform: None,
            grid: None,
            boxes: None,
            c: None,
            anomaly: result.anomaly,
            visual_anomaly_max: result.visual_anomaly_max,
            visual_anomaly_mean: result.visual_anomaly_mean,
            s3_bucket: self.s3.map_or("unset", |s3| s3.bucket),
            s3_prefix: self.s3.map_or("unset", |s3| s3.prefix),
            grid_omitted: None,
            box_omitted: None,
            c_omitted: None,
        };
        match Detections::of(result) {
            Detections::Freeform(arrays) => payload.freeform = Some(arrays),
            Detections::Grid(cells) => payload.grid = Some(Cells::All(cells)),
            Detections::Boxes(boxes) => payload.boxes = Some(Cells::All(boxes)),
            Detections::Classes(classes) => payload.c = Some(LabelScores(classes)),
            // If the model sends an empty grid, the message contains it too.
            Detections::VisualAnomaly(_) => {
                payload.grid = result.visual_anomaly_grid.as_deref().map(Cells::All);
            }
            // `anomaly` is already set.
            Detections::Anomaly(_) => {}
            // Never published.
            Detections::Nothing => payload.c = Some(LabelScores(&[])),
        }
        payload
    }
}

/// The cells, sorted by value, the highest first.
fn strongest(cells: &[BoundingBox]) -> Vec<&BoundingBox> {
    let mut cells: Vec<_> = cells.iter().collect();
    cells.sort_by(|a, b| b.value.total_cmp(&a.value));
    cells
}

/// The labels, the one with the highest value first.
fn strongest_labels(labels: &[(String, f64)]) -> Vec<(String, f64)> {
    let mut labels = labels.to_vec();
    labels.sort_by(|a, b| b.1.total_cmp(&a.1));
    labels
}

/// The first values of the arrays, `count` in all.
fn first_values(arrays: &[Vec<f32>], count: usize) -> Vec<Vec<f32>> {
    let mut left = count;
    let taken = |array: &Vec<f32>| {
        let taken = array.len().min(left);
        left -= taken;
        array[..taken].to_vec()
    };
    arrays.iter().map(taken).collect()
}

fn json_lengths<T: Serialize>(values: impl IntoIterator<Item = T>) -> Result<Vec<usize>, serde_json::Error> {
    values.into_iter().map(json_length).collect()
}

fn json_length<T: Serialize>(value: T) -> Result<usize, serde_json::Error> {
    Ok(serde_json::to_string(&value)?.len())
}

/// Adds the picture to a message, an object that fits without it.
pub fn add_picture_to(json: &mut String, picture: PictureInMessage<'_>) -> MessageFit {
    match picture {
        PictureInMessage::NotWanted => MessageFit::Complete,
        PictureInMessage::Missing => omit_picture(json),
        PictureInMessage::Encoded(picture) => add_picture(json, picture),
    }
}

/// Adds the picture, or `image_omitted` if it does not fit. The message without the picture must fit.
fn add_picture(json: &mut String, picture: &EncodedPicture<'_>) -> MessageFit {
    // The remaining bytes are for the base64 text.
    let used = json.len() - 1 + IMAGE_BEFORE.len() + IMAGE_AFTER.len();
    let max_jpeg = MAX_MESSAGE.saturating_sub(used) / 4 * 3;
    if let Some(jpeg) = picture.fit(max_jpeg) {
        json.pop();
        json.push_str(IMAGE_BEFORE);
        STANDARD.encode_string(&jpeg, json);
        json.push_str(IMAGE_AFTER);
        return MessageFit::Complete;
    }
    omit_picture(json)
}

/// Adds `image_omitted`, if there is room for it.
fn omit_picture(json: &mut String) -> MessageFit {
    if json.len() - 1 + IMAGE_OMITTED.len() <= MAX_MESSAGE {
        json.pop();
        json.push_str(IMAGE_OMITTED);
    }
    MessageFit::ImageOmitted
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;
