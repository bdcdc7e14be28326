//! The paths of the inference server.

use std::fmt::Display;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::multipart::MultipartError;
use axum::extract::{DefaultBodyLimit, Multipart, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{RequestExt, Router};
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::features::{self, FeaturesError};
use super::model_worker::{ClassifyError, ModelWorker};
use super::picture::{self, PictureError};
use crate::config::ResizeMode;
use crate::http::html_page;
use crate::model::{InferenceResult, ModelInfo};

/// Most bytes of an uploaded picture.
const MAX_PICTURE: usize = 100 << 20;
/// Most bytes of a body with features, as in the existing runner.
const MAX_FEATURES: usize = 150 << 20;
/// Most bytes of the form around a picture.
const MAX_FORM: usize = 64 << 10;
/// Most bodies in memory at the same time. Further requests wait.
const MAX_BODIES: usize = 4;
/// Time limit for a whole body.
const BODY_LIMIT: Duration = Duration::from_secs(60);
/// Time limit for the next part of a body: a silent client must not block other clients.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);
/// Time limit for a body permit. Longer than [`SILENCE_LIMIT`], so that silent clients lose their permits first.
const PERMIT_LIMIT: Duration = Duration::from_secs(15);

/// State of the inference server.
pub(super) struct ServerState {
    worker: Arc<ModelWorker>,
    forced_resize: Option<ResizeMode>,
    bodies: Arc<Semaphore>,
    /// Only one picture is decoded at a time, because a decoded picture needs far more memory than its file.
    decoding: Arc<Semaphore>,
}

impl ServerState {
    pub(super) fn new(worker: Arc<ModelWorker>, forced_resize: Option<ResizeMode>) -> Arc<Self> {
        Arc::new(Self {
            worker,
            forced_resize,
            bodies: Arc::new(Semaphore::new(MAX_BODIES)),
            decoding: Arc::new(Semaphore::new(1)),
        })
    }

    fn info(&self) -> Result<Arc<ModelInfo>, RequestError> {
        self.worker
            .info()
            .ok_or(RequestError::Classify(ClassifyError::NotRunning))
    }

    /// A permit to hold a body in memory. The work on the body holds it, because that continues after the client disconnected.
    async fn body_permit(&self) -> Result<OwnedSemaphorePermit, RequestError> {
        match tokio::time::timeout(PERMIT_LIMIT, self.bodies.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(RequestError::Full),
        }
    }
}

pub(super) fn router(state: Arc<ServerState>) -> Router {
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
        .with_state(state)
}

const NOT_FOUND: &str =
    "there is no such path; the paths are GET /, GET /api/info, POST /api/features and POST /api/image\n";

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("{0}")]
    Request(String),
    #[error("{0}")]
    Features(#[from] FeaturesError),
    #[error("{0}")]
    Picture(#[from] PictureError),
    #[error("{MAX_BODIES} uploads are already being received; try again later")]
    Full,
    #[error("{0}")]
    Classify(#[from] ClassifyError),
}

impl RequestError {
    fn request(reason: impl Display) -> Self {
        Self::Request(reason.to_string())
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        let code = match &self {
            Self::Request(_) | Self::Features(_) | Self::Picture(_) | Self::Classify(ClassifyError::Refused(_)) => {
                StatusCode::BAD_REQUEST
            }
            Self::Full | Self::Classify(ClassifyError::Busy | ClassifyError::NotRunning | ClassifyError::Failed(_)) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        (code, format!("{self}\n")).into_response()
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

async fn features(State(state): State<Arc<ServerState>>, request: Request) -> Result<Response, RequestError> {
    let wanted = state.info()?.features;
    let permit = state.body_permit().await?;
    let parts = request.with_limited_body().into_body().into_data_stream();
    let unreadable = |e| RequestError::request(format!("the body cannot be read: {e}"));
    let body = with_body_limit(read_all(parts, unreadable)).await??;
    let work = move || {
        let values = features::read(&body, wanted);
        drop(permit);
        values
    };
    let values = tokio::task::spawn_blocking(work)
        .await
        .map_err(RequestError::request)??;
    let (result, timing) = state.worker.classify(values).await?;
    Ok(pretty(&response_value(&result, json!(result), timing)))
}

async fn image(
    State(state): State<Arc<ServerState>>,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<Response, RequestError> {
    let form = form.map_err(|_| {
        RequestError::request("No files posted, requiring a multipart/form-data body with 1 item \"file\"")
    })?;
    let info = state.info()?;
    let (features, mapping) = {
        let permit = state.body_permit().await?;
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
            drop((permit, decoding));
            prepared
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(RequestError::request)??
    };
    let (mut result, timing) = state.worker.classify(features).await?;
    mapping.map_back(&mut result);
    let mut shown = json!(result);
    mapping.describe(&mut shown);
    Ok(pretty(&response_value(&result, shown, timing)))
}

/// Reads the content of the first field `file`.
async fn read_upload(mut form: Multipart) -> Result<Vec<u8>, RequestError> {
    let failed = |e: MultipartError| match e.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            RequestError::request(format!("File too large, the limit is {} MB", MAX_PICTURE >> 20))
        }
        _ => RequestError::request(format!("the form cannot be read: {}", e.body_text())),
    };
    while let Some(field) = next_part(form.next_field()).await?.map_err(failed)? {
        if matches!(field.name(), Some("file" | "file[]")) {
            return read_all(field, failed).await;
        }
    }
    Err(RequestError::request("Missing \"file\" in the multipart/form-data"))
}

/// Reads a whole body.
async fn read_all<E>(
    parts: impl Stream<Item = Result<Bytes, E>>,
    failed: impl Fn(E) -> RequestError,
) -> Result<Vec<u8>, RequestError> {
    let mut parts = pin!(parts);
    let mut whole = Vec::new();
    while let Some(part) = next_part(parts.next()).await? {
        whole.extend_from_slice(&part.map_err(&failed)?);
    }
    Ok(whole)
}

/// Waits for the next part of a body for at most [`SILENCE_LIMIT`].
async fn next_part<T>(part: impl Future<Output = T>) -> Result<T, RequestError> {
    let silent = |_| RequestError::request(format!("no part of the body arrived for {} s", SILENCE_LIMIT.as_secs()));
    tokio::time::timeout(SILENCE_LIMIT, part).await.map_err(silent)
}

/// Waits for a whole body for at most [`BODY_LIMIT`].
async fn with_body_limit<T>(reading: impl Future<Output = T>) -> Result<T, RequestError> {
    tokio::time::timeout(BODY_LIMIT, reading)
        .await
        .map_err(|_| RequestError::request(format!("the body did not arrive within {} s", BODY_LIMIT.as_secs())))
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
