//! Sends a signed GET, for services whose SDK crate is not worth its compile time.

use std::time::{Duration, SystemTime};

use reqwest::{Client, Response};
use serde_json::Value;
use url::Url;

use super::access::{AwsConfig, AwsService};
use super::answer::Answer;
use super::error::AwsError;
use super::sigv4;
use crate::util::text::sentence;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Time limit of the whole request.
const LIMIT: Duration = Duration::from_secs(10);
/// Answers of the services used here are a few hundred bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Signs and sends a GET of `path_and_query` (already percent-encoded), which needs `permission`, and returns the body.
///
/// Uses the proxy of the environment. Takes at most 10 s, plus the time to fetch credentials.
///
/// # Errors
/// See [`AwsError`].
pub(super) async fn get(
    aws: &AwsConfig,
    service: AwsService,
    path_and_query: &str,
    permission: &str,
) -> Result<String, AwsError> {
    let context = aws.signing_context().await?;
    let base = aws.base_url(service, &context.region).await?;
    let url = format!("{base}{path_and_query}");
    let parsed = Url::parse(&url).map_err(|_| AwsError::EndpointUrl(base.clone()))?;
    let host = parsed.host_str().ok_or_else(|| AwsError::EndpointUrl(base.clone()))?;
    let authority = match parsed.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let name = format!("AWS {} ({host})", service.id);
    let unreachable = |error: reqwest::Error| AwsError::Unreachable {
        service: name.clone(),
        reason: sentence(&error.without_url()),
    };
    let client = Client::builder()
        .connect_timeout(CONNECT_LIMIT)
        .timeout(LIMIT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(unreachable)?;
    let mut request = client.get(&url);
    for (header, value) in sigv4::get_headers(&url, &authority, service.name, &context, SystemTime::now())? {
        request = request.header(header, value.reveal());
    }
    let mut response = request.send().await.map_err(unreachable)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(AwsError::NotUnderstood {
                service: name,
                problem: format!("more than {MAX_ANSWER_BYTES} bytes"),
            });
        }
        body.extend_from_slice(&chunk);
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    if response.status().is_success() {
        return Ok(body);
    }
    let date = header(&response, "date");
    Err(AwsError::from_answer(
        &name,
        refusal(&response, &body),
        date,
        permission,
    ))
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// Reads the error. IoT Core sends the code in a header and the message in JSON; STS sends both in XML.
fn refusal(response: &Response, body: &str) -> Answer {
    // `AccessDeniedException:http://internal.amazon.com/...`
    let code = header(response, "x-amzn-errortype").and_then(|code| code.split(':').next());
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let message = json["message"].as_str().or(json["Message"].as_str());
    Answer::new(
        response.status().as_u16(),
        code.or_else(|| xml_text(body, "Code")),
        message.or_else(|| xml_text(body, "Message")),
    )
}

/// The text of the first XML element with this name.
pub(super) fn xml_text<'a>(xml: &'a str, element: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{element}>"))?;
    Some(rest.split_once(&format!("</{element}>"))?.0)
}
