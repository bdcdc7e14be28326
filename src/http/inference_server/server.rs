//! The paths of the inference server.

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::multipart::MultipartError;
use axum::extract::{DefaultBodyLimit, Multipart, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, RequestExt, Router};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::features::{self, FeaturesError};
use super::model_worker::{ClassifyError, ModelWorker, QUEUE_LENGTH, TimedResult};
use super::picture::{self, PictureError};
use super::upload::{UploadPlaces, next_part, read_all, with_body_limit};
use crate::config::ResizeMode;
use crate::http::access::{self, Access};
use crate::http::connection_table::OpenRequest;
use crate::http::html_page;
use crate::http::places::{Place, PlaceLimits, Places};
use crate::model::{InferenceResult, ModelInfo};
use crate::util::text::visible_lines;

/// Most bytes of an uploaded picture.
const MAX_PICTURE: usize = 100 << 20;
/// Most bytes of a body with features, as in the existing runner.
const MAX_FEATURES: usize = 150 << 20;
/// Most characters of the reason in an answer.
const MAX_REASON: usize = 2000;
/// Most bytes of the form around a picture.
const MAX_FORM: usize = 64 << 10;
/// Most bytes of a body for one feature, and for what is around them. `JSON.stringify` writes at most 25 characters.
const FEATURE_BYTES: usize = 256;
const AROUND_FEATURES: usize = 1 << 20;
/// Requests with features that wait for the model. As many as its queue takes, so that one client does not fill it.
const WAITING: PlaceLimits = PlaceLimits {
    total: QUEUE_LENGTH + 1,
    per_client: 4,
    device: 8,
    reserved: 1,
};
/// Time limit for a place in the queue of the model.
const WAIT_LIMIT: Duration = Duration::from_secs(15);

/// State of the inference server.
pub(super) struct ServerState {
    worker: Arc<ModelWorker>,
    forced_resize: Option<ResizeMode>,
    uploads: UploadPlaces,
    waiting: Arc<Places>,
    /// Only one picture is decoded at a time, because a decoded picture needs far more memory than its file.
    decoding: Arc<Semaphore>,
}

impl ServerState {
    pub(super) fn new(worker: Arc<ModelWorker>, forced_resize: Option<ResizeMode>) -> Arc<Self> {
        Arc::new(Self {
            worker,
            forced_resize,
            uploads: UploadPlaces::new(),
            waiting: Places::new(WAITING),
            decoding: Arc::new(Semaphore::new(1)),
        })
    }

    fn info(&self) -> Result<Arc<ModelInfo>, RequestError> {
        self.worker
            .info()
            .ok_or(RequestError::Classify(ClassifyError::NotRunning))
    }

    /// Asks the model. Each client has its share of the queue; its further requests wait, and hold their places for uploads.
    async fn classify(
        &self,
        open: &OpenRequest,
        upload: Place,
        features: Vec<f32>,
    ) -> Result<TimedResult, RequestError> {
        let waiting = tokio::time::timeout(WAIT_LIMIT, self.waiting.take(open.client())).await;
        let _place = waiting.map_err(|_| RequestError::Classify(ClassifyError::Busy))?;
        drop(upload);
        Ok(self.worker.classify(features).await?)
    }
}

pub(super) fn router(state: Arc<ServerState>, access: Arc<Access>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/api/info", get(info))
        .route(
            "/api/features",
            post(features).layer(DefaultBodyLimit::max(MAX_FEATURES)),
        )
        .route(
            "/api/image",
            post(image).layer(DefaultBodyLimit::max(MAX_PICTURE + MAX_FORM)),
        )
        .fallback(|| async { (StatusCode::NOT_FOUND, NOT_FOUND) })
        .layer(middleware::from_fn_with_state(state.clone(), add_model_headers))
        .layer(middleware::from_fn_with_state(access, access::guard))
        .with_state(state)
}

