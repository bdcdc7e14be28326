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
use super::picture::{self, PictureError};
use super::worker::{AskError, Worker};
use crate::config::ResizeMode;
use crate::http::live_page::with_policy;
use crate::model::{InferenceResult, ModelInfo};

/// Bytes of an uploaded picture.
const MAX_PICTURE: usize = 100 << 20;
/// Bytes of a body with features, as in the existing runner.
const MAX_FEATURES: usize = 150 << 20;
/// Bytes of what surrounds a picture in its form.
const MAX_FORM: usize = 64 << 10;
/// Bodies that are held in memory at a time; more wait.
const MAX_BODIES: usize = 4;
/// How long a body may take to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(60);
/// How long nothing of it may come: whoever sends nothing keeps the place from somebody else.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);
/// How long a request waits until there is room for its body: longer than those keep it who send nothing.
const PLACE_LIMIT: Duration = Duration::from_secs(15);

/// What every request works on.
pub(super) struct Site {
    worker: Arc<Worker>,
    forced_resize: Option<ResizeMode>,
    bodies: Arc<Semaphore>,
    /// A decoded picture takes far more memory than its file: one at a time.
    decoding: Arc<Semaphore>,
}

impl Site {
    pub(super) fn new(worker: Arc<Worker>, forced_resize: Option<ResizeMode>) -> Arc<Self> {
        Arc::new(Self {
            worker,
            forced_resize,
            bodies: Arc::new(Semaphore::new(MAX_BODIES)),
            decoding: Arc::new(Semaphore::new(1)),
        })
    }

    fn info(&self) -> Result<Arc<ModelInfo>, Failure> {
        self.worker.info().ok_or(Failure::Ask(AskError::NotRunning))
    }

    /// A place for a body in memory. It goes along with the work on that body, which is not over when the client has gone.
    async fn place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        match tokio::time::timeout(PLACE_LIMIT, self.bodies.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(Failure::Full),
        }
    }
}

pub(super) fn router(site: Arc<Site>) -> Router {
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
        .layer(middleware::from_fn_with_state(site.clone(), name_the_model))
        .with_state(site)
}

const NOT_FOUND: &str =
    "there is no such path; there are GET /, GET /api/info, POST /api/features and POST /api/image\n";

