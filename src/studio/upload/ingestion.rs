//! One request to ingestion: a sample as `multipart/form-data`, and what the answer means.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::bounding_boxes;
use super::sample::SampleMetadata;
use crate::studio::client::reason;
use crate::studio::error::StudioError;
use crate::util::backoff::Retry;
use crate::util::secret::Secret;
use crate::util::text::{excerpt, sentence};

/// Largest sample that ingestion takes, in bytes (exclusive).
pub(super) const MAX_BYTES: u64 = 100 << 20;
/// Slowest upload that is not given up, in bytes per second.
const SLOWEST: u64 = 16 << 10;
/// Most bytes of an answer.
const MAX_ANSWER: usize = 64 << 10;
/// Part of the text with which ingestion refuses a sample that it has.
const DUPLICATE: &str = "already exists";

/// What ingestion does with a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Ingestion has it.
    Stored,
    /// It is refused for good. The text for Studio.
    Refused(String),
    /// Another attempt may succeed.
    NotNow {
        /// Why, as a clause.
        reason: String,
        /// When.
        retry: Retry,
        /// Whether data may have been sent.
        was_sent: bool,
    },
}

/// A client of ingestion. Uses the proxy of the environment.
#[derive(Debug, Clone)]
pub(super) struct IngestionClient {
    http: reqwest::Client,
}

impl IngestionClient {
    pub(super) fn new(connect: Duration) -> Result<Self, StudioError> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("ei-greengrass/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(connect)
            // The key must not go to another host.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| StudioError::Client(sentence(&e)))?;
        Ok(Self { http })
    }

    /// Uploads a sample. `answer`: time for the answer, beside the time that the data takes. `is_repeated`: an earlier attempt
    /// may have arrived, so a duplicate means that it did.
    pub(super) async fn upload(
        &self,
        base: &Url,
        key: &Secret,
        metadata: &SampleMetadata,
        data: Bytes,
        answer: Duration,
        is_repeated: bool,
    ) -> Verdict {
        let limit = answer + Duration::from_secs(data.len() as u64 / SLOWEST);
        let request = match self.request(base, key, &metadata.category) {
            Ok(request) => request
                .timeout(limit)
                .header("x-label", metadata.encoded_label())
                .header("x-metadata", metadata.encoded_metadata()),
            Err(error) => return Verdict::not_sent(error.to_string(), Retry::Later),
        };
        let request = match metadata.is_unlabelled() {
            true => request.header("x-no-label", "1"),
            false => request,
        };
        let boundary = Uuid::new_v4().simple().to_string();
        match send(request, &boundary, body(metadata, &boundary, data)).await {
            Ok(IngestionReply { status, text }) => verdict(status, &text, is_repeated),
            Err(error) if error.is_connect() => Verdict::not_sent(reason(&error), Retry::Soon),
            Err(error) => not_now(reason(&error), Retry::Soon),
        }
    }

    /// Sends an upload without a file and gives the answer, or why there is none.
    ///
    /// # Errors
    /// The key cannot be sent.
    pub(super) async fn upload_nothing(
        &self,
        base: &Url,
        key: &Secret,
        answer: Duration,
    ) -> Result<Result<IngestionReply, String>, StudioError> {
        let request = self.request(base, key, "training")?.timeout(answer);
        let boundary = Uuid::new_v4().simple().to_string();
        let end = Bytes::from(format!("--{boundary}--\r\n"));
        let request = request.header("x-metadata", "{}");
        Ok(send(request, &boundary, vec![end])
            .await
            .map_err(|error| reason(&error)))
    }

    /// A request without label, metadata and body.
    fn request(&self, base: &Url, key: &Secret, category: &str) -> Result<RequestBuilder, StudioError> {
        let mut key = HeaderValue::from_str(key.reveal()).map_err(|_| StudioError::UnusableKey)?;
        key.set_sensitive(true);
        let mut url = base.clone();
        let path = base.path().trim_end_matches('/');
        url.set_path(&format!("{path}/api/{category}/files"));
        let request = self
            .http
            .post(url)
            .header("x-api-key", key)
            .header("x-disallow-duplicates", "1")
            .header("x-add-date-id", "1")
            .header("x-device-type", "EDGE_IMPULSE_CLI")
            .header("x-upload-source", "EDGE_IMPULSE_CLI_UPLOADER");
        Ok(request)
    }
}

/// An answer of ingestion.
pub(super) struct IngestionReply {
    pub(super) status: StatusCode,
    pub(super) text: Vec<u8>,
}

/// Sends the parts as they are.
///
/// # Errors
/// There is no answer.
async fn send(request: RequestBuilder, boundary: &str, parts: Vec<Bytes>) -> Result<IngestionReply, reqwest::Error> {
    let length: usize = parts.iter().map(Bytes::len).sum();
    let parts = futures_util::stream::iter(parts.into_iter().map(Ok::<_, std::convert::Infallible>));
    let request = request
        .header(CONTENT_TYPE, format!("multipart/form-data; boundary={boundary}"))
        .header(CONTENT_LENGTH, length)
        .body(reqwest::Body::wrap_stream(parts));
    let mut response = request.send().await?;
    let status = response.status();
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if text.len() + chunk.len() > MAX_ANSWER {
            break;
        }
        text.extend_from_slice(&chunk);
    }
    Ok(IngestionReply { status, text })
}

impl Verdict {
    /// No data was sent; another attempt may succeed.
    pub(super) fn not_sent(reason: String, retry: Retry) -> Self {
        Self::NotNow {
            reason,
            retry,
            was_sent: false,
        }
    }
}

fn not_now(reason: String, retry: Retry) -> Verdict {
    Verdict::NotNow {
        reason,
        retry,
        was_sent: true,
    }
}

