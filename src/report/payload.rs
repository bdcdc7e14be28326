//! The inference message.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::ser::Serializer;
use serde::{Serialize, ser::SerializeMap};
use uuid::Uuid;

use super::findings::Detections;
use super::image::EncodedPicture;
use crate::cache::S3Location;
use crate::model::{BoundingBox, InferenceResult};
use crate::status::stats::Stats;

/// Largest message AWS IoT Core takes, in bytes ("Message broker and protocol limits": maximum payload 128 KiB).
pub const MAX_MESSAGE: usize = 131_072;

/// What is put around a picture at the end of a message, instead of its last `}`.
const IMAGE_BEFORE: &str = r#","image":""#;
const IMAGE_AFTER: &str = r#""}"#;
const IMAGE_OMITTED: &str = r#","image_omitted":true}"#;

/// How many items a result has and how many there were so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers {
    /// Items in this result: see [`Detections::count`].
    pub inference_count: u64,
    /// Their running sum since the start, this result included, published or not.
    pub total_inferences: u64,
}

/// Everything an inference message is made of.
#[derive(Debug, Clone, Copy)]
pub struct Publication<'a> {
    /// What the model answered.
    pub result: &'a InferenceResult,
    /// From [`super::Report::accept`].
    pub numbers: Numbers,
    /// Id of the message, and of its pair in the caches.
    pub id: Uuid,
    /// When it was inferred, ms since the Unix epoch.
    pub ts: u64,
    /// Where the pair goes in S3; `None`: that cache is off.
    pub s3: Option<&'a S3Location>,
}

/// The picture of a message.
#[derive(Debug, Clone, Copy)]
pub enum PictureInMessage<'a> {
    /// The messages of this device carry none.
    NotWanted,
    /// It was wanted and is not there: the message says so.
    Missing,
    /// To be added, smaller if need be.
    Encoded(&'a EncodedPicture<'a>),
}

/// What became of a message's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// To be published. With its picture, if one was given, smaller if need be.
    Complete,
    /// To be published, without its picture: no size of it fitted.
    ImageOmitted,
    /// Not to be published: larger than [`MAX_MESSAGE`] without a picture. Still to be cached.
    Oversized,
}

/// An inference message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The JSON text, for the broker and for the caches.
    pub json: Bytes,
    /// Whether it may be published.
    pub fit: Fit,
}

/// The message in the order of its fields on the wire. Exactly one of the first four options is set.
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
    grid: Option<&'a [BoundingBox]>,
    #[serde(rename = "box", skip_serializing_if = "Option::is_none")]
    boxes: Option<&'a [BoundingBox]>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_map")]
    c: Option<&'a [(String, f64)]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anomaly: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    visual_anomaly_max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    visual_anomaly_mean: Option<f64>,
    s3_bucket: &'a str,
    s3_prefix: &'a str,
}

/// Labels to values, in the model's order.
fn as_map<S: Serializer>(classes: &Option<&[(String, f64)]>, serializer: S) -> Result<S::Ok, S::Error> {
    let classes = classes.unwrap_or_default();
    let mut map = serializer.serialize_map(Some(classes.len()))?;
    for (label, value) in classes {
        map.serialize_entry(label, value)?;
    }
    map.end()
}

impl Publication<'_> {
    /// Writes the message and fits it, with `picture` when one is to be sent, into what IoT Core takes. May encode the
    /// picture several times: call it away from the inference loop. Counts `published`, `oversized` and
    /// `images_omitted`.
    ///
    /// # Errors
    /// None that a result can cause: [`serde_json`] fails on types it cannot write, and there is none here.
    pub fn compose(&self, picture: PictureInMessage<'_>, stats: &Stats) -> Result<Message, serde_json::Error> {
        let mut json = serde_json::to_string(&self.wire())?;
        let fit = if json.len() > MAX_MESSAGE {
            Fit::Oversized
        } else {
            match picture {
                PictureInMessage::NotWanted => Fit::Complete,
                PictureInMessage::Missing => omit_picture(&mut json),
                PictureInMessage::Encoded(picture) => add_picture(&mut json, picture),
            }
        };
        match fit {
            Fit::Complete => {}
            Fit::ImageOmitted => stats.images_omitted.inc(),
            Fit::Oversized => stats.oversized.inc(),
        }
        if fit != Fit::Oversized {
            stats.published.inc();
        }
        Ok(Message { json: json.into(), fit })
    }

    fn wire(&self) -> Payload<'_> {
        let result = self.result;
        let mut wire = Payload {
            time_ms: result.model_ms.max(1),
            info: result.info.as_deref(),
            inference_count: self.numbers.inference_count,
            total_inferences: self.numbers.total_inferences,
            id: self.id,
            ts: self.ts,
            freeform: None,
            grid: None,
            boxes: None,
            c: None,
            anomaly: result.anomaly,
            visual_anomaly_max: result.visual_anomaly_max,
            visual_anomaly_mean: result.visual_anomaly_mean,
            s3_bucket: self.s3.map_or("unset", |s3| &s3.bucket),
            s3_prefix: self.s3.map_or("unset", |s3| &s3.prefix),
        };
        match Detections::of(result) {
            Detections::Freeform(arrays) => wire.freeform = Some(arrays),
            Detections::Grid(cells) => wire.grid = Some(cells),
            Detections::Boxes(boxes) => wire.boxes = Some(boxes),
            Detections::Classes(classes) => wire.c = Some(classes),
            // Never published; written like a classification without labels.
            Detections::Nothing => wire.c = Some(&[]),
        }
        wire
    }
}

/// Adds the picture to a message that fits without it, or the note that it is missing. A message with no room even for
/// the note goes out without it.
fn add_picture(json: &mut String, picture: &EncodedPicture<'_>) -> Fit {
    // Room for base64 text: what the limit leaves beside the message without its last `}`.
    let used = json.len() - 1 + IMAGE_BEFORE.len() + IMAGE_AFTER.len();
    let max_jpeg = MAX_MESSAGE.saturating_sub(used) / 4 * 3;
    if let Some(jpeg) = picture.fit(max_jpeg) {
        json.pop();
        json.push_str(IMAGE_BEFORE);
        STANDARD.encode_string(&jpeg, json);
        json.push_str(IMAGE_AFTER);
        return Fit::Complete;
    }
    omit_picture(json)
}

/// Adds the note that the picture is missing, where there is room for it.
fn omit_picture(json: &mut String) -> Fit {
    if json.len() - 1 + IMAGE_OMITTED.len() <= MAX_MESSAGE {
        json.pop();
        json.push_str(IMAGE_OMITTED);
    }
    Fit::ImageOmitted
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;
