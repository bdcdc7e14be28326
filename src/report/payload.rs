//! The inference message.

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

/// Largest message AWS IoT Core takes, in bytes ("Message broker and protocol limits": maximum payload 128 KiB).
pub const MAX_MESSAGE: usize = 131_072;

/// The text around a picture at the end of a message; it replaces the last `}`.
const IMAGE_BEFORE: &str = r#","image":""#;
const IMAGE_AFTER: &str = r#""}"#;
const IMAGE_OMITTED: &str = r#","image_omitted":true}"#;

/// The number of detections in a result, and since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InferenceCounts {
    /// Detections in this result: see [`Detections::count`].
    pub inference_count: u64,
    /// Their running sum since the start, this result included, published or not.
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
    /// Messages of this device carry no picture.
    NotWanted,
    /// There should be a picture, but there is none: the message gets `image_omitted`.
    Missing,
    /// The picture to add, smaller if the message would be too large.
    Encoded(&'a EncodedPicture<'a>),
}

/// How a message fits into the limit of AWS IoT Core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageFit {
    /// Publish it. It has its picture, if one was given, possibly smaller.
    Complete,
    /// Publish it. It lacks its picture.
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
}

/// The fields of the message in their order. Exactly one of `freeform`, `grid`, `box` and `c` is set, none
/// for a model that answers only an anomaly score.
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
    boxes: Option<&'a [BoundingBox]>,
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
    /// Cells, or values of `freeform`, that are left out because the message would be too large.
    #[serde(skip_serializing_if = "Option::is_none")]
    grid_omitted: Option<usize>,
}

/// The cells of a grid: all, or the strongest.
#[derive(Serialize)]
#[serde(untagged)]
enum Cells<'a> {
    All(&'a [BoundingBox]),
    Strongest(Vec<&'a BoundingBox>),
}

/// How many cells or freeform values a message carries.
#[derive(Clone, Copy)]
enum Carried {
    All,
    Only(usize),
}

impl MessageBuilder<'_> {
    /// Writes the message with its picture, so that it fits into the limit of AWS IoT Core. May encode the picture
    /// several times: call it away from the inference thread. A grid or a freeform result that is too
    /// large is cut. Counts `published`, `oversized`, `results_cut` and `images_omitted`.
    ///
    /// # Errors
    /// [`serde_json`] cannot write a field, which no result causes.
    pub fn build(&self, picture: PictureInMessage<'_>, stats: &Stats) -> Result<InferenceMessage, serde_json::Error> {
        let mut json = self.json(Carried::All)?;
        if json.len() > MAX_MESSAGE
            && let Some(cut) = self.cut_json()?
        {
            json = cut;
            stats.results_cut.inc();
        }
        let fit = if json.len() > MAX_MESSAGE {
            MessageFit::Oversized
        } else {
            match picture {
                PictureInMessage::NotWanted => MessageFit::Complete,
                PictureInMessage::Missing => omit_picture(&mut json),
                PictureInMessage::Encoded(picture) => add_picture(&mut json, picture),
            }
        };
        match fit {
            MessageFit::Complete => {}
            MessageFit::ImageOmitted => stats.images_omitted.inc(),
            MessageFit::Oversized => stats.oversized.inc(),
        }
        if fit != MessageFit::Oversized {
            stats.published.inc();
        }
        Ok(InferenceMessage { json: json.into(), fit })
    }

    fn json(&self, carried: Carried) -> Result<String, serde_json::Error> {
        let (mut arrays, mut payload) = (Vec::new(), self.payload());
        let Carried::Only(count) = carried else {
            return serde_json::to_string(&payload);
        };
        if let Some(Cells::All(cells)) = payload.grid {
            let mut strongest = strongest(cells);
            strongest.truncate(count);
            payload.grid_omitted = Some(cells.len() - strongest.len());
            payload.grid = Some(Cells::Strongest(strongest));
        } else if let Some(all) = payload.freeform {
            let mut left = count;
            for array in all {
                let taken = array.len().min(left);
                arrays.push(array[..taken].to_vec());
                left -= taken;
            }
            payload.freeform = Some(&arrays);
            payload.grid_omitted = Some(values(all) - (count - left));
        }
        serde_json::to_string(&payload)
    }

    /// A message with as many of the strongest cells as fit. The position of a freeform value has a meaning, so the first
    /// values are kept of those. `None`: there is no room for any, or the result has neither cells nor freeform values.
    fn cut_json(&self) -> Result<Option<String>, serde_json::Error> {
        let lengths: Vec<usize> = match Detections::of(self.result) {
            Detections::Grid(cells) => strongest(cells)
                .into_iter()
                .map(json_length)
                .collect::<Result<_, _>>()?,
            Detections::Freeform(arrays) => arrays.iter().flatten().map(json_length).collect::<Result<_, _>>()?,
            _ => return Ok(None),
        };
        // The picture does not fit either: there is room for the note that it is left out.
        let without = self.json(Carried::Only(0))?.len() + IMAGE_OMITTED.len();
        let mut room = MAX_MESSAGE.saturating_sub(without);
        let fitting = lengths
            .iter()
            .take_while(|length| match room.checked_sub(**length + 1) {
                Some(left) => {
                    room = left;
                    true
                }
                None => false,
            });
        match fitting.count() {
            0 => Ok(None),
            count => self.json(Carried::Only(count)).map(Some),
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
        };
        match Detections::of(result) {
            Detections::Freeform(arrays) => payload.freeform = Some(arrays),
            Detections::Grid(cells) => payload.grid = Some(Cells::All(cells)),
            Detections::Boxes(boxes) => payload.boxes = Some(boxes),
            Detections::Classes(classes) => payload.c = Some(LabelScores(classes)),
            // Where the model sends an empty grid, the message has it too.
            Detections::VisualAnomaly(_) => {
                payload.grid = result.visual_anomaly_grid.as_deref().map(Cells::All);
            }
            // `anomaly` is set already.
            Detections::Anomaly(_) => {}
            // Never published.
            Detections::Nothing => payload.c = Some(LabelScores(&[])),
        }
        payload
    }
}

/// The cells, the one with the highest value first.
fn strongest(cells: &[BoundingBox]) -> Vec<&BoundingBox> {
    let mut cells: Vec<_> = cells.iter().collect();
    cells.sort_by(|a, b| b.value.total_cmp(&a.value));
    cells
}

fn json_length<T: Serialize>(value: T) -> Result<usize, serde_json::Error> {
    Ok(serde_json::to_string(&value)?.len())
}

fn values(arrays: &[Vec<f32>]) -> usize {
    arrays.iter().map(Vec::len).sum()
}

/// Adds the picture to a message that fits without it, else `image_omitted`.
fn add_picture(json: &mut String, picture: &EncodedPicture<'_>) -> MessageFit {
    // The limit leaves this much room for base64 text.
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