/// Why a request is not answered with a result.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Request(String),
    #[error("{0}")]
    Features(#[from] FeaturesError),
    #[error("{0}")]
    Picture(#[from] PictureError),
    #[error("{MAX_BODIES} uploads are being received already; try again later")]
    Full,
    #[error("{0}")]
    Ask(#[from] AskError),
}

impl Failure {
    fn request(reason: impl Display) -> Self {
        Self::Request(reason.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = match &self {
            Self::Request(_) | Self::Features(_) | Self::Picture(_) | Self::Ask(AskError::Refused(_)) => {
                StatusCode::BAD_REQUEST
            }
            Self::Full | Self::Ask(AskError::Busy | AskError::NotRunning | AskError::Failed(_)) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        (code, format!("{self}\n")).into_response()
    }
}

/// `x-ei-owner`, `x-ei-project-name` and `x-ei-project-version`.
async fn name_the_model(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let Some(info) = site.worker.info() else {
        return response;
    };
    for (name, value) in [
        ("x-ei-owner", info.owner.as_str()),
        ("x-ei-project-name", info.name.as_str()),
        ("x-ei-project-version", info.deploy_version.to_string().as_str()),
    ] {
        // A name with a line break in it, which no header can hold, is left out.
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

async fn page(headers: HeaderMap) -> Response {
    with_policy(
        include_str!("page/page.html"),
        include_str!("page/page.css"),
        include_str!("page/page.js"),
        &headers,
    )
}

async fn info(State(site): State<Arc<Site>>) -> Result<Response, Failure> {
    let info = site.info()?;
    let mut parameters = Map::new();
    // 3: visual GMM, the anomaly detection that gives a grid.
    let visual = info.raw_parameters.get("has_anomaly").and_then(Value::as_u64) == Some(3);
    parameters.insert("has_visual_anomaly_detection".to_owned(), visual.into());
    parameters.extend(info.parameters_with_sensor_type());
    Ok(pretty(
        &json!({"project": info.raw_project, "modelParameters": parameters}),
    ))
}

async fn features(State(site): State<Arc<Site>>, request: Request) -> Result<Response, Failure> {
    let wanted = site.info()?.features;
    let place = site.place().await?;
    let parts = request.with_limited_body().into_body().into_data_stream();
    let unreadable = |e| Failure::request(format!("the body cannot be read: {e}"));
    let body = in_time(collected(parts, unreadable)).await??;
    let work = move || {
        let values = features::read(&body, wanted);
        drop(place);
        values
    };
    let values = tokio::task::spawn_blocking(work).await.map_err(Failure::request)??;
    let (result, timing) = site.worker.ask(values).await?;
    Ok(pretty(&answer(&result, json!(result), timing)))
}

async fn image(
    State(site): State<Arc<Site>>,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<Response, Failure> {
    let form = form
        .map_err(|_| Failure::request("No files posted, requiring a multipart/form-data body with 1 item \"file\""))?;
    let info = site.info()?;
    let (features, mapping) = {
        let place = site.place().await?;
        let file = in_time(uploaded(form)).await??;
        let decoding = site.decoding.clone().acquire_owned().await.map_err(Failure::request)?;
        let forced = site.forced_resize;
        let work = move || {
            let prepared = picture::prepare(&file, &info, forced);
            drop((place, decoding));
            prepared
        };
        tokio::task::spawn_blocking(work).await.map_err(Failure::request)??
    };
    let (mut result, timing) = site.worker.ask(features).await?;
    mapping.map_back(&mut result);
    let mut shown = json!(result);
    mapping.describe(&mut shown);
    Ok(pretty(&answer(&result, shown, timing)))
}

/// The first field called `file`.
async fn uploaded(mut form: Multipart) -> Result<Vec<u8>, Failure> {
    let failed = |e: MultipartError| match e.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Failure::request(format!("File too large, at most {} MB are read", MAX_PICTURE >> 20))
        }
        _ => Failure::request(format!("the form cannot be read: {}", e.body_text())),
    };
    while let Some(field) = while_it_comes(form.next_field()).await?.map_err(failed)? {
        if matches!(field.name(), Some("file" | "file[]")) {
            return collected(field, failed).await;
        }
    }
    Err(Failure::request("Missing \"file\" in the multipart/form-data"))
}

/// All of a body.
async fn collected<E>(
    parts: impl Stream<Item = Result<Bytes, E>>,
    failed: impl Fn(E) -> Failure,
) -> Result<Vec<u8>, Failure> {
    let mut parts = pin!(parts);
    let mut whole = Vec::new();
    while let Some(part) = while_it_comes(parts.next()).await? {
        whole.extend_from_slice(&part.map_err(&failed)?);
    }
    Ok(whole)
}

/// The next part of a body.
async fn while_it_comes<T>(part: impl Future<Output = T>) -> Result<T, Failure> {
    let silent = |_| Failure::request(format!("nothing of the body came for {} s", SILENCE_LIMIT.as_secs()));
    tokio::time::timeout(SILENCE_LIMIT, part).await.map_err(silent)
}

async fn in_time<T>(reading: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(BODY_LIMIT, reading)
        .await
        .map_err(|_| Failure::request(format!("the body did not arrive within {} s", BODY_LIMIT.as_secs())))
}

fn answer(result: &InferenceResult, shown: Value, timing: Value) -> Value {
    let mut answer = Map::new();
    answer.insert("result".to_owned(), shown);
    answer.insert("timing".to_owned(), timing);
    if let Some(info) = &result.info {
        answer.insert("info".to_owned(), info.as_str().into());
    }
    Value::Object(answer)
}

/// JSON for people, indented by four like that of the existing runner.
fn pretty(value: &Value) -> Response {
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    if let Err(e) = value.serialize(&mut writer).map_err(io::Error::from) {
        return (StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")).into_response();
    }
    text.push(b'\n');
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
