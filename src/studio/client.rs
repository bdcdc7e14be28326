//! Studio's HTTP interface: every answer bounded in size and time, every failure a sentence.

use std::time::Duration;

use reqwest::header::{HeaderValue, LOCATION};
use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::error::StudioError;
use crate::util::secret::Secret;
use crate::util::text::{excerpt, innermost};

/// The header that carries the API key.
const KEY_HEADER: &str = "x-api-key";
/// How often one request is sent on to another address.
const MAX_REDIRECTS: usize = 5;

/// How long and how large things may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Until a connection stands: 10 s.
    pub connect: Duration,
    /// Until an answer in JSON is there: 60 s.
    pub answer: Duration,
    /// Between two pieces of a download: 30 s.
    pub stall: Duration,
    /// For a whole download: 2 h.
    pub download: Duration,
    /// Between two looks at a build job: 3 s.
    pub poll: Duration,
    /// For a build job: 30 min.
    pub build: Duration,
    /// How long an earlier model waits for the first news of a newer one: 20 s.
    pub patience: Duration,
    /// Bytes of an answer in JSON: 8 MiB.
    pub json_bytes: u64,
    /// Bytes of a model: 1 GiB.
    pub model_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            download: Duration::from_secs(2 * 3600),
            poll: Duration::from_secs(3),
            build: Duration::from_secs(30 * 60),
            patience: Duration::from_secs(20),
            json_bytes: 8 << 20,
            model_bytes: 1 << 30,
        }
    }
}

/// A connection to Edge Impulse Studio with one API key. Proxies are those of the environment.
#[derive(Debug)]
pub struct Studio {
    http: reqwest::Client,
    base: Url,
    /// Marked as sensitive: it prints as `Sensitive`.
    key: HeaderValue,
    pub(super) limits: Limits,
}