/// The body: a part with the data, which is not copied, and one with its boxes if it has some.
fn body(metadata: &SampleMetadata, boundary: &str, data: Bytes) -> Vec<Bytes> {
    let head = |file_name: &str, kind: &str| {
        format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"data\"; filename=\"{file_name}\"\r\nContent-Type: {kind}\r\n\r\n"
        )
    };
    let mut parts = vec![head(&metadata.file_name(), metadata.kind.content_type()).into(), data];
    if let Some(labels) = metadata.labels_file() {
        let head = head(bounding_boxes::FILE_NAME, "application/json");
        parts.push(format!("\r\n{head}{labels}").into());
    }
    parts.push(format!("\r\n--{boundary}--\r\n").into());
    parts
}

/// Ingestion refuses single files inside a 200, and answers plain text too.
fn verdict(status: StatusCode, text: &[u8], is_repeated: bool) -> Verdict {
    let answer: Value = serde_json::from_slice(text).unwrap_or_default();
    let files = answer["files"].as_array().map_or(&[][..], Vec::as_slice);
    let refused = files.iter().find(|file| file["success"] == false);
    if status.is_success() && refused.is_none() && answer["success"] == true {
        return Verdict::Stored;
    }
    let told = refused
        .and_then(|file| file["error"].as_str())
        .or_else(|| answer["error"].as_str())
        .map_or_else(|| excerpt(&String::from_utf8_lossy(text)), excerpt);
    let told = match told.trim() {
        "" => format!("HTTP {}", status.as_u16()),
        told => told.to_owned(),
    };
    if told.contains(DUPLICATE) && is_repeated {
        return Verdict::Stored;
    }
    match status.as_u16() {
        // The sample is not to blame: another key may come.
        401 | 403 => not_now(format!("the API key is refused (HTTP {status}): {told}"), Retry::Later),
        408 | 425 | 429 | 500..=599 => not_now(format!("HTTP {}: {told}", status.as_u16()), Retry::Soon),
        // Something else answers, such as a login page.
        300..=399 => not_now(
            format!("HTTP {}: is a proxy or login page in the way?", status.as_u16()),
            Retry::Soon,
        ),
        200..=299 if answer.is_null() => not_now(format!("it answers no JSON: {told}"), Retry::Soon),
        _ => Verdict::Refused(told),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, text: &str, is_repeated: bool) -> Verdict {
        verdict(StatusCode::from_u16(status).unwrap(), text.as_bytes(), is_repeated)
    }

    #[test]
    fn a_sample_is_stored_when_the_answer_and_its_file_say_so() {
        let stored = r#"{"success":true,"files":[{"success":true}]}"#;
        assert_eq!(of(200, stored, false), Verdict::Stored);
        let refused = r#"{"success":true,"files":[{"success":false,"error":"no"}]}"#;
        assert_eq!(of(200, refused, false), Verdict::Refused("no".to_owned()));
        assert_eq!(
            of(400, r#"{"success":false,"error":"bad"}"#, false),
            Verdict::Refused("bad".to_owned())
        );
        assert_eq!(of(421, "", false), Verdict::Refused("HTTP 421".to_owned()));
    }

    #[test]
    fn the_boxes_are_a_second_part_of_the_request() {
        use crate::studio::upload::{CollectedDetails, LabelledBox, SampleKind};
        let found = LabelledBox {
            label: "car".to_owned(),
            x: 1,
            y: 2,
            width: 3,
            height: 4,
        };
        let metadata = SampleMetadata {
            category: "training".to_owned(),
            label: String::new(),
            kind: SampleKind::Jpeg,
            bytes: 4,
            collected: Some(CollectedDetails {
                name: "d.1".to_owned(),
                boxes: vec![found],
                metadata: Default::default(),
            }),
        };
        let body = body(&metadata, "B", Bytes::from_static(b"JPEG")).concat();
        let expected = "--B\r\nContent-Disposition: form-data; name=\"data\"; filename=\"d.1.jpg\"\r\nContent-Type: image/jpeg\r\n\r\nJPEG\r\n\
            --B\r\nContent-Disposition: form-data; name=\"data\"; filename=\"bounding_boxes.labels\"\r\nContent-Type: application/json\r\n\r\n\
            {\"version\":1,\"type\":\"bounding-box-labels\",\"boundingBoxes\":{\"d.1.jpg\":[{\"label\":\"car\",\"x\":1,\"y\":2,\"width\":3,\"height\":4}]}}\r\n\
            --B--\r\n";
        assert_eq!(String::from_utf8_lossy(&body), expected);
    }

    #[test]
    fn only_what_can_succeed_is_tried_again() {
        for (status, retry) in [
            (500, Retry::Soon),
            (503, Retry::Soon),
            (408, Retry::Soon),
            (429, Retry::Soon),
            (302, Retry::Soon),
            (401, Retry::Later),
        ] {
            let verdict = of(status, "<html>", false);
            assert!(
                matches!(&verdict, Verdict::NotNow { retry: when, .. } if *when == retry),
                "{status}: {verdict:?}"
            );
        }
        assert!(matches!(of(200, "<html>", false), Verdict::NotNow { .. }));
    }

    #[test]
    fn a_duplicate_after_an_earlier_attempt_is_stored() {
        let text = "An item with this hash already exists (ids: 5)";
        let file = format!(r#"{{"success":true,"files":[{{"success":false,"error":"{text}"}}]}}"#);
        for (status, text) in [(400, text), (200, &file)] {
            assert_eq!(of(status, text, true), Verdict::Stored);
            assert!(matches!(of(status, text, false), Verdict::Refused(_)));
        }
    }
}