const NOT_FOUND: &str =
    "there is no such path; the paths are GET /, GET /api/info, POST /api/features and POST /api/image\n";

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("{0}")]
    Request(String),
    #[error("{}", .1.trim_end())]
    Kind(StatusCode, String),
    #[error("the body is too large; accepted: at most {0} bytes")]
    TooLarge(usize),
    #[error("{0}")]
    Features(#[from] FeaturesError),
    #[error("{0}")]
    Picture(#[from] PictureError),
    #[error("too many uploads are already being received; try again later")]
    Full,
    #[error("{0}")]
    Classify(#[from] ClassifyError),
}

impl RequestError {
    pub(super) fn request(reason: impl Display) -> Self {
        Self::Request(reason.to_string())
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        let code = match &self {
            Self::Kind(code, _) => *code,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Request(_) | Self::Features(_) | Self::Picture(_) | Self::Classify(ClassifyError::Refused(_)) => {
                StatusCode::BAD_REQUEST
            }
            Self::Full | Self::Classify(ClassifyError::Busy | ClassifyError::NotRunning | ClassifyError::Failed(_)) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        // It may repeat what the client or the model said.
        let reason = visible_lines(&self.to_string(), MAX_REASON);
        (code, format!("{reason}\n")).into_response()
    }
}

/// Adds `x-ei-owner`, `x-ei-project-name` and `x-ei-project-version` to each response.
async fn add_model_headers(State(state): State<Arc<ServerState>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let Some(info) = state.worker.info() else {
        return response;
    };
    for (name, value) in [
        ("x-ei-owner", info.owner.as_str()),
        ("x-ei-project-name", info.name.as_str()),
        ("x-ei-project-version", info.deploy_version.to_string().as_str()),
    ] {
        // A name with a line break cannot be a header value and is omitted.
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

async fn page(headers: HeaderMap) -> Response {
    html_page::response(
        include_str!("page/page.html"),
        include_str!("page/page.css"),
        include_str!("page/page.js"),
        &headers,
    )
}

async fn info(State(state): State<Arc<ServerState>>) -> Result<Response, RequestError> {
    let info = state.info()?;
    let mut parameters = Map::new();
    parameters.insert(
        "has_visual_anomaly_detection".to_owned(),
        info.is_visual_anomaly().into(),
    );
    parameters.extend(info.parameters_with_sensor_type());
    Ok(pretty(
        &json!({"project": info.raw_project, "modelParameters": parameters}),
    ))
}

async fn features(
    State(state): State<Arc<ServerState>>,
    Extension(open): Extension<OpenRequest>,
    request: Request,
) -> Result<Response, RequestError> {
    access::require_json(request.headers()).map_err(|(code, reason)| RequestError::Kind(code, reason))?;
    let wanted = state.info()?.features;
    let most = MAX_FEATURES.min(AROUND_FEATURES + FEATURE_BYTES.saturating_mul(wanted));
    let length = content_length(request.headers());
    if length.is_some_and(|length| length > most as u64) {
        return Err(RequestError::TooLarge(most));
    }
    let place = state.uploads.take(open.client(), length).await?;
    let parts = request.with_limited_body().into_body().into_data_stream();
    let unreadable = |e| RequestError::request(format!("the body cannot be read: {e}"));
    let body = with_body_limit(read_all(parts, most, unreadable)).await??;
    // The work holds the place, because it continues after the client disconnected.
    let work = move || {
        let values = features::read(&body, wanted);
        (values, place)
    };
    let (values, place) = tokio::task::spawn_blocking(work).await.map_err(RequestError::request)?;
    let (result, timing) = state.classify(&open, place, values?).await?;
    Ok(pretty(&response_value(&result, json!(result), timing)))
}

async fn image(
    State(state): State<Arc<ServerState>>,
    Extension(open): Extension<OpenRequest>,
    headers: HeaderMap,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<Response, RequestError> {
    let form = form.map_err(|_| {
        RequestError::request("No files posted, requiring a multipart/form-data body with 1 item \"file\"")
    })?;
    let info = state.info()?;
    let (prepared, place) = {
        let place = state.uploads.take(open.client(), content_length(&headers)).await?;
        let file = with_body_limit(read_upload(form)).await??;
        let decoding = state
            .decoding
            .clone()
            .acquire_owned()
            .await
            .map_err(RequestError::request)?;
        let forced = state.forced_resize;
        let work = move || {
            let prepared = picture::prepare(&file, &info, forced);
            drop((file, decoding));
            (prepared, place)
        };
        tokio::task::spawn_blocking(work).await.map_err(RequestError::request)?
    };
    let (features, mapping) = prepared?;
    let (mut result, timing) = state.classify(&open, place, features).await?;
    mapping.map_back(&mut result);
    let mut shown = json!(result);
    mapping.describe(&mut shown);
    Ok(pretty(&response_value(&result, shown, timing)))
}

/// The length of the body that a client announces.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// Reads the content of the first field `file`.
pub(super) async fn read_upload(mut form: Multipart) -> Result<Vec<u8>, RequestError> {
    let failed = |e: MultipartError| match e.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            RequestError::request(format!("File too large, the limit is {} MB", MAX_PICTURE >> 20))
        }
        _ => RequestError::request(format!("the form cannot be read: {}", e.body_text())),
    };
    while let Some(field) = next_part(form.next_field()).await?.map_err(failed)? {
        if matches!(field.name(), Some("file" | "file[]")) {
            return read_all(field, MAX_PICTURE + MAX_FORM, failed).await;
        }
    }
    Err(RequestError::request("Missing \"file\" in the multipart/form-data"))
}

fn response_value(result: &InferenceResult, shown: Value, timing: Value) -> Value {
    let mut response = Map::new();
    response.insert("result".to_owned(), shown);
    response.insert("timing".to_owned(), timing);
    if let Some(info) = &result.info {
        response.insert("info".to_owned(), info.as_str().into());
    }
    Value::Object(response)
}

/// A JSON response, indented by four spaces as the existing runner does.
fn pretty(value: &Value) -> Response {
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    if let Err(e) = value.serialize(&mut writer).map_err(io::Error::from) {
        return (StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")).into_response();
    }
    text.push(b'\n');
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