impl Studio {
    /// A client for the Studio at `base` (see [`base_url`](super::base_url)).
    ///
    /// # Errors
    /// The key cannot be sent, or the TLS stack does not start.
    pub fn new(base: Url, key: &Secret, limits: Limits) -> Result<Self, StudioError> {
        let mut key = HeaderValue::from_str(key.reveal()).map_err(|_| StudioError::UnusableKey)?;
        key.set_sensitive(true);
        let http = reqwest::Client::builder()
            .user_agent(concat!("ei-greengrass/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits.connect)
            .read_timeout(limits.stall)
            // The client would take the key along to any other host.
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

    /// The host, for messages.
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

    /// `POST <base>/<path>?<query>` with a JSON body, the answer as JSON.
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
        let ask = async {
            let response = self.send(what, method, self.address(path, query), body).await?;
            let status = response.status();
            let bytes = self.collect(what, response).await?;
            Ok::<_, StudioError>((status, bytes))
        };
        let (status, bytes) = match tokio::time::timeout(self.limits.answer, ask).await {
            Ok(answer) => answer?,
            Err(_) => return Err(self.silent(what, self.limits.answer)),
        };
        self.understand(what, status, &bytes)
    }

    /// `GET <base>/<path>?<query>` as a stream of bytes: only an answer that can be a file.
    pub(super) async fn open(
        &self,
        what: &'static str,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Response, StudioError> {
        let ask = self.send(what, Method::GET, self.address(path, query), None);
        let response = match tokio::time::timeout(self.limits.answer, ask).await {
            Ok(response) => response?,
            Err(_) => return Err(self.silent(what, self.limits.answer)),
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
            Err(_) => return Err(self.silent(what, self.limits.answer)),
        };
        let answer: Value = self.understand(what, status, &bytes)?;
        Err(StudioError::Unexpected {
            what,
            detail: format!("JSON in place of a file ({})", excerpt(&answer.to_string())),
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

    /// Sends the request, and on to where Studio says; the key goes to Studio only.
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
            let next = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .and_then(|to| url.join(to).ok());
            let Some(next) = next.filter(|next| method == Method::GET && self.may_follow(next)) else {
                return Err(redirected(what, &response, &url));
            };
            url = next;
        }
        Err(StudioError::Redirected {
            what,
            to: "one address after another".to_owned(),
        })
    }

    /// Encrypted stays encrypted.
    fn may_follow(&self, next: &Url) -> bool {
        next.scheme() == "https" || next.scheme() == "http" && self.base.scheme() == "http"
    }

    async fn collect(&self, what: &'static str, mut response: Response) -> Result<Vec<u8>, StudioError> {
        let limit = self.limits.json_bytes;
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|e| self.unreachable(what, e))? {
            if (bytes.len() + piece.len()) as u64 > limit {
                return Err(StudioError::TooLarge { what, limit });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    fn understand<T: DeserializeOwned>(
        &self,
        what: &'static str,
        status: StatusCode,
        bytes: &[u8],
    ) -> Result<T, StudioError> {
        let answer: Option<Value> = serde_json::from_slice(bytes).ok();
        let text = answer
            .as_ref()
            .and_then(|answer| answer["error"].as_str())
            .map(excerpt)
            .unwrap_or_default();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let status = status.as_u16();
            return Err(StudioError::KeyRefused { what, status, text });
        }
        if !status.is_success() {
            let status = status.as_u16();
            return Err(StudioError::Status { what, status, text });
        }
        let Some(answer) = answer else {
            return Err(StudioError::NotJson {
                what,
                host: self.host(),
                looks: looks(bytes),
            });
        };
        if answer["success"] == false {
            let text = if text.is_empty() {
                "without a reason".to_owned()
            } else {
                text
            };
            return Err(StudioError::Refused { what, text });
        }
        serde_json::from_value(answer).map_err(|e| StudioError::Unexpected {
            what,
            detail: excerpt(&e.to_string()),
        })
    }

    fn unreachable(&self, what: &'static str, error: reqwest::Error) -> StudioError {
        StudioError::Unreachable {
            host: self.host(),
            what,
            reason: reason(&error),
        }
    }

    fn silent(&self, what: &'static str, limit: Duration) -> StudioError {
        StudioError::Unreachable {
            host: self.host(),
            what,
            reason: format!("no answer within {} s", limit.as_secs_f32()),
        }
    }
}

fn redirected(what: &'static str, response: &Response, asked: &Url) -> StudioError {
    let to = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|to| asked.join(to).ok())
        .and_then(|to| to.host_str().map(|host| format!("{}://{host}", to.scheme())));
    StudioError::Redirected {
        what,
        to: to.unwrap_or_else(|| "nowhere".to_owned()),
    }
}

/// What a failure of the client comes down to; never the address, which may hold a password.
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

fn looks(bytes: &[u8]) -> &'static str {
    let head = String::from_utf8_lossy(bytes.get(..64).unwrap_or(bytes))
        .trim_start()
        .to_ascii_lowercase();
    match head {
        head if head.is_empty() => "empty",
        head if head.starts_with("<!doctype") || head.starts_with("<html") => "a web page",
        head if head.starts_with('{') || head.starts_with('[') => "cut off",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::api;
    use super::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "(?s).{0,9}".prop_map(Value::from),
        ];
        let names = prop::sample::select(vec![
            "success",
            "error",
            "projects",
            "impulses",
            "targets",
            "modelVariants",
            "job",
            "stdout",
            "id",
            "format",
            "variant",
            "version",
            "finished",
            "data",
        ]);
        leaf.prop_recursive(3, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((names.clone(), inner), 0..4).prop_map(|members| members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()),
            ]
        })
    }

    fn sentence<T: std::fmt::Debug>(answer: Result<T, StudioError>) -> String {
        answer.map_or_else(|error| error.to_string(), |_| String::new())
    }

    proptest! {
        #[test]
        fn any_answer_is_understood_or_a_sentence_of_one_bounded_line(
            answer in any_json(),
            rest in prop::collection::vec(any::<u8>(), 0..20),
            status in 200..600_u16,
        ) {
            let base = Url::parse("http://studio.test/v1").expect("a URL");
            let studio = Studio::new(base, &Secret::new("ei_key"), Limits::default()).expect("a client");
            let status = StatusCode::from_u16(status).expect("a status");
            let mut damaged = answer.to_string().into_bytes();
            damaged.extend(&rest);
            for bytes in [answer.to_string().into_bytes(), damaged, rest, json!({"error": "x\n".repeat(999)}).to_string().into()] {
                for said in [
                    sentence(studio.understand::<api::Projects>("the projects", status, &bytes)),
                    sentence(studio.understand::<api::Impulses>("the impulses", status, &bytes)),
                    sentence(studio.understand::<api::Targets>("the targets", status, &bytes)),
                    sentence(studio.understand::<api::Variants>("the variants", status, &bytes)),
                    sentence(studio.understand::<api::Deployment>("the deployment", status, &bytes)),
                    sentence(studio.understand::<api::JobStarted>("the job", status, &bytes)),
                    sentence(studio.understand::<api::JobStatus>("the job", status, &bytes)),
                    sentence(studio.understand::<api::JobOutput>("the job", status, &bytes)),
                ] {
                    prop_assert!(said.chars().count() < 2 * crate::util::text::EXCERPT + 300 && !said.contains(char::is_control), "{said:?}");
                }
            }
        }
    }
}
