//! Requests to Studio. Every answer is limited in size and time.

use std::time::Duration;

use reqwest::header::{HeaderValue, LOCATION};
use reqwest::{Method, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::answer::parse;
use super::error::StudioError;
use super::limits::StudioLimits;
use crate::util::secret::Secret;
use crate::util::text::{excerpt, innermost};

/// The header that carries the API key.
const KEY_HEADER: &str = "x-api-key";
/// Most redirects that a request follows.
const MAX_REDIRECTS: usize = 5;

/// A client of Edge Impulse Studio with one API key. Uses the proxy of the environment.
#[derive(Debug)]
pub struct StudioClient {
    http: reqwest::Client,
    base: Url,
    /// Marked as sensitive, so `Debug` prints `Sensitive`.
    key: HeaderValue,
    pub(super) limits: StudioLimits,
}

impl StudioClient {
    /// A client for the Studio at `base` (see [`base_url`](super::base_url)).
    ///
    /// # Errors
    /// The key is not a valid header value, or the HTTP client cannot be created.
    pub fn new(base: Url, key: &Secret, limits: StudioLimits) -> Result<Self, StudioError> {
        let mut key = HeaderValue::from_str(key.reveal()).map_err(|_| StudioError::UnusableKey)?;
        key.set_sensitive(true);
        let http = reqwest::Client::builder()
            .user_agent(concat!("ei-greengrass/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits.connect)
            .read_timeout(limits.stall)
            // reqwest would send the key to other hosts, so redirects are followed here.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| StudioError::Client(crate::util::text::sentence(&e)))?;
        Ok(Self {
            http,
            base,
            key,
            limits,
        })
    }

    /// The host, for error messages.
    pub(super) fn host(&self) -> String {
        self.base.host_str().unwrap_or_default().to_owned()
    }

    /// `GET <base>/<path>?<query>` as JSON.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, StudioError> {
        self.json(what, Method::GET, path, query, None).await
    }

    /// `POST <base>/<path>?<query>` with a JSON body. The answer is JSON.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &str,
        query: &[(&str, &str)],
        body: &Value,
    ) -> Result<T, StudioError> {
        self.json(what, Method::POST, path, query, Some(body)).await
    }

    async fn json<T: DeserializeOwned>(
        &self,
        what: &'static str,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<T, StudioError> {
        let request = async {
            let response = self.send(what, method, self.address(path, query), body).await?;
            let status = response.status();
            let bytes = self.collect(what, response).await?;
            Ok::<_, StudioError>((status, bytes))
        };
        let (status, bytes) = match tokio::time::timeout(self.limits.answer, request).await {
            Ok(answer) => answer?,
            Err(_) => return Err(self.timed_out(what, self.limits.answer)),
        };
        parse(what, &self.host(), status, &bytes)
    }

    /// `GET <base>/<path>?<query>` as a stream of bytes. A JSON answer is an error.
    pub(super) async fn download(
        &self,
        what: &'static str,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Response, StudioError> {
        let request = self.send(what, Method::GET, self.address(path, query), None);
        let response = match tokio::time::timeout(self.limits.answer, request).await {
            Ok(response) => response?,
            Err(_) => return Err(self.timed_out(what, self.limits.answer)),
        };
        let is_json = response
            .headers()
            .get(reqwest::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| kind.starts_with("application/json"));
        if response.status().is_success() && !is_json {
            return Ok(response);
        }
        // Studio reports failures as JSON, often with status 200.
        let status = response.status();
        let bytes = match tokio::time::timeout(self.limits.answer, self.collect(what, response)).await {
            Ok(bytes) => bytes?,
            Err(_) => return Err(self.timed_out(what, self.limits.answer)),
        };
        let answer: Value = parse(what, &self.host(), status, &bytes)?;
        Err(StudioError::Unexpected {
            what,
            detail: format!("JSON instead of a file ({})", excerpt(&answer.to_string())),
        })
    }

    fn address(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path()));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Sends the request and follows redirects. The key is sent only to Studio.
    async fn send(
        &self,
        what: &'static str,
        method: Method,
        mut url: Url,
        body: Option<&Value>,
    ) -> Result<Response, StudioError> {
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.http.request(method.clone(), url.clone());
            if url.origin() == self.base.origin() {
                request = request.header(KEY_HEADER, self.key.clone());
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let response = request.send().await.map_err(|e| self.unreachable(what, e))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            match location.and_then(|to| url.join(to).ok()) {
                Some(next) if method == Method::GET && self.may_follow(&next) => url = next,
                refused => return Err(refused_redirect(what, refused)),
            }
        }
        Err(StudioError::Redirected {
            what,
            to: "too many addresses".to_owned(),
        })
    }

    /// Refuses a redirect from an encrypted to an unencrypted connection.
    fn may_follow(&self, next: &Url) -> bool {
        next.scheme() == "https" || next.scheme() == "http" && self.base.scheme() == "http"
    }

    async fn collect(&self, what: &'static str, mut response: Response) -> Result<Vec<u8>, StudioError> {
        let limit = self.limits.json_bytes;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreachable(what, e))? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(StudioError::TooLarge { what, limit });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn unreachable(&self, what: &'static str, error: reqwest::Error) -> StudioError {
        StudioError::Unreachable {
            host: self.host(),
            what,
            reason: reason(&error),
        }
    }

    fn timed_out(&self, what: &'static str, limit: Duration) -> StudioError {
        StudioError::Unreachable {
            host: self.host(),
            what,
            reason: format!("no answer within {} s", limit.as_secs_f32()),
        }
    }
}

fn refused_redirect(what: &'static str, location: Option<Url>) -> StudioError {
    let to = location.and_then(|to| to.host_str().map(|host| format!("{}://{host}", to.scheme())));
    StudioError::Redirected {
        what,
        to: to.unwrap_or_else(|| "no address".to_owned()),
    }
}

/// The innermost cause of a failed request, without the address, which may contain a password.
pub(super) fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let cause = innermost(error);
    if std::ptr::addr_eq(cause, error) {
        return "the request failed".to_owned();
    }
    excerpt(&cause.to_string())
}
